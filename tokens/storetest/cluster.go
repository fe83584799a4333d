package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Cluster is a throw-away PostgreSQL server from Debian's binaries, with fsync
// on as in earnest. It listens on 127.0.0.1 and trusts whoever connects.
//
// The server runs under a keeper, a shell that waits for the test's end of a
// pipe to close. However the test process ends, the keeper then stops the
// server and removes its files.
type Cluster struct {
	t    testing.TB
	bin  string // folder of the binaries
	dir  string
	port int
	as   *syscall.SysProcAttr // the user to run as; nil for our own

	mu     sync.Mutex
	keeper *exec.Cmd
	alive  io.WriteCloser // the pipe that the keeper waits on
	count  int            // databases made
}

// keeperScript starts the server, waits for the pipe to end, and stops the
// server. "$1" is postgres, "$2" the port, "$3" the data folder, "$4" what to
// remove at the end, unless the pipe said to keep it. SIGINT ends the server at
// once, but a shell starts what it puts in the background deaf to it: before the
// server hears by itself, SIGTERM does.
const keeperScript = `
"$1" -D "$3" -p "$2" -k "" -h 127.0.0.1 >"$3.log" 2>&1 </dev/null &
server=$!
trap '' HUP INT TERM
said=$(cat)
kill -TERM $server
kill -INT $server
wait $server
[ "$said" = keep ] || rm -rf "$4"
`

// NewCluster makes and starts a server of the test's own, which ends with it.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	c, err := startCluster(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		if err := os.RemoveAll(c.dir); err != nil {
			t.Errorf("removing the PostgreSQL server: %v", err)
		}
	})
	return c
}

// startCluster makes a server for one test, or for all of the process where t
// is nil.
func startCluster(t testing.TB) (*Cluster, error) {
	bin, err := postgresBinaries()
	if err != nil {
		return nil, err
	}
	c := &Cluster{t: t, bin: bin}
	if c.dir, err = os.MkdirTemp("", "watchword-postgres-"); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		// PostgreSQL refuses to run as root.
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, fmt.Errorf("PostgreSQL must run as another user than root: %w; install Debian's package postgresql", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		c.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		if err := os.Chown(c.dir, uid, gid); err != nil {
			return nil, err
		}
	}
	if err := c.command(filepath.Join(bin, "initdb"), "--no-sync", "--auth=trust", "--username=watchword", "--encoding=UTF8",
		"--locale=C", "--pgdata="+c.data()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	// A free port may be taken by another before the server has it.
	for range 5 {
		if c.port, err = freePort(); err != nil {
			break
		}
		if err = c.start(); err == nil {
			return c, nil
		}
	}
	return nil, errors.Join(err, os.RemoveAll(c.dir))
}

// postgresBinaries finds the newest server that Debian has installed.
func postgresBinaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.New("there is no PostgreSQL server under /usr/lib/postgresql; install Debian's package postgresql")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) })
	return filepath.Dir(newest), nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// command runs one of PostgreSQL's programs.
func (c *Cluster) command(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.SysProcAttr = c.dir, c.as
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}
	return nil
}

// start runs the server and waits until it answers.
func (c *Cluster) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	cmd := exec.Command("/bin/sh", "-c", keeperScript, "keeper", filepath.Join(c.bin, "postgres"), strconv.Itoa(c.port), c.data(), c.dir)
	cmd.Dir, cmd.SysProcAttr = c.dir, c.as
	alive, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.keeper, c.alive = cmd, alive
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := c.command(filepath.Join(c.bin, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "watchword", "-d", "postgres")
		if err == nil && c.running() {
			return nil
		}
		if time.Now().After(deadline) || !c.running() && logged(c.data()+".log", "database system is shut down") {
			c.stop()
			log, _ := os.ReadFile(c.data() + ".log")
			return fmt.Errorf("the PostgreSQL server does not start: %w\n%s", err, log)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func logged(path, what string) bool {
	b, err := os.ReadFile(path)
	return err == nil && bytes.Contains(b, []byte(what))
}

// pid is the server's process id by its own account, or zero.
func (c *Cluster) pid() int {
	b, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// running says whether our server, rather than another on the port, runs.
func (c *Cluster) running() bool {
	pid := c.pid()
	return pid > 0 && syscall.Kill(pid, 0) == nil
}

// stop ends the server quickly, as an administrator would, and waits for it.
// Its files stay.
func (c *Cluster) stop() {
	if c.keeper == nil {
		return
	}
	_, _ = io.WriteString(c.alive, "keep")
	_ = c.alive.Close()
	_ = c.keeper.Wait()
	c.keeper, c.alive = nil, nil
}

// Stop ends the server in good order. Start begins it again.
func (c *Cluster) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop()
}

// Start begins a server again that was stopped or killed, on the same port.
func (c *Cluster) Start() {
	c.t.Helper()
	if err := c.start(); err != nil {
		c.t.Fatal(err)
	}
}

// Kill ends the server and its children as by kill -9.
func (c *Cluster) Kill() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	pid := c.pid()
	if pid <= 1 {
		c.t.Fatal("the PostgreSQL server is not running")
	}
	children := childrenOf(pid)
	// The children first would have the server start them again.
	for _, p := range append([]int{pid}, children...) {
		_ = syscall.Kill(p, syscall.SIGKILL)
	}
	c.stop() // the keeper has nothing to stop any more, and ends
	for _, p := range children {
		for syscall.Kill(p, 0) == nil {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// childrenOf are the processes whose parent is pid.
func childrenOf(pid int) []int {
	var children []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// pid (name) state ppid ...; the name may hold anything
		after := b[bytes.LastIndexByte(b, ')')+1:]
		if f := bytes.Fields(after); len(f) > 1 && string(f[1]) == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// Restart stops the server in good order and starts it again.
func (c *Cluster) Restart() {
	c.t.Helper()
	c.Stop()
	c.Start()
}

// Database makes a new, empty database and answers its URL.
func (c *Cluster) Database() string {
	c.t.Helper()
	url, err := c.database()
	if err != nil {
		c.t.Fatal(err)
	}
	return url
}

// Exec runs SQL as the superuser, in the database that an URL of Database
// names.
func (c *Cluster) Exec(url, sql string) {
	c.t.Helper()
	if err := c.command(filepath.Join(c.bin, "psql"), "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql); err != nil {
		c.t.Fatal(err)
	}
}

func (c *Cluster) url(database string) string {
	return fmt.Sprintf("postgres://watchword@127.0.0.1:%d/%s?sslmode=disable", c.port, database)
}

func (c *Cluster) database() (string, error) {
	c.mu.Lock()
	c.count++
	name := fmt.Sprintf("test%d", c.count)
	c.mu.Unlock()
	return c.url(name), c.command(filepath.Join(c.bin, "createdb"), "-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "watchword", name)
}
