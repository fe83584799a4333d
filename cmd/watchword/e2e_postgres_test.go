package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A postgres is a PostgreSQL server of a test's own.
type postgres struct {
	t    testing.TB
	dir  string
	port string
	cmd  *exec.Cmd
	made int
	mu   sync.Mutex
}

func pgBin(t testing.TB) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		t.Fatal("PostgreSQL is not installed")
	}
	return found[len(found)-1]
}

func pgUser() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			panic(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return a
}

func newPostgres(t testing.TB) *postgres {
	t.Helper()
	dir, err := os.MkdirTemp("", "watchword-pg-")
	if err != nil {
		t.Fatal(err)
	}
	p := &postgres{t: t, dir: dir}
	attr := pgUser()
	if attr.Credential != nil {
		os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid))
	}
	_, p.port, _ = net.SplitHostPort(freeTCP(t))
	cmd := exec.Command(filepath.Join(pgBin(t), "initdb"), "-D", filepath.Join(dir, "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
	cmd.SysProcAttr, cmd.Dir = attr, dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	t.Cleanup(func() { p.kill(); os.RemoveAll(dir) })
	p.start()
	return p
}

func (p *postgres) start() {
	p.t.Helper()
	p.cmd = exec.Command(filepath.Join(pgBin(p.t), "postgres"), "-D", filepath.Join(p.dir, "data"), "-p", p.port, "-k", p.dir, "-c", "listen_addresses=127.0.0.1", "-c", "log_min_messages=fatal")
	p.cmd.SysProcAttr, p.cmd.Dir = pgUser(), p.dir
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, 60e9, "PostgreSQL answers", func() bool {
		return exec.Command("psql", "-h", "127.0.0.1", "-p", p.port, "-U", "postgres", "-c", "select 1").Run() == nil
	})
}

func (p *postgres) kill() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.cmd = nil
	}
}

func (p *postgres) database(t testing.TB) string {
	p.mu.Lock()
	p.made++
	name := fmt.Sprintf("ww%d", p.made)
	p.mu.Unlock()
	url := "postgres://postgres@127.0.0.1:" + p.port + "/"
	psql(t, url+"postgres", "CREATE DATABASE "+name)
	return url + name + "?sslmode=disable"
}

func psql(t testing.TB, url, query string) string {
	t.Helper()
	out, err := exec.Command("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", query).CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

var sharedPG struct {
	sync.Mutex
	pg *postgres
}

func newDatabase(t testing.TB) string {
	t.Helper()
	return newPostgres(t).database(t)
}
