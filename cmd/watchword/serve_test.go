package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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
)

// runServe runs a server that is not expected to stay, and answers how it ends.
func runServe(t *testing.T, args ...string) (log string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, false), append([]string{"serve", "--http", "127.0.0.1:0", "--radius", "127.0.0.1:0"}, args...)...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the server stayed: %v\n%s", err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestRequireSyncRefusesToServeWithoutAStandby(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	database := newDatabase(t)
	if err := os.WriteFile(config, []byte("require_sync: true\ndatabase: "+database+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, code := runServe(t, "--config", config, "--data-dir", filepath.Join(t.TempDir(), "var"))
	if code != exitError || !strings.Contains(log, "require_sync is set") || !strings.Contains(log, "synchronous_standby_names") {
		t.Errorf("exit code %d:\n%s", code, log)
	}
}

func TestWithoutRequireSyncAMissingStandbyIsWarnedOf(t *testing.T) {
	n := startNode(t, nodeOptions{database: newDatabase(t)})
	if log := n.log(); !strings.Contains(log, "level=WARN msg=\"no synchronous standby confirms PostgreSQL's commits") {
		t.Errorf("no warning:\n%s", log)
	}
}

func TestServersThatStartTogetherOnOneDirectoryMakeOneToken(t *testing.T) {
	database, dir := newDatabase(t), filepath.Join(t.TempDir(), "var")
	nodes := make([]*node, 3)
	var all sync.WaitGroup
	for i := range nodes {
		n := newNode(t, nodeOptions{database: database, dir: dir})
		nodes[i] = n
		n.start()
	}
	for _, n := range nodes {
		all.Go(func() {
			eventually(t, time.Minute, "every node is ready", func() bool { status, _ := n.get("/readyz"); return status == http.StatusOK })
		})
	}
	all.Wait()
	left, err := os.ReadDir(filepath.Join(dir, softHSMDir, "tokens"))
	if err != nil || len(left) != 1 {
		t.Errorf("%d SoftHSM tokens, %v", len(left), err)
	}
	key := firstLine(t, filepath.Join(dir, adminKeyFile))
	for _, n := range nodes {
		if status, err := n.call(key, http.MethodGet, "/v1/users", nil, nil); status != http.StatusOK {
			t.Errorf("the one admin.key is not good on %s: %v", n.http, err)
		}
	}
}

func TestAServerThatIsStartedAgainAfterAKillInItsFirstMomentsIsWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var")
	for _, after := range []time.Duration{5, 20, 40, 60, 80, 120, 200} {
		n := newNode(t, nodeOptions{dir: dir, plain: true})
		n.start()
		time.Sleep(after * time.Millisecond)
		n.kill()
	}
	n := startNode(t, nodeOptions{dir: dir, plain: true})
	if n.verify("nobody", "123456") != sawReject {
		t.Errorf("the server does not work:\n%s", n.log())
	}
	n.wantIntactAudit()
}

// newCertificate writes a certificate for 127.0.0.1 and answers its serial.
func newCertificate(t *testing.T, certFile, keyFile string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "watchword"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert
}

func TestTheCommandLineSpeaksTLSAndAHangupTakesUpANewCertificate(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	newCertificate(t, certFile, keyFile)
	n := newNode(t, nodeOptions{env: []string{"WATCHWORD_HTTP_TLS_CERT=" + certFile, "WATCHWORD_HTTP_TLS_KEY=" + keyFile}})
	n.start()
	binary := program(t, false)
	list := func(extra ...string) (string, error) {
		cmd := exec.Command(binary, append([]string{"client", "list", "--url", "https://" + n.http, "--api-key-file", filepath.Join(n.dir, adminKeyFile)}, extra...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	eventually(t, time.Minute, "the command line is answered", func() bool { _, err := list("--ca-file", certFile); return err == nil })
	if out, err := list(); err == nil || !strings.Contains(out, "--ca-file") {
		t.Errorf("an unknown authority was trusted, or the advice is missing: %v, %s", err, out)
	}
	if out, err := list("--url", "http://"+n.http); err == nil || !strings.Contains(out, "use https://") {
		t.Errorf("plain HTTP to a TLS server: %v, %s", err, out)
	}

	next := newCertificate(t, certFile, keyFile)
	n.signal(syscall.SIGHUP)
	eventually(t, 5*time.Second, "the new certificate is in use", func() bool {
		c, err := tls.Dial("tcp", n.http, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return false
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(next.SerialNumber) == 0
	})

	// A broken one is not taken up.
	if err := os.WriteFile(certFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.signal(syscall.SIGHUP)
	eventually(t, 5*time.Second, "the log says that the certificate is broken", func() bool {
		return strings.Contains(n.log(), "the old one stays in use")
	})
	if _, err := list("--ca-file", certFile); err == nil {
		t.Error("a broken file was taken for an authority")
	}
	n.term()
	if n.code != exitOK {
		t.Errorf("exit code %d:\n%s", n.code, lastLines(n.log(), 10))
	}
}

func TestAServerMakesNoCoreDumps(t *testing.T) {
	n := startNode(t, nodeOptions{plain: true})
	limits, err := os.ReadFile(filepath.Join("/proc", itoa(n.pid()), "limits"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if after, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if got := strings.Fields(after); got[0] != "0" || got[1] != "0" {
				t.Errorf("core files may have %v bytes", got)
			}
			return
		}
	}
	t.Errorf("no limit:\n%s", limits)
}
