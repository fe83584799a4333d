package pkcs11_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

func encrypted(t *testing.T, public *rsa.PublicKey, m hsm.TransportMechanism, h hsm.Hash, seed []byte) hsm.Transported {
	t.Helper()
	return hsmtest.EncryptTo(t, public, hsm.Transported{Mechanism: m, Hash: h}, seed)
}

// Another program, logged in with the PIN, sees what the key is and can use it
// for nothing but unwrapping.
func TestTheTransportKeyOnlyUnwraps(t *testing.T) {
	config := hsmtest.Token(t)
	k, records := hsmtest.OpenNew(t, config)
	public, records := hsmtest.Transport(t, k, records)
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
	_, about, found := strings.Cut(list, "watchword transport 1")
	if !found {
		t.Fatalf("there is no transport key:\n%s", list)
	}
	about, _, _ = strings.Cut(about, "Private Key Object")
	for _, want := range []string{"Usage:      unwrap\n", "sensitive", "always sensitive", "never extractable"} {
		if !strings.Contains(about, want) {
			t.Errorf("the transport key is not said to be %q:\n%s", want, about)
		}
	}
	item := encrypted(t, public, hsm.TransportPKCS1, hsm.SHA1, []byte("12345678901234567890"))
	dir := t.TempDir()
	write(t, dir+"/ciphertext", item.Ciphertext)
	for _, args := range [][]string{
		{"--decrypt", "--mechanism", "RSA-PKCS"},
		{"--decrypt", "--mechanism", "RSA-X-509"},
		{"--sign", "--mechanism", "RSA-PKCS"},
	} {
		out, err := tool(append(args, "--id", fmt.Sprintf("%x", records[len(records)-1].ID), "--input-file", dir+"/ciphertext", "--output-file", dir+"/out")...)
		if err == nil || !strings.Contains(out, "CKR_KEY_FUNCTION_NOT_PERMITTED") {
			t.Errorf("pkcs11-tool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestRewrapLeavesNothingInTheHSM(t *testing.T) {
	for name, config := range map[string]func(testing.TB) pkcs11.Config{"SoftHSM": hsmtest.Token, "softokn": hsmtest.NSSToken} {
		t.Run(name, func(t *testing.T) {
			k, records := hsmtest.OpenNew(t, config(t))
			public, _ := hsmtest.Transport(t, k, records)
			if n := k.SessionKeys(t); n != 0 {
				t.Fatalf("%d objects at first", n)
			}
			var items []hsm.Transported
			for _, m := range []hsm.TransportMechanism{hsm.TransportOAEP, hsm.TransportPKCS1} {
				seed := encrypted(t, public, m, hsm.SHA1, random(20))
				for _, h := range []hsm.Hash{hsm.SHA1, hsm.SHA512, 9} {
					for _, n := range []int{0, 10, 20, 65, 64} {
						items = append(items, encrypted(t, public, m, h, random(n)))
					}
				}
				bad := encrypted(t, public, m, hsm.SHA1, random(20))
				bad.Ciphertext[50] ^= 1
				items = append(items, bad)
				// With MACs: right, by another key, wrong, of a wrong seed, under a key
				// that is too short for the module or for anybody, and altered.
				mac := hsm.TransportMAC{Hash: crypto.SHA256}
				good := hsmtest.MACTo(t, public, seed, mac, random(32))
				wrong, altered := *good.MAC, *good.MAC
				wrong.Value, altered.Key = random(32), bytes.Clone(good.MAC.Key)
				altered.Key[50] ^= 1
				items = append(items, good, hsmtest.MACTo(t, public, seed, mac, random(32)), good,
					hsmtest.MACTo(t, public, bad, mac, random(32)), hsmtest.MACTo(t, public, seed, mac, random(16)), hsmtest.MACTo(t, public, seed, mac, random(9)))
				for _, m := range []*hsm.TransportMAC{&wrong, &altered} {
					item := good
					item.MAC = m
					items = append(items, item)
				}
			}
			for _, o := range []hsm.TransportOptions{{}, {AllowPKCS1: true}, {AllowHost: true}, {AllowHost: true, AllowPKCS1: true}} {
				all, err := k.Rewrap(t.Context(), items, o)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(all, func(r hsm.Rewrapped) bool { return r.Err == nil }) || !slices.ContainsFunc(all, func(r hsm.Rewrapped) bool { return r.Err != nil }) {
					t.Error("not both, seeds that were taken over and some that were not")
				}
				if n := k.SessionKeys(t); n != 0 {
					t.Errorf("with %+v %d objects stay in the HSM", o, n)
				}
			}
		})
	}
}

// Whatever the module answers: a seed is taken over as it is, or not at all.
func TestFaultsWhileSeedsAreTakenOver(t *testing.T) {
	k, control := open(t, nil)
	public, _ := hsmtest.Transport(t, k, k.Records())
	var items []hsm.Transported
	var seeds, want [][]byte
	macKey := random(32)
	for _, n := range []int{20, 16, 32} {
		seed := random(n)
		items, seeds = append(items, encrypted(t, public, hsm.TransportOAEP, hsm.SHA1, seed)), append(seeds, seed)
		w, err := k.Wrap(t.Context(), []hsm.Seed{{Hash: hsm.SHA1, Bytes: seed}})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, w[0].Blob)
	}
	paths := []hsm.TransportPath{hsm.PathHSM, hsm.PathHost, hsm.PathHSM}
	// Those again, with MACs: two under one key, one under a key that SoftHSM does
	// not compute with.
	shared := hsmtest.MACTo(t, public, items[0], hsm.TransportMAC{Hash: crypto.SHA256}, macKey)
	also := items[2]
	also.MAC = &hsm.TransportMAC{Hash: crypto.SHA256, Key: shared.MAC.Key, Value: hsmtest.OpenSSLMAC(t, crypto.SHA256, macKey, also.Ciphertext)}
	items = append(items, shared, also, hsmtest.MACTo(t, public, items[0], hsm.TransportMAC{Hash: crypto.SHA384}, macKey))
	seeds, want = append(seeds, seeds[0], seeds[2], seeds[0]), append(want, want[0], want[2], want[0])
	paths = append(paths, hsm.PathHSM, hsm.PathHSM, hsm.PathHost)
	// once says whether all went well.
	once := func(what string) bool {
		all, err := k.Rewrap(t.Context(), items, hsm.TransportOptions{AllowHost: true})
		if err != nil {
			if !errors.Is(err, hsm.ErrUnavailable) || all != nil {
				t.Errorf("%s: %d answers and %v", what, len(all), err)
			}
			return false
		}
		well := true
		for i, r := range all {
			switch {
			case errors.Is(r.Err, hsm.ErrTransport), errors.Is(r.Err, hsm.ErrTransportMAC):
				t.Errorf("%s: a fault of the HSM is blamed on a ciphertext", what)
			case r.Err != nil:
				well = false
			case !bytes.Equal(r.Blob, want[i]) || r.SeedLen != uint16(len(seeds[i])):
				t.Errorf("%s: seed %d was taken over as something else", what, i)
			case r.Path != paths[i]:
				t.Errorf("%s: seed %d travelled by %q", what, i, r.Path)
			}
		}
		return well
	}
	back := func(what string) {
		control.Clear()
		for deadline := time.Now().Add(time.Minute); !once(what); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the HSM is not back: %v", what, k.Ready())
			}
			time.Sleep(5 * time.Millisecond)
		}
		if n := k.SessionKeys(t); n != 0 {
			t.Errorf("%s: %d objects stay in the HSM", what, n)
		}
	}
	back("at first")
	for name, rv := range map[string]uint{
		"CKR_GENERAL_ERROR":          p11.CKR_GENERAL_ERROR,
		"CKR_SESSION_HANDLE_INVALID": p11.CKR_SESSION_HANDLE_INVALID,
		"CKR_DEVICE_MEMORY":          p11.CKR_DEVICE_MEMORY,
		"a vendor's":                 0x80000123,
	} {
		for _, function := range []string{
			"C_UnwrapKey", "C_WrapKey", "C_GetAttributeValue", "C_DigestInit", "C_DigestKey", "C_DigestFinal",
			"C_SignInit", "C_Sign", "C_DestroyObject", "C_CreateObject",
		} {
			for _, every := range []int{1, 2, 5} {
				control.FailEvery(every, rv, function)
				once(fmt.Sprintf("every %dth %s is %s", every, function, name))
				back(fmt.Sprintf("after %s as every %dth %s", name, every, function))
			}
		}
	}
	for i := range 20 {
		done := make(chan bool)
		go func() { done <- once("while the HSM restarts") }()
		time.Sleep(time.Duration(i) * time.Millisecond)
		control.Restart()
		<-done
		back("after a restart")
	}
}

// A caller who leaves learns nothing, and the seed does not stay.
func TestWhoLeavesARewrapLeavesNothing(t *testing.T) {
	k, control := open(t, nil)
	public, _ := hsmtest.Transport(t, k, k.Records())
	item := encrypted(t, public, hsm.TransportOAEP, hsm.SHA1, random(20))
	control.Delay(100*time.Millisecond, "C_UnwrapKey")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	given := bytes.Clone(item.Ciphertext)
	if all, err := k.Rewrap(ctx, []hsm.Transported{item}, hsm.TransportOptions{}); !errors.Is(err, context.DeadlineExceeded) || all != nil {
		t.Errorf("left: %v", err)
	}
	clear(item.Ciphertext) // it is the caller's again
	control.Clear()
	item.Ciphertext = given
	if all, err := k.Rewrap(t.Context(), []hsm.Transported{item}, hsm.TransportOptions{}); err != nil || all[0].Err != nil {
		t.Errorf("afterwards: %v, %v", all, err)
	}
	if n := k.SessionKeys(t); n != 0 {
		t.Errorf("%d objects stay in the HSM", n)
	}
}

// Whatever is wrong with an RSA-1_5 ciphertext, from one that never reaches the
// HSM to one that holds a seed, the answer waits for the end of a grain of time.
func TestWrongRSA15IsNotAnsweredSooner(t *testing.T) {
	k, records := hsmtest.SoftHSM(t)
	public, _ := hsmtest.Transport(t, k, records)
	good := encrypted(t, public, hsm.TransportPKCS1, hsm.SHA1, random(20))
	altered, short := good, good
	authentic := hsmtest.MACTo(t, public, good, hsm.TransportMAC{Hash: crypto.SHA256}, random(32))
	with := func(change func(m *hsm.TransportMAC)) hsm.Transported {
		item, m := authentic, *authentic.MAC
		m.Key, m.Value = bytes.Clone(m.Key), bytes.Clone(m.Value)
		change(&m)
		item.MAC = &m
		return item
	}
	altered.Ciphertext = bytes.Clone(good.Ciphertext)
	altered.Ciphertext[9] ^= 1
	short.Ciphertext = good.Ciphertext[1:]
	for name, item := range map[string]hsm.Transported{
		"altered":                altered,
		"too short":              short,
		"a seed too long":        encrypted(t, public, hsm.TransportPKCS1, hsm.SHA1, random(150)),
		"a seed of no bytes":     encrypted(t, public, hsm.TransportPKCS1, hsm.SHA1, nil),
		"a seed for the host":    encrypted(t, public, hsm.TransportPKCS1, hsm.SHA1, random(16)),
		"a seed for no tokens":   encrypted(t, public, hsm.TransportPKCS1, hsm.SHA1, random(19)),
		"a wrong MAC":            with(func(m *hsm.TransportMAC) { m.Value[9] ^= 1 }),
		"a MAC cut short":        with(func(m *hsm.TransportMAC) { m.Value = m.Value[:1] }),
		"a wrong MAC key":        with(func(m *hsm.TransportMAC) { m.Key[9] ^= 1 }),
		"a MAC key cut short":    with(func(m *hsm.TransportMAC) { m.Key = m.Key[1:] }),
		"a MAC key for the host": hsmtest.MACTo(t, public, good, hsm.TransportMAC{Hash: crypto.SHA256}, random(16)),
		"a MAC key for nobody":   hsmtest.MACTo(t, public, good, hsm.TransportMAC{Hash: crypto.SHA256}, random(9)),
		"altered, with its MAC":  hsmtest.MACTo(t, public, altered, hsm.TransportMAC{Hash: crypto.SHA256}, random(32)),
		"a seed for another way": encrypted(t, public, hsm.TransportOAEP, hsm.SHA1, random(20)),
	} {
		item.Mechanism = hsm.TransportPKCS1
		began := time.Now()
		all, err := k.Rewrap(t.Context(), []hsm.Transported{item}, hsm.TransportOptions{AllowPKCS1: true})
		took := time.Since(began)
		if err != nil || all[0].Err != hsm.ErrTransport {
			t.Errorf("%s: %v, %v", name, all, err)
		}
		if took < 500*time.Millisecond {
			t.Errorf("%s: answered after %v already", name, took)
		}
	}
}

// A turnover in the middle is not noticed.
func TestTurnoverWhileSeedsAreTakenOver(t *testing.T) {
	config := hsmtest.Token(t)
	config.Turnover = 30
	k, records := hsmtest.OpenNew(t, config)
	public, _ := hsmtest.Transport(t, k, records)
	item := hsmtest.MACTo(t, public, encrypted(t, public, hsm.TransportOAEP, hsm.SHA1, random(20)), hsm.TransportMAC{Hash: crypto.SHA256}, random(32))
	before := k.Generation()
	for range 10 {
		all, err := k.Rewrap(t.Context(), slices.Repeat([]hsm.Transported{item}, 20), hsm.TransportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Err != nil || !bytes.Equal(r.Blob, all[0].Blob) {
				t.Fatalf("another answer: %v", r.Err)
			}
		}
	}
	if k.Generation() == before {
		t.Error("there was no turnover")
	}
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
