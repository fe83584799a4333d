package seeds

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"watchword/tokens"
)

// packed makes an archive of files in a folder of its own by a program of
// Debian's (packages zip, 7zip); names end in / for folders.
func packed(t *testing.T, files map[string]string, name string, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	for file, text := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "/") {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s (packages zip, 7zip): %v\n%s", name, err, out)
	}
	archive, err := os.ReadFile(filepath.Join(dir, "a.zip"))
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// manyTokens is a file that compresses, longer than any buffer.
func manyTokens(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "A%05d,%s,totp\n", i, rfcSeed)
	}
	return b.String()
}

// importZip imports an archive, and checks that nothing is left where it fails.
func importZip(t *testing.T, archive []byte, o Options) (*Report, error) {
	t.Helper()
	s := newShelf(t)
	s.seed, _ = hex.DecodeString(rfcSeed)
	r, err := NewImporter(s).Import(t.Context(), admin, o, bytes.NewReader(archive))
	if err != nil && len(s.have) > 0 {
		t.Errorf("%v, but %d tokens are there", err, len(s.have))
	}
	return r, err
}

func TestZipArchivesOfOtherProgramsAreOpened(t *testing.T) {
	const n = 5000
	files := map[string]string{"shipment/seeds.csv": manyTokens(n)}
	password := []byte("pass word 1\n")
	for _, c := range []struct {
		name string
		args []string
		note string
	}{
		{"zip", []string{"zip", "-r", "a.zip", "shipment"}, "not encrypted"},
		{"zip, stored", []string{"zip", "-0", "-D", "-r", "a.zip", "shipment"}, "not encrypted"},
		{"zip, as a stream", []string{"sh", "-c", "zip - shipment/seeds.csv | cat > a.zip"}, "not encrypted"},
		{"zip, from a stream", []string{"sh", "-c", "cat shipment/seeds.csv | zip a.zip -"}, "not encrypted"},
		{"zip with password", []string{"zip", "-P", "pass word 1", "-r", "a.zip", "shipment"}, "ZipCrypto"},
		{"zip with password, stored", []string{"zip", "-0", "-P", "pass word 1", "-r", "a.zip", "shipment"}, "ZipCrypto"},
		{"zip with password, as a stream", []string{"sh", "-c", "zip -P 'pass word 1' - shipment/seeds.csv | cat > a.zip"}, "ZipCrypto"},
		{"7-Zip", []string{"7zz", "a", "-tzip", "a.zip", "shipment"}, "not encrypted"},
		{"7-Zip, ZipCrypto", []string{"7zz", "a", "-tzip", "-mem=ZipCrypto", "-ppass word 1", "a.zip", "shipment"}, "ZipCrypto"},
		{"7-Zip, AES-128", []string{"7zz", "a", "-tzip", "-mem=AES128", "-ppass word 1", "a.zip", "shipment"}, ""},
		{"7-Zip, AES-192", []string{"7zz", "a", "-tzip", "-mem=AES192", "-ppass word 1", "a.zip", "shipment"}, ""},
		{"7-Zip, AES-256", []string{"7zz", "a", "-tzip", "-mem=AES256", "-ppass word 1", "a.zip", "shipment"}, ""},
		{"7-Zip, AES-256, stored", []string{"7zz", "a", "-tzip", "-mx0", "-mem=AES256", "-ppass word 1", "a.zip", "shipment"}, ""},
		{"7-Zip, AES-256, as a stream", []string{"sh", "-c", "7zz a -tzip -mem=AES256 '-ppass word 1' -so x shipment > a.zip"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			archive := packed(t, files, c.args[0], c.args[1:]...)
			r, err := importZip(t, archive, Options{Password: password})
			sum := sha256.Sum256(archive)
			if err != nil || r.Created != n || r.SHA256 != hex.EncodeToString(sum[:]) || r.Bytes != int64(len(archive)) ||
				r.Format != "oath-csv" || !strings.HasSuffix(r.Detected, ", in a zip archive") {
				t.Fatalf("%+v, %v", r, err)
			}
			if got := strings.Join(r.Notes, ""); !strings.Contains(got, c.note) || (got == "") != (c.note == "") {
				t.Errorf("%q", got)
			}
			if c.note == "not encrypted" {
				return
			}
			if _, err := importZip(t, archive, Options{}); err == nil || !strings.Contains(err.Error(), "give it with --password-file") {
				t.Errorf("without the password: %v", err)
			}
			if _, err := importZip(t, archive, Options{Password: []byte("wrong")}); err == nil || !strings.Contains(err.Error(), "the password is") || !errors.Is(err, tokens.ErrInvalid) {
				t.Errorf("with another password: %v", err)
			}
		})
	}
}

// Whatever byte is changed, and wherever it is cut off, an archive of the
// strongest kind yields the right tokens or none.
func TestAlteredZipArchiveIsRefused(t *testing.T) {
	for _, args := range [][]string{
		{"7zz", "a", "-tzip", "-mem=AES256", "-psecret", "a.zip", "seeds.csv"},
		{"zip", "-P", "secret", "a.zip", "seeds.csv"},
		{"zip", "a.zip", "seeds.csv"},
	} {
		archive := packed(t, map[string]string{"seeds.csv": manyTokens(20)}, args[0], args[1:]...)
		o := Options{Password: []byte("secret"), Partial: true, Format: "oath-csv"}
		if r, err := importZip(t, archive, o); err != nil || r.Created != 20 {
			t.Fatalf("%s: %+v, %v", args, r, err)
		}
		for cut := 1; cut < len(archive); cut++ {
			if r, err := importZip(t, archive[:cut], o); err == nil && (r.Published || cut > 3) || err != nil && !errors.Is(err, tokens.ErrInvalid) {
				t.Fatalf("%s: cut at %d: %+v, %v", args, cut, r, err)
			}
		}
		accepted := 0
		for i := range archive {
			altered := bytes.Clone(archive)
			altered[i] ^= 0x11
			r, err := importZip(t, altered, o)
			if err == nil && r.Created != 20 && i > 3 {
				t.Fatalf("%s: byte %d altered: %+v", args, i, r)
			}
			if err == nil && r.Created > 0 {
				accepted++
			}
		}
		// Times, versions and attributes are free.
		if accepted > 100 {
			t.Errorf("%s: %d of %d bytes may be altered", args, accepted, len(archive))
		}
	}
}

func TestZipArchivesThatAreRefused(t *testing.T) {
	csv := manyTokens(10)
	goZip := func(make func(w *zip.Writer)) []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		make(w)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	add := func(w *zip.Writer, h *zip.FileHeader, text string) {
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(f, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	good := goZip(func(w *zip.Writer) { add(w, &zip.FileHeader{Name: "seeds.csv", Method: zip.Deflate}, csv) })
	if r, err := importZip(t, good, Options{}); err != nil || r.Created != 10 {
		t.Fatalf("%+v, %v", r, err)
	}
	link := &zip.FileHeader{Name: "seeds.csv", Method: zip.Deflate}
	link.SetMode(os.ModeSymlink | 0o777)
	many := map[string]string{}
	for i := range 12 {
		many[fmt.Sprintf("f%02d.csv", i)] = csv
	}
	for _, c := range []struct {
		name    string
		archive []byte
		says    string
	}{
		{"empty", goZip(func(*zip.Writer) {}), "a zip archive with nothing in it"},
		{"a folder", packed(t, map[string]string{"x/": ""}, "zip", "-r", "a.zip", "x"), "there is no file in it"},
		{"two files", packed(t, map[string]string{"readme.txt": "hello", "seeds.csv": csv}, "zip", "a.zip", "readme.txt", "seeds.csv"), `there are several files in it ("readme.txt", "seeds.csv")`},
		{"two files, the other first", packed(t, map[string]string{"readme.txt": "hello", "seeds.csv": csv}, "zip", "a.zip", "seeds.csv", "readme.txt"), `there are several files in it ("seeds.csv", "readme.txt")`},
		{"many files", packed(t, many, "7zz", "a", "-tzip", "a.zip", "."), `"f09.csv", 2 more)`},
		{"two files as a stream", goZip(func(w *zip.Writer) {
			add(w, &zip.FileHeader{Name: "a", Method: zip.Deflate}, csv)
			add(w, &zip.FileHeader{Name: "b", Method: zip.Deflate}, csv)
		}), `("a", "b", and maybe more)`},
		{"stored as a stream", goZip(func(w *zip.Writer) { add(w, &zip.FileHeader{Name: "a", Method: zip.Store}, csv) }), "packed as a stream without compression"},
		{"a link", goZip(func(w *zip.Writer) { add(w, link, csv) }), "is a link"},
		{"something behind it", append(bytes.Clone(good), 0), "something follows its end"},
		{"split", append([]byte("PK\x07\x08"), good...), "was split"},
		{"7-Zip's own", packed(t, map[string]string{"seeds.csv": csv}, "7zz", "a", "-t7z", "a.zip", "seeds.csv"), "pack the file as .zip"},
		{"another compression", packed(t, map[string]string{"seeds.csv": csv}, "7zz", "a", "-tzip", "-mm=LZMA", "a.zip", "seeds.csv"), "compressed with method 14"},
		{"no seed file", goZip(func(w *zip.Writer) { add(w, &zip.FileHeader{Name: "a", Method: zip.Deflate}, "hello") }), "in the zip archive: the format cannot be told"},
		{"a zip bomb", goZip(func(w *zip.Writer) {
			add(w, &zip.FileHeader{Name: "a", Method: zip.Deflate}, csv+strings.Repeat("\n", 8<<20))
		}), "unpacks to more than a seed file may have"},
		{"a name of its own in the directory", bytes.Replace(good, []byte("seeds.csv"), []byte("other.csv"), 1), "does not say the same of the file"},
		{"too deep", nested(goZip, add, csv, 4), "more than 3 containers"},
	} {
		_, err := importZip(t, c.archive, Options{Partial: true, Password: []byte("x")})
		if err == nil || !strings.Contains(err.Error(), c.says) || !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v; want %s", c.name, err, c.says)
		}
	}
	if r, err := importZip(t, nested(goZip, add, csv, 3), Options{}); err != nil || r.Created != 10 || !strings.HasSuffix(r.Detected, ", in a zip archive, in a zip archive, in a zip archive") {
		t.Errorf("%+v, %v", r, err)
	}
}

// nested is a file in so many archives within each other.
func nested(goZip func(func(*zip.Writer)) []byte, add func(*zip.Writer, *zip.FileHeader, string), text string, depth int) []byte {
	for range depth {
		text = string(goZip(func(w *zip.Writer) { add(w, &zip.FileHeader{Name: "a", Method: zip.Deflate}, text) }))
	}
	return []byte(text)
}

// The window that a decompressor keeps is written over.
func TestInflaterForgetsWhatItUnpacked(t *testing.T) {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	io.WriteString(w, manyTokens(2000))
	w.Close()
	i := newInflater(bytes.NewReader(b.Bytes()))
	if n, err := io.Copy(io.Discard, i); err != nil || n != int64(len(manyTokens(2000))) {
		t.Fatal(n, err)
	}
	if !strings.Contains(fmt.Sprintf("%s", i.z), rfcSeed) {
		t.Fatal("the window is not where it was looked for")
	}
	i.wipe()
	if text := fmt.Sprintf("%s", i.z); strings.Contains(text, rfcSeed[:12]) {
		t.Error("the decompressor holds a seed")
	}
}

func FuzzZip(f *testing.F) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	file, _ := w.Create("a.csv")
	io.WriteString(file, csvOf("A1"))
	w.Close()
	f.Add(b.Bytes())
	b.Reset()
	w = zip.NewWriter(&b)
	text := csvOf("A1")
	file, _ = w.CreateRaw(&zip.FileHeader{Name: "a.csv", CRC32: crc32.ChecksumIEEE([]byte(text)), CompressedSize64: uint64(len(text)), UncompressedSize64: uint64(len(text))})
	io.WriteString(file, text)
	w.Close()
	f.Add(b.Bytes())
	// Encrypted by Info-ZIP and 7-Zip, password "x".
	for _, archive := range []string{zipCryptoSample, zipAESSample} {
		raw, err := hex.DecodeString(archive)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		in := meter(t, archive)
		c, _, _, err := openContent(in, "oath-csv", &OpenOptions{Password: []byte("x")})
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

// Archives of a.csv with one token, password x: made by zip -P x, and by 7zz a
// -tzip -mem=AES256 -px.
const (
	zipCryptoSample = "504b0304140009000800ce09765daceb4712280000002c00000005000000612e63737678fe7a3823f21e62373e0ce3a78fcff50d5d6c47f6e6107f856fc817015404d26f1d9de979f832e6504b0708aceb4712280000002c000000504b01021e03140009000800ce09765daceb4712280000002c000000050000000000000001000000a48100000000612e637376504b05060000000001000100330000005b0000000000"
	zipAESSample    = "504b0304330001006300ce09765d000000003c0000002c00000005000b00612e6373760199070002004145030800891f612ae30474916520a69de81d2519e2615732ef3369089a5cff349f6120672c4aefea316a48536aa057d502463a78ea03eed779d53e3f75e38164504b01023f03330001006300ce09765d000000003c0000002c00000005002f000000000000002080a48100000000612e6373760a0020000000000001001800c4a0a3d11e7add01000000000000000000000000000000000199070002004145030800504b05060000000001000100620000006a0000000000"
)

// ZipCrypto has one byte by which a wrong password shows at once.
func TestAWrongPasswordThatPassesTheCheckOfAnArchiveIsCalledWrong(t *testing.T) {
	archive := packed(t, map[string]string{"shipment": manyTokens(40)}, "zip", "-P", "right", "a.zip", "shipment")
	late := 0
	for i := range 2000 {
		_, err := importZip(t, archive, Options{Password: []byte(fmt.Sprint("wrong", i))})
		if err == nil || !strings.Contains(err.Error(), "the password is") {
			t.Fatalf("password %d: %v", i, err)
		}
		if !strings.Contains(err.Error(), errZipPassword.Error()) {
			late++
		}
	}
	if late == 0 {
		t.Error("none passed the check: the test shows nothing")
	}
}
