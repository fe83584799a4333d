package pkcs11_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

// What the stand-in takes over: seeds of each kind, with a MAC if its key has a
// length, and by which way they go.
var transportKinds = []struct {
	mechanism hsm.TransportMechanism
	hash      hsm.Hash
	n         int
	path      hsm.TransportPath
	mac       int
}{
	{hsm.TransportOAEP, hsm.SHA1, 20, hsm.PathHSM, 0},
	{hsm.TransportOAEP, hsm.SHA256, 32, hsm.PathHSM, 0},
	{hsm.TransportOAEP, hsm.SHA512, 64, hsm.PathHSM, 0},
	{hsm.TransportPKCS1, hsm.SHA1, 20, hsm.PathHSM, 0},
	{hsm.TransportOAEP, hsm.SHA1, 16, hsm.PathHost, 0},
	{hsm.TransportPKCS1, hsm.SHA256, 20, hsm.PathHost, 0},
	{hsm.TransportOAEP, hsm.SHA1, 20, hsm.PathHSM, 32},
	{hsm.TransportPKCS1, hsm.SHA1, 20, hsm.PathHSM, 64},
	{hsm.TransportOAEP, hsm.SHA1, 20, hsm.PathHost, 20},
	{hsm.TransportPKCS1, hsm.SHA1, 20, hsm.PathHost, 16},
}

const transportEach = 6 // seeds of each kind

// transportCustody prints its public key, takes over the seeds whose ciphertexts
// come from standard input, prints way and HMAC of each, and stays.
func transportCustody(dir string) error {
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
	for _, name := range append(hsm.KeyNames(), hsm.KeyTransport) {
		r, err := k.Create(ctx, name, 1)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	if err := k.Attach(ctx, records); err != nil {
		return err
	}
	public := k.TransportKeys()[0].Public
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	fmt.Printf("%x\n", der)
	var items []hsm.Transported
	for _, kind := range transportKinds {
		for range transportEach {
			item := hsm.Transported{Mechanism: kind.mechanism, Hash: kind.hash, Ciphertext: make([]byte, public.Size())}
			if _, err := io.ReadFull(os.Stdin, item.Ciphertext); err != nil {
				return err
			}
			if kind.mac > 0 {
				item.MAC = &hsm.TransportMAC{Hash: crypto.SHA256, Key: make([]byte, public.Size()), Value: make([]byte, 32)}
				for _, part := range [][]byte{item.MAC.Key, item.MAC.Value} {
					if _, err := io.ReadFull(os.Stdin, part); err != nil {
						return err
					}
				}
			}
			items = append(items, item)
		}
	}
	all, err := k.Rewrap(hsm.Bulk(ctx), items, hsm.TransportOptions{AllowHost: true, AllowPKCS1: true})
	if err != nil {
		return err
	}
	for i, r := range all {
		if r.Err != nil {
			return r.Err
		}
		s := &hsm.Sealed{Wrapped: r.Wrapped, Row: fmt.Appendf(nil, "row %d", i)}
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
		fmt.Printf("%s %x\n", r.Path, j.MACs[0])
	}
	io.Copy(io.Discard, os.Stdin)
	fmt.Printf("%x\n", canary) // keeps it alive until here
	return k.Close()
}

// A seed that a vendor encrypted to the transport key is in the memory of this
// process at no time, nor is the key of its MAC; what had to travel through it is
// wiped.
func TestNoSeedThatWasTransportedIsInMemory(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WATCHWORD_TEST_TRANSPORT_CUSTODY="+t.TempDir(), "GODEBUG=asyncpreemptoff=1") // as the server runs
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
	lines := bufio.NewScanner(out)
	line := func() string {
		if !lines.Scan() {
			t.Fatal("the process that takes seeds over ended")
		}
		return lines.Text()
	}
	der, err := hex.DecodeString(line())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	var seeds, macKeys [][]byte
	var want []string
	for _, kind := range transportKinds {
		for range transportEach {
			seed := random(kind.n)
			item := hsmtest.EncryptTo(t, key.(*rsa.PublicKey), hsm.Transported{Mechanism: kind.mechanism}, seed)
			sent := item.Ciphertext
			if kind.mac > 0 {
				macKey := random(kind.mac)
				item = hsmtest.MACTo(t, key.(*rsa.PublicKey), item, hsm.TransportMAC{Hash: crypto.SHA256}, macKey)
				sent = slices.Concat(sent, item.MAC.Key, item.MAC.Value)
				macKeys = append(macKeys, macKey)
			}
			if _, err := in.Write(sent); err != nil {
				t.Fatal(err)
			}
			seeds = append(seeds, seed)
			want = append(want, fmt.Sprintf("%s %x", kind.path, hsmtest.True(kind.hash, seed, 1)))
		}
	}
	for i := range seeds {
		if got := line(); got != want[i] {
			t.Errorf("seed %d: %s, want %s", i, got, want[i])
		}
	}
	memory := memoryOf(t, cmd.Process.Pid)
	if !contains(memory, canary) {
		t.Fatal("the scan does not find what is there")
	}
	for i, seed := range seeds {
		// The first eleven bytes are enough to know a seed by, and the last of
		// the short ones.
		kind := transportKinds[i/transportEach]
		if contains(memory, seed[:11]) || contains(memory, seed[len(seed)-11:]) {
			t.Errorf("a seed of %d bytes that travelled by %s and %q is in memory", kind.n, kind.mechanism, kind.path)
		}
	}
	for _, k := range macKeys {
		for _, mask := range []byte{0, 0x36, 0x5c} { // as it is, and as HMAC has it
			masked := slices.Clone(k)
			for i := range masked {
				masked[i] ^= mask
			}
			if contains(memory, masked[:11]) || contains(memory, masked[len(masked)-11:]) {
				t.Errorf("a MAC key of %d bytes, masked with %#x, is in memory", len(k), mask)
			}
		}
	}
}
