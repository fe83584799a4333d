package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"watchword/webauthn/softkey"
)

// keyParty is the relying party of the measurement, and keyOrigin where its
// browsers say that they are.
const (
	keyParty  = "bench.example.org"
	keyOrigin = "https://" + keyParty
)

// keySettings make the server a relying party there.
const keySettings = `WATCHWORD_FIDO_PARTIES=[{id: ` + keyParty + `, origins: ["` + keyOrigin + `"]}]`

// keyring is everybody's keys: one key in software, which makes a credential for
// each user.
type keyring struct {
	key   *softkey.Key
	users int
	next  atomic.Int64
}

func newKeyring(users int) (*keyring, error) {
	key, err := softkey.New(softkey.Options{Algorithm: softkey.ES256})
	return &keyring{key: key, users: users}, err
}

// pick answers the next user, round and round.
func (k *keyring) pick() int { return int((k.next.Add(1) - 1) % int64(k.users)) }

// turns answers each of n workers a function that goes round the users of its own:
// what a key signed is sent in the order in which it counted, however slow one
// request may be.
func (k *keyring) turns(n int) func() func() int {
	var worker atomic.Int64
	return func() func() int {
		first := int(worker.Add(1) - 1)
		user := first - n
		return func() int {
			if user += n; user >= k.users {
				user = first
			}
			return user
		}
	}
}

// measureKeys enrols a key for each user and measures logins: their two halves,
// each alone and together. An assertion is made before the half that proves it is
// measured, as keys are not part of the server.
func measureKeys(ctx context.Context, t *table, dir, db string, pg *postgres, o options, bare rate) error {
	url := ""
	if db == "postgres" {
		var err error
		if url, err = pg.create(ctx, "keys"); err != nil {
			return err
		}
	}
	s, err := startServer(ctx, o.binary, filepath.Join(dir, "keys"), url, keySettings)
	if err != nil {
		return err
	}
	defer s.stop()
	ring, err := newKeyring(o.keys)
	if err != nil {
		return err
	}
	say("%s: enrolling %d keys", db, o.keys)
	enrolled, err := s.enrolKeys(ctx, ring)
	if err != nil {
		return err
	}
	t.note("%s: %d users made and their attested keys enrolled in %v: %.0f/s", db, o.keys, enrolled.Round(10*time.Millisecond), float64(o.keys)/enrolled.Seconds())
	for _, n := range o.outstanding {
		say("%s: login/begin, %d outstanding", db, n)
		begin, err := drive(ctx, n, 0, o.seconds, s.beginWorker(ring))
		if err != nil {
			return err
		}
		t.add(db+" login/begin", n, begin, &bare)
		// More than can be answered in the time.
		ready, err := s.touch(ctx, ring, int(bare.perSecond*o.seconds.Seconds())+ring.users)
		if err != nil {
			return err
		}
		say("%s: login/finish, %d outstanding", db, n)
		var spent time.Duration
		finish, around, err := beside(ctx, func() (rate, error) {
			before := s.processorTime()
			r, err := drive(ctx, n, 0, o.seconds, s.finishWorker(ring, n, ready))
			spent = s.processorTime() - before
			return r, err
		})
		if errors.Is(err, errNoneLeft) {
			err = fmt.Errorf("%w: it is faster than bare ECDSA was at first; measure with a shorter -time", err)
		}
		if err != nil {
			return err
		}
		t.add(db+" login/finish", n, finish, &around)
		if made := finish.perSecond * finish.took.Seconds(); made > 0 {
			t.note("%s, %d outstanding: %.0f us of the server's processor time for a login/finish, %.0f us of them what bare ECDSA takes",
				db, n, float64(spent.Microseconds())/made, float64(runtime.NumCPU())*1e6/around.perSecond)
		}
		both, err := drive(ctx, n, 0, o.seconds, s.loginWorker(ring, n))
		if err != nil {
			return err
		}
		t.add(db+" both, and the key's signature", n, both, &bare)
	}
	return nil
}

// enrolKeys makes the users, trusts the keys' vendor, and enrols a key for each
// user. It answers how long the users and keys took.
func (s *server) enrolKeys(ctx context.Context, ring *keyring) (time.Duration, error) {
	pem, err := json.Marshal(map[string]string{"pem": string(ring.key.RootPEM())})
	if err != nil {
		return 0, err
	}
	l, err := s.dial()
	if err != nil {
		return 0, err
	}
	if _, err := l.request(http.MethodPut, "/v1/fido/roots", pem); err != nil {
		return 0, err
	}
	l.conn.Close()
	start := time.Now()
	_, err = drive(ctx, 32, ring.users, time.Hour, func() (func() error, func(), error) {
		l, err := s.dial()
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			user := userName(ring.pick())
			if _, err := l.request(http.MethodPost, "/v1/users", []byte(`{"name":"`+user+`"}`)); err != nil {
				return err
			}
			c, err := l.begin("register", user)
			if err != nil {
				return err
			}
			response, err := ring.key.Register(c.Options, keyOrigin)
			if err != nil {
				return err
			}
			_, err = l.request(http.MethodPost, "/v1/webauthn/register/finish", c.answer(response))
			return err
		}, func() { l.conn.Close() }, nil
	})
	ring.next.Store(0)
	return time.Since(start), err
}

// line is a connection that is kept open, as an application's pool keeps them,
// with as little cost on this side as there can be: it is the server that is
// measured.
type line struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
	key  string
}

func (s *server) dial() (*line, error) {
	conn, err := net.Dial("tcp", s.http)
	if err != nil {
		return nil, err
	}
	return &line{conn: conn, in: bufio.NewReader(conn), key: s.key}, nil
}

// request answers the body of a 2xx, until the next request.
func (l *line) request(method, path string, body []byte) ([]byte, error) {
	l.out = appendRequest(l.out[:0], method, path, l.key, body)
	return l.send(path, l.out)
}

// appendRequest appends a request to b, as it goes over the wire.
func appendRequest(b []byte, method, path, key string, body []byte) []byte {
	b = append(append(append(b, method...), ' '), path...)
	b = append(append(b, " HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer "...), key...)
	b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n\r\n"...)
	return append(b, body...)
}

// send sends a request that is ready, and answers the body of a 2xx, until the next
// request.
func (l *line) send(path string, request []byte) ([]byte, error) {
	if _, err := l.conn.Write(request); err != nil {
		return nil, err
	}
	status, err := l.in.ReadSlice('\n')
	if err != nil || len(status) < 12 {
		return nil, fmt.Errorf("%s: an answer that begins with %q, %w", path, status, err)
	}
	ok, code, length := status[9] == '2', string(status[9:12]), -1
	for {
		field, err := l.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(field) <= 2 {
			break
		}
		if text, found := bytes.CutPrefix(field, []byte("Content-Length: ")); found {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(text))); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return nil, fmt.Errorf("%s: an answer of a length that it does not say", path)
	}
	l.body = slices.Grow(l.body[:0], length)[:length]
	if _, err := io.ReadFull(l.in, l.body); err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s: %s: %s", path, code, l.body)
	}
	return l.body, nil
}

// ceremony is what the server asks a key.
type ceremony struct {
	Options json.RawMessage `json:"options"`
	Session string          `json:"session"`
}

func (l *line) begin(kind, user string) (c ceremony, err error) {
	text, err := l.request(http.MethodPost, "/v1/webauthn/"+kind+"/begin", []byte(`{"user":"`+user+`"}`))
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(text, &c)
}

func (c *ceremony) answer(response []byte) []byte {
	return fmt.Appendf(nil, `{"session":%q,"response":%s}`, c.Session, response)
}

const finishPath = "/v1/webauthn/login/finish"

// finishing is the request that ends a login.
func (l *line) finishing(c *ceremony, response []byte) []byte {
	return appendRequest(nil, http.MethodPost, finishPath, l.key, c.answer(response))
}

var accepted = []byte(`"result":"accept"`)

// finish sends the request that ends a login, which must be accepted.
func (l *line) finish(request []byte) error {
	text, err := l.send(finishPath, request)
	if err == nil && !bytes.Contains(text, accepted) {
		err = fmt.Errorf("login/finish: a right answer got %s", bytes.Clone(text))
		if why, asked := l.request(http.MethodGet, "/v1/audit?action=verify&outcome=reject&limit=1", nil); asked == nil {
			err = fmt.Errorf("%w; the audit says %s", err, why)
		}
	}
	return err
}

func (s *server) beginWorker(ring *keyring) worker {
	return func() (func() error, func(), error) {
		l, err := s.dial()
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			text, err := l.request(http.MethodPost, "/v1/webauthn/login/begin", []byte(`{"user":"`+userName(ring.pick())+`"}`))
			if err == nil && !bytes.Contains(text, []byte(`"session"`)) {
				err = fmt.Errorf("login/begin: %s", text)
			}
			return err
		}, func() { l.conn.Close() }, nil
	}
}

// touch begins n logins, or somewhat more, and has the keys answer them. It answers
// them by user, in the order in which their key made them.
func (s *server) touch(ctx context.Context, ring *keyring, n int) ([][][]byte, error) {
	rounds := (n + ring.users - 1) / ring.users
	ready := make([][][]byte, ring.users)
	for i := range ready {
		ready[i] = make([][]byte, rounds)
	}
	for round := range rounds {
		if err := s.touchAll(ctx, ring, ready, round); err != nil {
			return nil, err
		}
	}
	return ready, nil
}

func (s *server) touchAll(ctx context.Context, ring *keyring, ready [][][]byte, round int) error {
	var next atomic.Int64
	_, err := drive(ctx, 32, ring.users, time.Hour, func() (func() error, func(), error) {
		l, err := s.dial()
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			i := int(next.Add(1) - 1)
			c, err := l.begin("login", userName(i))
			if err != nil {
				return err
			}
			response, err := ring.key.Assert(c.Options, keyOrigin)
			if err != nil {
				return err
			}
			ready[i][round] = l.finishing(&c, response)
			return nil
		}, func() { l.conn.Close() }, nil
	})
	return err
}

var errNoneLeft = errors.New("all assertions that were made are used up")

func (s *server) finishWorker(ring *keyring, n int, ready [][][]byte) worker {
	turns, used := ring.turns(n), make([]int, ring.users)
	return func() (func() error, func(), error) {
		l, err := s.dial()
		if err != nil {
			return nil, nil, err
		}
		next := turns()
		return func() error {
			user := next()
			if used[user] == len(ready[user]) {
				return errNoneLeft
			}
			used[user]++
			return l.finish(ready[user][used[user]-1])
		}, func() { l.conn.Close() }, nil
	}
}

func (s *server) loginWorker(ring *keyring, n int) worker {
	turns := ring.turns(n)
	return func() (func() error, func(), error) {
		l, err := s.dial()
		if err != nil {
			return nil, nil, err
		}
		next := turns()
		return func() error {
			c, err := l.begin("login", userName(next()))
			if err != nil {
				return err
			}
			response, err := ring.key.Assert(c.Options, keyOrigin)
			if err != nil {
				return err
			}
			return l.finish(l.finishing(&c, response))
		}, func() { l.conn.Close() }, nil
	}
}
