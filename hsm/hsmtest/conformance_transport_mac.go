package hsmtest

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"testing"

	"watchword/hsm"
)

// MACTo gives a seed that EncryptTo encrypted a MAC as mac says, as a vendor
// would: OpenSSL computes it, and encrypts its key by the seed's mechanism.
func MACTo(t testing.TB, public *rsa.PublicKey, item hsm.Transported, mac hsm.TransportMAC, key []byte) hsm.Transported {
	t.Helper()
	mac.Key = EncryptTo(t, public, hsm.Transported{Mechanism: item.Mechanism, OAEPHash: mac.OAEPHash, MGFHash: mac.MGFHash, Label: mac.Label}, key).Ciphertext
	mac.Value = OpenSSLMAC(t, mac.Hash, key, item.Ciphertext)
	item.MAC = &mac
	return item
}

// OpenSSLMAC is OpenSSL's HMAC of message.
func OpenSSLMAC(t testing.TB, hash crypto.Hash, key, message []byte) []byte {
	t.Helper()
	c := exec.Command("openssl", "mac", "-binary", "-digest", opensslDigest(hash), "-macopt", "hexkey:"+hex.EncodeToString(key), "HMAC")
	c.Stdin = bytes.NewReader(message)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		t.Fatalf("openssl (of the package openssl): %v\n%s", err, said.Bytes())
	}
	return out.Bytes()
}

// computes says whether the HSM computes with a MAC key of n bytes: one that has
// no use for a key shorter than the digest has none for such a seed either.
func (k *TransporterUnderTest) computes(hash crypto.Hash, n int) bool {
	return n >= hash.Size() || k.Inside(hsm.SHA512, 16)
}

func testTransportMACs(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	seed := random(20)
	var items []hsm.Transported
	var lens []int
	for _, h := range macHashes {
		for _, n := range []int{hsm.MinTransportMAC, 16, 20, h.Size() - 1, h.Size(), h.Size() + 1, 64, 65, 128, 129} {
			items = append(items, MACTo(t, public, oaep(t, public, hsm.SHA1, seed), hsm.TransportMAC{Hash: h}, random(n)))
			lens = append(lens, n)
		}
	}
	for _, allow := range []bool{true, false} {
		all, err := k.Rewrap(hsm.Bulk(t.Context()), items, hsm.TransportOptions{AllowHost: allow})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range all {
			h, want := items[i].MAC.Hash, hsm.PathHSM
			if !k.computes(h, lens[i]) {
				want = hsm.PathHost
			}
			switch {
			case allow || want == hsm.PathHSM:
				is(t, k, r, hsm.SHA1, seed)
				if r.Path != want {
					t.Errorf("HMAC-%v with %d bytes: travelled by %q, want %q", h, lens[i], r.Path, want)
				}
			case !errors.Is(r.Err, hsm.ErrUnsupported) || !errors.Is(r.Err, hsm.ErrNeedsHost) || errors.Is(r.Err, hsm.ErrTransportMAC):
				t.Errorf("HMAC-%v with %d bytes, which the HSM does not take, without permission: %v", h, lens[i], r.Err)
			}
		}
	}
	// The way of the seed and that of its MAC's key are each its own.
	for _, h := range hashes {
		short := MACTo(t, public, oaep(t, public, h, random(16)), hsm.TransportMAC{Hash: crypto.SHA256}, random(32))
		want := hsm.PathHost
		if k.Inside(h, 16) {
			want = hsm.PathHSM
		}
		if r := rewrap(t, k, short, hsm.TransportOptions{AllowHost: true}); r.Err != nil || r.Path != want {
			t.Errorf("a short seed for %v with a MAC: %q, %v", h, r.Path, r.Err)
		}
	}
	for _, h := range []crypto.Hash{0, crypto.MD5, crypto.SHA3_256, 99} {
		item := items[0]
		item.MAC = &hsm.TransportMAC{Hash: h, Key: item.MAC.Key, Value: item.MAC.Value}
		if r := rewrap(t, k, item, hsm.TransportOptions{AllowHost: true}); !errors.Is(r.Err, hsm.ErrUnsupported) || errors.Is(r.Err, hsm.ErrNeedsHost) {
			t.Errorf("a MAC by digest %d: %v", h, r.Err)
		}
	}
}

func testTransportMACOAEP(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	seed := random(20)
	plain := oaep(t, public, hsm.SHA1, seed)
	for _, h := range []crypto.Hash{0, crypto.SHA1, crypto.SHA256, crypto.SHA512} {
		for _, mgf := range []crypto.Hash{0, crypto.SHA256} {
			for _, label := range []string{"", "vendor"} {
				name := fmt.Sprintf("OAEP %d, MGF1 %d, label %q", h, mgf, label)
				item := MACTo(t, public, plain, hsm.TransportMAC{OAEPHash: h, MGFHash: mgf, Label: []byte(label), Hash: crypto.SHA256}, random(32))
				r := rewrap(t, k, item, hsm.TransportOptions{AllowHost: true})
				if !k.OAEP(max(h, crypto.SHA1), max(mgf, crypto.SHA1), label != "") {
					if !errors.Is(r.Err, hsm.ErrUnsupported) || errors.Is(r.Err, hsm.ErrNeedsHost) {
						t.Errorf("%s: %v", name, r.Err)
					}
					continue
				}
				is(t, k, r, hsm.SHA1, seed)
				if r.Path != hsm.PathHSM {
					t.Errorf("%s: travelled by %q", name, r.Path)
				}
				// Read with a label that it was not encrypted with, the key is wrong.
				if k.OAEP(max(h, crypto.SHA1), max(mgf, crypto.SHA1), true) {
					other := *item.MAC
					other.Label = []byte("another")
					item.MAC = &other
					if r := rewrap(t, k, item, hsm.TransportOptions{AllowHost: true}); r.Err != hsm.ErrTransportMAC {
						t.Errorf("%s, read with another label: %v", name, r.Err)
					}
				}
			}
		}
	}
}

func testTransportMACWrong(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	stranger, err := rsa.GenerateKey(rand.Reader, hsm.MinTransportBits)
	if err != nil {
		t.Fatal(err)
	}
	for _, encrypt := range []func(testing.TB, *rsa.PublicKey, hsm.Hash, []byte) hsm.Transported{oaep, pkcs1} {
		seed, key := random(20), random(32)
		mac := hsm.TransportMAC{Hash: crypto.SHA256}
		good := MACTo(t, public, encrypt(t, public, hsm.SHA1, seed), mac, key)
		other := MACTo(t, public, encrypt(t, public, hsm.SHA1, random(20)), mac, key)
		with := func(change func(i *hsm.Transported, m *hsm.TransportMAC)) hsm.Transported {
			i, m := good, *good.MAC
			i.Ciphertext, m.Key, m.Value = bytes.Clone(i.Ciphertext), bytes.Clone(m.Key), bytes.Clone(m.Value)
			i.MAC = &m
			change(&i, &m)
			return i
		}
		value := func(v []byte) hsm.Transported {
			return with(func(_ *hsm.Transported, m *hsm.TransportMAC) { m.Value = v })
		}
		// MACs that are right, but under no key that could be the vendor's.
		under := func(key []byte) hsm.Transported {
			return with(func(i *hsm.Transported, m *hsm.TransportMAC) {
				m.Key = EncryptTo(t, public, hsm.Transported{Mechanism: i.Mechanism}, key).Ciphertext
				h := hmac.New(crypto.SHA256.New, key)
				h.Write(i.Ciphertext)
				m.Value = h.Sum(nil)
			})
		}
		wrong := map[string]hsm.Transported{
			"an altered MAC":          with(func(_ *hsm.Transported, m *hsm.TransportMAC) { m.Value[0] ^= 0x80 }),
			"a MAC cut short":         value(good.MAC.Value[:31]),
			"a MAC cut to half":       value(good.MAC.Value[:16]),
			"a MAC of one byte":       value(good.MAC.Value[:1]),
			"an empty MAC":            value(nil),
			"a MAC and more":          value(append(bytes.Clone(good.MAC.Value), 0)),
			"another seed's MAC":      value(other.MAC.Value),
			"a MAC over the seed":     value(OpenSSLMAC(t, crypto.SHA256, key, seed)),
			"a MAC by another digest": with(func(_ *hsm.Transported, m *hsm.TransportMAC) { m.Hash = crypto.SHA1 }),
			"an altered seed":         with(func(i *hsm.Transported, _ *hsm.TransportMAC) { i.Ciphertext[100] ^= 4 }),
			"another seed":            with(func(i *hsm.Transported, _ *hsm.TransportMAC) { i.Ciphertext = other.Ciphertext }),
			"an altered MAC key":      with(func(_ *hsm.Transported, m *hsm.TransportMAC) { m.Key[100] ^= 4 }),
			"a MAC key cut short":     with(func(_ *hsm.Transported, m *hsm.TransportMAC) { m.Key = m.Key[:255] }),
			"no MAC key":              with(func(_ *hsm.Transported, m *hsm.TransportMAC) { m.Key = nil }),
			"the seed as MAC key":     with(func(i *hsm.Transported, m *hsm.TransportMAC) { m.Key = i.Ciphertext }),
			"a MAC key to another key": with(func(_ *hsm.Transported, m *hsm.TransportMAC) {
				m.Key = encrypt(t, &stranger.PublicKey, hsm.SHA1, key).Ciphertext
			}),
			"a MAC key that is too short": under(random(hsm.MinTransportMAC - 1)),
			"a MAC key of no bytes":       under(nil),
		}
		if len(wrong) > hsm.WrongAttempts {
			t.Fatalf("%d wrong ones are more than may be tried", len(wrong))
		}
		want := hsm.ErrTransportMAC
		if good.Mechanism == hsm.TransportPKCS1 {
			want = hsm.ErrTransport
		}
		items, names := []hsm.Transported{good}, []string{""}
		for name, item := range wrong {
			items, names = append(items, item, good), append(names, name, "")
		}
		all, err := k.Rewrap(t.Context(), items, hsm.TransportOptions{AllowPKCS1: true, AllowHost: true})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range all {
			if names[i] == "" {
				is(t, k, r, hsm.SHA1, seed)
			} else if r.Err != want {
				t.Errorf("%s, %s: %v", good.Mechanism, names[i], r.Err)
			}
		}
	}
	// The MAC is what is judged first: of a seed that could not be taken over
	// anyway it is not told why.
	short := MACTo(t, public, oaep(t, public, hsm.SHA1, random(16)), hsm.TransportMAC{Hash: crypto.SHA256}, random(32))
	empty := MACTo(t, public, oaep(t, public, hsm.SHA1, nil), hsm.TransportMAC{Hash: crypto.SHA256}, random(32))
	long := short
	long.Ciphertext = append(bytes.Clone(long.Ciphertext), 0)
	for name, item := range map[string]hsm.Transported{"a short seed": short, "no seed": empty, "a ciphertext too long": long} {
		m := *item.MAC
		m.Value = random(32)
		item.MAC = &m
		if r := rewrap(t, k, item, hsm.TransportOptions{}); r.Err != hsm.ErrTransportMAC {
			t.Errorf("%s with a wrong MAC: %v", name, r.Err)
		}
	}
	if r := rewrap(t, k, empty, hsm.TransportOptions{}); r.Err == nil || errors.Is(r.Err, hsm.ErrTransportMAC) {
		t.Errorf("no seed with a right MAC: %v", r.Err)
	}
	if err := k.Ready(); err != nil {
		t.Errorf("after wrong MACs: %v", err)
	}
}

func testTransportMACLimit(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	seed := random(20)
	mac, allowed := hsm.TransportMAC{Hash: crypto.SHA256}, hsm.TransportOptions{AllowPKCS1: true}
	good := MACTo(t, public, pkcs1(t, public, hsm.SHA1, seed), mac, random(32))
	fine := MACTo(t, public, oaep(t, public, hsm.SHA1, seed), mac, random(32))
	if r := rewrap(t, k, good, hsm.TransportOptions{AllowHost: true}); r.Err != hsm.ErrPKCS1 {
		t.Errorf("RSA-1_5 without permission: %v", r.Err)
	}
	for range 3 {
		is(t, k, rewrap(t, k, good, allowed), hsm.SHA1, seed)
	}
	// A MAC that the HSM cannot compute is one of them: that it cannot would tell
	// how long the key in the ciphertext is.
	short := MACTo(t, public, pkcs1(t, public, hsm.SHA1, seed), mac, random(16))
	wrong := 0
	if r := rewrap(t, k, short, allowed); k.computes(crypto.SHA256, 16) {
		is(t, k, r, hsm.SHA1, seed)
	} else if wrong++; r.Err != hsm.ErrTransport {
		t.Errorf("a short MAC key by RSA-1_5 has an error of its own: %v", r.Err)
	}
	r := rewrap(t, k, short, hsm.TransportOptions{AllowPKCS1: true, AllowHost: true})
	is(t, k, r, hsm.SHA1, seed)
	if (r.Path == hsm.PathHSM) != k.computes(crypto.SHA256, 16) {
		t.Errorf("a short MAC key travelled by %q", r.Path)
	}
	badMAC, badKey := good, good
	badMAC.MAC, badKey.MAC = &hsm.TransportMAC{Hash: mac.Hash, Key: good.MAC.Key, Value: random(32)}, &hsm.TransportMAC{Hash: mac.Hash, Key: random(256), Value: good.MAC.Value}
	badKey.MAC.Key[0] = 0 // below the modulus
	all, err := k.Rewrap(t.Context(), slices.Repeat([]hsm.Transported{badMAC, badKey}, hsm.WrongAttempts/2+2), allowed)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range all {
		if i+wrong < hsm.WrongAttempts && r.Err != hsm.ErrTransport || i+wrong >= hsm.WrongAttempts && !errors.Is(r.Err, hsm.ErrTransportLimit) {
			t.Errorf("wrong one %d: %v", i, r.Err)
		}
	}
	if r := rewrap(t, k, good, allowed); !errors.Is(r.Err, hsm.ErrTransportLimit) {
		t.Errorf("RSA-1_5 after the limit: %v", r.Err)
	}
	is(t, k, rewrap(t, k, fine, allowed), hsm.SHA1, seed)
}
