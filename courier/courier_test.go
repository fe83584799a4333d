package courier_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/courier"
	"watchword/tokens"
	"watchword/tokens/audit"
)

// chain makes n records of a chain.
func chain(n int) []audit.Record {
	var events []audit.Event
	for i := range n {
		events = append(events, audit.Event{Time: time.Unix(1_700_000_000+int64(i), 0), Action: "token.lost", Outcome: "ok", User: fmt.Sprint("user", i)})
	}
	records, _ := audit.Append(audit.Head{Chain: 5}, events)
	return records
}

func open(t *testing.T, c *courier.Courier, k tokens.Sink, s tokens.SinkSecrets) tokens.Delivery {
	t.Helper()
	d, err := c.Open(&k, &s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func send(t *testing.T, d tokens.Delivery, records []audit.Record) {
	t.Helper()
	if n, err := d.Send(t.Context(), records); err != nil || n != len(records) {
		t.Fatalf("sent %d of %d: %v", n, len(records), err)
	}
}

// lines are the lines of a file sink, the oldest first.
func lines(t *testing.T, dir string) [][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(names, func(a, b string) int { // the current one is last
		return strings.Compare(strings.ReplaceAll(a, "audit.jsonl", "~"), strings.ReplaceAll(b, "audit.jsonl", "~"))
	})
	var all [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, slices.DeleteFunc(bytes.Split(b, []byte("\n")), func(l []byte) bool { return len(l) == 0 })...)
	}
	return all
}

// follow checks that lines are a chain, whole but for repeats, and answers its end.
func follow(t *testing.T, all [][]byte) int64 {
	t.Helper()
	var f audit.Follower
	for _, line := range all {
		r, err := audit.ParseJSON(line)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if _, err := f.Next(&r); err != nil {
			t.Fatal(err)
		}
	}
	return f.Heads()[5].Seq
}

func TestAFileHoldsEachRecordInALine(t *testing.T) {
	c := &courier.Courier{Dir: t.TempDir()}
	k := tokens.Sink{Name: "siem", Kind: tokens.SinkFile, Format: tokens.SinkJSON, MaxBytes: 64 << 10}
	d := open(t, c, k, tokens.SinkSecrets{})
	records := chain(10)
	send(t, d, records[:4])
	safe, err := d.Safe()
	if err != nil || safe[5] != 4 {
		t.Errorf("safe: %v, %v", safe, err)
	}
	send(t, d, records[4:])
	dir := filepath.Join(c.Dir, "siem")
	if n := follow(t, lines(t, dir)); n != 10 {
		t.Errorf("the file ends at record %d", n)
	}
	info, err := os.Stat(filepath.Join(dir, "audit.jsonl"))
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody may read the file: %v, %v", info.Mode(), err)
	}
}

func TestALineThatWasCutOffIsRemoved(t *testing.T) {
	for _, rest := range []string{`{"chain":5,"se`, "x", strings.Repeat("y", 200_000)} {
		c := &courier.Courier{Dir: t.TempDir()}
		k := tokens.Sink{Name: "siem", Kind: tokens.SinkFile, Format: tokens.SinkJSON, MaxBytes: 1 << 20}
		records := chain(6)
		first := open(t, c, k, tokens.SinkSecrets{})
		send(t, first, records[:3])
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(c.Dir, "siem", "audit.jsonl")
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(rest); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		send(t, open(t, c, k, tokens.SinkSecrets{}), records[2:]) // the next one does not know how far the last one came
		if n := follow(t, lines(t, filepath.Dir(path))); n != 6 {
			t.Errorf("the file ends at record %d", n)
		}
	}
}

func TestAFileIsRotated(t *testing.T) {
	c := &courier.Courier{Dir: t.TempDir()}
	k := tokens.Sink{Name: "siem", Kind: tokens.SinkFile, Format: tokens.SinkJSON, MaxBytes: 1000}
	d := open(t, c, k, tokens.SinkSecrets{})
	records := chain(40)
	send(t, d, records[:25])
	send(t, d, records[25:])
	dir := filepath.Join(c.Dir, "siem")
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) < 10 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Size() > 1000 || info.Size() == 0 {
			t.Errorf("%s: %v, %v", name, info.Size(), err)
		}
	}
	if n := follow(t, lines(t, dir)); n != 40 {
		t.Errorf("the files end at record %d", n)
	}

	k.Keep, k.Name = 2, "short"
	send(t, open(t, c, k, tokens.SinkSecrets{}), records)
	if names, err := filepath.Glob(filepath.Join(c.Dir, "short", "*")); err != nil || len(names) != 3 {
		t.Errorf("%d files are kept, not the current one and two: %v", len(names), err)
	}
}

func TestAFileHasOneWriter(t *testing.T) {
	c := &courier.Courier{Dir: t.TempDir()}
	k := tokens.Sink{Name: "siem", Kind: tokens.SinkFile, Format: tokens.SinkJSON, MaxBytes: 1 << 20}
	one, two := open(t, c, k, tokens.SinkSecrets{}), open(t, c, k, tokens.SinkSecrets{})
	records := chain(4)
	send(t, one, records[:2])
	// One is in the middle of a line.
	f, err := os.OpenFile(filepath.Join(c.Dir, "siem", "audit.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"cha`); err != nil {
		t.Fatal(err)
	}
	if n, err := two.Send(t.Context(), records[2:]); n != 0 || err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("a second writer: %d, %v", n, err)
	}
	if err := two.Test(t.Context()); err != nil {
		t.Errorf("testing it: %v", err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil || !bytes.HasSuffix(b, []byte(`{"cha`)) {
		t.Errorf("the other's line was cut off: %v", err)
	}
	if err := errors.Join(f.Close(), one.Close()); err != nil {
		t.Fatal(err)
	}
	send(t, two, records[2:])
	if n := follow(t, lines(t, filepath.Join(c.Dir, "siem"))); n != 4 {
		t.Errorf("the file ends at record %d", n)
	}
}

func TestAFileThatSomebodyMovedIsBegunAnew(t *testing.T) {
	c := &courier.Courier{Dir: t.TempDir()}
	d := open(t, c, tokens.Sink{Name: "siem", Kind: tokens.SinkFile, Format: tokens.SinkOCSF, MaxBytes: 1 << 20}, tokens.SinkSecrets{})
	records := chain(4)
	send(t, d, records[:2])
	path := filepath.Join(c.Dir, "siem", "audit.jsonl")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	send(t, d, records[2:])
	b, err := os.ReadFile(path)
	if err != nil || bytes.Count(b, []byte("\n")) != 2 || !bytes.Contains(b, []byte(`"class_uid":3001`)) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestADiskThatIsFullLosesNothing(t *testing.T) {
	c := &courier.Courier{Dir: t.TempDir()}
	k := tokens.Sink{Name: "siem", Kind: tokens.SinkFile, Format: tokens.SinkJSON, MaxBytes: 1 << 20}
	dir := filepath.Join(c.Dir, "siem")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(dir, "audit.jsonl")); err != nil {
		t.Fatal(err)
	}
	d := open(t, c, k, tokens.SinkSecrets{})
	records := chain(3)
	if n, err := d.Send(t.Context(), records); err == nil || n != 0 || strings.Contains(err.Error(), c.Dir) {
		t.Errorf("written to a full disk: %d, %v", n, err)
	}
	if safe, err := d.Safe(); err != nil || len(safe) != 0 {
		t.Errorf("safe on a full disk: %v, %v", safe, err)
	}
	if err := os.Remove(filepath.Join(dir, "audit.jsonl")); err != nil {
		t.Fatal(err)
	}
	send(t, d, records)
	if n := follow(t, lines(t, dir)); n != 3 {
		t.Errorf("the file ends at record %d", n)
	}
}

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.pem, _ = a.sign("an authority", nil, true)
	return a
}

func (a *authority) sign(name string, ip net.IP, ca bool) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	parent, signer := a.cert, a.key
	if ca {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// syslogd is a syslog server over TLS that keeps the messages it reads.
type syslogd struct {
	mu       sync.Mutex
	l        net.Listener
	conns    []net.Conn
	messages []string
	bad      []string
	done     sync.WaitGroup
}

func listen(t *testing.T, address string, config *tls.Config) *syslogd {
	t.Helper()
	s := &syslogd{}
	var err error
	for range 50 { // the port may be busy for a moment after the one before
		if s.l, err = net.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.done.Go(func() {
		for {
			raw, err := s.l.Accept()
			if err != nil {
				return
			}
			conn := raw
			if config != nil {
				conn = tls.Server(raw, config)
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			s.done.Go(func() { s.read(conn) })
		}
	})
	t.Cleanup(s.end)
	return s
}

// read reads frames by octet counting.
func (s *syslogd) read(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		head, err := r.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(head, " "))
		if err != nil {
			s.mu.Lock()
			s.bad = append(s.bad, head)
			s.mu.Unlock()
			return
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(r, message); err != nil {
			return
		}
		s.mu.Lock()
		s.messages = append(s.messages, string(message))
		s.mu.Unlock()
	}
}

func (s *syslogd) end() {
	_ = s.l.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
}

// texts are the texts of the messages.
func (s *syslogd) texts() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all [][]byte
	for _, m := range s.messages {
		_, text, _ := strings.Cut(m, "\xEF\xBB\xBF")
		all = append(all, []byte(text))
	}
	return all
}

func (s *syslogd) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.messages)
}

// until waits until something is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for begin := time.Now(); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%s: not in time", what)
		}
	}
}

func TestSyslogOverTLSKnowsTheServer(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	_, _, cert, key := ca.sign("logs.example", nil, false)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	_, _, ours, oursKey := ca.sign("watchword", nil, false)
	_, _, theirs, theirsKey := other.sign("watchword", nil, false)
	for _, c := range []struct {
		name   string
		config *tls.Config
		sink   tokens.Sink
		key    string
		works  bool
	}{
		{"the right one", &tls.Config{}, tokens.Sink{CA: ca.pem, ServerName: "logs.example"}, "", true},
		{"another name", &tls.Config{}, tokens.Sink{CA: ca.pem}, "", false},
		{"another authority", &tls.Config{}, tokens.Sink{CA: other.pem, ServerName: "logs.example"}, "", false},
		{"the system's authorities", &tls.Config{}, tokens.Sink{ServerName: "logs.example"}, "", false},
		{"TLS 1.1", &tls.Config{MaxVersion: tls.VersionTLS11}, tokens.Sink{CA: ca.pem, ServerName: "logs.example"}, "", false},
		{"our certificate", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}, tokens.Sink{CA: ca.pem, ServerName: "logs.example", Certificate: ours}, oursKey, true},
		{"no certificate", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}, tokens.Sink{CA: ca.pem, ServerName: "logs.example"}, "", false},
		{"another's certificate", &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}, tokens.Sink{CA: ca.pem, ServerName: "logs.example", Certificate: theirs}, theirsKey, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Certificates = []tls.Certificate{pair}
			s := listen(t, "127.0.0.1:0", c.config)
			c.sink.Name, c.sink.Kind, c.sink.Address = "siem", tokens.SinkSyslog, "tls://"+s.l.Addr().String()
			d := open(t, &courier.Courier{Host: "node1"}, c.sink, tokens.SinkSecrets{Key: []byte(c.key)})
			if err := d.Test(t.Context()); (err == nil) != c.works {
				t.Errorf("testing: %v", err)
			}
			if !c.works {
				if n, err := d.Send(t.Context(), chain(1)); err == nil {
					if _, err = d.Safe(); err == nil && n > 0 {
						until(t, "the refusal", func() bool { _, err := d.Safe(); return err != nil })
					}
				}
				if s.count() != 0 {
					t.Error("it told the audit to a stranger")
				}
				return
			}
			send(t, d, chain(3))
			until(t, "the messages", func() bool { return s.count() == 3 })
			follow(t, s.texts())
		})
	}
}

// A server that goes away loses what its system had and it did not read: that is not
// called safe, and comes again.
func TestSyslogComesAgainWhenTheConnectionBreaks(t *testing.T) {
	s := listen(t, "127.0.0.1:0", nil)
	address := s.l.Addr().String()
	d := open(t, &courier.Courier{}, tokens.Sink{Name: "siem", Kind: tokens.SinkSyslog, Address: "tcp://" + address, AllowPlaintext: true}, tokens.SinkSecrets{})
	records := chain(9)
	send(t, d, records[:3])
	if safe, err := d.Safe(); err != nil || safe[5] != 0 {
		t.Fatalf("what was just sent is called safe: %v, %v", safe, err)
	}
	until(t, "it is safe", func() bool { safe, err := d.Safe(); return err == nil && safe[5] == 3 })
	send(t, d, records[3:6])
	s.end()
	until(t, "the break is noticed", func() bool { _, err := d.Safe(); return err != nil })
	safe, _ := d.Safe()
	if safe[5] != 3 {
		t.Fatalf("safe: %v", safe)
	}
	if _, err := d.Send(t.Context(), records[3:]); err == nil {
		t.Fatal("sent to nobody")
	}
	again := listen(t, address, nil)
	// As the core does it: from what is safe, on a new way.
	d2 := open(t, &courier.Courier{}, tokens.Sink{Name: "siem", Kind: tokens.SinkSyslog, Address: "tcp://" + address, AllowPlaintext: true}, tokens.SinkSecrets{})
	send(t, d2, records[safe[5]:])
	until(t, "the rest", func() bool { return again.count() == 6 })
	if n := follow(t, append(s.texts(), again.texts()...)); n != 9 {
		t.Errorf("it ends at record %d", n)
	}
	if len(s.bad)+len(again.bad) > 0 {
		t.Errorf("frames: %q %q", s.bad, again.bad)
	}
}

func TestSyslogByDatagrams(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := open(t, &courier.Courier{Host: "n"}, tokens.Sink{Name: "siem", Kind: tokens.SinkSyslog, Address: "udp://" + conn.LocalAddr().String(), AllowPlaintext: true}, tokens.SinkSecrets{})
	send(t, d, chain(1))
	buf := make([]byte, 1<<16)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, _, err := conn.ReadFrom(buf)
	if err != nil || !bytes.HasPrefix(buf[:n], []byte("<110>1 2023-11-14T22:13:20.000000Z n watchword - token.lost [watchword@32473 chain=\"5\" seq=\"1\"")) {
		t.Errorf("%s, %v", buf[:n], err)
	}
}

func TestWhatIsNoCertificateIsRefused(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	_, _, cert, _ := ca.sign("a", nil, false)
	_, _, _, key := other.sign("b", nil, false)
	for _, c := range []struct {
		k   tokens.Sink
		key string
	}{
		{tokens.Sink{Kind: tokens.SinkSyslog, Address: "tls://a:1", CA: "x"}, ""},
		{tokens.Sink{Kind: tokens.SinkSyslog, Address: "tls://a:1", Certificate: cert}, ""},
		{tokens.Sink{Kind: tokens.SinkSyslog, Address: "tls://a:1", Certificate: cert}, key},
		{tokens.Sink{Kind: tokens.SinkSyslog, Address: "tls://a:1", Certificate: "x"}, key},
		{tokens.Sink{Kind: tokens.SinkWebhook, URL: "https://a/", CA: "x"}, ""},
		{tokens.Sink{Kind: "pigeon"}, ""},
	} {
		_, err := (&courier.Courier{}).Open(&c.k, &tokens.SinkSecrets{Key: []byte(c.key)})
		if !errors.Is(err, tokens.ErrInvalid) || c.key != "" && strings.Contains(err.Error(), c.key[30:60]) {
			t.Errorf("%s %s: %v", c.k.Kind, c.k.Address, err)
		}
	}
}

// hook is a webhook's receiver.
type hook struct {
	mu     sync.Mutex
	status int
	got    []*http.Request
	bodies []string
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got, h.bodies = append(h.got, r), append(h.bodies, string(body))
	if h.status/100 == 3 {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(h.status)
	fmt.Fprint(w, strings.Repeat("an answer that nobody reads ", 10_000))
}

func TestAWebhookIsSigned(t *testing.T) {
	h := &hook{status: 204}
	server := httptest.NewTLSServer(h)
	defer server.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	k := tokens.Sink{Name: "hook", ID: "77", Kind: tokens.SinkWebhook, URL: server.URL + "/in", CA: ca, Events: []string{tokens.NoticeTokenLost}}
	secret := []byte("a secret of thirty-two bytes, yes")
	d := open(t, &courier.Courier{Version: "9"}, k, tokens.SinkSecrets{Webhook: bytes.Clone(secret)})
	records := chain(2)
	records[0].Action = "user.add" // which is no event
	send(t, d, records)
	if len(h.got) != 1 {
		t.Fatalf("%d requests", len(h.got))
	}
	r := h.got[0]
	if r.Method != "POST" || r.URL.Path != "/in" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("webhook-id") != "msg_77_5_2" {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	var n tokens.Notice
	if err := json.Unmarshal([]byte(h.bodies[0]), &n); err != nil || n.ID != "msg_77_5_2" || n.Type != "token.lost" || n.Data.User != "user1" {
		t.Errorf("%s, %v", h.bodies[0], err)
	}
	at := r.Header.Get("webhook-timestamp")
	if sent, err := strconv.ParseInt(at, 10, 64); err != nil || time.Since(time.Unix(sent, 0)).Abs() > time.Minute {
		t.Errorf("sent at %s", at)
	}
	if got, want := r.Header.Get("webhook-signature"), courier.Sign(secret, "msg_77_5_2", at, []byte(h.bodies[0])); got != want {
		t.Errorf("signature %s, not %s", got, want)
	}
	if safe, err := d.Safe(); err != nil || safe[5] != 2 {
		t.Errorf("safe: %v, %v", safe, err)
	}
	// The same again has the same id.
	send(t, d, records)
	if len(h.got) != 2 || h.got[1].Header.Get("webhook-id") != "msg_77_5_2" {
		t.Error("a repeat has another id")
	}
	if err := d.Test(t.Context()); err != nil || !strings.Contains(h.bodies[2], `"type":"test"`) {
		t.Errorf("testing: %v, %v", h.bodies, err)
	}
}

// The example of the specification of Standard Webhooks.
func TestASignatureIsTheStandards(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := courier.Sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("%s", got)
	}
}

func TestAWebhookIsToldUntilItAnswersWell(t *testing.T) {
	for status, works := range map[int]bool{200: true, 299: true, 301: false, 307: false, 400: false, 404: false, 410: false, 429: false, 500: false, 503: false} {
		h := &hook{status: status}
		server := httptest.NewServer(h)
		d := open(t, &courier.Courier{}, tokens.Sink{Name: "hook", Kind: tokens.SinkWebhook, URL: server.URL}, tokens.SinkSecrets{Webhook: []byte("x")})
		n, err := d.Send(t.Context(), chain(3))
		switch {
		case works && (n != 3 || err != nil):
			t.Errorf("%d: told %d, %v", status, n, err)
		case !works && (n != 0 || err == nil || len(h.got) != 1):
			t.Errorf("%d: told %d by %d requests, %v", status, n, len(h.got), err)
		case errors.Is(err, tokens.ErrSinkGone) != (status == 410):
			t.Errorf("%d: %v", status, err)
		}
		server.Close()
	}
}

func TestAWebhookThatIsAwayNamesNoPath(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d := open(t, &courier.Courier{}, tokens.Sink{Name: "hook", Kind: tokens.SinkWebhook, URL: "http://" + address + "/known-to-few"}, tokens.SinkSecrets{})
	if _, err := d.Send(t.Context(), chain(1)); err == nil || strings.Contains(err.Error(), "known-to-few") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := d.Send(ctx, chain(1)); n != 0 || err == nil {
		t.Errorf("sent after the end: %d, %v", n, err)
	}
}
