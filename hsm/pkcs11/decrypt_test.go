package pkcs11_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
)

func TestUnwrappedAESKeysCanOnlyDecrypt(t *testing.T) {
	k, _ := hsmtest.SoftHSM(t)
	for i := range 2 {
		j := &hsm.DecryptJob{Key: hsmtest.Seal(t, k, hsm.AES128, random(16), fmt.Append(nil, i))}
		if err := k.Decrypt(t.Context(), []*hsm.DecryptJob{j}); err != nil || j.Err != nil {
			t.Fatal(err, j.Err)
		}
	}
	for _, test := range []struct {
		name      string
		attribute uint
		want      bool
	}{
		{"CKA_PRIVATE", p11.CKA_PRIVATE, true},
		{"CKA_SENSITIVE", p11.CKA_SENSITIVE, true},
		{"CKA_EXTRACTABLE", p11.CKA_EXTRACTABLE, false},
		{"CKA_SIGN", p11.CKA_SIGN, false},
		{"CKA_VERIFY", p11.CKA_VERIFY, false},
		{"CKA_ENCRYPT", p11.CKA_ENCRYPT, false},
		{"CKA_DECRYPT", p11.CKA_DECRYPT, true},
		{"CKA_WRAP", p11.CKA_WRAP, false},
		{"CKA_UNWRAP", p11.CKA_UNWRAP, false},
		{"CKA_DERIVE", p11.CKA_DERIVE, false},
		{"CKA_TOKEN", p11.CKA_TOKEN, false},
	} {
		if got := k.Attributes(t, test.attribute); !slices.Equal(got, []bool{test.want, test.want}) {
			t.Errorf("%s of the unwrapped AES keys: %v, want %v", test.name, got, test.want)
		}
	}
}

// A failing HSM gives errors that say so and never another plaintext, also when
// it comes back with its handles numbered anew; and the service comes back.
func TestFailingHSMNeverDecryptsToSomethingElse(t *testing.T) {
	k, control := open(t, nil)
	l := newLoad(t, k, 20) // HMACs beside, so that handles of both kinds are numbered anew
	var keys [][]byte
	var sealed []*hsm.Sealed
	for i := range 20 {
		keys = append(keys, random(16))
		sealed = append(sealed, hsmtest.Seal(t, k, hsm.AES128, keys[i], fmt.Appendf(nil, "aes %d", i)))
	}
	var good, bad atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			p := [16]byte(random(16))
			j := &hsm.DecryptJob{Key: sealed[n%20], Block: hsmtest.TrueBlock(keys[n%20], p)}
			err := k.Decrypt(context.Background(), []*hsm.DecryptJob{j})
			switch {
			case j.Err != nil:
				if !errors.Is(j.Err, hsm.ErrUnavailable) || j.Plain != [16]byte{} {
					t.Errorf("while the HSM fails: %v, %v", err, j.Err)
				}
				bad.Add(1)
				time.Sleep(time.Millisecond)
			case j.Plain != p:
				t.Error("another plaintext than the true one")
			default:
				good.Add(1)
			}
		}
	}()
	l.start(2)
	defer func() { close(stop); <-done }()
	back := func(what string) {
		t.Helper()
		l.back(what)
		before := good.Load()
		for began := time.Now(); good.Load() == before; time.Sleep(time.Millisecond) {
			if time.Since(began) > 2*time.Second {
				t.Fatalf("%s: nothing is decrypted two seconds after the HSM's return", what)
			}
		}
	}
	back("at first")
	for what, fail := range map[string]func(){
		"C_DecryptInit":        func() { control.Fail(p11.CKR_KEY_HANDLE_INVALID, "C_DecryptInit") },
		"C_Decrypt":            func() { control.Fail(p11.CKR_DEVICE_ERROR, "C_Decrypt") },
		"C_UnwrapKey":          func() { control.Fail(p11.CKR_GENERAL_ERROR, "C_UnwrapKey", "C_DecryptInit") },
		"everything":           func() { control.Fail(p11.CKR_TOKEN_NOT_PRESENT) },
		"each third C_Decrypt": func() { control.FailEvery(3, p11.CKR_SESSION_HANDLE_INVALID, "C_Decrypt") },
		"a restart":            control.Restart,
	} {
		before := bad.Load()
		fail()
		time.Sleep(100 * time.Millisecond)
		control.Clear()
		back(what)
		if bad.Load() == before {
			t.Errorf("the fault in %s reached nobody", what)
		}
	}
	for range 8 {
		control.Restart()
		time.Sleep(30 * time.Millisecond)
		back("after a restart")
	}
}
