package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const peerSecret = "bench-shared-secret-32-characters"

// freeradiusRates measures FreeRADIUS on the same users: a flat file with one
// password each, or its rlm_totp, which keeps no state and accepts replays. It
// remembers each reply for five seconds, as it does by default; max_requests is
// raised, since at these rates it would drop packets for that alone.
func freeradiusRates(ctx context.Context, dir string, o options, f *fleet, totp bool) ([]rate, error) {
	name := "freeradius"
	if totp {
		name = "freeradius-totp"
	}
	say("%s: starting with %d users", name, o.users)
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	if err := writeUsers(filepath.Join(dir, "users"), o.users, f, totp); err != nil {
		return nil, err
	}
	authorize, authenticate, module := "files\npap", "Auth-Type PAP {\npap\n}", ""
	if totp {
		authorize = "files\nupdate request {\n&TOTP-Password := \"%{User-Password}\"\n}\nupdate control {\n&Auth-Type := totp\n}"
		authenticate, module = "Auth-Type totp {\ntotp\n}", "totp {\n}"
	}
	config := fmt.Sprintf(`
prefix = /usr
libdir = /usr/lib/freeradius
logdir = %[1]s
raddbdir = %[1]s
pidfile = %[1]s/pid
name = bench
max_requests = 4194304
cleanup_delay = 5
log {
 destination = files
 file = %[1]s/log
 auth = no
}
security {
 max_attributes = 200
 reject_delay = 0
 status_server = no
 allow_core_dumps = no
 require_message_authenticator = yes
}
thread pool {
 start_servers = 4
 max_servers = 8
 min_spare_servers = 2
 max_spare_servers = 8
 max_queue_size = 65536
 max_requests_per_server = 0
}
client bench {
 ipaddr = 127.0.0.1
 secret = %[2]s
 require_message_authenticator = yes
}
modules {
 files {
 usersfile = %[1]s/users
 key = "%%{User-Name}"
 }
 pap {
 }
 %[3]s
}
server default {
 listen {
 type = auth
 ipaddr = 127.0.0.1
 port = %[4]s
 recv_buff = 4194304
 }
 authorize {
 %[5]s
 }
 authenticate {
 %[6]s
 }
}
`, dir, peerSecret, module, port, authorize, authenticate)
	if err := os.WriteFile(filepath.Join(dir, "radiusd.conf"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd := exec.Command("freeradius", "-f", "-d", dir, "-n", "radiusd", "-l", filepath.Join(dir, "log"))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }()
	var wrong atomic.Int64
	worker := func() (func() error, func(), error) {
		n, err := dialNAS(addr, peerSecret)
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			i := f.pick(o.users)
			if totp {
				err := n.login(userName(i), totpNow(f.seeds[i][:]))
				if errors.Is(err, errReject) { // a step that ended on the way, and now and then a right code under load
					wrong.Add(1)
					return nil
				}
				return err
			}
			return n.login(userName(i), code(f.seeds[i][:], 0))
		}, func() { n.conn.Close() }, nil
	}
	for deadline := time.Now().Add(60 * time.Second); ; {
		if _, err := drive(ctx, 1, 1, time.Minute, worker); err == nil {
			break
		} else if time.Now().After(deadline) || ctx.Err() != nil {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			return nil, fmt.Errorf("%w\n%s%s", err, out.Bytes(), text)
		}
	}
	var rates []rate
	for _, n := range o.outstanding {
		r, err := drive(ctx, n, 0, o.seconds, worker)
		if err != nil {
			return nil, err
		}
		say("  %s, %d outstanding: %.0f/s", name, n, r.perSecond)
		rates = append(rates, r)
	}
	if n := wrong.Load(); n > 0 {
		say("  %s rejected %d right codes", name, n)
	}
	return rates, nil
}

func writeUsers(path string, users int, f *fleet, totp bool) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	w := bufio.NewWriter(file)
	for i := range users {
		if totp {
			fmt.Fprintf(w, "%s TOTP-Secret := \"%s\"\n", userName(i), base32.StdEncoding.EncodeToString(f.seeds[i][:]))
		} else {
			fmt.Fprintf(w, "%s Cleartext-Password := \"%s\"\n", userName(i), code(f.seeds[i][:], 0))
		}
	}
	return w.Flush()
}

// postgres is a cluster of the measurement's own, with the defaults of a new
// one: commits are durable.
type postgres struct {
	dir, port, bin string
	cmd            *exec.Cmd
	who            *syscall.SysProcAttr
	once           sync.Once
}

func startPostgres(ctx context.Context, dir string) (*postgres, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return nil, fmt.Errorf("no server below /usr/lib/postgresql; install the package postgresql")
	}
	p := &postgres{dir: dir, bin: filepath.Dir(found[len(found)-1])}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		p.who = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	_, p.port, _ = net.SplitHostPort(addr)
	if out, err := p.run(ctx, "initdb", "-D", filepath.Join(dir, "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C"); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	p.cmd = exec.Command(filepath.Join(p.bin, "postgres"), "-D", filepath.Join(dir, "data"), "-h", "127.0.0.1", "-p", p.port, "-k", dir, "-c", "max_connections=400", "-c", "shared_buffers=512MB")
	p.cmd.SysProcAttr, p.cmd.Dir = p.who, dir
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if _, err := p.run(ctx, "pg_isready", "-h", "127.0.0.1", "-p", p.port); err == nil {
			return p, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.stop()
	return nil, fmt.Errorf("it did not become ready")
}

func (p *postgres) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...)
	cmd.SysProcAttr, cmd.Dir = p.who, p.dir
	return cmd.CombinedOutput()
}

func (p *postgres) stop() {
	p.once.Do(func() {
		p.cmd.Process.Signal(syscall.SIGINT)
		p.cmd.Wait()
	})
}

func (p *postgres) create(ctx context.Context, name string) (string, error) {
	if out, err := p.run(ctx, "psql", "-h", "127.0.0.1", "-p", p.port, "-U", "postgres", "-c", "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%s/%s?sslmode=disable", p.port, name), nil
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// pgbench measures one select and one update by primary key, each a
// transaction of its own, on as many rows as there are users.
func (p *postgres) pgbench(ctx context.Context, o options) ([]rate, error) {
	if _, err := p.create(ctx, "bench"); err != nil {
		return nil, err
	}
	db := []string{"-h", "127.0.0.1", "-p", p.port, "-U", "postgres"}
	setup := fmt.Sprintf("CREATE TABLE u (id int PRIMARY KEY, v bigint NOT NULL, f int NOT NULL) WITH (fillfactor=70); INSERT INTO u SELECT g, 0, 0 FROM generate_series(1,%d) g; VACUUM ANALYZE u;", o.users)
	for _, stmt := range bytes.Split([]byte(setup), []byte("; ")) {
		if out, err := p.run(ctx, "psql", append(db, "-d", "bench", "-c", string(stmt))...); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, out)
		}
	}
	script := filepath.Join(p.dir, "script.sql")
	text := fmt.Sprintf("\\set id random(1, %d)\nSELECT v, f FROM u WHERE id = :id;\nUPDATE u SET v = v + 1 WHERE id = :id;\n", o.users)
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		return nil, err
	}
	var rates []rate
	for _, n := range o.outstanding {
		args := append(db, "-n", "-M", "prepared", "-c", strconv.Itoa(n), "-j", strconv.Itoa(min(n, 2)), "-T", strconv.Itoa(max(1, int(o.seconds.Seconds()))),
			"-l", "--log-prefix", filepath.Join(p.dir, "lat"+strconv.Itoa(n)), "-f", script, "bench")
		out, err := p.run(ctx, "pgbench", args...)
		m := tps.FindSubmatch(out)
		if err != nil || m == nil {
			return nil, fmt.Errorf("%w\n%s", err, out)
		}
		var r rate
		r.perSecond, _ = strconv.ParseFloat(string(m[1]), 64)
		r.p50, r.p99 = percentiles(filepath.Join(p.dir, "lat"+strconv.Itoa(n)))
		say("  pgbench, %d clients: %.0f/s", n, r.perSecond)
		rates = append(rates, r)
	}
	return rates, nil
}

// percentiles reads pgbench's logs: the third column is the latency in µs.
func percentiles(prefix string) (p50, p99 time.Duration) {
	files, _ := filepath.Glob(prefix + ".*")
	var all []time.Duration
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			if f := bytes.Fields(line); len(f) > 2 {
				us, _ := strconv.Atoi(string(f[2]))
				all = append(all, time.Duration(us)*time.Microsecond)
			}
		}
		os.Remove(name)
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}
