package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/des"
	"crypto/md5"
	"crypto/sha1"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/md4" //lint:ignore SA1019 MS-CHAP is made of it
)

// chap is an MD5 over the code, with the request's authenticator as the challenge (RFC
// 2865, section 5.3).
func chap(b []byte, _, code string) []byte {
	text := append(append(append(make([]byte, 0, 32), 7), code...), b[4:20]...)
	sum := md5.Sum(text)
	return append(append(b, 3, 19, 7), sum[:]...)
}

// mschapv2 is the NT response of RFC 2759, section 8.1, to challenges that never change:
// the server does not know that.
func mschapv2(b []byte, user, code string) []byte {
	ours, peer := bytes.Repeat([]byte{0xA5}, 16), bytes.Repeat([]byte{0x5A}, 16)
	challenge := sha1.Sum(append(append(bytes.Clone(peer), ours...), user...))
	h := md4.New()
	for i := range len(code) {
		h.Write([]byte{code[i], 0})
	}
	hash := append(h.Sum(nil), make([]byte, 5)...)
	vendor := func(kind byte, size int) {
		b = append(b, 26, byte(8+size), 0, 0, 1, 0x37, kind, byte(2+size))
	}
	vendor(11, 16)
	b = append(b, ours...)
	vendor(25, 50)
	b = append(append(append(b, 7, 0), peer...), make([]byte, 8)...)
	for i := 0; i < 21; i += 7 {
		var key [8]byte // seven bits to a byte
		var bits uint64
		for _, x := range hash[i : i+7] {
			bits = bits<<8 | uint64(x)
		}
		for j := range key {
			key[j] = byte(bits>>(49-7*j)) << 1
		}
		c, err := des.NewCipher(key[:])
		if err != nil {
			panic(err)
		}
		var block [8]byte
		c.Encrypt(block[:], challenge[:8])
		b = append(b, block[:]...)
	}
	return b
}

// round is how long what is compared is measured at a time, and leastRounds how often
// at least: in turn, there and back, so that all see the same of what else the machine
// does.
const (
	round       = time.Second
	leastRounds = 5
)

// comparison measures the same in several ways, in turn.
type comparison struct {
	name  string
	ready func() error // before a round; what it costs is not measured; may be nil
	run   func() (rate, error)
}

// measure is one round, and how many microseconds of the server's processors a request
// took in it.
func (c *comparison) measure(s *server) (r rate, cost float64, err error) {
	if c.ready != nil {
		err = c.ready()
	}
	if err == nil {
		before := s.processorTime()
		r, err = c.run()
		cost = float64((s.processorTime() - before).Microseconds()) / (r.perSecond * r.took.Seconds())
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", c.name, err)
	}
	return r, cost, err
}

// compare measures all for as long as the options say, and adds the median of each, and
// the median of what it was of the first in the same round.
//
// The machine's own noise is in a rate, and hardly in what the server's processors did
// for a request: that is noted too.
func compare(t *table, n int, o options, s *server, list []comparison) error {
	all, of, cost := make([][]rate, len(list)), make([][]float64, len(list)), make([][]float64, len(list))
	for r := range max(leastRounds, int(o.seconds/round)) {
		for i := range list {
			if r%2 == 1 {
				i = len(list) - 1 - i
			}
			made, spent, err := list[i].measure(s)
			if err != nil {
				return err
			}
			all[i], cost[i] = append(all[i], made), append(cost[i], spent)
		}
		for i := range list {
			of[i] = append(of[i], all[i][r].perSecond/all[0][r].perSecond)
		}
	}
	for i, c := range list {
		m := rate{
			perSecond: median(all[i], func(r rate) float64 { return r.perSecond }),
			p50:       median(all[i], func(r rate) time.Duration { return r.p50 }),
			p99:       median(all[i], func(r rate) time.Duration { return r.p99 }),
		}
		t.add(c.name, n, m, &rate{perSecond: m.perSecond / median(of[i], itself)})
		t.note("%s, %d outstanding: %.1f us of the server's processors a request, %.2f of %s",
			c.name, n, median(cost[i], itself), median(cost[i], itself)/median(cost[0], itself), list[0].name)
	}
	return nil
}

func itself(x float64) float64 { return x }

// median is the middle of what is measured of each; of two in the middle, the lower one.
func median[R any, T cmp.Ordered](list []R, of func(R) T) T {
	var all []T
	for _, x := range list {
		all = append(all, of(x))
	}
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

// furnished starts a server of its own on a database, with tokens in people's hands.
func furnished(ctx context.Context, dir, db string, pg *postgres, o options, users int, fleet *fleet) (*server, error) {
	fleet.reset()
	url := ""
	if db == "postgres" {
		var err error
		if url, err = pg.create(ctx, filepath.Base(dir)); err != nil {
			return nil, err
		}
	}
	s, err := startServer(ctx, o.binary, dir, url)
	if err != nil {
		return nil, err
	}
	if _, err = s.importFleet(ctx, dir, fleet); err == nil {
		say("%s: adding and assigning %d users", db, users)
		err = s.assign(ctx, fleet, users)
	}
	if err == nil { // once, so that all are measured with handles that are there
		_, err = drive(ctx, 64, users, time.Hour, s.radiusWorker(fleet, users))
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// runMethods measures what shows a code in other ways than PAP, beside PAP.
func runMethods(ctx context.Context, dir string, pg *postgres, o options) error {
	fleet := newFleet(o.tokens)
	t := table{beside: []string{"of PAP"}}
	t.title = fmt.Sprintf("RADIUS methods: %d users, %d cores, everything on one machine, medians of rounds of %v in turn", o.users, runtime.NumCPU(), round)
	for _, db := range o.databases {
		s, err := furnished(ctx, filepath.Join(dir, "methods_"+db), db, pg, o, o.users, fleet)
		if err != nil {
			return fmt.Errorf("methods on %s: %w", db, err)
		}
		defer s.stop()
		body := fmt.Sprintf(`{"prefix":"127.0.0.1/32","secret":%q,"methods":["pap","chap","mschapv2"]}`, s.secret)
		if err := s.send(ctx, http.MethodPut, "/v1/clients/localhost", body); err != nil {
			return err
		}
		for _, n := range o.outstanding {
			var list []comparison
			for _, m := range []string{"PAP", "CHAP", "MS-CHAPv2"} {
				list = append(list, comparison{name: db + " RADIUS " + m, run: func() (rate, error) {
					return drive(ctx, n, 0, round, s.methodWorker(fleet, o.users, m))
				}})
			}
			if err := compare(&t, n, o, s, list); err != nil {
				return err
			}
		}
	}
	return t.printed()
}

func (s *server) methodWorker(f *fleet, users int, method string) worker {
	return func() (func() error, func(), error) {
		n, err := dialNAS(s.radius, s.secret)
		if err != nil {
			return nil, nil, err
		}
		shows := map[string]func([]byte, string, string) []byte{"PAP": n.pap, "CHAP": chap, "MS-CHAPv2": mschapv2}[method]
		return func() error {
			i := f.pick(users)
			err := n.ask(userName(i), f.hotp(i), shows)
			f.counters[i]++
			return err
		}, func() { n.conn.Close() }, nil
	}
}

// runPolicies measures attempts under policies of the installation's own, beside
// attempts under none.
func runPolicies(ctx context.Context, dir string, pg *postgres, o options) error {
	const links = 10_000
	users := min(o.users, links)
	fleet := newFleet(o.tokens)
	t := table{beside: []string{"of none"}}
	t.title = fmt.Sprintf("Policies: %d users, %d cores, everything on one machine, medians of rounds of %v in turn", users, runtime.NumCPU(), round)
	for _, db := range o.databases {
		s, err := furnished(ctx, filepath.Join(dir, "policies_"+db), db, pg, o, users, fleet)
		if err != nil {
			return fmt.Errorf("policies on %s: %w", db, err)
		}
		defer s.stop()
		const forbid = `forbid (principal, action == Watchword::Action::\"verify\", resource is Watchword::Token) when { %s };`
		var ten []string
		for i := range 10 {
			ten = append(ten, fmt.Sprintf(`{"id":"gate%d","text":"`+forbid+`"}`, i, fmt.Sprintf(`resource.unused_days > %d && context.hour == %d && context has nas && context.nas == \"wlan%d\"`, 300+i, i, i)))
		}
		var many []string
		for i := range links {
			many = append(many, fmt.Sprintf(`{"id":"link%05d","template":"night","resource":"Watchword::User::\"default/%s\""}`, i, userName(i%users)))
		}
		edit := func(body string) error { return s.send(ctx, http.MethodPut, "/v1/policies", body) }
		undo := ""
		for _, n := range o.outstanding {
			// A change of the policies has the server read everybody anew: that is over
			// when a round begins.
			under := func(name, put, taken string) comparison {
				ready := func() (err error) {
					if undo != "" {
						err = edit(undo)
					}
					if undo = taken; err == nil && put != "" {
						err = edit(put)
					}
					if err == nil {
						_, err = drive(ctx, n, users, time.Hour, s.radiusWorker(fleet, users))
					}
					return err
				}
				return comparison{db + " RADIUS PAP, " + name, ready, func() (rate, error) {
					return drive(ctx, n, 0, round, s.radiusWorker(fleet, users))
				}}
			}
			ids := func(list []string, prefix, form string) string {
				var all []string
				for i := range list {
					all = append(all, fmt.Sprintf(`"`+prefix+form+`"`, i))
				}
				return strings.Join(all, ",")
			}
			err := compare(&t, n, o, s, []comparison{
				under("no policies", "", ""),
				under("10 policies", `{"put":[`+strings.Join(ten, ",")+`]}`, `{"delete":[`+ids(ten, "gate", "%d")+`]}`),
				under(fmt.Sprintf("%d links", links),
					`{"put_templates":[{"id":"night","text":"forbid (principal, action == Watchword::Action::\"verify\", resource in ?resource) when { context.hour > 23 };"}],"put_links":[`+strings.Join(many, ",")+`]}`,
					`{"delete_links":[`+ids(many, "link", "%05d")+`],"delete_templates":["night"]}`),
			})
			if err != nil {
				return err
			}
		}
	}
	return t.printed()
}
