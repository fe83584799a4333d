package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A node is one server process, started from the program as it is shipped, and
// what a client of it needs. Its addresses stay the same over restarts.
type node struct {
	t      testing.TB
	binary string
	dir    string
	env    []string
	http   string // HOST:PORT
	radius string
	key    string // the first administrator's
	secret string // of RADIUS client 127.0.0.1
	web    *http.Client

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	code  int           // its exit code then
}

// nodeOptions say how a node runs. Everything but the data directory has a
// default.
type nodeOptions struct {
	dir      string   // data directory
	database string   // empty: SQLite in the data directory
	plain    bool     // without the race detector
	env      []string // WATCHWORD_... and others, as NAME=value
	keysFrom *node    // another node on the same database, which has admin.key
}

// startNode starts a node and waits until it is ready.
func startNode(t testing.TB, o nodeOptions) *node {
	t.Helper()
	n := newNode(t, o)
	n.start()
	n.waitReady()
	return n
}

// newNode makes a node without starting it.
func newNode(t testing.TB, o nodeOptions) *node {
	t.Helper()
	if o.dir == "" {
		o.dir = filepath.Join(t.TempDir(), "var")
	}
	n := &node{t: t, binary: program(t, !o.plain), dir: o.dir, http: freeTCP(t), radius: freeUDP(t)}
	n.env = append(n.env, o.env...)
	n.env = append(n.env, "WATCHWORD_DATA_DIR="+o.dir, "WATCHWORD_HTTP_LISTEN="+n.http, "WATCHWORD_RADIUS_LISTEN="+n.radius)
	if o.database != "" {
		n.env = append(n.env, "WATCHWORD_DATABASE="+o.database)
	}
	if o.keysFrom != nil {
		n.key, n.secret = o.keysFrom.key, o.keysFrom.secret
	}
	n.web = &http.Client{
		Timeout:   40 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 512, IdleConnTimeout: time.Minute},
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", n.dir, lastLines(n.log(), 40))
		}
	})
	return n
}

// start starts the process. Its log is appended to.
func (n *node) start() {
	n.t.Helper()
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		n.t.Fatal(err)
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(n.binary, "serve")
	cmd.Env = append(os.Environ(), n.env...)
	cmd.Stdout, cmd.Stderr = log, log
	// Should the test die, its servers die with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	n.cmd, n.ended = cmd, ended
	go func() {
		_ = cmd.Wait()
		n.code = cmd.ProcessState.ExitCode()
		close(ended)
	}()
}

// waitReady waits until /readyz says 200, and reads the keys.
func (n *node) waitReady() {
	n.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(15 * time.Millisecond) {
		if status, _ := n.get("/readyz"); status == http.StatusOK {
			break
		}
		select {
		case <-n.ended:
			n.t.Fatalf("the server in %s ended with exit code %d before it was ready:\n%s", n.dir, n.code, lastLines(n.log(), 30))
		default:
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the server in %s was not ready in time:\n%s", n.dir, lastLines(n.log(), 30))
		}
	}
	if n.key == "" {
		n.key, n.secret = firstLine(n.t, filepath.Join(n.dir, adminKeyFile)), firstLine(n.t, filepath.Join(n.dir, secretFile))
	}
}

// kill is kill -9.
func (n *node) kill() { n.signal(syscall.SIGKILL); n.waitEnd(10 * time.Second) }

// term asks the node to drain, and waits until it has.
func (n *node) term() { n.signal(syscall.SIGTERM); n.waitEnd(40 * time.Second) }

func (n *node) signal(s syscall.Signal) {
	if n.cmd == nil {
		return
	}
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Errorf("signal %v: %v", s, err)
	}
}

// waitEnd waits until the process is gone and its connections with it.
func (n *node) waitEnd(within time.Duration) {
	if n.cmd == nil {
		return
	}
	select {
	case <-n.ended:
	case <-time.After(within):
		n.t.Errorf("the server in %s did not end within %v", n.dir, within)
		_ = n.cmd.Process.Kill()
		<-n.ended
	}
	n.cmd = nil
	n.web.CloseIdleConnections()
}

func (n *node) pid() int { return n.cmd.Process.Pid }

func (n *node) logFile() string { return n.dir + ".log" }

func (n *node) log() string {
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// get asks without a key. Zero is no answer.
func (n *node) get(path string) (status int, body []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.http+path, nil)
	if err != nil {
		return 0, nil
	}
	a, err := n.web.Do(r)
	if err != nil {
		return 0, nil
	}
	defer a.Body.Close()
	body, err = io.ReadAll(a.Body)
	if err != nil {
		return 0, nil
	}
	return a.StatusCode, body
}

// call makes one API call with a key. in is sent as JSON if it is not nil, and
// as it stands if it is an io.Reader. Status zero is no answer.
func (n *node) call(key, method, path string, in any, out any) (status int, err error) {
	var body io.Reader
	kind := "application/json"
	switch in := in.(type) {
	case nil:
	case io.Reader:
		body, kind = in, "application/octet-stream"
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, "http://"+n.http+path, body)
	if err != nil {
		return 0, err
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	r.Header.Set("Content-Type", kind)
	a, err := n.web.Do(r)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, err
	}
	if out != nil && a.StatusCode < 300 {
		if err := json.Unmarshal(text, out); err != nil {
			return a.StatusCode, fmt.Errorf("%s %s: the answer is not what was expected: %w", method, path, err)
		}
	}
	if a.StatusCode >= 300 {
		return a.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, a.Status, text)
	}
	return a.StatusCode, nil
}

// must makes an API call as the administrator that has to succeed.
func (n *node) must(method, path string, in any, out any) {
	n.t.Helper()
	if _, err := n.call(n.key, method, path, in, out); err != nil {
		n.t.Fatal(err)
	}
}

// What a client saw of an attempt.
type sight string

const (
	sawAccept  sight = "accept"
	sawReject  sight = "reject"
	sawFault   sight = "fault"     // 503 over HTTP
	sawNothing sight = "no answer" // the connection broke, or RADIUS stayed silent
)

// ask verifies a code over HTTP with a key.
func (n *node) ask(key, user, code string) sight {
	var got struct{ Result, Serial string }
	status, err := n.call(key, http.MethodPost, "/v1/verify", map[string]string{"user": user, "code": code}, &got)
	switch {
	case status == http.StatusOK && err == nil && got.Result == "accept":
		return sawAccept
	case status == http.StatusOK && err == nil && got.Result == "reject":
		return sawReject
	case status == http.StatusServiceUnavailable:
		return sawFault
	case status == 0:
		return sawNothing
	}
	return sight(fmt.Sprintf("HTTP %d: %v", status, err))
}

// verify verifies a code over HTTP as the administrator.
func (n *node) verify(user, code string) sight { return n.ask(n.key, user, code) }

// auditItem is what the tests look at of an audit record.
type auditItem struct {
	Action, Outcome, User, Serial, Client, Reason string
	Detail                                        []struct{ Name, Value string }
}

func (i *auditItem) field(name string) string {
	for _, f := range i.Detail {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// audit lists the records that a query selects, newest first.
func (n *node) audit(query url.Values) []auditItem {
	n.t.Helper()
	var all []auditItem
	query.Set("limit", "500")
	for {
		var page struct {
			Items []auditItem
			Next  *string
		}
		n.must(http.MethodGet, "/v1/audit?"+query.Encode(), nil, &page)
		all = append(all, page.Items...)
		if page.Next == nil || *page.Next == "" {
			return all
		}
		query.Set("cursor", *page.Next)
	}
}

// lastAttempt is the newest audit record of a verification for a user.
func (n *node) lastAttempt(user string) auditItem {
	n.t.Helper()
	var page struct{ Items []auditItem }
	n.must(http.MethodGet, "/v1/audit?action=verify&limit=1&user="+url.QueryEscape(user), nil, &page)
	if len(page.Items) == 0 {
		n.t.Fatalf("the audit has no attempt of %s", user)
	}
	return page.Items[0]
}

// wantIntactAudit fails the test unless every chain of the audit verifies.
func (n *node) wantIntactAudit() {
	n.t.Helper()
	var report struct {
		Intact          bool
		Records, Chains int
		Problems        []string
	}
	n.must(http.MethodGet, "/v1/audit/verify", nil, &report)
	if !report.Intact || report.Records == 0 {
		n.t.Errorf("the audit is not intact: %d records in %d chains, %v", report.Records, report.Chains, report.Problems)
	}
}

// programs are the binaries, each built once for a run of the tests.
var programs struct {
	sync.Mutex
	dir string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if programs.dir != "" {
		os.RemoveAll(programs.dir)
	}
	os.Exit(code)
}

// program builds the program, with the race detector or as it is shipped.
func program(t testing.TB, race bool) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "watchword-program-")
		if err != nil {
			t.Fatal(err)
		}
		programs.dir = dir
	}
	args, path := []string{"build", "-o"}, filepath.Join(programs.dir, "watchword")
	if race {
		args, path = []string{"build", "-race", "-o"}, path+"-race"
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if out, err := exec.Command("go", append(args, path, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func freeTCP(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func freeUDP(t testing.TB) string {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.LocalAddr().String()
}

func firstLine(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// eventually fails the test unless f becomes true in time, and answers how long
// it took.
func eventually(t testing.TB, within time.Duration, what string, f func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}
