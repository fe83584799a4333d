package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"watchword/webauthn/softkey"
)

// programs builds what is tried: the server and the station, as they are shipped.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "watchword-station-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir+"/", "watchword/cmd/watchword", "watchword/cmd/watchword-station").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return dir, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

const (
	origin  = "https://login.example.org"
	party   = "example.org"
	revoked = "11111111-2222-3333-4444-555555555555" // a model that the metadata warns of
)

// server is a real one, with a station's key, and metadata that knows the vendor's
// keys.
type server struct {
	testing.TB
	dir, url   string
	admin      string // API keys
	stationKey string // file of one
	vendor     *softkey.Vendor
}

func newServer(t testing.TB) *server {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{TB: t, dir: t.TempDir()}
	if s.vendor, err = softkey.NewVendor("Works"); err != nil {
		t.Fatal(err)
	}
	blob := s.metadata()
	var addresses [2]string
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses[i] = l.Addr().String()
		l.Close()
	}
	s.url = "http://" + addresses[0]
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(filepath.Join(bin, "watchword"), "serve")
	c.Env = append(os.Environ(), "WATCHWORD_DATA_DIR="+s.dir+"/var", "WATCHWORD_HTTP_LISTEN="+addresses[0], "WATCHWORD_RADIUS_LISTEN="+addresses[1],
		`WATCHWORD_FIDO_PARTIES=[{id: `+party+`, name: Example Corp, origins: ["`+origin+`"]}]`, "WATCHWORD_FIDO_METADATA_ROOTS="+s.dir+"/mds.pem")
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the server's log:\n%s", text[max(0, len(text)-4000):])
		}
	})
	for end := time.Now().Add(120 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if a, err := http.Get(s.url + "/readyz"); err == nil {
			a.Body.Close()
			if a.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatal("the server is not ready in time")
		}
	}
	key, err := os.ReadFile(s.dir + "/var/admin.key")
	if err != nil {
		t.Fatal(err)
	}
	s.admin = strings.TrimSpace(string(key))
	s.ask(s.admin, "POST", "/v1/fido/metadata", blob, 200)
	made := s.call("POST", "/v1/keys", map[string]any{"name": "station", "scope": "station", "realm": "default"}, 201)
	s.stationKey = filepath.Join(s.dir, "station.key")
	if err := os.WriteFile(s.stationKey, []byte(made["key"].(string)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends octets or JSON.
func (s *server) ask(key, method, path string, body any, want int) []byte {
	s.Helper()
	media, ok := "application/octet-stream", false
	var text []byte
	if text, ok = body.([]byte); !ok && body != nil {
		media = "application/json"
		text, _ = json.Marshal(body)
	}
	r, err := http.NewRequest(method, s.url+path, bytes.NewReader(text))
	if err != nil {
		s.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	if body != nil {
		r.Header.Set("Content-Type", media)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer a.Body.Close()
	out, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != want {
		s.Fatalf("%s %s: %d %s, %v; want %d", method, path, a.StatusCode, out, err, want)
	}
	return out
}

// call asks as the administrator.
func (s *server) call(method, path string, in any, want int) map[string]any {
	s.Helper()
	out := map[string]any{}
	if text := s.ask(s.admin, method, path, in, want); len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			s.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return out
}

// tokens are the FIDO tokens that there are.
func (s *server) tokens() []map[string]any {
	s.Helper()
	var list []map[string]any
	for cursor := ""; ; {
		page := s.call("GET", "/v1/tokens?limit=100"+cursor, nil, 200)
		for _, item := range page["items"].([]any) {
			list = append(list, item.(map[string]any))
		}
		next, _ := page["next"].(string)
		if next == "" {
			return list
		}
		cursor = "&cursor=" + next
	}
}

// metadata is a blob that knows two models of the vendor's, and warns of one; whose
// root is in mds.pem.
func (s *server) metadata() []byte {
	s.Helper()
	check := func(err error) {
		if err != nil {
			s.Helper()
			s.Fatal(err)
		}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		}
	}
	root := template("Metadata Root")
	root.IsCA, root.KeyUsage = true, x509.KeyUsageCertSign
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	check(err)
	leaf := template("mds.fidoalliance.org")
	leaf.DNSNames = []string{"mds.fidoalliance.org"}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, rootKey)
	check(err)
	check(os.WriteFile(s.dir+"/mds.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), 0o600))
	entry := func(aaguid, name, status string) map[string]any {
		return map[string]any{
			"aaguid": aaguid, "statusReports": []any{map[string]any{"status": status, "effectiveDate": "2026-01-01"}}, "timeOfLastStatusChange": "2026-01-01",
			"metadataStatement": map[string]any{
				"aaguid": aaguid, "description": name, "protocolFamily": "fido2", "schema": 3, "authenticatorVersion": 1,
				"attestationTypes": []string{"basic_full"}, "authenticationAlgorithms": []string{"secp256r1_ecdsa_sha256_raw"},
				"keyProtection": []string{"software"}, "attestationRootCertificates": []string{base64.StdEncoding.EncodeToString(s.vendor.Root().Raw)},
				"userVerificationDetails": []any{[]any{map[string]any{"userVerificationMethod": "passcode_external"}}},
				"authenticatorGetInfo":    map[string]any{"versions": []string{"FIDO_2_1"}, "aaguid": strings.ReplaceAll(aaguid, "-", ""), "transports": []string{"usb"}},
			},
		}
	}
	text, err := json.Marshal(map[string]any{
		"legalHeader": "of a test", "no": 1, "nextUpdate": time.Now().AddDate(0, 0, 5).UTC().Format(time.DateOnly),
		"entries": []any{entry(softkey.DefaultAAGUID, "Software Key 1", "FIDO_CERTIFIED_L1"), entry(revoked, "Broken Key 2", "REVOKED")},
	})
	check(err)
	part := base64.RawURLEncoding.EncodeToString
	head, err := json.Marshal(map[string]any{"alg": "ES256", "typ": "JWT", "x5c": []string{base64.StdEncoding.EncodeToString(leafDER)}})
	check(err)
	signed := part(head) + "." + part(text)
	digest := sha256.Sum256([]byte(signed))
	r, v, err := ecdsa.Sign(rand.Reader, key, digest[:])
	check(err)
	return fmt.Appendf(nil, "%s.%s", signed, part(append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)))
}
