package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of e2e_gateways_*_test.go start the gateways' own programs, as Debian ships
// them, and have them ask a server. What docs/gateways says of a program as tried, is
// tried here.

// wantProgram fails the test unless a program is installed: the tests of the gateways
// prove nothing where they are skipped for want of a package.
func wantProgram(t *testing.T, pkg string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			if version, err := exec.Command("dpkg-query", "-W", pkg).Output(); err == nil {
				t.Logf("%s", version)
			}
			return
		}
	}
	t.Fatalf("%s is missing; it is in the package %s, which scripts/deps.sh test installs", paths[0], pkg)
}

// wantRoot skips the test, aloud, unless it may do what only root may.
func wantRoot(t *testing.T, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("NOT TESTED: only root may %s", what)
	}
}

// A process is a program that runs beside the test, and what it printed.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   string // file
	ended chan struct{}
}

// runBeside starts a program that ends with the test at the latest. It has no terminal:
// what it asks for it reads from its input.
func runBeside(t *testing.T, input string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, out: filepath.Join(t.TempDir(), "out"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(name, args...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = strings.NewReader(input), log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("what %s printed:\n%s", filepath.Base(name), lastLines(p.printed(), 60))
		}
	})
	return p
}

func (p *process) printed() string {
	text, err := os.ReadFile(p.out)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// end asks the program to end, and makes it after three seconds; what it started
// itself goes with it.
func (p *process) end() {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err == nil {
		select {
		case <-p.ended:
		case <-time.After(3 * time.Second):
		}
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its session is its own
	<-p.ended
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// prints waits until the program has printed a text.
func (p *process) prints(text string, within time.Duration) {
	p.t.Helper()
	p.printsOneOf(within, text)
}

// printsOneOf waits until the program has printed one of several texts, and answers
// which.
func (p *process) printsOneOf(within time.Duration, texts ...string) string {
	p.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		over := p.hasEnded() || time.Now().After(deadline)
		printed := p.printed()
		for _, text := range texts {
			if strings.Contains(printed, text) {
				return text
			}
		}
		if over {
			p.t.Fatalf("%s did not print %q within %v:\n%s", p.cmd.Path, texts, within, lastLines(printed, 60))
		}
	}
}

// A netns is a network namespace of the test's own, where only what the test put there
// can be reached. It is gone when the test ends.
type netns struct {
	t      *testing.T
	holder *process
}

// newNetns makes a network namespace with a loopback, or skips the test, aloud.
func newNetns(t *testing.T) *netns {
	t.Helper()
	wantRoot(t, "make network namespaces")
	// The namespace lives as long as a process in it.
	if out, err := exec.Command("unshare", "--net", "true").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: no network namespace can be made here: %v: %s", err, out)
	}
	s := &netns{t: t, holder: runBeside(t, "", "unshare", "--net", "sh", "-c", "echo here; exec sleep 1000")}
	s.holder.prints("here", 10*time.Second)
	s.must("ip", "link", "set", "lo", "up")
	return s
}

func (s *netns) file() string { return fmt.Sprintf("/proc/%d/ns/net", s.holder.cmd.Process.Pid) }

// in is the command line that runs a program in the namespace.
func (s *netns) in(name string, args ...string) []string {
	return append([]string{"nsenter", "--net=" + s.file(), "--", name}, args...)
}

// try runs a program in the namespace to its end.
func (s *netns) try(name string, args ...string) (string, error) {
	line := s.in(name, args...)
	out, err := exec.Command(line[0], line[1:]...).CombinedOutput()
	return string(out), err
}

// reach says why an address does not answer; nil: it does.
func (s *netns) reach(address string) error {
	_, err := s.try("ping", "-c", "1", "-W", "5", address)
	return err
}

func (s *netns) must(name string, args ...string) string {
	s.t.Helper()
	out, err := s.try(name, args...)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// run starts a program in the namespace that ends with the test at the latest.
func (s *netns) run(t *testing.T, input, name string, args ...string) *process {
	t.Helper()
	line := s.in(name, args...)
	return runBeside(t, input, line[0], line[1:]...)
}

// wire joins two namespaces by a network of their own, in which the first is 10.9.0.1 and
// the second 10.9.0.2.
func wire(a, b *netns) {
	a.must("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", fmt.Sprint(b.holder.cmd.Process.Pid))
	for i, s := range []*netns{a, b} {
		s.must("ip", "address", "add", fmt.Sprintf("10.9.0.%d/24", i+1), "dev", "wire")
		s.must("ip", "link", "set", "wire", "up")
	}
}

// listenUDP opens a socket in the namespace, or, in none, outside all.
func (s *netns) listenUDP(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	if s != nil {
		// A thread goes in and comes back: it must not end, since what it started would
		// end with it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		outside, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		defer outside.Close()
		inside, err := os.Open(s.file())
		if err != nil {
			t.Fatal(err)
		}
		defer inside.Close()
		if err := unix.Setns(int(inside.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Setns(int(outside.Fd()), unix.CLONE_NEWNET); err != nil {
				panic(err)
			}
		}()
	}
	conn, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// A tap passes on what a gateway and a server say to each other, byte for byte, and
// keeps it. It reaches from the gateway's network namespace to the server outside.
type tap struct {
	t      *testing.T
	addr   string // HOST:PORT to ask at
	server *net.UDPAddr
	conn   *net.UDPConn

	mu      sync.Mutex
	packets []radiusPacket
	drop    int // so many replies are lost from now on
}

// newTap listens in a namespace, or, in none, outside all.
func newTap(t *testing.T, n *node, s *netns) *tap {
	t.Helper()
	server, err := net.ResolveUDPAddr("udp", n.radius)
	if err != nil {
		t.Fatal(err)
	}
	at := "127.0.0.1:0"
	if s != nil {
		at = "127.0.0.1:1812" // where nobody else is
	}
	p := &tap{t: t, server: server, conn: s.listenUDP(t, at)}
	p.addr = p.conn.LocalAddr().String()
	go p.pass()
	return p
}

// pass takes requests until the socket is closed, each peer's to a socket of its own.
func (p *tap) pass() {
	out := make(map[string]*net.UDPConn)
	defer func() {
		for _, conn := range out {
			conn.Close()
		}
	}()
	buf := make([]byte, 4096)
	for {
		size, from, err := p.conn.ReadFromUDP(buf)
		if err != nil {
			return
		}
		p.keep(buf[:size])
		conn := out[from.String()]
		if conn == nil {
			if conn, err = net.DialUDP("udp", nil, p.server); err != nil {
				p.t.Error(err)
				return
			}
			out[from.String()] = conn
			go p.back(conn, from)
		}
		_, _ = conn.Write(buf[:size]) // a packet that is lost is sent again by who wants an answer
	}
}

func (p *tap) back(conn *net.UDPConn, to *net.UDPAddr) {
	buf := make([]byte, 4096)
	for {
		size, err := conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // nobody listens there just now
		}
		if p.keep(buf[:size]) {
			_, _ = p.conn.WriteToUDP(buf[:size], to)
		}
	}
}

// keep remembers a packet, and says whether it is to be passed on.
func (p *tap) keep(b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := radiusPacket(bytes.Clone(b))
	p.packets = append(p.packets, k)
	if len(k) > 0 && k[0] != accessRequest && p.drop > 0 {
		p.drop--
		return false
	}
	return true
}

// loseReplies loses the next n replies.
func (p *tap) loseReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = n
}

// take answers what has passed since it was called last.
func (p *tap) take() []radiusPacket {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.packets
	p.packets = nil
	return list
}

// wantCodes fails the test unless packets of these codes passed, and answers them.
func (p *tap) wantCodes(t *testing.T, codes ...byte) []radiusPacket {
	t.Helper()
	list := p.take()
	var got []byte
	for _, k := range list {
		got = append(got, k[0])
	}
	if !bytes.Equal(got, codes) {
		t.Fatalf("RADIUS codes %v passed; want %v:\n%v", got, codes, list)
	}
	return list
}

// accessChallenge is a code of RFC 2865, section 3.
const accessChallenge = 11

// A radiusPacket is one of RFC 2865, section 3.
type radiusPacket []byte

// Attributes of RFC 2865, section 5, and RFC 2869, section 5.
const (
	attrUserPassword         = 2
	attrState                = 24
	attrCallingStationID     = 31
	attrNASIdentifier        = 32
	attrProxyState           = 33
	attrPrompt               = 76
	attrMessageAuthenticator = 80
)

// all are the values of an attribute, in their order.
func (k radiusPacket) all(kind byte) [][]byte {
	var list [][]byte
	for rest := []byte(k[20:binary.BigEndian.Uint16(k[2:])]); len(rest) >= 2 && rest[1] >= 2 && int(rest[1]) <= len(rest); rest = rest[rest[1]:] {
		if rest[0] == kind {
			list = append(list, rest[2:rest[1]])
		}
	}
	return list
}

// one is the value of an attribute that is there once; "" if it is not there.
func (k radiusPacket) one(kind byte) string {
	if list := k.all(kind); len(list) == 1 {
		return string(list[0])
	} else if len(list) > 1 {
		return fmt.Sprintf("%d values", len(list))
	}
	return ""
}

// has says whether an attribute is there.
func (k radiusPacket) has(kind byte) bool { return len(k.all(kind)) > 0 }

// String lists the kinds and lengths of the attributes, and the values of those that
// are no secret.
func (k radiusPacket) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "code %d, id %d:", k[0], k[1])
	for rest := []byte(k[20:]); len(rest) >= 2 && rest[1] >= 2 && int(rest[1]) <= len(rest); rest = rest[rest[1]:] {
		switch rest[0] {
		case attrUserPassword, attrState, attrMessageAuthenticator:
			fmt.Fprintf(&b, " %d(%d octets)", rest[0], rest[1]-2)
		default:
			fmt.Fprintf(&b, " %d=%q", rest[0], rest[2:rest[1]])
		}
	}
	return b.String() + "\n"
}

// setClient sets the client of 127.0.0.1, whose secret stays, and who need not sign
// requests.
func (n *node) setClient(settings map[string]any) {
	n.t.Helper()
	all := map[string]any{"prefix": "127.0.0.1/32", "secret": n.secret, "require_message_authenticator": false}
	for name, value := range settings {
		all[name] = value
	}
	n.must(http.MethodPut, "/v1/clients/localhost", all, nil)
}

// wantChallenged fails the test unless requests and challenges took turns until the last
// reply, and each State came back as it was, once.
func (p *tap) wantChallenged(t *testing.T, challenges int, last byte) []radiusPacket {
	t.Helper()
	var codes []byte
	for range challenges {
		codes = append(codes, accessRequest, accessChallenge)
	}
	packets := p.wantCodes(t, append(codes, accessRequest, last)...)
	if packets[0].has(attrState) {
		t.Errorf("%v: the first request has a State", packets[0])
	}
	states := make(map[string]bool)
	for i := range challenges {
		asked, answer := packets[2*i+1], packets[2*i+2]
		state := asked.one(attrState)
		if state == "" || states[state] || answer.one(attrState) != state {
			t.Errorf("the State of a challenge is not that of its answer, or was there before:\n%v", packets)
		}
		states[state] = true
	}
	return packets
}

// reply is the setting of a client whose accepts for the members of a group have an
// attribute.
func reply(group, name, value string) map[string]any {
	attribute := map[string]string{"name": name, "value": value}
	return map[string]any{"replies": []any{map[string]any{"group": group, "attributes": []any{attribute}}}}
}

// setPIN gives a user a PIN, which is to be changed at the next login or not.
func (n *node) setPIN(user, pin string, due bool) {
	n.t.Helper()
	n.must(http.MethodPut, "/v1/users/"+user+"/pin", map[string]any{"pin": pin, "change": due}, nil)
}

// wantReason fails the test unless the last attempt of a user ended for a reason.
func (n *node) wantReason(user, reason string) {
	n.t.Helper()
	if last := n.lastAttempt(user); last.Reason != reason {
		n.t.Errorf("the audit says %s of %s's last attempt; want %s", last.Reason, user, reason)
	}
}

// testFile writes a file for a program to read, and answers its path.
func testFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
