package api

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// writePair writes a new certificate with its key, and answers its serial.
func writePair(t *testing.T, certFile, keyFile string) *big.Int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial := big.NewInt(time.Now().UnixNano())
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return serial
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCertificateIsTakenUpWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first := writePair(t, certFile, keyFile)
	var logged lockedBuffer
	s := newServer(t, &scripted{}, func(c *Config) {
		c.Certificate, c.Key, c.Log = certFile, keyFile, slog.New(slog.NewTextHandler(&logged, nil))
	})
	addr := serve(t, s)
	expect := func(what string, want *big.Int) {
		t.Helper()
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer conn.Close()
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber; got.Cmp(want) != 0 {
			t.Errorf("%s: certificate %v, want %v", what, got, want)
		}
	}
	expect("at start", first)

	second := writePair(t, certFile, keyFile)
	expect("changed, and not looked at yet", first)
	s.cert.look()
	expect("looked at", second)

	write(t, certFile, []byte("-----BEGIN CERTIFICATE-----\nbroken\n"))
	s.cert.look()
	expect("broken", second)
	if !strings.Contains(logged.String(), "the one before stays in use") {
		t.Errorf("the log says nothing of the broken file: %s", &logged)
	}
	before := logged.String()
	s.cert.look()
	if logged.String() != before {
		t.Error("the same broken file is complained of again")
	}
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("Reload of a broken file: %v", err)
	}
	expect("broken, and reloaded", second)

	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	s.cert.look()
	expect("gone", second)

	third := writePair(t, certFile, keyFile)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	expect("reloaded", third)

	// A key that does not belong to the certificate is broken, too.
	writePair(t, certFile, filepath.Join(dir, "other.pem"))
	s.cert.look()
	expect("mismatch", third)
}

func TestTLSIsOfThisTime(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, certFile, keyFile)
	addr := serve(t, newServer(t, &scripted{}, func(c *Config) { c.Certificate, c.Key = certFile, keyFile }))
	if conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
	for _, h2 := range []bool{false, true} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}}
		r, err := http.NewRequest("POST", "https://"+addr+"/v1/verify", strings.NewReader(`{"user":"alice","code":"755224"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+testKey)
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if string(body) != `{"result":"accept","serial":"24680017"}` || answer.Header.Get("Strict-Transport-Security") == "" || answer.ProtoMajor != 1 {
			t.Errorf("%s %d %s %v", answer.Proto, answer.StatusCode, body, answer.Header)
		}
		client.CloseIdleConnections()
	}
}

func TestHalfOfATLSPairIsRefused(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Certificate = "cert.pem" },
		func(c *Config) { c.Key = "key.pem" },
		func(c *Config) { c.Certificate, c.Key = "/nowhere/cert.pem", "/nowhere/key.pem" },
	} {
		cfg := Config{Core: &scripted{}, Importer: &scripted{}}
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%q, %q: accepted", cfg.Certificate, cfg.Key)
		}
	}
}

// lockedBuffer is a log that several write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
