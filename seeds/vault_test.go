package seeds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
)

// vaultShelf is a shelf whose HSM holds PGP keys.
type vaultShelf struct {
	*shelf
	keys   *hsmtest.Memory
	asked  int
	denies error
}

func (s *vaultShelf) PGPKeys() []hsm.PGPKey { return s.keys.PGPKeys() }

func (s *vaultShelf) OpenPGP(ctx context.Context, _ tokens.Principal, realm string, version uint32, ciphertext []byte) ([]byte, error) {
	s.asked++
	if realm != "office" {
		s.t.Errorf("asked for realm %q", realm)
	}
	if s.denies != nil {
		return nil, s.denies
	}
	plain, err := s.keys.OpenPGP(ctx, version, ciphertext)
	switch {
	case errors.Is(err, hsm.ErrUnavailable):
		err = fmt.Errorf("%w: %w", tokens.ErrUnavailable, err)
	case err != nil:
		err = fmt.Errorf("%w: %w", tokens.ErrInvalid, err)
	}
	return plain, err
}

// vendor is a key ring of a vendor's, with the public keys of an HSM in it.
type vendor struct {
	*gnupg
	fingerprints []string // of the versions
}

// newVendor makes n PGP keys in the HSM and gives the vendor each one's public
// key.
func newVendor(t *testing.T, keys *hsmtest.Memory, n int) *vendor {
	t.Helper()
	v := &vendor{gnupg: &gnupg{home: t.TempDir()}}
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", v.home, "--kill", "gpg-agent").Run() })
	records := keys.Records()
	for version := range n {
		r, err := keys.CreatePGP(t.Context(), uint32(version+1), hsm.MinTransportBits)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
		if err := keys.Attach(t.Context(), records); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range keys.PGPKeys() {
		public, err := IssuePGP(t.Context(), keys, k, "Example Corp", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		v.make(t, string(public.Armoured), "--import")
		v.fingerprints = append(v.fingerprints, fmt.Sprintf("%X", public.Fingerprint))
	}
	return v
}

func newVaultShelf(t *testing.T) *vaultShelf {
	return &vaultShelf{shelf: newShelf(t), keys: hsmtest.NewMemory(t)}
}

func (s *vaultShelf) take(o Options, file []byte) (*Report, error) {
	o.Realm = "office"
	return NewImporter(s).Import(s.t.Context(), tokens.Principal{}, o, strings.NewReader(string(file)))
}

func TestGnuPGTakesThePublicKeyOfThePGPKey(t *testing.T) {
	s := newVaultShelf(t)
	v := newVendor(t, s.keys, 1)
	key := s.keys.PGPKeys()[0]
	out, err := exec.Command("gpg", "--homedir", v.home, "--batch", "--with-colons", "--check-sigs").CombinedOutput()
	if err != nil {
		t.Fatalf("gpg (package gnupg): %v\n%s", err, out)
	}
	list := string(out)
	made := fmt.Sprint(key.Made.Unix())
	for _, want := range []string{
		":256:19:",               // an ECDSA key,
		":" + made + ":::-:::cE", // that certifies, and by its subkey encrypts
		"fpr:::::::::" + v.fingerprints[0] + ":",
		"Example Corp (Watchword seeds 1)",
		"sub:-:2048:1:",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("gpg does not list %q:\n%s", want, list)
		}
	}
	if strings.Count(list, "sig:!:") != 2 || strings.Contains(list, "sig:-") || strings.Contains(list, "sig:%") {
		t.Errorf("gpg does not find both signatures good:\n%s", list)
	}
	// Issued again it has the same fingerprint, and nothing new for gpg.
	again, err := IssuePGP(t.Context(), s.keys, key, "Example Corp", time.Now())
	if err != nil || fmt.Sprintf("%X", again.Fingerprint) != v.fingerprints[0] {
		t.Errorf("issued again it is %X (%v)", again.Fingerprint, err)
	}
	if list, err := readKeyRing(again.Armoured); err != nil || len(list) != 1 || len(list[0].Subkeys) != 1 || list[0].PrivateKey != nil {
		t.Errorf("the library reads %d keys (%v)", len(list), err)
	}
	for _, name := range []string{"", "Example <x>", "a\nb", strings.Repeat("x", 41)} {
		if _, err := IssuePGP(t.Context(), s.keys, key, name, time.Now()); err == nil {
			t.Errorf("a public key of %q was issued", name)
		}
	}
	s.keys.Fail(errors.New("unplugged"))
	if _, err := IssuePGP(t.Context(), s.keys, key, "Example Corp", time.Now()); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("without an HSM: %v", err)
	}
}

func TestMessagesToAKeyInTheHSMAreOpenedWithoutAKeyGiven(t *testing.T) {
	s := newVaultShelf(t)
	v := newVendor(t, s.keys, 2)
	if _, err := v.run(nil, "--passphrase", "", "--quick-gen-key", "maker@example.com", "rsa2048", "sign,encr", "never"); err != nil {
		t.Fatal(err)
	}
	signer := v.make(t, "", "--armor", "--export", "maker@example.com")
	fresh, old := v.fingerprints[0], v.fingerprints[1]
	for name, c := range map[string]struct {
		args   []string
		o      Options
		subkey int // version that opens it
	}{
		"binary":             {[]string{"-e", "-r", fresh}, Options{}, 2},
		"armoured":           {[]string{"-a", "-e", "-r", fresh}, Options{}, 2},
		"signed":             {[]string{"-e", "-s", "-u", "maker@example.com", "-r", fresh}, Options{PGPSigner: signer}, 2},
		"of an older key":    {[]string{"-e", "-r", old}, Options{}, 1},
		"to several":         {[]string{"-e", "-r", "maker@example.com", "-r", old}, Options{}, 1},
		"not compressed":     {[]string{"-e", "-z", "0", "--cipher-algo", "AES", "-r", fresh}, Options{}, 2},
		"with a password":    {[]string{"-e", "-c", "--passphrase", "x", "-r", fresh}, Options{}, 2},
		"by an old cipher":   {[]string{"-e", "--cipher-algo", "3DES", "-r", fresh}, Options{}, 2},
		"by the user's name": {[]string{"-e", "-r", "Watchword seeds 1"}, Options{}, 1},
	} {
		s.have = map[string]bool{}
		r, err := s.take(c.o, v.make(t, manyTokens(50), c.args...))
		if err != nil || !r.Published || r.Created != 50 {
			t.Errorf("%s: %+v, %v", name, r, err)
			continue
		}
		if want := fmt.Sprintf("encrypted to a key in the HSM: version %d, subkey ", c.subkey); !strings.Contains(strings.Join(r.Notes, "\n"), want) {
			t.Errorf("%s: the notes do not say %q: %q", name, want, r.Notes)
		}
	}
	// Where a key that was given opens it, the HSM is not asked.
	private := v.make(t, "", "--passphrase", "", "--export-secret-keys", "maker@example.com")
	s.asked, s.have = 0, map[string]bool{}
	if r, err := s.take(Options{PGPKey: private}, v.make(t, manyTokens(5), "-e", "-r", "maker@example.com", "-r", fresh)); err != nil || r.Created != 5 || s.asked != 0 || strings.Contains(strings.Join(r.Notes, " "), "HSM") {
		t.Errorf("with a key given: %+v, %v; the HSM was asked %d times", r, err, s.asked)
	}
}

func TestMessagesThatTheHSMDoesNotOpen(t *testing.T) {
	s := newVaultShelf(t)
	v := newVendor(t, s.keys, 1)
	if _, err := v.run(nil, "--passphrase", "", "--quick-gen-key", "other@example.com", "rsa2048", "sign,encr", "never"); err != nil {
		t.Fatal(err)
	}
	file := manyTokens(50)
	good := v.make(t, file, "-e", "-r", v.fingerprints[0])
	altered, cut, tail := []byte(string(good)), good[:len(good)-30], []byte(string(good))
	altered[40] ^= 1 // of the session key
	tail[len(tail)-5] ^= 1
	for name, c := range map[string]struct {
		file []byte
		says string
		asks int
	}{
		"to another key":  {v.make(t, file, "-e", "-r", "other@example.com"), "this is a PGP message, but it is encrypted to key ", 0},
		"and says so":     {v.make(t, file, "-e", "-r", "other@example.com"), ", which is no key in the HSM; give the private key with --pgp-key-file", 0},
		"to a hidden key": {v.make(t, file, "-e", "--throw-keyids", "-r", v.fingerprints[0]), "only where they are named (gpg without --throw-keyids)", 0},
		"a wrong session": {altered, errPGPKey.Error(), 1},
		"cut off":         {cut, "cut off", 1},
		"altered":         {tail, "altered or damaged", 1},
	} {
		s.asked = 0
		_, err := s.take(Options{}, c.file)
		var bad *FileError
		if !errors.As(err, &bad) || !strings.Contains(bad.Reason, c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if s.asked != c.asks {
			t.Errorf("%s: the HSM was asked %d times", name, s.asked)
		}
	}
	// A fault of the HSM, or of who asks, is not the file's.
	s.keys.Fail(errors.New("unplugged"))
	var bad *FileError
	if _, err := s.take(Options{}, good); !errors.Is(err, tokens.ErrUnavailable) || errors.As(err, &bad) {
		t.Errorf("without an HSM: %v", err)
	}
	s.keys.Heal()
	s.denies = tokens.ErrForbidden
	if _, err := s.take(Options{}, good); err != tokens.ErrForbidden {
		t.Errorf("for one who may not import: %v", err)
	}
	s.denies = nil
	for i := range hsm.WrongAttempts + 1 {
		_, err := s.take(Options{}, altered)
		if i == hsm.WrongAttempts && (!errors.As(err, &bad) || !strings.Contains(bad.Reason, "this is a PGP message, but too much that is encrypted with RSA-1_5 could not be opened")) {
			t.Errorf("after the limit: %v", err)
		}
	}
	if s.open != 0 || s.batches != 0 || len(s.have) != 0 {
		t.Errorf("%d batches are open, %d published, %d tokens", s.open, s.batches, len(s.have))
	}
}

// Each packet with a session key costs an attempt if it is wrong: a message has one
// for each key.
func TestAKeyInTheHSMIsTriedOnceForAMessage(t *testing.T) {
	s := newVaultShelf(t)
	v := newVendor(t, s.keys, 1)
	good := v.make(t, manyTokens(5), "-e", "-r", v.fingerprints[0])
	first := &pgpPackets{r: newWindow(bytes.NewReader(good))}
	_, body, err := first.next()
	if err != nil {
		t.Fatal(err)
	}
	session := bytes.Clone(good[:3+int(body.left)])
	session[40] ^= 1
	_, err = s.take(Options{}, slices.Concat(session, session, session, good))
	var bad *FileError
	if !errors.As(err, &bad) || !strings.Contains(bad.Reason, errPGPKey.Error()) || s.asked != 1 {
		t.Errorf("with three wrong packets before the right one: %v; the HSM was asked %d times", err, s.asked)
	}
}

// signerOf remembers what it signs.
type signerOf struct {
	hsm.Signer
	digests [][]byte
}

func (s *signerOf) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	s.digests = append(s.digests, digest)
	return s.Signer.Sign(ctx, digest)
}

// What the audit key signs for a PGP key is two signatures over version 4 keys,
// and nothing that an audit checkpoint or a certificate could be.
func TestTheAuditKeySignsNothingButThePublicKey(t *testing.T) {
	s := newVaultShelf(t)
	newVendor(t, s.keys, 1)
	signer := &signerOf{Signer: s.keys}
	public, err := IssuePGP(t.Context(), signer, s.keys.PGPKeys()[0], "W", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	list, err := readKeyRing(public.Armoured)
	if err != nil {
		t.Fatal(err)
	}
	// The packets as they are, without the library: key, user id, signature, subkey,
	// signature.
	packets := &pgpPackets{r: newWindow(newArmourReader(bytes.NewReader(public.Armoured)))}
	var bodies [][]byte
	for _, want := range []int{6, 13, 2, 14, 2} {
		tag, body, err := packets.next()
		if err != nil || tag != want {
			t.Fatalf("packet %d, %v", tag, err)
		}
		all, err := body.all()
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, all)
	}
	key := func(body []byte) []byte { return append([]byte{0x99, byte(len(body) >> 8), byte(len(body))}, body...) }
	user := append([]byte{0xb4, 0, 0, 0, byte(len(bodies[1]))}, bodies[1]...)
	want := [][]byte{
		slices.Concat(key(bodies[0]), user, list[0].PrimaryIdentity().SelfSignature.HashSuffix),
		slices.Concat(key(bodies[0]), key(bodies[3]), list[0].Subkeys[0].Sig.HashSuffix),
	}
	if len(signer.digests) != len(want) {
		t.Fatalf("%d digests were signed", len(signer.digests))
	}
	for i, signed := range want {
		if sum := sha256.Sum256(signed); !bytes.Equal(sum[:], signer.digests[i]) {
			t.Errorf("signature %d is over something else than 0x99 and a version 4 key", i)
		}
	}
}
