package pkcs11_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

// turning opens a keystore whose module is started anew after so many session
// keys, and that seldom has a handle at hand.
func turning(t *testing.T, turnover int) (*pkcs11.Keystore, *hsmtest.ShimControl) {
	t.Helper()
	return open(t, func(c *pkcs11.Config) { c.Turnover, c.Handles = turnover, 10 })
}

// wrapUntil wraps seeds until the generation is another one.
func wrapUntil(t *testing.T, k *pkcs11.Keystore, before uint64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); k.Generation() == before; {
		if time.Now().After(deadline) {
			t.Fatal("no turnover in five seconds")
		}
		if _, err := k.Wrap(t.Context(), seeds(10)); err != nil {
			t.Fatal(err)
		}
	}
}

// resident is the memory of this process that is in RAM, in bytes.
func resident(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// TestMemoryDoesNotGrowWithWraps is with SoftHSM as everybody gets it, which
// leaks 200 bytes of each seed wrapped.
func TestMemoryDoesNotGrowWithWraps(t *testing.T) {
	k, _ := hsmtest.SoftHSM(t)
	part := seeds(500)
	wrap := func(n int) {
		for ; n > 0; n -= len(part) {
			if _, err := k.Wrap(hsm.Bulk(t.Context()), part); err != nil {
				t.Fatal(err)
			}
		}
	}
	wrap(55_000)
	before, generation := resident(t), k.Generation()
	wrap(150_000)
	grown := resident(t) - before
	t.Logf("150,000 seeds more took %d KB more", grown>>10)
	if grown > 14<<20 {
		t.Errorf("150,000 seeds more took %d MB more", grown>>20)
	}
	if turned := k.Generation() - generation; turned < 2 || turned > 4 {
		t.Errorf("%d turnovers during 150,000 wraps", turned)
	}
}

func TestNobodyNoticesATurnover(t *testing.T) {
	k, _ := turning(t, 200)
	l := newLoad(t, k, 30)
	first := k.Generation()
	l.start(6)
	for deadline := time.Now().Add(30 * time.Second); k.Generation() < first+40; {
		if time.Now().After(deadline) {
			t.Fatalf("%d turnovers in thirty seconds", k.Generation()-first)
		}
		if err := k.Ready(); err != nil {
			t.Errorf("Ready: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
	l.end()
	if n := l.bad.Load(); n > 0 {
		t.Errorf("%d calls failed, %d jobs did not", n, l.good.Load())
	}
}

// A shipment is wrapped in many slices, and a turnover comes between them.
func TestWrapAndHMACGoOnAcrossTurnovers(t *testing.T) {
	k, _ := turning(t, 100)
	for name, ctx := range map[string]context.Context{"bulk": hsm.Bulk(t.Context()), "urgent": t.Context()} {
		t.Run(name, func(t *testing.T) {
			before := k.Generation()
			all := seeds(1500)
			wrapped, err := k.Wrap(ctx, all)
			if err != nil {
				t.Fatal(err)
			}
			jobs := make([]*hsm.Job, len(all))
			messages := make([][]byte, len(all))
			for i, w := range wrapped {
				jobs[i] = &hsm.Job{Key: &hsm.Sealed{Wrapped: w, Row: fmt.Append(nil, i)}, Factors: []uint64{7}}
				messages[i] = jobs[i].Key.Message()
			}
			macs, err := k.MAC(ctx, hsm.KeyBinding, messages...)
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range macs {
				jobs[i].Key.Binding = m
			}
			if err := k.HMAC(ctx, jobs); err != nil {
				t.Fatal(err)
			}
			for i, j := range jobs {
				if j.Err != nil {
					t.Fatalf("job %d: %v", i, j.Err)
				}
				if !bytes.Equal(j.MACs[0], hsmtest.True(hsm.SHA1, all[i].Bytes, 7)) {
					t.Fatalf("job %d: another MAC than the true one", i)
				}
			}
			if n := k.Generation() - before; n < 3 {
				t.Errorf("%d turnovers", n)
			}
		})
	}
}

func TestWhoWaitsForATurnoverMayLeave(t *testing.T) {
	k, control := turning(t, 100)
	l := newLoad(t, k, 5)
	before := k.Generation()
	control.Delay(time.Minute, "C_Finalize")
	// The call that makes the number full is the last one that is not kept.
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for ctx.Err() == nil {
		_, err := k.Wrap(ctx, seeds(10))
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		began := time.Now()
		_, err := k.MAC(ctx, hsm.KeyPIN, []byte("x"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("MAC with a deadline during a turnover: %v", err)
		}
		if d := time.Since(began); d > 200*time.Millisecond {
			t.Errorf("a deadline of 20 ms was met after %v", d)
		}
		cancel()
	}
	if err := k.Ready(); err != nil {
		t.Errorf("Ready during a turnover: %v", err)
	}
	if k.Generation() != before {
		t.Fatal("the turnover has ended before its time")
	}
	done := make(chan struct{})
	go func() { l.once(1); close(done) }()
	time.Sleep(20 * time.Millisecond)
	control.Clear()
	<-done
	if l.bad.Load() > 0 || l.good.Load() != 8 {
		t.Errorf("of those who waited %d fail and %d succeed", l.bad.Load(), l.good.Load())
	}
	if k.Generation() == before {
		t.Error("there was no turnover")
	}
}

func TestTurnoverThatHangsHoldsUpNobody(t *testing.T) {
	k, control := open(t, func(c *pkcs11.Config) { c.Turnover, c.StuckAfter = 100, 200*time.Millisecond })
	l := newLoad(t, k, 5)
	control.Delay(time.Minute, "C_Login")
	began := time.Now()
	for time.Since(began) < 3*time.Second && k.Ready() == nil {
		if _, err := k.Wrap(t.Context(), seeds(10)); err != nil && !errors.Is(err, hsm.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if err := k.Ready(); !errors.Is(err, hsm.ErrUnavailable) {
		t.Fatalf("Ready while a turnover hangs: %v", err)
	}
	asked := time.Now()
	if _, err := k.MAC(t.Context(), hsm.KeyPIN, []byte("x")); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("MAC while a turnover hangs: %v", err)
	}
	if d := time.Since(asked); d > 100*time.Millisecond {
		t.Errorf("an error took %v", d)
	}
	control.Clear()
	l.start(2)
	l.back("after the turnover returned")
}

func TestTurnoverThatFailsBecomesARecovery(t *testing.T) {
	for _, f := range []struct {
		function string
		rv       uint
	}{
		{"C_Initialize", p11.CKR_GENERAL_ERROR},
		{"C_GetSlotList", p11.CKR_DEVICE_ERROR},
		{"C_OpenSession", p11.CKR_TOKEN_NOT_PRESENT},
		{"C_Login", p11.CKR_FUNCTION_FAILED},
		{"C_FindObjects", p11.CKR_DEVICE_ERROR},
	} {
		t.Run(f.function, func(t *testing.T) {
			k, control := turning(t, 100)
			l := newLoad(t, k, 5)
			l.start(3)
			control.Fail(f.rv, f.function)
			for deadline := time.Now().Add(5 * time.Second); k.Ready() == nil; {
				if time.Now().After(deadline) {
					t.Fatal("the fault reached nobody")
				}
				if _, err := k.Wrap(t.Context(), seeds(10)); err != nil && !errors.Is(err, hsm.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			control.Clear()
			l.back("after " + f.function)
		})
	}
}

func TestFaultsAndRestartsDuringTurnovers(t *testing.T) {
	k, control := turning(t, 60)
	l := newLoad(t, k, 30)
	l.start(4)
	l.back("at first")
	for i := range 12 {
		control.FailEvery(7, p11.CKR_DEVICE_ERROR, "C_Initialize", "C_OpenSession", "C_Login", "C_FindObjectsInit")
		control.FailEvery(223, p11.CKR_SESSION_HANDLE_INVALID, "C_Sign", "C_UnwrapKey", "C_DestroyObject")
		for range 5 {
			control.Restart()
			time.Sleep(time.Duration(7+i) * time.Millisecond)
		}
		control.Clear()
		l.back("after faults")
	}
	before, good := k.Generation(), l.good.Load()
	wrapUntil(t, k, before)
	l.back("after all")
	if l.good.Load() == good {
		t.Error("no service after all")
	}
}

func TestWrongPINInATurnoverIsNotTriedTwice(t *testing.T) {
	var wrong atomic.Bool
	k, control := open(t, func(c *pkcs11.Config) {
		right := c.PIN
		c.Turnover = 100
		c.PIN = func() ([]byte, error) {
			if wrong.Load() {
				return []byte("not the PIN"), nil
			}
			return right()
		}
	})
	wrong.Store(true)
	before := control.Logins()
	for deadline := time.Now().Add(5 * time.Second); k.Ready() == nil && time.Now().Before(deadline); {
		if _, err := k.Wrap(t.Context(), seeds(10)); err != nil && !errors.Is(err, hsm.ErrPIN) {
			t.Fatal(err)
		}
	}
	time.Sleep(700 * time.Millisecond)
	if err := k.Ready(); !errors.Is(err, hsm.ErrPIN) || !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("Ready: %v", err)
	}
	if n := control.Logins() - before; n != 1 {
		t.Errorf("%d logins with a wrong PIN", n)
	}
}

func TestNoTurnoverBesideAnotherKeystore(t *testing.T) {
	config, control := hsmtest.ShimToken(t)
	config.Turnover = 100
	a, records := hsmtest.OpenNew(t, config)
	b, err := pkcs11.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if err := b.Attach(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	first, second := a.Generation(), b.Generation()
	for range 20 {
		if _, err := a.Wrap(t.Context(), seeds(50)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	if a.Generation() != first || b.Generation() != second {
		t.Error("a turnover took the other keystore's sessions")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	wrapUntil(t, a, first)
	if v := control.Violations(); v != nil {
		t.Errorf("the module was called when it must not be: %d times, first: %s", len(v), v[0])
	}
}

func TestTurnoversAreRarerWithManyHandles(t *testing.T) {
	k, _ := open(t, func(c *pkcs11.Config) { c.Turnover = 100 })
	l := newLoad(t, k, 200)
	warm(t, k, l.sealed...)
	before := k.Generation()
	if n := k.SessionKeys(t); n != 200 {
		t.Fatalf("%d handles are cached", n)
	}
	// 200 were wrapped already, and 400 must be to be worth 200 handles.
	if _, err := k.Wrap(t.Context(), seeds(150)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if k.Generation() != before {
		t.Error("200 handles were given up for 350 keys")
	}
	wrapUntil(t, k, before)
	if n := k.SessionKeys(t); n != 0 {
		t.Errorf("%d handles after a turnover", n)
	}
	l.once(3)
	if l.bad.Load() > 0 {
		t.Error("HMACs fail after a turnover")
	}
}

func TestTurnoverIsPutOff(t *testing.T) {
	for name, change := range map[string]func(c *pkcs11.Config){
		"never":               func(c *pkcs11.Config) { c.Turnover = -1 },
		"by the server's say": func(c *pkcs11.Config) { c.Turning = func() (func(), error) { return nil, errors.New("not now") } },
	} {
		t.Run(name, func(t *testing.T) {
			k, _ := open(t, func(c *pkcs11.Config) { c.Turnover = 100; change(c) })
			before := k.Generation()
			for range 10 {
				if _, err := k.Wrap(t.Context(), seeds(50)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(50 * time.Millisecond)
			if k.Generation() != before {
				t.Error("there was a turnover")
			}
		})
	}
}

func TestCloseDuringATurnover(t *testing.T) {
	for i := range 10 {
		k, _ := turning(t, 50)
		l := newLoad(t, k, 5)
		l.start(3)
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		l.end()
	}
}
