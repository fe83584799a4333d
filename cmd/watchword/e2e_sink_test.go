package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/courier"
	"watchword/tokens/audit"
)

// selfSigned makes a certificate of 127.0.0.1 and its key, as files.
func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "logs"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", private)
}

// rsyslog is Debian's rsyslogd, which takes syslog over TLS and writes the texts of
// the messages to a file.
type rsyslog struct {
	t                   *testing.T
	dir, ca, at, config string
	cmd                 *exec.Cmd
}

func newRsyslog(t *testing.T) *rsyslog {
	t.Helper()
	if _, err := exec.LookPath("rsyslogd"); err != nil {
		t.Fatalf("%v (packages rsyslog and rsyslog-openssl)", err)
	}
	r := &rsyslog{t: t, dir: t.TempDir(), at: freeTCP(t)}
	cert, key := selfSigned(t, r.dir)
	r.ca, r.config = cert, filepath.Join(r.dir, "rsyslog.conf")
	_, port, err := net.SplitHostPort(r.at)
	if err != nil {
		t.Fatal(err)
	}
	text := `global(workDirectory="` + r.dir + `" maxMessageSize="256k" parser.escapeControlCharactersOnReceive="off"
  defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="` + cert + `" defaultNetstreamDriverCertFile="` + cert + `" defaultNetstreamDriverKeyFile="` + key + `")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="` + port + `")
template(name="text" type="string" string="%msg%\n")
action(type="omfile" file="` + r.file() + `" template="text")
`
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kill)
	return r
}

func (r *rsyslog) file() string { return filepath.Join(r.dir, "received") }

func (r *rsyslog) start() {
	r.t.Helper()
	r.cmd = exec.Command("rsyslogd", "-n", "-f", r.config, "-i", filepath.Join(r.dir, "pid"))
	var out bytes.Buffer
	r.cmd.Stdout, r.cmd.Stderr = &out, &out
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, 30*time.Second, "rsyslogd listens", func() bool {
		conn, err := net.Dial("tcp", r.at)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// kill ends it as a power failure does.
func (r *rsyslog) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
	_ = os.Remove(filepath.Join(r.dir, "pid"))
}

// place is where a record stands in the audit.
type place struct{ chain, seq int64 }

// received are the records that arrived. They are checked to be chains without a gap.
func received(t *testing.T, texts [][]byte) map[place]audit.Record {
	t.Helper()
	var f audit.Follower
	all := map[place]audit.Record{}
	for _, text := range texts {
		text = bytes.TrimPrefix(bytes.TrimSpace(text), []byte("\xEF\xBB\xBF"))
		if len(text) == 0 {
			continue
		}
		r, err := audit.ParseJSON(text)
		if err != nil {
			t.Fatalf("%v: %q", err, text)
		}
		if _, err := f.Next(&r); err != nil {
			t.Fatal(err)
		}
		all[place{r.Chain, r.Seq}] = r
	}
	return all
}

func (r *rsyslog) received() map[place]audit.Record {
	r.t.Helper()
	b, err := os.ReadFile(r.file())
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return received(r.t, bytes.SplitAfter(b[:bytes.LastIndexByte(b, '\n')+1], []byte("\n")))
}

// cli runs the command line against the node, and answers what it prints.
func (n *node) cli(args ...string) string {
	n.t.Helper()
	cmd := exec.Command(n.binary, args...)
	cmd.Env = append(os.Environ(), "WATCHWORD_URL=http://"+n.http, "WATCHWORD_API_KEY_FILE="+filepath.Join(n.dir, "admin.key"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("watchword %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

// listed is the audit as `watchword audit list --json` prints it.
func (n *node) listed() map[place]audit.Record {
	n.t.Helper()
	all := map[place]audit.Record{}
	query := url.Values{"limit": {"500"}}
	for {
		var page struct {
			Items []json.RawMessage
			Next  *string
		}
		n.must(http.MethodGet, "/v1/audit?"+query.Encode(), nil, &page)
		for _, item := range page.Items {
			r, err := audit.ParseJSON(item)
			if err != nil {
				n.t.Fatalf("%v: %s", err, item)
			}
			all[place{r.Chain, r.Seq}] = r
		}
		if page.Next == nil || *page.Next == "" {
			return all
		}
		query.Set("cursor", *page.Next)
	}
}

// wantAllOf waits until what arrived holds all of what the audit holds now, record by
// record.
func wantAllOf(t *testing.T, want map[place]audit.Record, got func() map[place]audit.Record) {
	t.Helper()
	eventually(t, 90*time.Second, "every record arrives", func() bool {
		arrived := got()
		for at, r := range want {
			it, ok := arrived[at]
			if !ok {
				return false
			}
			if !reflect.DeepEqual(it, r) {
				t.Fatalf("record %d of chain %d arrived as %+v, and is %+v", at.seq, at.chain, it, r)
			}
		}
		return true
	})
}

// TestRsyslogGetsTheWholeAudit: Debian's rsyslog over TLS, killed and away for a
// while, then the server killed: it has every record, unaltered, each chain in order.
func TestRsyslogGetsTheWholeAudit(t *testing.T) {
	n := startNode(t, nodeOptions{plain: true})
	r := newRsyslog(t)
	r.start()
	list := newTokens("S", 3, true)
	n.equip(list...)
	n.cli("sink", "add", "siem", "--syslog", "tls://"+r.at, "--ca-file", r.ca)
	if out := n.cli("sink", "test", "siem"); !strings.Contains(out, "would take records") {
		t.Errorf("sink test says %q", out)
	}
	use := func() {
		for _, k := range list {
			if got := n.verify(k.user, k.press()); got != sawAccept {
				t.Fatalf("%s: %s", k.user, got)
			}
			n.verify(k.user, "000000")
		}
	}
	use()
	wantAllOf(t, n.listed(), r.received)

	use()
	r.kill()
	use()
	eventually(t, 30*time.Second, "the sink fails", func() bool {
		var k struct {
			Failures, Lag int64
			LastError     string `json:"last_error"`
		}
		n.must(http.MethodGet, "/v1/sinks/siem", nil, &k)
		return k.Failures > 0 && k.Lag > 0 && k.LastError != ""
	})
	_, metrics := n.get("/metrics")
	if !strings.Contains(string(metrics), `watchword_sink_lag_records{sink="siem"}`) || !strings.Contains(string(metrics), `watchword_sink_failures_total{sink="siem"}`) {
		t.Error("the metrics do not tell of the sink")
	}
	use()
	n.kill()
	n.start()
	n.waitReady()
	use()
	r.start()
	wantAllOf(t, n.listed(), r.received)
	n.wantIntactAudit()
}

// TestASyslogServerAwayForFiveMinutesLosesNothing waits the five minutes, by the clock
// on the wall: WATCHWORD_LONG=1 asks for it. TestAfterFiveMinutesOfFailuresNothingIsLost
// is the same in a moment.
func TestASyslogServerAwayForFiveMinutesLosesNothing(t *testing.T) {
	if os.Getenv("WATCHWORD_LONG") == "" {
		t.Skip("five minutes long: set WATCHWORD_LONG=1 to run it")
	}
	n := startNode(t, nodeOptions{plain: true})
	r := newRsyslog(t)
	r.start()
	list := newTokens("L", 2, true)
	n.equip(list...)
	n.cli("sink", "add", "siem", "--syslog", "tls://"+r.at, "--ca-file", r.ca)
	wantAllOf(t, n.listed(), r.received)
	r.kill()
	before, rounds := len(r.received()), 0
	for begin := time.Now(); time.Since(begin) < 5*time.Minute; time.Sleep(5 * time.Second) {
		for _, k := range list {
			if got := n.verify(k.user, k.press()); got != sawAccept {
				t.Fatalf("%s: %s", k.user, got)
			}
		}
		rounds++
	}
	type state struct {
		Failures, Lag int64
		LastError     string `json:"last_error"`
	}
	var k state
	n.must(http.MethodGet, "/v1/sinks/siem", nil, &k)
	t.Logf("away for five minutes: %d rounds, %d failures, %d records behind (%s)", rounds, k.Failures, k.Lag, k.LastError)
	if k.Failures < 8 || k.Lag < int64(2*rounds) || k.LastError == "" {
		t.Errorf("after five minutes: %+v", k)
	}
	back := time.Now()
	r.start()
	want := n.listed()
	wantAllOf(t, want, r.received)
	took := time.Since(back)
	t.Logf("back: all %d records are there after %s, %d of them from the time between", len(want), took.Round(time.Second), len(want)-before)
	if took > 90*time.Second {
		t.Errorf("it took %s to begin again", took)
	}
	eventually(t, 60*time.Second, "it is told, and nothing is behind", func() bool {
		k = state{}
		n.must(http.MethodGet, "/v1/sinks/siem", nil, &k)
		return k.LastError == ""
	})
	failing := map[string]int{}
	for _, r := range n.listed() {
		if r.Action == "sink.failing" {
			failing[r.Outcome]++
		}
	}
	if failing["error"] != 1 || failing["ok"] != 1 {
		t.Errorf("the audit tells of the sink %v", failing)
	}
	n.wantIntactAudit()
}

// inbox is a webhook's receiver.
type inbox struct {
	mu     sync.Mutex
	status int
	got    []post
}

type post struct {
	header http.Header
	body   []byte
}

func (i *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status == http.StatusNoContent {
		i.got = append(i.got, post{r.Header, body})
	}
	w.WriteHeader(i.status)
}

func (i *inbox) set(status int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status = status
}

// types are the types of what arrived, each once, and whether all are signed with the
// secret.
func (i *inbox) types(t *testing.T, secret []byte) map[string]int {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	ids, types := map[string]bool{}, map[string]int{}
	for _, p := range i.got {
		id := p.header.Get("webhook-id")
		if want := courier.Sign(secret, id, p.header.Get("webhook-timestamp"), p.body); p.header.Get("webhook-signature") != want {
			t.Fatalf("the signature of %s is wrong", p.body)
		}
		var n struct{ ID, Type string }
		if err := json.Unmarshal(p.body, &n); err != nil || n.ID != id {
			t.Fatalf("%s: %v", p.body, err)
		}
		if !ids[id] {
			types[n.Type]++
		}
		ids[id] = true
	}
	return types
}

func TestAWebhookHearsWhatMatters(t *testing.T) {
	n := startNode(t, nodeOptions{plain: true})
	in := &inbox{status: http.StatusServiceUnavailable} // it is away at first
	server := httptest.NewServer(in)
	defer server.Close()
	list := newTokens("H", 2, true)
	n.equip(list...)
	secret := strings.TrimSpace(n.cli("sink", "add", "pager", "--webhook", server.URL+"/in"))
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) != 32 {
		t.Fatalf("the secret is no whsec_ of 32 bytes: %v", err)
	}
	n.must(http.MethodPost, "/v1/tokens/"+list[0].serial+"/lost", nil, nil)
	n.must(http.MethodPost, "/v1/keys", map[string]string{"name": "new", "scope": "read"}, nil)
	n.setRules(func(rules map[string]any) { rules["max_tokens"] = 5 })
	time.Sleep(2 * time.Second) // some tries
	in.set(http.StatusNoContent)
	var types map[string]int
	eventually(t, 60*time.Second, "the events arrive", func() bool {
		types = in.types(t, key)
		return types["token.lost"] == 1 && types["key.changed"] == 1 && types["policy.changed"] == 1
	})
	if types["import.published"] != 0 {
		t.Error("what was before the webhook is told")
	}
	n.cli("sink", "test", "pager")
	if in.types(t, key)["test"] != 1 {
		t.Error("no event of type test arrived")
	}
	if log := n.log(); strings.Contains(log, secret) || strings.Contains(n.cli("sink", "show", "pager", "--json"), secret) {
		t.Error("the secret is shown again")
	}
	in.set(http.StatusGone)
	n.must(http.MethodPost, "/v1/tokens/"+list[1].serial+"/lost", nil, nil)
	eventually(t, 60*time.Second, "410 stops it", func() bool { return strings.Contains(n.cli("sink", "list"), "stopped: it answered 410") })
}

// collector takes syslog over TCP, and keeps the texts.
type collector struct {
	mu    sync.Mutex
	texts [][]byte
}

func newCollector(t *testing.T) (*collector, string) {
	t.Helper()
	c := &collector{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.read(conn)
		}
	}()
	return c, l.Addr().String()
}

func (c *collector) read(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		head, err := r.ReadString(' ')
		if err != nil {
			return
		}
		size, err := strconv.Atoi(strings.TrimSpace(head))
		if err != nil {
			return
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(r, message); err != nil {
			return
		}
		_, text, _ := bytes.Cut(message, []byte("\xEF\xBB\xBF"))
		c.mu.Lock()
		c.texts = append(c.texts, text)
		c.mu.Unlock()
	}
}

func (c *collector) received(t *testing.T) map[place]audit.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return received(t, c.texts)
}

// TestASinkIsToldByWhoIsLeft: of two nodes on PostgreSQL one tells the sink, of both
// nodes' chains; when it is killed the other goes on.
func TestASinkIsToldByWhoIsLeft(t *testing.T) {
	a, b := twoNodes(t, true)
	c, at := newCollector(t)
	list := newTokens("P", 2, true)
	a.equip(list...)
	a.must(http.MethodPut, "/v1/sinks/siem", map[string]any{"kind": "syslog", "address": "tcp://" + at, "allow_plaintext": true}, nil)
	telling := func(n *node) bool {
		var k struct{ Telling bool }
		n.must(http.MethodGet, "/v1/sinks/siem", nil, &k)
		return k.Telling
	}
	got := func() map[place]audit.Record { return c.received(t) }
	for i := range 10 {
		for j, n := range []*node{a, b} {
			if seen := n.verify(list[j].user, list[j].press()); seen != sawAccept {
				t.Fatalf("%d: %s", i, seen)
			}
		}
	}
	wantAllOf(t, a.listed(), got)
	if telling(a) == telling(b) {
		t.Fatal("not one of the nodes tells the sink, and the other does not")
	}
	dead, left := a, b
	if telling(b) {
		dead, left = b, a
	}
	dead.kill()
	if seen := left.verify(list[0].user, list[0].press()); seen != sawAccept {
		t.Fatalf("%s", seen)
	}
	wantAllOf(t, left.listed(), got)
	if !telling(left) {
		t.Error("the other node does not tell the sink")
	}
	if !strings.Contains(left.log(), "without encryption") {
		t.Error("the log does not say that it is told in clear")
	}
	dead.start()
	dead.waitReady()
	dead.must(http.MethodPost, "/v1/users", map[string]string{"name": fmt.Sprint("later", dead.pid())}, nil)
	wantAllOf(t, dead.listed(), got)
}
