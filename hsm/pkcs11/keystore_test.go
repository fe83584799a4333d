package pkcs11_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

func TestSoftHSMConformsWithOneSession(t *testing.T) { conforms(t, 1, false) }
func TestSoftHSMConformsWithJobsSpread(t *testing.T) { conforms(t, 4, true) }
func TestSoftHSMConformsWithThreeLanes(t *testing.T) { conforms(t, 3, false) }

func conforms(t *testing.T, sessions int, spread bool) {
	hsmtest.Run(t, func(t *testing.T) hsmtest.KeystoreUnderTest {
		config := hsmtest.Token(t)
		config.Sessions, config.Spread = sessions, spread
		config.Handles = 30 // fewer than some tests have seeds
		k, records := hsmtest.OpenNew(t, config)
		return hsmtest.KeystoreUnderTest{Keystore: k, Records: records}
	})
}

func warm(t *testing.T, k *pkcs11.Keystore, sealed ...*hsm.Sealed) {
	t.Helper()
	for _, s := range sealed {
		j := &hsm.Job{Key: s, Factors: []uint64{1}}
		if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil || j.Err != nil {
			t.Fatal(err, j.Err)
		}
	}
}

func TestUnwrappedSeedsCanOnlySign(t *testing.T) {
	k, _ := hsmtest.SoftHSM(t)
	for i, h := range []hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512} {
		warm(t, k, hsmtest.Seal(t, k, h, random(20), fmt.Append(nil, i)))
	}
	for _, test := range []struct {
		name      string
		attribute uint
		want      bool
	}{
		{"CKA_PRIVATE", p11.CKA_PRIVATE, true},
		{"CKA_SENSITIVE", p11.CKA_SENSITIVE, true},
		{"CKA_EXTRACTABLE", p11.CKA_EXTRACTABLE, false},
		{"CKA_SIGN", p11.CKA_SIGN, true},
		{"CKA_VERIFY", p11.CKA_VERIFY, false},
		{"CKA_ENCRYPT", p11.CKA_ENCRYPT, false},
		{"CKA_DECRYPT", p11.CKA_DECRYPT, false},
		{"CKA_WRAP", p11.CKA_WRAP, false},
		{"CKA_UNWRAP", p11.CKA_UNWRAP, false},
		{"CKA_DERIVE", p11.CKA_DERIVE, false},
		{"CKA_TOKEN", p11.CKA_TOKEN, false},
	} {
		if got := k.Attributes(t, test.attribute); !slices.Equal(got, []bool{test.want, test.want, test.want}) {
			t.Errorf("%s of the unwrapped seeds: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestWrapLeavesNoKeyInTheHSM(t *testing.T) {
	k, _ := hsmtest.SoftHSM(t)
	for range 3 {
		if _, err := k.Wrap(t.Context(), seeds(100)); err != nil {
			t.Fatal(err)
		}
	}
	if n := k.SessionKeys(t); n != 0 {
		t.Errorf("%d session keys after Wrap", n)
	}
}

func TestHandleCacheKeepsToItsSize(t *testing.T) {
	for _, handles := range []int{-1, 1, 10, 1000} {
		t.Run(fmt.Sprint(handles), func(t *testing.T) {
			config := hsmtest.Token(t)
			config.Handles, config.Sessions, config.Spread = handles, 2, true
			k, _ := hsmtest.OpenNew(t, config)
			l := newLoad(t, k, 60)
			l.start(4)
			for l.good.Load() < 2000 {
				time.Sleep(time.Millisecond)
			}
			l.end()
			if l.bad.Load() != 0 {
				t.Errorf("%d failures", l.bad.Load())
			}
			want := min(max(handles, 0), 60)
			if n := k.SessionKeys(t); n != want {
				t.Errorf("%d session keys in the HSM, want %d", n, want)
			}
		})
	}
}

func TestFullHSMMakesRoom(t *testing.T) {
	k, control := open(t, func(c *pkcs11.Config) { c.Sessions = 1 })
	l := newLoad(t, k, 40)
	warm(t, k, l.sealed...)
	// Each second C_UnwrapKey fails for want of memory; the next, with handles
	// given up, succeeds.
	control.FailEvery(2, p11.CKR_DEVICE_MEMORY, "C_UnwrapKey")
	fresh := newLoad(t, k, 40)
	warm(t, k, fresh.sealed...)
	if n := k.SessionKeys(t); n == 0 || n >= 80 {
		t.Errorf("%d session keys in an HSM that was full", n)
	}
	fresh.once(1)
	if fresh.bad.Load() != 0 {
		t.Error("jobs fail because the HSM is full")
	}
}

// An import must not make people wait, and people must not stop an import.
func TestBulkWorkGivesWay(t *testing.T) {
	for _, sessions := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d sessions", sessions), func(t *testing.T) {
			config := hsmtest.Token(t)
			config.Sessions = sessions
			k, _ := hsmtest.OpenNew(t, config)
			l := newLoad(t, k, 10)
			var imported atomic.Int64
			ctx, cancel := context.WithCancel(hsm.Bulk(t.Context()))
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					all := seeds(3000)
					for ctx.Err() == nil {
						if _, err := k.Wrap(ctx, all[:100]); err != nil && ctx.Err() == nil {
							t.Error(err)
						}
						imported.Add(100)
					}
				})
			}
			// One code now and then: it waits for one slice at most, not for
			// the queue. The bound is wide for slow machines; without giving
			// way it takes the time of an import.
			var took []time.Duration
			for range 100 {
				time.Sleep(2 * time.Millisecond)
				began := time.Now()
				warm(t, k, l.sealed[0])
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			if median := took[len(took)/2]; median > 30*time.Millisecond {
				t.Errorf("a code waits %v for an import", median)
			}
			// Codes without a pause: the import goes on.
			before := imported.Load()
			l.start(4)
			time.Sleep(time.Second)
			l.end()
			if n := imported.Load() - before; n < 100 {
				t.Errorf("an import of %d seeds in a second under load: it starves", n)
			}
			cancel()
			wg.Wait()
		})
	}
}

func TestTokensOfOneProcessAreToldApart(t *testing.T) {
	a, _ := hsmtest.SoftHSM(t)
	b, _ := hsmtest.SoftHSM(t)
	seed := random(20)
	s := hsmtest.Seal(t, a, hsm.SHA1, seed, []byte("row"))
	warm(t, a, s)
	j := &hsm.Job{Key: s, Factors: []uint64{1}}
	if err := b.HMAC(t.Context(), []*hsm.Job{j}); err != nil || !errors.Is(j.Err, hsm.ErrTampered) {
		t.Errorf("another HSM's seed: %v, %v", err, j.Err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	warm(t, b, hsmtest.Seal(t, b, hsm.SHA1, seed, []byte("row")))
}

func TestKeysAreFoundAgainAfterARestart(t *testing.T) {
	config := hsmtest.Token(t)
	k, records := hsmtest.OpenNew(t, config)
	seed := random(16)
	s := hsmtest.Seal(t, k, hsm.SHA1, seed, []byte("row"))
	secret, err := k.Seal(t.Context(), []byte("secret"), []byte("client"))
	if err != nil {
		t.Fatal(err)
	}
	public := k.PublicKey()
	for range 3 {
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
		if k, err = pkcs11.Open(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		j := &hsm.Job{Key: s, Factors: []uint64{1}}
		if err := k.HMAC(t.Context(), []*hsm.Job{j}); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("before keys are attached: %v", err)
		}
		if err := k.Ready(); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("Ready before keys are attached: %v", err)
		}
		if err := k.Attach(t.Context(), records); err != nil {
			t.Fatal(err)
		}
		if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil || !bytes.Equal(j.MACs[0], hsmtest.True(hsm.SHA1, seed, 1)) {
			t.Errorf("after a restart: %v, %v", err, j.Err)
		}
		if got, err := k.Open(t.Context(), secret, []byte("client")); err != nil || string(got) != "secret" {
			t.Errorf("a secret after a restart: %q, %v", got, err)
		}
		if !public.(*ecdsa.PublicKey).Equal(k.PublicKey()) {
			t.Error("the audit key is another after a restart")
		}
	}
	k.Close()
}

func TestModulePointedElsewhereIsRefused(t *testing.T) {
	_, records := hsmtest.SoftHSM(t)
	other, err := pkcs11.Open(t.Context(), hsmtest.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Attach(t.Context(), records); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("an HSM without the keys: %v", err)
	}
	hsmtest.Provision(t, other)
	if err := other.Attach(t.Context(), records); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("an HSM with other keys: %v", err)
	}
}

// TestATokenThatIsBeingWrittenIsWaitedFor: SoftHSM writes a token's file anew at
// every login, and a process that starts at that moment sees no such token.
func TestATokenThatIsBeingWrittenIsWaitedFor(t *testing.T) {
	config := hsmtest.Token(t)
	config.Logger = hsmtest.Quiet()
	files, err := filepath.Glob(filepath.Join(filepath.Dir(os.Getenv("SOFTHSM2_CONF")), "*", "*", "token.object"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the files of the tokens: %q, %v", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(files[0], 8); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	time.AfterFunc(150*time.Millisecond, func() { written <- os.WriteFile(files[0], whole, 0o600) })
	k, err := pkcs11.Open(t.Context(), config)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	good := hsmtest.Token(t)
	good.Logger = hsmtest.Quiet()
	notAModule := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(notAModule, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name   string
		ctx    context.Context
		change func(*pkcs11.Config)
		is     error
		says   string
	}{
		{"no module", nil, func(c *pkcs11.Config) { c.Module = "" }, nil, "no PKCS#11 module is configured"},
		{"missing module", nil, func(c *pkcs11.Config) { c.Module = "/nonexistent/x.so" }, nil, "/nonexistent/x.so"},
		{"not a module", nil, func(c *pkcs11.Config) { c.Module = notAModule }, nil, notAModule},
		{"a library that is none", nil, func(c *pkcs11.Config) { c.Module = "libc.so.6" }, nil, "no PKCS#11 module"},
		{"wrong label", nil, func(c *pkcs11.Config) { c.TokenLabel = "other" }, nil, `no token "other"`},
		{"wrong serial", nil, func(c *pkcs11.Config) { c.Serial = "0000" }, nil, "no token"},
		{"wrong slot", nil, func(c *pkcs11.Config) { n := uint(77); c.Slot = &n }, nil, "no token"},
		{"wrong PIN", nil, func(c *pkcs11.Config) { c.PIN = pkcs11.FixedPIN([]byte("wrong")) }, hsm.ErrPIN, "CKR_PIN_INCORRECT"},
		{"unreadable PIN", nil, func(c *pkcs11.Config) { c.PIN = func() ([]byte, error) { return nil, os.ErrPermission } }, os.ErrPermission, "PIN"},
		{"no KWP under 0x210B", nil, func(c *pkcs11.Config) { c.Mechanism = "aes-kwp" }, hsm.ErrUnsupported, "0x210b"},
		{"unknown number", nil, func(c *pkcs11.Config) { c.Mechanism = "0x80001234" }, hsm.ErrUnsupported, "0x80001234"},
		{"no number", nil, func(c *pkcs11.Config) { c.Mechanism = "best" }, nil, `"best"`},
		{"cancelled", cancelled, nil, context.Canceled, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := good
			if test.change != nil {
				test.change(&config)
			}
			if test.ctx == nil {
				test.ctx = t.Context()
			}
			k, err := pkcs11.Open(test.ctx, config)
			if err == nil {
				k.Close()
				t.Fatal("it opens")
			}
			if test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
		})
	}
	k, err := pkcs11.Open(t.Context(), good)
	if err != nil {
		t.Fatalf("after all this the right configuration fails: %v", err)
	}
	k.Close()
}

func TestWrappingMechanismByNumber(t *testing.T) {
	for number, want := range map[string]string{
		"0x210a": "aes-kwp",       // SoftHSM's number for RFC 5649, as the known answer proves
		"0x2109": "pkcs11-0x2109", // RFC 3394 without padding: it works, under a name of its own
	} {
		config := hsmtest.Token(t)
		config.Mechanism = number
		config.Logger = hsmtest.Quiet()
		k, _ := hsmtest.OpenNew(t, config)
		if err := k.SelfTest(t.Context()); err != nil {
			t.Errorf("%s: %v", number, err)
		}
		s := hsmtest.Seal(t, k, hsm.SHA1, random(10), []byte("row"))
		if s.Mechanism != want {
			t.Errorf("%s: wrapped by %q, want %q", number, s.Mechanism, want)
		}
		warm(t, k, s)
	}
}

func TestSeedOfAnotherMechanismIsNotTried(t *testing.T) {
	config := hsmtest.Token(t)
	k, records := hsmtest.OpenNew(t, config)
	s := hsmtest.Seal(t, k, hsm.SHA1, random(20), []byte("row"))
	s.Mechanism = "pkcs11-0x80001234"
	macs, err := k.MAC(t.Context(), hsm.KeyBinding, s.Message())
	if err != nil {
		t.Fatal(err)
	}
	s.Binding = macs[0]
	j := &hsm.Job{Key: s, Factors: []uint64{1}}
	if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil || !errors.Is(j.Err, hsm.ErrUnsupported) {
		t.Errorf("%v, %v", err, j.Err)
	}
	if err := k.Attach(t.Context(), records); err != nil {
		t.Error(err)
	}
}

func TestInitSoftHSMDoesNotReplaceAToken(t *testing.T) {
	module, err := pkcs11.FindSoftHSM()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i, want := range []error{nil, os.ErrExist} {
		err := pkcs11.InitSoftHSM(t.Context(), dir, module, []byte("1234"), []byte("5678"), "watchword")
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("time %d: %v, want %v", i+1, err, want)
		}
	}
	k, err := pkcs11.Open(t.Context(), pkcs11.Config{Module: module, TokenLabel: "watchword", PIN: pkcs11.FixedPIN([]byte("1234")), Logger: hsmtest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	for _, dir := range []string{dir + "/a#b", dir + "/a\nb"} {
		if err := pkcs11.UseSoftHSM(dir); err == nil {
			t.Errorf("SoftHSM in %q: no error, but its configuration cannot say that", dir)
		}
	}
	for _, label := range []string{"", strings.Repeat("x", 33)} {
		if err := pkcs11.InitSoftHSM(t.Context(), dir, module, []byte("1234"), []byte("5678"), label); err == nil {
			t.Errorf("a token labelled %q was made", label)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "tokens")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the token folder: %v, %v", info.Mode(), err)
	}
}

// MACs are made with copies of their keys where that is worth it, as guarded as the
// keys are, and none stays behind when the keys are attached anew, or the module is
// lost.
func TestMACsAreMadeWithCopiesOfTheirKeys(t *testing.T) {
	config, control := hsmtest.ShimToken(t)
	k, records := hsmtest.OpenNew(t, config)
	want, err := k.MAC(t.Context(), hsm.KeyBinding, []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		if there, used := k.Copies(t); there != 2 || used != 2 {
			t.Errorf("%s: %d copies are there, %d in use", when, there, used)
		}
		if got, err := k.MAC(t.Context(), hsm.KeyBinding, []byte("message")); err != nil || !bytes.Equal(got[0], want[0]) {
			t.Errorf("%s: another MAC, %v", when, err)
		}
	}
	check("at first")
	for range 3 {
		if err := k.Attach(t.Context(), records); err != nil {
			t.Fatal(err)
		}
	}
	check("attached anew")
	control.Restart()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := k.MAC(t.Context(), hsm.KeyPIN, []byte("message")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(k.Ready())
		}
		time.Sleep(time.Millisecond)
	}
	check("started anew")
	for _, rv := range []uint{p11.CKR_FUNCTION_NOT_SUPPORTED, p11.CKR_ACTION_PROHIBITED, p11.CKR_DEVICE_MEMORY} {
		control.Fail(rv, "C_CopyObject")
		if err := k.Attach(t.Context(), records); err != nil {
			t.Fatalf("without copies: %v", err)
		}
		if there, used := k.Copies(t); there != 0 || used != 0 {
			t.Errorf("%d copies are there, %d in use, and none can be made", there, used)
		}
		if got, err := k.MAC(t.Context(), hsm.KeyBinding, []byte("message")); err != nil || !bytes.Equal(got[0], want[0]) {
			t.Errorf("another MAC without a copy, %v", err)
		}
	}
}
