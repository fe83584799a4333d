package seeds

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"watchword/tokens"
)

// The published messages: AEAD of RFC 9580, appendix A.9, and of the draft that
// GnuPG follows (draft-koch-openpgp-2015-rfc4880bis, appendices A.3 and A.4).
// Password and content are the same in all.
var pgpVectors = map[string]string{
	"RFC 9580, EAX": "c340061e07010b0308a5ae579d1fc5d82bff69224f919993b3506fa3b59a6a73cff8c5efc5f41c57fb54e1c226815d7828f5f92c454eb65ebe00ab5986c68e6e7c55d269020701069ff90e3b321964f3a42913c8dcc6619325015227efb7eaeaa49f04c2e674175d4a3d226ed6afcb9ca9ac122c1470e11c63d4c0ab241c6a938ad48bf99a5a99b90bba8325de61047540258ab7959a95ad051dda96eb15431dfef5f5e2255ca78261546e339a",
	"draft, EAX":    "c33e0507010308cd5a9f70fbe0bc6590bc669e34e500dcaedc5b32aa2dab02359dee19d07c3446c4312a34ae1967a2fb7e928ea5b4fa8012bd456d1738c63c36d44a0107010eb732379f73c4928de25facfe6517ec105dc11a81dc0cb8a2f6f3d90016384a56fc821ae11ae8dbcb49862655dea88d06a81486801b0ff387bd2eab013de1259586906eab2476",
	"draft, OCB":    "c33d05070203089f0b7da3e5ea64779099e326e5400a90936cefb4e8eba08c6773716d1f2714540a38fcac529949dac529d3de31e15b4aeb729e330033dbedd4490107020e5ed2bc1e470abe8f1d644c7a6c8a567b0f7701196611a154ba9c2574cd056284a8ef68035c623d93cc708a43211bb6eaf2b27f7c18d571bcd83b20add3a08b73af15b9a098",
}

// gnupg is a key ring of GnuPG's with the keys of a recipient, of another one,
// and of a signer.
type gnupg struct {
	home               string
	rsa, curve, locked []byte // private keys
	signer, stranger   []byte // public keys
}

var gnupgHome string // of the keys, once they were made

// The keys are made once: that takes a second.
var gnupgOnce = sync.OnceValues(func() (*gnupg, error) {
	home, err := os.MkdirTemp("", "gnupg")
	if err != nil {
		return nil, err
	}
	gnupgHome = home
	g := &gnupg{home: home}
	for _, args := range [][]string{
		{"--passphrase", "", "--quick-gen-key", "rsa@example.org", "rsa2048", "sign,encr", "never"},
		{"--passphrase", "", "--quick-gen-key", "curve@example.org", "future-default", "default", "never"},
		{"--passphrase", "open sesame", "--quick-gen-key", "locked@example.org", "future-default", "default", "never"},
		{"--passphrase", "", "--quick-gen-key", "signer@example.org", "ed25519", "sign", "never"},
		{"--passphrase", "", "--quick-gen-key", "stranger@example.org", "ed25519", "sign", "never"},
	} {
		if _, err := g.run(nil, args...); err != nil {
			return nil, err
		}
	}
	for name, to := range map[string]*[]byte{"rsa": &g.rsa, "curve": &g.curve, "locked": &g.locked} {
		if *to, err = g.run(nil, "--armor", "--passphrase", "open sesame", "--export-secret-keys", name+"@example.org"); err != nil {
			return nil, err
		}
	}
	if g.signer, err = g.run(nil, "--armor", "--export", "signer@example.org"); err != nil {
		return nil, err
	}
	g.stranger, err = g.run(nil, "--export", "stranger@example.org")
	return g, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if gnupgHome != "" {
		exec.Command("gpgconf", "--homedir", gnupgHome, "--kill", "gpg-agent").Run()
		os.RemoveAll(gnupgHome)
	}
	os.Exit(code)
}

func (g *gnupg) run(stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.Command("gpg", append([]string{"--homedir", g.home, "--batch", "--quiet", "--no-tty", "--yes", "--pinentry-mode", "loopback", "--trust-model", "always", "--s2k-count", "65536"}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("gpg (package gnupg) %q: %w: %s", args, err, errs.String())
	}
	return out.Bytes(), nil
}

func newGnuPG(t testing.TB) *gnupg {
	t.Helper()
	g, err := gnupgOnce()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// make writes a message of a file.
func (g *gnupg) make(t testing.TB, file string, args ...string) []byte {
	t.Helper()
	out, err := g.run([]byte(file), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMessagesOfGnuPGAreOpened(t *testing.T) {
	g := newGnuPG(t)
	const n = 3000
	file := manyTokens(n)
	for _, c := range []struct {
		name string
		args []string
		o    Options
		note string
	}{
		{"to an RSA key", []string{"-e", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"to an RSA key, armoured", []string{"-a", "-e", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"to a curve, armoured", []string{"-a", "-e", "-r", "curve@example.org"}, Options{PGPKey: g.curve}, ""},
		{"to several", []string{"-e", "-r", "locked@example.org", "-r", "rsa@example.org", "-r", "curve@example.org"}, Options{PGPKey: g.curve}, ""},
		{"to a hidden one", []string{"-e", "--throw-keyids", "-r", "rsa@example.org", "-r", "curve@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"to a key with a passphrase", []string{"-e", "-r", "locked@example.org"}, Options{PGPKey: g.locked, Password: []byte("open sesame\n")}, ""},
		{"by a password", []string{"-c", "--passphrase", "pässword"}, Options{Password: []byte("pässword")}, ""},
		{"by a password, without a session key", []string{"-a", "-c", "--s2k-mode", "1", "--cipher-algo", "AES", "--passphrase", "pässword"}, Options{Password: []byte("pässword")}, ""},
		{"by a password or a key", []string{"-c", "-e", "-r", "rsa@example.org", "--passphrase", "pw"}, Options{Password: []byte("pw")}, ""},
		{"by a password or a key, by the key", []string{"-c", "-e", "-r", "rsa@example.org", "--passphrase", "pw"}, Options{PGPKey: g.rsa}, ""},
		{"not compressed", []string{"-e", "-z", "0", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"ZIP", []string{"-e", "--compress-algo", "zip", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"ZLIB", []string{"-e", "--compress-algo", "zlib", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"3DES", []string{"-e", "--cipher-algo", "3DES", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"AES-192", []string{"-e", "--cipher-algo", "AES192", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"text", []string{"-e", "--textmode", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, ""},
		{"signed", []string{"-s", "-e", "-u", "signer@example.org", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa}, "the signature was not checked"},
		{"signed and checked", []string{"-s", "-e", "-u", "signer@example.org", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa, PGPSigner: g.signer}, "carries a good signature"},
		{"signed by two", []string{"-s", "-e", "-u", "signer@example.org", "-u", "rsa@example.org", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa, PGPSigner: g.signer}, "carries a good signature"},
		{"signed by two, the other way round", []string{"-s", "-e", "-u", "rsa@example.org", "-u", "signer@example.org", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa, PGPSigner: g.signer}, "carries a good signature"},
		{"signed as text", []string{"-s", "-e", "--textmode", "-u", "signer@example.org", "-r", "rsa@example.org"}, Options{PGPKey: g.rsa, PGPSigner: g.signer}, "carries a good signature"},
		{"signed, not encrypted", []string{"-s", "-u", "signer@example.org"}, Options{PGPSigner: g.signer}, "carries a good signature"},
		{"signed, not encrypted, armoured", []string{"-a", "-s", "-z", "0", "-u", "signer@example.org"}, Options{}, "the signature was not checked"},
		{"only wrapped", []string{"--store"}, Options{}, "not encrypted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			message := g.make(t, file, c.args...)
			r, err := importZip(t, message, c.o)
			sum := sha256.Sum256(message)
			if err != nil || r.Created != n || r.SHA256 != hex.EncodeToString(sum[:]) || r.Bytes != int64(len(message)) || !strings.HasSuffix(r.Detected, ", in a PGP message") {
				t.Fatalf("%+v, %v", r, err)
			}
			if got := strings.Join(r.Notes, " "); !strings.Contains(got, c.note) || (got == "") != (c.note == "") {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestMessagesThatAreRefused(t *testing.T) {
	g := newGnuPG(t)
	csv := manyTokens(10)
	encrypted := g.make(t, csv, "-e", "-r", "rsa@example.org")
	id := strings.Fields(string(g.make(t, "", "--list-keys", "--with-colons", "rsa@example.org")))
	var sub string
	for _, line := range id {
		if f := strings.Split(line, ":"); f[0] == "pub" {
			sub = f[4]
		}
	}
	costly := argon2Message(t, 1<<10) // begins with a packet of less than 192 bytes
	clear := "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + csv
	for _, c := range []struct {
		name    string
		message []byte
		o       Options
		says    string
	}{
		{"no key", encrypted, Options{}, "it is encrypted to key " + sub + "; give the private key with --pgp-key-file"},
		{"another key", encrypted, Options{PGPKey: g.curve}, "none of these is in the file given with --pgp-key-file"},
		{"a public key", encrypted, Options{PGPKey: g.signer}, "holds a public key"},
		{"no key at all", encrypted, Options{PGPKey: []byte("hello")}, "no PGP key that can be read"},
		{"no signer", encrypted, Options{PGPKey: g.rsa, PGPSigner: []byte("hello")}, "the file given with --pgp-signer-file"},
		{"passphrase missing", g.make(t, csv, "-e", "-r", "locked@example.org"), Options{PGPKey: g.locked}, "protected by a passphrase; give it with --password-file"},
		{"passphrase wrong", g.make(t, csv, "-e", "-r", "locked@example.org"), Options{PGPKey: g.locked, Password: []byte("x")}, "the passphrase of the private key is not the one"},
		{"password missing", g.make(t, csv, "-c", "--passphrase", "pw"), Options{}, "give it with --password-file"},
		{"password or key missing", g.make(t, csv, "-c", "-e", "-r", "rsa@example.org", "--passphrase", "pw"), Options{}, "or the password with --password-file"},
		{"password wrong", g.make(t, csv, "-c", "--passphrase", "pw"), Options{Password: []byte("wp")}, "is not the key or password given"},
		{"BZIP2", g.make(t, csv, "-e", "--compress-algo", "bzip2", "-r", "rsa@example.org"), Options{PGPKey: g.rsa}, "compressed with BZIP2"},
		{"CAST5", g.make(t, csv, "-e", "--cipher-algo", "CAST5", "-r", "rsa@example.org"), Options{PGPKey: g.rsa}, "a cipher (3) that is not read"},
		{"without MDC", g.make(t, csv, "-e", "--rfc2440", "-r", "rsa@example.org"), Options{PGPKey: g.rsa}, "without protection from alterations"},
		{"not signed", encrypted, Options{PGPKey: g.rsa, PGPSigner: g.signer}, "it is not signed"},
		{"signed by another", g.make(t, csv, "-s", "-e", "-u", "stranger@example.org", "-r", "rsa@example.org"), Options{PGPKey: g.rsa, PGPSigner: g.signer}, "carries no good signature"},
		{"signed with SHA-1", g.make(t, csv, "-s", "--digest-algo", "SHA1", "-u", "rsa@example.org"), Options{PGPSigner: g.make(t, "", "--export", "rsa@example.org")}, "carries no good signature"},
		{"signed in clear", []byte(clear), Options{}, "sign the file as a message"},
		{"a key", g.signer, Options{}, "a PGP key, and no message"},
		{"a signature", g.make(t, csv, "-a", "-b", "-u", "signer@example.org"), Options{}, "a PGP signature without the file"},
		{"nothing", []byte("-----BEGIN PGP MESSAGE-----\n\n"), Options{}, "breaks off"},
		{"armour", []byte("-----BEGIN PGP MESSAGE-----\n\n!!!!\n"), Options{}, "its armour (the lines between BEGIN and END) is damaged"},
		{"armour of long lines", []byte("-----BEGIN PGP MESSAGE-----\n\n" + strings.Repeat("A", 10000)), Options{}, "its armour"},
		{"no seed file", g.make(t, "hello", "-e", "-r", "rsa@example.org"), Options{PGPKey: g.rsa}, "in the PGP message: the format cannot be told"},
		{"a bomb", g.make(t, csv+strings.Repeat("\n", 8<<20), "-e", "-r", "rsa@example.org"), Options{PGPKey: g.rsa}, "unpacks to more"},
		{"costly password", argon2Message(t, 1<<20), Options{Password: []byte("pw")}, "more than 256 MB"},
		{"costly passwords", append(bytes.Repeat(costly[:2+costly[1]], maxStretched), costly...), Options{Password: []byte("wp")}, "by more than 4 passwords"},
		{"behind it", append(bytes.Clone(encrypted), 0xd5, 1, 0, 0xcb, 0), Options{PGPKey: g.rsa}, "something follows the file"},
	} {
		_, err := importZip(t, c.message, c.o)
		if err == nil || !strings.Contains(err.Error(), c.says) || !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v; want %s", c.name, err, c.says)
		}
	}
}

// Whatever byte of what is encrypted is changed, and wherever it is cut off, the
// whole message is refused, at its end at the latest.
func TestAlteredMessageIsRefused(t *testing.T) {
	g := newGnuPG(t)
	for _, args := range [][]string{
		{"-e", "-z", "0", "-r", "curve@example.org"},
		{"-e", "-r", "curve@example.org"},
		{"-s", "-e", "-z", "0", "-u", "signer@example.org", "-r", "curve@example.org"},
		{"-a", "-e", "-r", "curve@example.org"},
	} {
		message := g.make(t, manyTokens(20), args...)
		o := Options{PGPKey: g.curve, Partial: true, Format: "oath-csv"}
		if r, err := importZip(t, message, o); err != nil || r.Created != 20 {
			t.Fatalf("%q: %+v, %v", args, r, err)
		}
		for cut := 30; cut < len(message)-30; cut += 7 {
			if r, err := importZip(t, message[:cut], o); err == nil || !errors.Is(err, tokens.ErrInvalid) {
				t.Fatalf("%q: cut at %d: %+v, %v", args, cut, r, err)
			}
		}
		if args[0] == "-a" {
			continue
		}
		for i := 2; i < len(message); i++ {
			altered := bytes.Clone(message)
			altered[i] ^= 0x01
			// Of the session key's packet, some bytes say what others say too.
			if r, err := importZip(t, altered, o); err == nil && r.Published && (r.Created != 20 || i > 120) || err != nil && !errors.Is(err, tokens.ErrInvalid) {
				t.Fatalf("%q: byte %d of %d altered: %+v, %v", args, i, len(message), r, err)
			}
		}
	}
}

// argon2Message is encrypted by a password, at a price in KB.
func argon2Message(t *testing.T, memory uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := openpgp.SymmetricallyEncrypt(&b, []byte("pw"), nil, &packet.Config{DefaultCipher: packet.CipherAES256, S2KConfig: &s2k.Config{
		S2KMode: s2k.Argon2S2K, Argon2Config: &s2k.Argon2Config{NumberOfPasses: 1, DegreeOfParallelism: 1, Memory: memory},
	}})
	if err == nil {
		_, err = io.WriteString(w, manyTokens(10))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Messages of RFC 9580, which Debian 12's GnuPG does not write yet: in chunks
// that are protected each, to keys of version 6 too.
func TestMessagesInProtectedChunksAreOpened(t *testing.T) {
	const n = 5000
	file := manyTokens(n)
	for _, mode := range []packet.AEADMode{packet.AEADModeEAX, packet.AEADModeOCB, packet.AEADModeGCM} {
		for _, v6 := range []bool{false, true} {
			config := &packet.Config{
				V6Keys: v6, Algorithm: packet.PubKeyAlgoEd25519, DefaultCipher: packet.CipherAES256, DefaultCompressionAlgo: packet.CompressionZLIB,
				AEADConfig: &packet.AEADConfig{DefaultMode: mode, ChunkSize: 4096}, S2KConfig: &s2k.Config{S2KMode: s2k.IteratedSaltedS2K, S2KCount: 65536},
			}
			key, err := openpgp.NewEntity("a", "", "a@example.org", config)
			if err != nil {
				t.Fatal(err)
			}
			var private, public, toKey, byPassword bytes.Buffer
			if err := errors.Join(key.SerializePrivate(&private, nil), key.Serialize(&public)); err != nil {
				t.Fatal(err)
			}
			for out, encrypt := range map[*bytes.Buffer]func(io.Writer) (io.WriteCloser, error){
				&toKey: func(w io.Writer) (io.WriteCloser, error) {
					return openpgp.Encrypt(w, []*openpgp.Entity{key}, nil, []*openpgp.Entity{key}, nil, config)
				},
				&byPassword: func(w io.Writer) (io.WriteCloser, error) {
					return openpgp.SymmetricallyEncrypt(w, []byte("pw"), nil, config)
				},
			} {
				w, err := encrypt(out)
				if err == nil {
					_, err = io.WriteString(w, file)
				}
				if err == nil {
					err = w.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for message, o := range map[*bytes.Buffer]Options{&toKey: {PGPKey: private.Bytes(), PGPSigner: public.Bytes()}, &byPassword: {Password: []byte("pw")}} {
				r, err := importZip(t, message.Bytes(), o)
				if err != nil || r.Created != n {
					t.Fatalf("mode %d, version 6 %v: %+v, %v", mode, v6, r, err)
				}
				for i := 0; i < message.Len(); i += message.Len()/29 + 1 {
					altered := bytes.Clone(message.Bytes())
					altered[len(altered)-1-i] ^= 0x20
					if r, err := importZip(t, altered, o); err == nil && r.Published {
						t.Fatalf("mode %d, version 6 %v: byte %d from the end altered: %+v", mode, v6, i, r)
					}
				}
				for cut := message.Len() / 2; cut < message.Len(); cut += message.Len()/13 + 1 {
					if r, err := importZip(t, message.Bytes()[:cut], o); err == nil {
						t.Fatalf("mode %d, version 6 %v: cut at %d: %+v", mode, v6, cut, r)
					}
				}
			}
		}
	}
}

func TestPublishedMessagesAreOpened(t *testing.T) {
	for name, text := range pgpVectors {
		message, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		open := func(message []byte) ([]byte, error) {
			c, _, _, err := openContent(bytes.NewReader(message), "oath-csv", &OpenOptions{Password: []byte("password"), Now: time.Now()})
			if err != nil {
				return nil, err
			}
			defer c.Close()
			return io.ReadAll(c)
		}
		got, err := open(message)
		if err != nil || strings.TrimSpace(string(got)) != "Hello, world!" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		for i := 0; i < len(message); i += 19 {
			message[i] ^= 1
			if again, err := open(message); err == nil && !bytes.Equal(again, got) && isPGPBinary(message) {
				t.Errorf("%s: byte %d altered: %q", name, i, again)
			}
			message[i] ^= 1
		}
	}
	if c, _, _, err := openContent(bytes.NewReader(argon2Message(t, 1<<10)), "", &OpenOptions{Password: []byte("pw")}); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

// A message in an archive, and an archive in a message.
func TestContainersWithinEachOther(t *testing.T) {
	g := newGnuPG(t)
	password := Options{Password: []byte("pw")}
	inner := g.make(t, manyTokens(50), "-a", "-c", "--passphrase", "pw")
	archive := packed(t, map[string]string{"seeds.csv.asc": string(inner)}, "7zz", "a", "-tzip", "-mem=AES256", "-ppw", "a.zip", "seeds.csv.asc")
	r, err := importZip(t, archive, password)
	if err != nil || r.Created != 50 || !strings.HasSuffix(r.Detected, ", in a PGP message, in a zip archive") {
		t.Errorf("%+v, %v", r, err)
	}
	message := g.make(t, string(packed(t, map[string]string{"seeds.csv": manyTokens(50)}, "zip", "a.zip", "seeds.csv")), "-c", "--passphrase", "pw")
	if r, err = importZip(t, message, password); err != nil || r.Created != 50 || !strings.HasSuffix(r.Detected, ", in a zip archive, in a PGP message") || len(r.Notes) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	bad := g.make(t, string(packed(t, map[string]string{"a": "", "b": "x"}, "zip", "a.zip", "a", "b")), "-c", "--passphrase", "pw")
	if _, err := importZip(t, bad, password); err == nil || !strings.Contains(err.Error(), "in the PGP message: this is a zip archive, but there are several files") {
		t.Error(err)
	}
}

func FuzzPGP(f *testing.F) {
	for _, text := range pgpVectors {
		message, _ := hex.DecodeString(text)
		f.Add(message)
	}
	for _, name := range []string{"literal", "compressed", "signed"} {
		f.Add(pgpSamples[name])
	}
	f.Add([]byte("-----BEGIN PGP MESSAGE-----\n\ny0FiAAAAAAA=\n=abcd\n-----END PGP MESSAGE-----\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		in := meter(t, message)
		c, _, _, err := openContent(in, "oath-csv", &OpenOptions{Password: []byte("password"), Now: time.Unix(1_800_000_000, 0)})
		if err == nil {
			defer c.Close()
		}
		for err == nil {
			_, err = c.Read(make([]byte, 512))
		}
		if err != io.EOF && !errors.Is(err, tokens.ErrInvalid) {
			t.Fatal(err)
		}
	})
}

// pgpSamples are messages with one token: gpg --store with and without
// compression, and a packet that announces a signature before it.
var pgpSamples = map[string][]byte{
	"literal":    pgpLiteralPacket(),
	"compressed": append([]byte{0xa3, 0}, pgpLiteralPacket()...),
	"signed":     append([]byte{0xc4, 13, 3, 0, 8, 22, 1, 2, 3, 4, 5, 6, 7, 8, 1}, pgpLiteralPacket()...),
}

func pgpLiteralPacket() []byte {
	text := csvOf("A1")
	return append([]byte{0xcb, byte(len(text) + 6), 'b', 0, 0, 0, 0, 0}, text...)
}
