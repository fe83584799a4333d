package pkcs11_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

func TestGeneratedSeedsLeaveNoKeyInTheHSM(t *testing.T) {
	for name, config := range map[string]func(testing.TB) pkcs11.Config{"SoftHSM": hsmtest.Token, "NSS": hsmtest.NSSToken} {
		t.Run(name, func(t *testing.T) {
			k, _ := hsmtest.OpenNew(t, config(t))
			before := k.TokenObjects(t)
			if before == 0 {
				t.Fatal("the count does not see what is there")
			}
			for i := range 30 {
				if _, _, err := k.Generate(t.Context(), []hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}[i%3]); err != nil {
					t.Fatal(err)
				}
			}
			if n := k.SessionKeys(t); n != 0 {
				t.Errorf("%d session keys after Generate", n)
			}
			if n := k.TokenObjects(t); n != before {
				t.Errorf("%d token objects after Generate, %d before", n, before)
			}
		})
	}
}

// For the moment that it is there, the object is the session's alone and can do no
// more than it must.
func TestAGeneratedSeedCanBeReadAndWrappedAndNoMore(t *testing.T) {
	k, _ := hsmtest.SoftHSM(t)
	got := k.Made(t, p11.CKA_TOKEN, p11.CKA_PRIVATE, p11.CKA_EXTRACTABLE, p11.CKA_SENSITIVE, p11.CKA_SIGN,
		p11.CKA_VERIFY, p11.CKA_ENCRYPT, p11.CKA_DECRYPT, p11.CKA_WRAP, p11.CKA_UNWRAP)
	if want := []bool{false, true, true, false, true, false, false, false, false, false}; !slices.Equal(got, want) {
		t.Errorf("token, private, extractable, sensitive, sign, verify, encrypt, decrypt, wrap, unwrap: %v, want %v", got, want)
	}
}

// generated has a seed generated and fails the test if its codes are not those of
// the seed answered, or the error is another than that the HSM does not answer.
func generated(t *testing.T, k *pkcs11.Keystore, what string) bool {
	t.Helper()
	w, seed, err := k.Generate(t.Context(), hsm.SHA1)
	if err != nil {
		if !errors.Is(err, hsm.ErrUnavailable) || seed != nil || w.Blob != nil {
			t.Errorf("%s: a seed of %d bytes, %v", what, len(seed), err)
		}
		return false
	}
	s := &hsm.Sealed{Wrapped: w, Row: []byte("row")}
	macs, err := k.MAC(t.Context(), hsm.KeyBinding, s.Message())
	if err != nil {
		return false
	}
	s.Binding = macs[0]
	j := &hsm.Job{Key: s, Factors: []uint64{1}}
	if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil || j.Err != nil {
		if err := errors.Join(err, j.Err); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
		return false
	}
	if !bytes.Equal(j.MACs[0], hsmtest.True(hsm.SHA1, seed, 1)) {
		t.Errorf("%s: another HMAC than that of the seed that was answered", what)
	}
	return true
}

// Whatever the module answers, and half-way too: a seed with its own codes, or
// that the HSM does not answer. Nothing stays behind.
func TestFaultsWhileASeedIsGenerated(t *testing.T) {
	k, control := open(t, func(c *pkcs11.Config) { c.Sessions, c.Handles = 1, -1 })
	back := func(what string) {
		t.Helper()
		control.Clear()
		for deadline := time.Now().Add(time.Minute); !generated(t, k, what); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the HSM is not back: %v", what, k.Ready())
			}
			time.Sleep(5 * time.Millisecond)
		}
		if n := k.SessionKeys(t); n != 0 {
			t.Errorf("%s: %d session keys stay", what, n)
		}
	}
	back("at first")
	for name, rv := range map[string]uint{
		"CKR_GENERAL_ERROR":          p11.CKR_GENERAL_ERROR,
		"CKR_SESSION_HANDLE_INVALID": p11.CKR_SESSION_HANDLE_INVALID,
		"CKR_DEVICE_REMOVED":         p11.CKR_DEVICE_REMOVED,
		"a vendor's":                 0x80000123,
	} {
		for _, function := range []string{"C_GenerateKey", "C_GetAttributeValue", "C_WrapKey", "C_UnwrapKey", "C_SignInit", "C_Sign", "C_DestroyObject"} {
			control.Fail(rv, function)
			if generated(t, k, function+" is "+name) {
				t.Errorf("%s is %s, and there is a seed", function, name)
			}
			back(fmt.Sprintf("after %s was %s", function, name))
			for _, every := range []int{2, 3} {
				control.FailEvery(every, rv, function)
				for range 3 {
					generated(t, k, fmt.Sprintf("every %dth %s is %s", every, function, name))
				}
				back(fmt.Sprintf("after %s as every %dth %s", name, every, function))
			}
		}
	}
	control.Restart()
	generated(t, k, "after a restart")
	back("after a restart")
}

// A module that makes no generic secrets, does not let them out or cannot wrap
// them makes the bytes by its generator of random numbers.
func TestSeedsWithoutGenericSecretsComeFromTheHSMsRandomNumbers(t *testing.T) {
	k, control := open(t, func(c *pkcs11.Config) { c.Handles = -1 })
	for name, fault := range map[string]struct {
		rv       uint
		function string
	}{
		"no such mechanism":        {p11.CKR_MECHANISM_INVALID, "C_GenerateKey"},
		"no such function":         {p11.CKR_FUNCTION_NOT_SUPPORTED, "C_GenerateKey"},
		"a template of another":    {p11.CKR_TEMPLATE_INCONSISTENT, "C_GenerateKey"},
		"a length of another":      {p11.CKR_KEY_SIZE_RANGE, "C_GenerateKey"},
		"all secrets are held":     {p11.CKR_ATTRIBUTE_SENSITIVE, "C_GetAttributeValue"},
		"it unwraps none of these": {p11.CKR_KEY_SIZE_RANGE, "C_UnwrapKey"},
	} {
		t.Run(name, func(t *testing.T) {
			control.Fail(fault.rv, fault.function)
			defer control.Clear()
			w, seed, err := k.Generate(t.Context(), hsm.SHA1)
			if err != nil {
				t.Fatal(err)
			}
			again, err := k.Wrap(t.Context(), []hsm.Seed{{Hash: hsm.SHA1, Bytes: seed}})
			if err != nil || !bytes.Equal(again[0].Blob, w.Blob) || again[0].SeedLen != w.SeedLen {
				t.Errorf("it is wrapped otherwise than by Wrap (%v)", err)
			}
			_, seed2, err := k.Generate(t.Context(), hsm.SHA1)
			if err != nil || bytes.Equal(seed, seed2) {
				t.Errorf("the second seed is the first (%v)", err)
			}
			if n := k.SessionKeys(t); n != 0 {
				t.Errorf("%d session keys stay", n)
			}
			if err := k.Ready(); err != nil {
				t.Error(err)
			}
			control.Fail(p11.CKR_RANDOM_NO_RNG, "C_GenerateRandom")
			if _, seed, err := k.Generate(t.Context(), hsm.SHA1); !errors.Is(err, hsm.ErrUnsupported) || seed != nil {
				t.Errorf("without random numbers: a seed of %d bytes, %v", len(seed), err)
			}
			if err := k.Ready(); err != nil {
				t.Errorf("an HSM without random numbers counts as lost: %v", err)
			}
		})
	}
	if !generated(t, k, "when all is well") {
		t.Error("no seed when all is well")
	}
}

func TestAFullHSMMakesRoomForASeed(t *testing.T) {
	for _, function := range []string{"C_GenerateKey", "C_DeriveKey", "C_UnwrapKey"} {
		t.Run(function, func(t *testing.T) {
			k, control := open(t, func(c *pkcs11.Config) { c.Sessions = 1 })
			l := newLoad(t, k, 40)
			warm(t, k, l.sealed...)
			control.FailEvery(2, p11.CKR_DEVICE_MEMORY, function)
			for n := range 4 {
				if !generated(t, k, "with a full HSM") {
					t.Errorf("no seed because the HSM was full, at try %d", n)
				}
			}
			if n := k.SessionKeys(t); n == 0 || n >= 40 {
				t.Errorf("%d session keys in an HSM that was full", n)
			}
		})
	}
}

// Who leaves does not hold up the HSM, nor lose it, and leaves no object.
func TestLeavingWhileASeedIsGenerated(t *testing.T) {
	k, control := open(t, func(c *pkcs11.Config) { c.Handles = -1 })
	control.Delay(100*time.Millisecond, "C_WrapKey")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if w, seed, err := k.Generate(ctx, hsm.SHA256); !errors.Is(err, context.DeadlineExceeded) || seed != nil || w.Blob != nil {
		t.Errorf("left: a seed of %d bytes, %v", len(seed), err)
	}
	control.Clear()
	if !generated(t, k, "after one left") {
		t.Error("no seed after one left")
	}
	if n := k.SessionKeys(t); n != 0 {
		t.Errorf("%d session keys stay", n)
	}
}

const generateEach = 12 // seeds of each digest

// generateCustody makes seeds, writes each to standard output with its HMAC,
// wipes it, and stays.
func generateCustody(dir string) error {
	ctx := context.Background()
	canary := make([]byte, custodySeedLen)
	if _, err := io.ReadFull(os.Stdin, canary); err != nil {
		return err
	}
	module, err := pkcs11.FindSoftHSM()
	if err != nil {
		return err
	}
	if err := pkcs11.InitSoftHSM(ctx, dir, module, []byte("1234"), []byte("5678"), "custody"); err != nil {
		return err
	}
	k, err := pkcs11.Open(ctx, pkcs11.Config{Module: module, TokenLabel: "custody", PIN: pkcs11.FixedPIN([]byte("1234"))})
	if err != nil {
		return err
	}
	var records []hsm.KeyRecord
	for _, name := range hsm.KeyNames() {
		r, err := k.Create(ctx, name, 1)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	if err := k.Attach(ctx, records); err != nil {
		return err
	}
	for _, h := range []hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512} {
		for i := range generateEach {
			w, seed, err := k.Generate(ctx, h)
			if err != nil {
				return err
			}
			// The kernel takes it from where it is: there is no second copy.
			_, err = os.Stdout.Write(seed)
			clear(seed)
			if err != nil {
				return err
			}
			s := &hsm.Sealed{Wrapped: w, Row: fmt.Appendf(nil, "%v %d", h, i)}
			macs, err := k.MAC(ctx, hsm.KeyBinding, s.Message())
			if err != nil {
				return err
			}
			s.Binding = macs[0]
			j := &hsm.Job{Key: s, Factors: []uint64{1}}
			if err := k.HMAC(ctx, []*hsm.Job{j}); err != nil {
				return err
			}
			if j.Err != nil {
				return j.Err
			}
			if _, err := os.Stdout.Write(j.MACs[0]); err != nil {
				return err
			}
		}
	}
	io.Copy(io.Discard, os.Stdin)
	fmt.Printf("%x\n", canary) // keeps it alive until here
	return k.Close()
}

// A generated seed is in the server's memory until its caller wiped it, in one
// place.
func TestNoGeneratedSeedStaysInMemory(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WATCHWORD_TEST_GENERATE_CUSTODY="+t.TempDir(), "GODEBUG=asyncpreemptoff=1") // as the server runs
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	watchdog := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()
	canary := random(custodySeedLen)
	if _, err := in.Write(canary); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	var seeds [][]byte
	for _, h := range []hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512} {
		for i := range generateEach {
			both := make([]byte, 2*h.Size())
			if _, err := io.ReadFull(r, both); err != nil {
				t.Fatalf("the process that makes seeds ended: %v", err)
			}
			seed, sum := both[:h.Size()], both[h.Size():]
			if !bytes.Equal(sum, hsmtest.True(h, seed, 1)) {
				t.Errorf("seed %d for %v: another HMAC", i, h)
			}
			seeds = append(seeds, seed)
		}
	}
	memory := memoryOf(t, cmd.Process.Pid)
	if !contains(memory, canary) {
		t.Fatal("the scan does not find what is there")
	}
	for i, seed := range seeds {
		for form, b := range map[string][]byte{
			"its beginning": seed[:11],
			"its end":       seed[len(seed)-11:],
			"it in hex":     []byte(hex.EncodeToString(seed[:11])),
			"it in base32":  []byte(base32.StdEncoding.EncodeToString(seed)[:17]),
		} {
			if contains(memory, b) {
				t.Errorf("seed %d, of %d bytes: %s is in memory", i, len(seed), form)
			}
		}
	}
}
