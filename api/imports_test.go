package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"watchword/seeds"
	"watchword/tokens"
)

// part is one part of a multipart body.
type part struct{ name, content string }

func form(t testing.TB, parts ...part) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		var to io.Writer
		var err error
		if p.name == "file" {
			to, err = w.CreateFormFile(p.name, "shipment.csv")
		} else {
			to, err = w.CreateFormField(p.name)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(to, p.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.String()
}

// reader is a core whose importer keeps the file, and whether it was published.
func reader(file *string) *scripted {
	return &scripted{importing: func(_ context.Context, o seeds.Options, r io.Reader) (*seeds.Report, error) {
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		*file = string(b)
		return &seeds.Report{Published: true, Batch: 1, Created: 1}, nil
	}}
}

func TestImportTakesTheFileAsBody(t *testing.T) {
	var file string
	core := reader(&file)
	w := do(newServer(t, core).Handler(), "POST", "/v1/imports?realm=corp&format=oath-csv&partial=true&dry_run=true&all=true&name=s.csv", "A1,00", "Content-Type", "application/octet-stream")
	if w.Code != 200 || file != "A1,00" {
		t.Fatalf("%d %s, file %q", w.Code, w.Body, file)
	}
	o := core.arg.(seeds.Options)
	if o.Realm != "corp" || o.Format != "oath-csv" || !o.Partial || !o.DryRun || !o.All || o.Name != "s.csv" {
		t.Errorf("%+v", o)
	}
}

func TestImportTakesSecretsBeforeTheFile(t *testing.T) {
	for _, tt := range []struct {
		parts         []part
		psk, password string
	}{
		{[]part{{"file", "A1,00"}}, "", ""},
		{[]part{{"psk", "00112233445566778899aabbccddeeff\n"}, {"file", "A1,00"}}, "00112233445566778899aabbccddeeff\n", ""},
		{[]part{{"password", "qwerty"}, {"file", "A1,00"}}, "", "qwerty"},
		{[]part{{"password", "qwerty"}, {"psk", "k"}, {"file", "A1,00"}}, "k", "qwerty"},
	} {
		var file string
		core := reader(&file)
		contentType, body := form(t, tt.parts...)
		w := do(newServer(t, core).Handler(), "POST", "/v1/imports", body, "Content-Type", contentType)
		if w.Code != 200 || file != "A1,00" {
			t.Fatalf("%v: %d %s, file %q", tt.parts, w.Code, w.Body, file)
		}
		o := core.arg.(seeds.Options)
		if string(o.PSK) != tt.psk || string(o.Password) != tt.password || o.Name != "shipment.csv" {
			t.Errorf("%v: %+v", tt.parts, o)
		}
		if (tt.psk == "") != (len(o.PSK) == 0) {
			t.Errorf("%v: %+v", tt.parts, o)
		}
	}
}

func TestImportTakesKeysAndCertificatesBeforeTheFile(t *testing.T) {
	var file string
	core := reader(&file)
	long := strings.Repeat("k", 20<<10)
	contentType, body := form(t, part{"signer", "cert"}, part{"pgp_key", long}, part{"password", "phrase"}, part{"pgp_signer", "public"}, part{"file", "A1,00"})
	w := do(newServer(t, core).Handler(), "POST", "/v1/imports", body, "Content-Type", contentType)
	if w.Code != 200 || file != "A1,00" {
		t.Fatalf("%d %s, file %q", w.Code, w.Body, file)
	}
	o := core.arg.(seeds.Options)
	if string(o.Signer) != "cert" || string(o.PGPSigner) != "public" || string(o.PGPKey) != long || string(o.Password) != "phrase" || len(o.PSK) > 0 {
		t.Errorf("%+v", o)
	}
	// The secret ones are wiped.
	up := &upload{psk: []byte("a"), password: []byte("b"), pgpKey: []byte("c")}
	up.wipe()
	if kept := string(up.psk) + string(up.password) + string(up.pgpKey); kept != "\x00\x00\x00" {
		t.Errorf("%q is kept", kept)
	}
}

func TestImportTakesWhatIsChosen(t *testing.T) {
	var file string
	core := reader(&file)
	w := do(newServer(t, core).Handler(), "POST", "/v1/imports?type=hotp&hash=sha512&digits=8&period=60&encoding=hex&time_origin=1970-01-01T00:00:00Z&allow_rsa_1_5=true&allow_host_unwrap=true&assign=true&create_users=true", "A1,00", "Content-Type", "application/octet-stream")
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	o := core.arg.(seeds.Options)
	if c := o.Choices; c.Type != tokens.HOTP || c.Hash.String() != "sha512" || c.Digits != 8 || c.Period != 60 || c.Encoding != seeds.Hex || c.TimeOrigin.Unix() != 0 || c.TimeOrigin.IsZero() {
		t.Errorf("%+v", c)
	}
	if !o.AllowRSA15 || !o.AllowHost || !o.Assign || !o.Create {
		t.Errorf("%+v", o)
	}
	core = reader(&file)
	if w := do(newServer(t, core).Handler(), "POST", "/v1/imports", "A1,00", "Content-Type", "application/octet-stream"); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if o := core.arg.(seeds.Options); o.Choices != (seeds.Choices{}) || o.AllowRSA15 || o.AllowHost || o.Assign || o.Create {
		t.Errorf("nothing was chosen: %+v", o)
	}
}

func TestBadMultipartBodiesAreRefused(t *testing.T) {
	_, whole := form(t, part{"file", strings.Repeat("A1,00\n", 1000)})
	for _, tt := range []struct {
		name  string
		parts []part
		raw   string
		says  string
	}{
		{"secret behind the file", []part{{"file", "A1,00"}, {"psk", "k"}}, "", "must stand before the part file"},
		{"password behind the file", []part{{"psk", "k"}, {"file", "A1,00"}, {"password", "k"}}, "", "must stand before the part file"},
		{"two files", []part{{"file", "A1,00"}, {"file", "A2,00"}}, "", "must be the last"},
		{"no file", []part{{"psk", "k"}}, "", "no part named file"},
		{"no part", nil, "", "no part named file"},
		{"unknown part", []part{{"pin", "k"}, {"file", "A1,00"}}, "", "unknown part"},
		{"secret twice", []part{{"psk", "k"}, {"psk", "l"}, {"file", "A1,00"}}, "", "psk stands there twice"},
		{"empty secret", []part{{"psk", ""}, {"file", "A1,00"}}, "", "psk is empty"},
		{"huge secret", []part{{"password", strings.Repeat("k", maxPassword+1)}, {"file", "A1,00"}}, "", "larger than 4096 bytes"},
		{"broken off", nil, whole[:len(whole)/2], "broke off"},
		{"broken off in its end", nil, whole[:len(whole)-4], "broke off"},
		{"not multipart", nil, "A1,00", "broke off or is malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var file string
			contentType, body := form(t, tt.parts...)
			if tt.raw != "" {
				body = tt.raw
				boundary, _, _ := strings.Cut(strings.TrimPrefix(body, "--"), "\r\n")
				if boundary == body {
					boundary = "none"
				}
				contentType = "multipart/form-data; boundary=" + boundary
			}
			w := do(newServer(t, reader(&file)).Handler(), "POST", "/v1/imports", body, "Content-Type", contentType)
			if p := problemOf(t, w); w.Code != 400 || !strings.Contains(detail(p), tt.says) || strings.Contains(detail(p), "invalid input") {
				t.Errorf("%d %s; want %q", w.Code, w.Body, tt.says)
			}
			if file != "" {
				t.Errorf("the importer took it for whole: %q", file)
			}
		})
	}
}

// An importer that gives up at the file's beginning, for want of a key, does
// not hide that the key stands behind the file.
func TestKeyBehindTheFileIsNamedWhenItIsMissed(t *testing.T) {
	core := &scripted{importing: func(_ context.Context, o seeds.Options, r io.Reader) (*seeds.Report, error) {
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: the file is encrypted and needs a key", tokens.ErrInvalid)
	}}
	h := newServer(t, core).Handler()
	contentType, body := form(t, part{"file", strings.Repeat("<Encrypted/>", 10000)}, part{"psk", "k"})
	w := do(h, "POST", "/v1/imports", body, "Content-Type", contentType)
	if p := problemOf(t, w); w.Code != 400 || !strings.Contains(detail(p), "must stand before") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	contentType, body = form(t, part{"file", strings.Repeat("<Encrypted/>", 10000)})
	w = do(h, "POST", "/v1/imports", body, "Content-Type", contentType)
	if p := problemOf(t, w); w.Code != 400 || !strings.Contains(detail(p), "needs a key") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// countdown gives n bytes of nothing in particular and keeps none of them.
type countdown struct{ n int64 }

func (c *countdown) Read(p []byte) (int, error) {
	if c.n == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.n, 64<<10)]
	for i := range p {
		p[i] = "0123456789abcdef,\n"[i%18]
	}
	c.n -= int64(len(p))
	return len(p), nil
}

// watchHeap answers the most that the heap held above its level at the start,
// while f ran.
func watchHeap(f func()) uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, most := m.HeapAlloc, uint64(0)
	done := make(chan struct{})
	go func() { f(); close(done) }()
	for {
		select {
		case <-done:
			return most
		case <-time.After(5 * time.Millisecond):
			runtime.ReadMemStats(&m)
			if m.HeapAlloc > before {
				most = max(most, m.HeapAlloc-before)
			}
		}
	}
}

func TestImportIsNeitherHeldInMemoryNorSpooled(t *testing.T) {
	const size = 96 << 20
	spool := t.TempDir()
	t.Setenv("TMPDIR", spool)
	var got atomic.Int64
	core := &scripted{importing: func(_ context.Context, _ seeds.Options, r io.Reader) (*seeds.Report, error) {
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			got.Add(int64(n))
			if got.Load()%(16<<20) < int64(n) {
				if left, _ := os.ReadDir(spool); len(left) > 0 {
					return nil, fmt.Errorf("there is a spool file: %v", left)
				}
			}
			if err == io.EOF {
				return &seeds.Report{Published: true, Batch: 1}, nil
			}
			if err != nil {
				return nil, err
			}
		}
	}}
	server := httptest.NewServer(newServer(t, core).Handler())
	defer server.Close()
	head := "--b\r\nContent-Disposition: form-data; name=\"psk\"\r\n\r\nk\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n"
	for contentType, body := range map[string]io.Reader{
		"application/octet-stream":        &countdown{size},
		"multipart/form-data; boundary=b": io.MultiReader(strings.NewReader(head), &countdown{size}, strings.NewReader("\r\n--b--\r\n")),
	} {
		got.Store(0)
		held := watchHeap(func() {
			r, err := http.NewRequest("POST", server.URL+"/v1/imports", body)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Content-Type", contentType)
			r.Header.Set("Authorization", "Bearer "+testKey)
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			if text, _ := io.ReadAll(answer.Body); answer.StatusCode != 200 {
				t.Errorf("%s: %d %s", contentType, answer.StatusCode, text)
			}
		})
		if got.Load() != size {
			t.Errorf("%s: %d of %d bytes arrived", contentType, got.Load(), size)
		}
		if held > 24<<20 {
			t.Errorf("%s: %d MB held for an import of %d MB", contentType, held>>20, size>>20)
		}
	}
}

// dial opens a connection to a served server and sends text.
func dial(t *testing.T, addr, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

func importHead(length int) string {
	return fmt.Sprintf("POST /v1/imports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", testKey, length)
}

// A slow upload and a slow importer outlast every timeout of other requests; an
// upload that stands still does not.
func TestSlowImportsAreNotCutOff(t *testing.T) {
	var file string
	core := reader(&file)
	read := core.importing
	core.importing = func(ctx context.Context, o seeds.Options, r io.Reader) (*seeds.Report, error) {
		report, err := read(ctx, o, r)
		if err == nil {
			time.Sleep(600 * time.Millisecond)
			err = ctx.Err()
		}
		return report, err
	}
	addr := serve(t, newServer(t, core, func(c *Config) { c.Timeout = 100 * time.Millisecond; c.Stall = 400 * time.Millisecond }))

	conn := dial(t, addr, importHead(6))
	for _, b := range []string{"A", "1", ",", "0", "0", "\n"} {
		time.Sleep(150 * time.Millisecond)
		if _, err := io.WriteString(conn, b); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") || file != "A1,00\n" {
		t.Errorf("%v %s, file %q", err, answer, file)
	}

	file = ""
	started := time.Now()
	conn = dial(t, addr, importHead(6)+"A1")
	if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), "stood still for 400ms") || file != "" {
		t.Errorf("%v %s, file %q", err, answer, file)
	}
	if took := time.Since(started); took < 400*time.Millisecond || took > 5*time.Second {
		t.Errorf("given up after %v", took)
	}
}

func TestUploadThatBreaksOffIsNotImported(t *testing.T) {
	ended := make(chan error, 1)
	core := &scripted{importing: func(_ context.Context, _ seeds.Options, r io.Reader) (*seeds.Report, error) {
		buf := make([]byte, 8192)
		_, err := io.ReadFull(r, buf) // as an importer does that looks at the beginning
		ended <- err
		return nil, err
	}}
	addr := serve(t, newServer(t, core))
	dial(t, addr, importHead(1000)+"A1,00").Close()
	select {
	case err := <-ended:
		if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF || !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("the importer was told %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the importer was told nothing")
	}
}

// A large file that is refused at its beginning still gets its answer through.
func TestRefusalOfALargeFileReachesTheClient(t *testing.T) {
	core := &scripted{importing: func(_ context.Context, _ seeds.Options, r io.Reader) (*seeds.Report, error) {
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: line 1: this is no seed file", tokens.ErrInvalid)
	}}
	addr := serve(t, newServer(t, core))
	for range 5 {
		r, err := http.NewRequest("POST", "http://"+addr+"/v1/imports", &countdown{64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/octet-stream")
		r.Header.Set("Authorization", "Bearer "+testKey)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var p Problem
		err = json.NewDecoder(answer.Body).Decode(&p)
		answer.Body.Close()
		if err != nil || answer.StatusCode != 400 || detail(p) != "line 1: this is no seed file" {
			t.Errorf("%v %d %+v", err, answer.StatusCode, p)
		}
	}
}

// FuzzMultipart: whatever a body is, the importer gets the file and its secrets
// as mime/multipart reads them from the whole, or the request is refused.
func FuzzMultipart(f *testing.F) {
	add := func(parts ...part) {
		_, body := form(f, parts...)
		boundary, _, _ := strings.Cut(strings.TrimPrefix(body, "--"), "\r\n")
		f.Add([]byte(strings.ReplaceAll(body, boundary, "b")))
	}
	add(part{"file", "A1,00"})
	add(part{"psk", "k"}, part{"file", "A1,00"})
	add(part{"file", "A1,00"}, part{"psk", "k"})
	add(part{"pgp_key", "k"}, part{"pgp_signer", "s"}, part{"signer", "c"}, part{"file", "A1,00"})
	add(part{"password", "p"}, part{"psk", "k"}, part{"file", "--b\r\n"})
	f.Add([]byte("--b--\r\n"))
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name=file\r\n\r\nA\r\n--b"))
	f.Fuzz(func(t *testing.T, body []byte) {
		var file string
		core := reader(&file)
		w := do(newServer(t, core).Handler(), "POST", "/v1/imports", string(body)+" ", "Content-Type", "multipart/form-data; boundary=b")
		if w.Code != 200 {
			if w.Code != 400 || file != "" {
				t.Fatalf("%q: %d %s, file %q", body, w.Code, w.Body, file)
			}
			return
		}
		whole := multipart.NewReader(bytes.NewReader(body), "b")
		o, last := core.arg.(seeds.Options), ""
		for {
			p, err := whole.NextPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%q was accepted, and is %v", body, err)
			}
			b, err := io.ReadAll(p)
			if err != nil {
				t.Fatalf("%q was accepted, and is %v", body, err)
			}
			last = p.FormName()
			if want, ok := map[string]string{
				"psk": string(o.PSK), "password": string(o.Password), "pgp_key": string(o.PGPKey),
				"pgp_signer": string(o.PGPSigner), "signer": string(o.Signer), "file": file,
			}[last]; !ok || string(b) != want {
				t.Fatalf("%q: part %q is %q, taken for %q", body, last, b, want)
			}
		}
		if last != "file" {
			t.Fatalf("%q was accepted, and ends with %q", body, last)
		}
	})
}

func TestAMultipartImportLeavesNothingInItsBuffer(t *testing.T) {
	_, body := form(t, part{"psk", "000102030405060708090a0b0c0d0e0f"}, part{"file", strings.Repeat("A1,3132333435363738\n", 1000)})
	up := &upload{}
	up.parts = multipart.NewReader(&moving{up, strings.NewReader(body)}, body[2:strings.Index(body, "\r\n")])
	up.control = http.NewResponseController(httptest.NewRecorder())
	if err := up.secrets(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, struct{ io.Reader }{up}); err != nil || n != 20000 {
		t.Fatalf("%d bytes of the file, %v", n, err)
	}
	if !bytes.Contains(up.buffer, []byte("3132333435363738")) {
		t.Fatal("the buffer that was noted is not the one that the file came through")
	}
	up.wipe()
	if kept := bytes.Trim(up.buffer, "\x00"); len(kept) > 0 {
		t.Errorf("%d bytes of the body are kept", len(kept))
	}
}
