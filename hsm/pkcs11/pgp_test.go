package pkcs11_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
)

func TestSoftHSMPGPConforms(t *testing.T) {
	hsmtest.RunPGPHolder(t, func(t *testing.T) hsmtest.PGPHolderUnderTest {
		k, records := hsmtest.SoftHSM(t)
		return hsmtest.PGPHolderUnderTest{PGPKeystore: k, Records: records}
	})
}

func TestNSSPGPConforms(t *testing.T) {
	hsmtest.RunPGPHolder(t, func(t *testing.T) hsmtest.PGPHolderUnderTest {
		k, records := hsmtest.OpenNew(t, hsmtest.NSSToken(t))
		return hsmtest.PGPHolderUnderTest{PGPKeystore: k, Records: records}
	})
}

func toPGP(t *testing.T, public *rsa.PublicKey, plain []byte) []byte {
	t.Helper()
	return encrypted(t, public, hsm.TransportPKCS1, 0, plain).Ciphertext
}

// Another program, logged in with the PIN, sees what the key is and can use it
// for nothing but decrypting.
func TestThePGPKeyOnlyDecrypts(t *testing.T) {
	config := hsmtest.Token(t)
	k, records := hsmtest.OpenNew(t, config)
	public, records := hsmtest.PGP(t, k, records)
	pin, err := config.PIN()
	if err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) (string, error) {
		out, err := exec.Command("pkcs11-tool", append([]string{
			"--module", config.Module, "--token-label", config.TokenLabel, "--login", "--pin", string(pin),
		}, args...)...).CombinedOutput()
		return string(out), err
	}
	list, err := tool("--list-objects", "--type", "privkey")
	if err != nil {
		t.Fatalf("pkcs11-tool (of the package opensc): %v\n%s", err, list)
	}
	_, about, found := strings.Cut(list, "watchword pgp 1")
	if !found {
		t.Fatalf("there is no PGP key:\n%s", list)
	}
	about, _, _ = strings.Cut(about, "Private Key Object")
	for _, want := range []string{"Usage:      decrypt\n", "sensitive", "always sensitive", "never extractable"} {
		if !strings.Contains(about, want) {
			t.Errorf("the PGP key is not said to be %q:\n%s", want, about)
		}
	}
	dir := t.TempDir()
	write(t, dir+"/in", toPGP(t, public, hsmtest.PGPSession(9, 32)))
	out, err := tool("--sign", "--mechanism", "RSA-PKCS", "--id", fmt.Sprintf("%x", records[len(records)-1].ID), "--input-file", dir+"/in", "--output-file", dir+"/out")
	if err == nil || !strings.Contains(out, "CKR_KEY_FUNCTION_NOT_PERMITTED") {
		t.Errorf("pkcs11-tool signs with it: %v\n%s", err, out)
	}
}

// Whatever the module answers: the session key, or that the HSM does not answer;
// a fault is blamed on no ciphertext, and uses up no attempt.
func TestFaultsWhileAPGPMessageIsOpened(t *testing.T) {
	k, control := open(t, nil)
	public, _ := hsmtest.PGP(t, k, k.Records())
	plain := hsmtest.PGPSession(9, 32)
	good := toPGP(t, public, plain)
	once := func(what string) bool {
		got, err := k.OpenPGP(t.Context(), 1, good)
		switch {
		case err != nil && !errors.Is(err, hsm.ErrUnavailable):
			t.Errorf("%s: %v", what, err)
		case err == nil && !bytes.Equal(got, plain):
			t.Errorf("%s: another session key", what)
		}
		return err == nil
	}
	back := func(what string) {
		control.Clear()
		for deadline := time.Now().Add(time.Minute); !once(what); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the HSM is not back: %v", what, k.Ready())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	back("at first")
	failed := 0
	for name, rv := range map[string]uint{
		"CKR_GENERAL_ERROR":          p11.CKR_GENERAL_ERROR,
		"CKR_SESSION_HANDLE_INVALID": p11.CKR_SESSION_HANDLE_INVALID,
		"CKR_ENCRYPTED_DATA_INVALID": p11.CKR_ENCRYPTED_DATA_INVALID,
		"a vendor's":                 0x80000123,
	} {
		for _, function := range []string{"C_DecryptInit", "C_Decrypt"} {
			for _, every := range []int{1, 2, 3} {
				control.FailEvery(every, rv, function)
				for range 3 {
					if !once(fmt.Sprintf("every %dth %s is %s", every, function, name)) {
						failed++
					}
				}
				back(fmt.Sprintf("after %s as every %dth %s", name, every, function))
			}
		}
	}
	if failed <= hsm.WrongAttempts {
		t.Errorf("only %d calls failed", failed)
	}
	control.Restart()
	once("after a restart")
	back("after a restart")
}

// Whatever is wrong, from what never reaches the HSM to a session key with a
// wrong sum, the answer waits for the end of a grain of time.
func TestAWrongPGPSessionIsNotAnsweredSooner(t *testing.T) {
	k, records := hsmtest.SoftHSM(t)
	public, _ := hsmtest.PGP(t, k, records)
	sum := hsmtest.PGPSession(9, 32)
	sum[34] ^= 1
	good := toPGP(t, public, hsmtest.PGPSession(9, 32))
	altered := bytes.Clone(good)
	altered[9] ^= 1
	for name, ciphertext := range map[string][]byte{
		"altered": altered, "too short": good[1:], "a wrong sum": toPGP(t, public, sum), "nothing in it": toPGP(t, public, nil),
	} {
		began := time.Now()
		_, err := k.OpenPGP(t.Context(), 1, ciphertext)
		if took := time.Since(began); !errors.Is(err, hsm.ErrPGPSession) || took < 250*time.Millisecond {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
}

// Leaving before the answer is no way around the limit.
func TestWhoLeavesUsesUpAnAttempt(t *testing.T) {
	k, control := open(t, nil)
	public, _ := hsmtest.PGP(t, k, k.Records())
	good := toPGP(t, public, hsmtest.PGPSession(9, 32))
	control.Delay(50*time.Millisecond, "C_Decrypt")
	for range hsm.WrongAttempts {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := k.OpenPGP(ctx, 1, good); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("left: %v", err)
		}
		cancel()
		time.Sleep(40 * time.Millisecond) // the HSM is done with it
	}
	control.Clear()
	if _, err := k.OpenPGP(t.Context(), 1, good); !errors.Is(err, hsm.ErrTransportLimit) {
		t.Errorf("after leaving too often: %v", err)
	}
}
