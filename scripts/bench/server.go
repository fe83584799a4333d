package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// server is one Watchword under measurement.
type server struct {
	cmd    *exec.Cmd
	http   string
	radius string
	key    string
	secret string
	once   sync.Once
}

// freePort answers an address on loopback whose port is free for TCP and UDP. It
// lies below the ports that the system gives to sockets that ask for any.
func freePort() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", addr)
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		return addr, nil
	}
	return "", errors.New("no free port on 127.0.0.1")
}

func startServer(ctx context.Context, binary, dir, database string, env ...string) (*server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &server{}
	var err error
	if s.http, err = freePort(); err != nil {
		return nil, err
	}
	if s.radius, err = freePort(); err != nil {
		return nil, err
	}
	args := []string{"serve", "--data-dir", dir, "--http", s.http, "--radius", s.radius}
	if database != "" {
		args = append(args, "--database", database)
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.Command(binary, args...)
	s.cmd.Stderr, s.cmd.Stdout = log, log
	s.cmd.Env = append(os.Environ(), env...)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(60 * time.Second); ; {
		if r, err := http.Get("http://" + s.http + "/readyz"); err == nil {
			r.Body.Close()
			if r.StatusCode == 200 {
				break
			}
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			s.stop()
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			return nil, fmt.Errorf("the server did not become ready:\n%s", text)
		}
		time.Sleep(50 * time.Millisecond)
	}
	key, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(filepath.Join(dir, "radius.secret"))
	s.key, s.secret = strings.TrimSpace(string(key)), strings.TrimSpace(string(secret))
	return s, err
}

func (s *server) stop() {
	s.once.Do(func() {
		s.cmd.Process.Signal(syscall.SIGTERM)
		s.cmd.Wait()
	})
}

// peakMemory is the most memory that the server has held, in MB.
func (s *server) peakMemory() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb / 1024
		}
	}
	return 0
}

// tick is the unit in which Linux tells processor time to programs.
const tick = 10 * time.Millisecond

// processorTime is how long the server has kept processors busy (proc(5)).
func (s *server) processorTime() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

func (s *server) importFleet(ctx context.Context, dir string, f *fleet) (time.Duration, error) {
	file, err := os.Create(filepath.Join(dir, "shipment.csv"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := f.csv(file); err != nil {
		return 0, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	start := time.Now()
	err = s.call(ctx, http.DefaultClient, "/v1/imports", "application/octet-stream", file, 200)
	return time.Since(start), err
}

// send is a call with a body in JSON that is answered with 200.
func (s *server) send(ctx context.Context, method, path, body string) error {
	return s.request(ctx, http.DefaultClient, method, path, "application/json", strings.NewReader(body), 200)
}

func (s *server) call(ctx context.Context, c *http.Client, path, kind string, body io.Reader, want int) error {
	return s.request(ctx, c, http.MethodPost, path, kind, body, want)
}

func (s *server) request(ctx context.Context, c *http.Client, method, path, kind string, body io.Reader, want int) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.http+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", kind)
	r, err := c.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
	if r.StatusCode != want {
		return fmt.Errorf("%s: %s: %s", path, r.Status, text)
	}
	return nil
}

// assign makes users and gives each a token.
func (s *server) assign(ctx context.Context, f *fleet, users int) error {
	var next atomic.Int64
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	_, err := drive(ctx, 32, users, time.Hour, func() (func() error, func(), error) {
		return func() error {
			i := int(next.Add(1) - 1)
			if err := s.call(ctx, c, "/v1/users", "application/json", strings.NewReader(`{"name":"`+userName(i)+`"}`), 201); err != nil {
				return err
			}
			return s.call(ctx, c, "/v1/tokens/"+serial(i)+"/assign", "application/json", strings.NewReader(`{"user":"`+userName(i)+`"}`), 200)
		}, func() {}, nil
	})
	return err
}

func (s *server) radiusWorker(f *fleet, users int) worker {
	return func() (func() error, func(), error) {
		n, err := dialNAS(s.radius, s.secret)
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			i := f.pick(users)
			err := n.login(userName(i), f.hotp(i))
			f.counters[i]++
			return err
		}, func() { n.conn.Close() }, nil
	}
}

// httpWorker speaks HTTP/1.1 on one connection kept open, as an application's
// connection pool does, with little cost on this side.
func (s *server) httpWorker(f *fleet, users int) worker {
	return func() (func() error, func(), error) {
		conn, err := net.Dial("tcp", s.http)
		if err != nil {
			return nil, nil, err
		}
		in := bufio.NewReader(conn)
		var out bytes.Buffer
		return func() error {
			i := f.pick(users)
			body := `{"user":"` + userName(i) + `","code":"` + f.hotp(i) + `"}`
			out.Reset()
			fmt.Fprintf(&out, "POST /v1/verify HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s.key, len(body), body)
			if _, err := conn.Write(out.Bytes()); err != nil {
				return err
			}
			f.counters[i]++
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				return err
			}
			defer r.Body.Close()
			var got struct{ Result string }
			if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
				return err
			}
			io.Copy(io.Discard, r.Body)
			if r.StatusCode != 200 || got.Result != "accept" {
				return fmt.Errorf("%s: %s %q", userName(i), r.Status, got.Result)
			}
			return nil
		}, func() { conn.Close() }, nil
	}
}
