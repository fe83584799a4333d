package pkcs11_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

// A load runs HMACs, wraps and MACs on a keystore and compares each answer with
// the standard library's.
type load struct {
	t      *testing.T
	k      *pkcs11.Keystore
	sealed []*hsm.Sealed
	seeds  [][]byte

	good, bad atomic.Int64
	lastGood  atomic.Int64 // unix nanoseconds
	stop      chan struct{}
	wg        sync.WaitGroup
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func newLoad(t *testing.T, k *pkcs11.Keystore, tokens int) *load {
	l := &load{t: t, k: k, stop: make(chan struct{})}
	for i := range tokens {
		seed := random(20)
		l.seeds = append(l.seeds, seed)
		l.sealed = append(l.sealed, hsmtest.Seal(t, k, hsm.SHA1, seed, fmt.Appendf(nil, "row %d", i)))
	}
	return l
}

func (l *load) start(workers int) {
	for w := range workers {
		l.wg.Go(func() {
			for n := w; ; n++ {
				select {
				case <-l.stop:
					return
				default:
					l.once(uint64(n))
				}
			}
		})
	}
	l.t.Cleanup(l.end)
}

func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

// once runs one batch; every MAC that it answers must be the true one, and
// every error must say that the HSM does not answer.
func (l *load) once(n uint64) {
	var jobs []*hsm.Job
	for i := range uint64(8) {
		jobs = append(jobs, &hsm.Job{Key: l.sealed[(n*7+i)%uint64(len(l.sealed))], Factors: []uint64{n, n + 1, n + 2}})
	}
	err := l.k.HMAC(context.Background(), jobs)
	if err != nil {
		l.failed(err)
	}
	for i, j := range jobs {
		if j.Err != nil {
			if j.MACs != nil {
				l.t.Error("a job has an error and MACs")
			}
			l.failed(j.Err)
			continue
		}
		seed := l.seeds[(n*7+uint64(i))%uint64(len(l.seeds))]
		if len(j.MACs) != 3 {
			l.t.Errorf("%d MACs for three factors", len(j.MACs))
		}
		for f, m := range j.MACs {
			if !bytes.Equal(m, hsmtest.True(hsm.SHA1, seed, n+uint64(f))) {
				l.t.Errorf("another MAC than the true one, factor %d", n+uint64(f))
			}
		}
		l.good.Add(1)
		l.lastGood.Store(time.Now().UnixNano())
	}
	if n%5 == 0 {
		if s, err := l.k.Seal(context.Background(), []byte("secret"), nil); err != nil {
			l.failed(err)
		} else if p, err := l.k.Open(context.Background(), s, nil); err != nil {
			l.failed(err)
		} else if string(p) != "secret" {
			l.t.Error("a secret came back as another")
		}
		if w, err := l.k.Wrap(hsm.Bulk(context.Background()), []hsm.Seed{{Hash: hsm.SHA1, Bytes: l.seeds[0]}}); err != nil {
			l.failed(err)
		} else if !bytes.Equal(w[0].Blob, l.sealed[0].Blob) {
			l.t.Error("a seed was wrapped to something else")
		}
	}
}

func (l *load) failed(err error) {
	if !errors.Is(err, hsm.ErrUnavailable) {
		l.t.Errorf("while the HSM fails: %v", err)
	}
	l.bad.Add(1)
	time.Sleep(time.Millisecond)
}

// back waits for the service to be back, at most two seconds.
func (l *load) back(what string) {
	l.t.Helper()
	began := time.Now()
	for l.k.Ready() != nil || l.lastGood.Load() < began.UnixNano() {
		if time.Since(began) > 2*time.Second {
			l.t.Fatalf("%s: no service two seconds after the HSM's return: %v", what, l.k.Ready())
		}
		time.Sleep(time.Millisecond)
	}
}

func open(t *testing.T, change func(*pkcs11.Config)) (*pkcs11.Keystore, *hsmtest.ShimControl) {
	t.Helper()
	config, control := hsmtest.ShimToken(t)
	if change != nil {
		change(&config)
	}
	k, _ := hsmtest.OpenNew(t, config)
	t.Cleanup(func() {
		k.Close()
		if v := control.Violations(); v != nil {
			t.Errorf("the module was called when it must not be: %d times, first: %s", len(v), v[0])
		}
	})
	return k, control
}

func TestFailingHSMNeverGivesAWrongMAC(t *testing.T) {
	k, control := open(t, nil)
	l := newLoad(t, k, 30)
	l.start(4)
	l.back("at first")
	for name, rv := range map[string]uint{
		"CKR_SESSION_HANDLE_INVALID":   p11.CKR_SESSION_HANDLE_INVALID,
		"CKR_SESSION_CLOSED":           p11.CKR_SESSION_CLOSED,
		"CKR_DEVICE_ERROR":             p11.CKR_DEVICE_ERROR,
		"CKR_DEVICE_REMOVED":           p11.CKR_DEVICE_REMOVED,
		"CKR_TOKEN_NOT_PRESENT":        p11.CKR_TOKEN_NOT_PRESENT,
		"CKR_USER_NOT_LOGGED_IN":       p11.CKR_USER_NOT_LOGGED_IN,
		"CKR_KEY_HANDLE_INVALID":       p11.CKR_KEY_HANDLE_INVALID,
		"CKR_OBJECT_HANDLE_INVALID":    p11.CKR_OBJECT_HANDLE_INVALID,
		"CKR_GENERAL_ERROR":            p11.CKR_GENERAL_ERROR,
		"CKR_FUNCTION_FAILED":          p11.CKR_FUNCTION_FAILED,
		"CKR_CRYPTOKI_NOT_INITIALIZED": p11.CKR_CRYPTOKI_NOT_INITIALIZED,
		"a vendor's own":               p11.CKR_VENDOR_DEFINED | 0x17,
	} {
		t.Run(name, func(t *testing.T) {
			for _, functions := range [][]string{nil, {"C_Sign"}, {"C_SignInit", "C_UnwrapKey"}} {
				before := l.bad.Load()
				control.Fail(rv, functions...)
				time.Sleep(100 * time.Millisecond)
				if l.bad.Load() == before {
					t.Fatalf("the fault in %q reached nobody", functions)
				}
				if err := k.Ready(); !errors.Is(err, hsm.ErrUnavailable) {
					t.Errorf("Ready during the fault in %q: %v", functions, err)
				}
				control.Clear()
				l.back(fmt.Sprintf("%s in %q", name, functions))
			}
		})
	}
}

func TestTenSecondsWithoutHSM(t *testing.T) {
	if testing.Short() {
		t.Skip("ten seconds")
	}
	k, control := open(t, nil)
	l := newLoad(t, k, 30)
	l.start(4)
	l.back("at first")
	control.Fail(p11.CKR_TOKEN_NOT_PRESENT)
	control.Fail(p11.CKR_GENERAL_ERROR, "C_Initialize")
	time.Sleep(100 * time.Millisecond)
	good := l.good.Load()
	time.Sleep(10 * time.Second)
	if l.good.Load() != good {
		t.Error("there were answers while the HSM was gone")
	}
	control.Clear()
	l.back("after ten seconds")
}

func TestSporadicFaults(t *testing.T) {
	k, control := open(t, nil)
	l := newLoad(t, k, 30)
	l.start(4)
	l.back("at first")
	control.FailEvery(211, p11.CKR_DEVICE_ERROR, "C_Sign")
	control.FailEvery(97, p11.CKR_SESSION_HANDLE_INVALID, "C_UnwrapKey", "C_WrapKey", "C_Encrypt")
	good := l.good.Load()
	time.Sleep(2 * time.Second)
	if l.good.Load() == good {
		t.Error("no job succeeded between the faults")
	}
	control.Clear()
	l.back("after sporadic faults")
}

// A restarted HSM numbers its objects anew. Handle 20 was one token's seed and
// is another's now, under session numbers that are in use again.
func TestRestartedHSMNeverAnswersWithAnotherTokensKey(t *testing.T) {
	k, control := open(t, nil)
	l := newLoad(t, k, 50)
	l.start(4)
	l.back("at first")
	for range 20 {
		before := l.bad.Load()
		control.Restart()
		time.Sleep(60 * time.Millisecond)
		l.back("after a restart")
		if l.bad.Load() == before {
			t.Error("the restart was not noticed by anyone")
		}
	}
}

func TestKeystoresOfOneModuleRecoverSideBySide(t *testing.T) {
	config, control := hsmtest.ShimToken(t)
	a, records := hsmtest.OpenNew(t, config)
	b, err := pkcs11.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if err := b.Attach(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	la, lb := newLoad(t, a, 20), newLoad(t, b, 20)
	la.start(2)
	lb.start(2)
	for range 10 {
		control.Restart()
		time.Sleep(30 * time.Millisecond)
		la.back("the first keystore")
		lb.back("the second keystore")
		control.Fail(p11.CKR_DEVICE_ERROR)
		time.Sleep(50 * time.Millisecond)
		control.Clear()
		la.back("the first keystore")
		lb.back("the second keystore")
	}
	la.end()
	lb.end()
	a.Close()
	// Closing one leaves the other alone.
	lb2 := newLoad(t, b, 5)
	lb2.once(1)
	if lb2.good.Load() != 8 {
		t.Errorf("after the other was closed %d of 8 jobs succeed", lb2.good.Load())
	}
	if v := control.Violations(); v != nil {
		t.Errorf("the module was called when it must not be: %d times, first: %s", len(v), v[0])
	}
}

func TestHungCallHoldsUpNobody(t *testing.T) {
	k, control := open(t, func(c *pkcs11.Config) { c.StuckAfter = 300 * time.Millisecond })
	l := newLoad(t, k, 5)
	control.Delay(time.Minute, "C_Sign")
	began := time.Now()

	// A caller with a deadline leaves at its deadline.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	j := &hsm.Job{Key: l.sealed[0], Factors: []uint64{1}, Stop: func(int, []byte) bool {
		t.Error("Stop was asked after HMAC had returned")
		return false
	}}
	if err := k.HMAC(ctx, []*hsm.Job{j}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(j.Err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	if d := time.Since(began); d > 250*time.Millisecond {
		t.Errorf("a deadline of 50 ms was met after %v", d)
	}
	// One without is told when the call counts as stuck.
	j2 := &hsm.Job{Key: l.sealed[1], Factors: []uint64{1}}
	if err := k.HMAC(t.Context(), []*hsm.Job{j2}); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("without a deadline: %v", err)
	}
	if err := k.Ready(); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("Ready while a call hangs: %v", err)
	}
	// From then on nobody waits.
	asked := time.Now()
	if _, err := k.MAC(t.Context(), hsm.KeyPIN, []byte("x")); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("MAC while a call hangs: %v", err)
	}
	if d := time.Since(asked); d > 50*time.Millisecond {
		t.Errorf("an error took %v", d)
	}
	control.Clear()
	l.start(1)
	l.back("after the call returned")
}

func TestWrongPINIsNotTriedTwice(t *testing.T) {
	t.Run("at start", func(t *testing.T) {
		config, control := hsmtest.ShimToken(t)
		config.PIN = pkcs11.FixedPIN([]byte("not the PIN"))
		before := control.Logins()
		if _, err := pkcs11.Open(t.Context(), config); !errors.Is(err, hsm.ErrPIN) {
			t.Errorf("Open: %v", err)
		}
		if n := control.Logins() - before; n != 1 {
			t.Errorf("%d logins", n)
		}
	})
	t.Run("when the HSM is back", func(t *testing.T) {
		var wrong atomic.Bool
		k, control := open(t, func(c *pkcs11.Config) {
			right := c.PIN
			c.PIN = func() ([]byte, error) {
				if wrong.Load() {
					return []byte("not the PIN"), nil
				}
				return right()
			}
		})
		l := newLoad(t, k, 5)
		l.once(1)
		wrong.Store(true)
		before := control.Logins()
		control.Restart()
		l.once(2)
		deadline := time.Now().Add(2 * time.Second)
		for !errors.Is(k.Ready(), hsm.ErrPIN) && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		l.once(3)
		if err := k.Ready(); !errors.Is(err, hsm.ErrPIN) || !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("Ready: %v", err)
		}
		if n := control.Logins() - before; n != 1 {
			t.Errorf("%d logins with a wrong PIN", n)
		}
	})
}

func TestHSMThatComesBackWithoutTheKeysIsNotUsed(t *testing.T) {
	config, control := hsmtest.ShimToken(t)
	k, records := hsmtest.OpenNew(t, config)
	l := newLoad(t, k, 5)
	l.once(1)
	k.DestroyKey(t, records[1].ID) // the binding key
	control.Restart()
	l.once(2)
	deadline := time.Now().Add(2 * time.Second)
	for !errors.Is(k.Ready(), hsm.ErrKeyMismatch) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if err := k.Ready(); !errors.Is(err, hsm.ErrKeyMismatch) || !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("Ready: %v", err)
	}
	if l.bad.Load() == 0 {
		t.Error("nothing failed")
	}
}

func TestLossIsNoticedWithoutTraffic(t *testing.T) {
	k, control := open(t, func(c *pkcs11.Config) { c.Probe = 50 * time.Millisecond })
	time.Sleep(120 * time.Millisecond)
	if err := k.Ready(); err != nil {
		t.Fatal(err)
	}
	control.Fail(p11.CKR_TOKEN_NOT_PRESENT)
	time.Sleep(300 * time.Millisecond)
	if err := k.Ready(); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("Ready of a keystore that nobody used since the HSM was lost: %v", err)
	}
	control.Clear()
	deadline := time.Now().Add(2 * time.Second)
	for k.Ready() != nil && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if err := k.Ready(); err != nil {
		t.Errorf("Ready after the HSM's return: %v", err)
	}
}

func TestCloseWhileTheHSMIsGone(t *testing.T) {
	k, control := open(t, nil)
	l := newLoad(t, k, 5)
	control.Fail(p11.CKR_DEVICE_REMOVED)
	l.once(1)
	done := make(chan error, 1)
	go func() { done <- k.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(3 * time.Second):
		t.Fatal("Close hangs while the HSM is gone")
	}
	control.Clear()
	l.once(2)
	if l.good.Load() != 0 {
		t.Error("a closed keystore answers")
	}
}
