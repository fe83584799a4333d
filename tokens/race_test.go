package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

// answers are what became of attempts made at once.
type answers struct {
	accepted, rejected, failed atomic.Int64
}

func (a *answers) String() string {
	return fmt.Sprintf("%d accepted, %d rejected, %d failed", a.accepted.Load(), a.rejected.Load(), a.failed.Load())
}

// ask makes an attempt and counts its answer, which must come within a minute.
func (h *house) ask(a *answers, s *tokens.Service, p tokens.Principal, user, code string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := s.Verify(ctx, p, tokens.Attempt{User: user, Code: code, Transport: "radius"})
	switch {
	case ctx.Err() != nil:
		h.Errorf("%s: no answer", user)
	case err != nil && !errors.Is(err, tokens.ErrUnavailable) && !errors.Is(err, tokens.ErrOverloaded):
		h.Errorf("%s: %v", user, err)
	case err != nil:
		a.failed.Add(1)
	case r.Accept:
		a.accepted.Add(1)
	default:
		a.rejected.Add(1)
	}
	return err == nil && r.Accept
}

// acceptedOnce says that in the audit no factor of any token was accepted
// twice, and answers how many were accepted.
func (h *house) acceptedOnce() int {
	h.Helper()
	seen, challenges := map[string]int{}, map[string]int{}
	heads, err := h.mem.Heads(ctx)
	if err != nil {
		h.Fatal(err)
	}
	n := 0
	for _, head := range heads {
		if err := h.mem.Walk(ctx, head.Chain, func(r *audit.Record) error {
			used := r.Outcome == "challenge" && detail(*r, "factor") != "" // by a question
			if r.Action == "verify" && (r.Outcome == "accept" || used) {
				if !used {
					n++
				}
				if detail(*r, "dialogue") == "new_pin" { // by the question before
					return nil
				}
				k := r.Serial
				for _, f := range r.Detail {
					if f.Name == "factor" || f.Name == "challenge" || f.Name == "number" {
						k += ":" + f.Value
					}
					if f.Name == "challenge" { // of whichever key
						challenges[f.Value]++
						if challenges[f.Value] > 1 {
							h.Errorf("a challenge was answered %d times", challenges[f.Value])
						}
					}
				}
				if seen[k]++; seen[k] > 1 {
					h.Errorf("%s was accepted %d times", k, seen[k])
				}
			}
			return nil
		}); err != nil {
			h.Fatal(err)
		}
	}
	return n
}

func TestOneCodeManyTimesAtOnceIsAcceptedOnce(t *testing.T) {
	for _, nodes := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			h := newHouse(t)
			services := []*tokens.Service{h.Service}
			for range nodes - 1 {
				services = append(services, h.node(&firsts{}))
			}
			d, e := totp("T1"), hotp("H1")
			h.give("alice", d)
			h.give("bob", e)
			for round := range 5 {
				var a, b answers
				var all sync.WaitGroup
				code, counter := d.code(h, 0), e.at(int64(round))
				for i := range 100 {
					s := services[i%nodes]
					all.Go(func() { h.ask(&a, s, h.vpn, "alice", code) })
					all.Go(func() { h.ask(&b, s, h.vpn, "bob", counter) })
				}
				all.Wait()
				for who, got := range map[string]*answers{"TOTP": &a, "HOTP": &b} {
					if got.accepted.Load() != 1 || got.rejected.Load() != 99 {
						t.Errorf("%s, round %d: %v; want 1 accepted, 99 rejected", who, round, got)
					}
				}
				h.clock.forward(30 * time.Second)
			}
			if got := h.acceptedOnce(); got != 10 {
				t.Errorf("the audit has %d accepts, want 10", got)
			}
			h.intact()
		})
	}
}

func TestConflictsAreDecidedAnewAndNobodyNotices(t *testing.T) {
	h := newHouse(t)
	var list []*device
	for i := range 20 {
		d := totp(fmt.Sprintf("T%d", i))
		h.give(fmt.Sprintf("user%d", i), d)
		list = append(list, d)
	}
	for range 40 {
		h.mem.Inject(storetest.Conflict)
	}
	var a answers
	var all sync.WaitGroup
	for i, d := range list {
		for range 3 {
			all.Go(func() { h.ask(&a, h.Service, h.vpn, fmt.Sprintf("user%d", i), d.code(h, 0)) })
		}
	}
	all.Wait()
	if a.accepted.Load() != 20 || a.rejected.Load() != 40 {
		t.Errorf("%v; want 20 accepted, 40 rejected", &a)
	}
	h.acceptedOnce()
	h.intact()
}

// A commit may fail after it was made. Whatever is told then, no code is
// accepted twice, every accept that was told is in the audit, and the chain
// goes on.
func TestNoAcceptIsGivenTwiceOrLostByCommitsThatFail(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	var list []*device
	for i := range 8 {
		d := hotp(fmt.Sprintf("H%d", i))
		h.give(fmt.Sprintf("user%d", i), d)
		list = append(list, d)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		h.mem.Inject([]storetest.Fault{storetest.None, storetest.None, storetest.Failed, storetest.FailedButPersisted, storetest.Conflict}[r.IntN(5)])
	}
	told := make([]map[int64]int, len(list))
	var all sync.WaitGroup
	for i, d := range list {
		told[i] = map[int64]int{}
		all.Go(func() {
			for counter := range int64(25) {
				for try := range 6 { // as a NAS does, and by both nodes
					var a answers
					s := []*tokens.Service{h.Service, other}[try%2]
					if h.ask(&a, s, h.vpn, fmt.Sprintf("user%d", i), d.at(counter)) {
						told[i][counter]++
					}
				}
			}
		})
	}
	all.Wait()
	audited := map[string]map[string]bool{}
	for _, rec := range h.records("verify", "accept") {
		if audited[rec.Serial] == nil {
			audited[rec.Serial] = map[string]bool{}
		}
		audited[rec.Serial][fmt.Sprint(rec.Detail)] = true
	}
	sum := 0
	for i := range list {
		for counter, n := range told[i] {
			sum += n
			if n > 1 {
				t.Errorf("user%d was told %d times that counter %d is accepted", i, n, counter)
			}
			if !audited[list[i].Serial][fmt.Sprint([]audit.Field{{Name: "transport", Value: "radius"}, {Name: "factor", Value: fmt.Sprint(counter)}})] {
				t.Errorf("user%d was told that counter %d is accepted, and the audit does not say so", i, counter)
			}
		}
	}
	if n := h.acceptedOnce(); sum == 0 || n < sum {
		t.Errorf("%d accepts were told, %d are in the audit", sum, n)
	}
	h.intact()
}

func TestWithoutTheHSMThereIsNoVerdict(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.user("tokenless")
	h.keys.memory().Fail(errors.New("unplugged"))
	for _, user := range []string{"alice", "tokenless", "nobody"} {
		for _, code := range []string{d.code(h, 0), "000000", "4711" + d.code(h, 0)} {
			if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: code}); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
				t.Errorf("%s with %s: %+v, %v", user, code, r, err)
			}
		}
	}
	if _, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 1)); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("resync: %v", err)
	}
	if p := h.Ready(); len(p) != 1 || p[0].Part != "hsm" {
		t.Errorf("ready: %v", p)
	}
	if got := h.records("verify", "error"); len(got) == 0 || got[0].Reason != string(tokens.ReasonUnavailable) {
		t.Errorf("the audit has %d faults", len(got))
	}
	h.keys.memory().Heal()
	if s := h.standing("alice"); s.Failures != 0 {
		t.Errorf("faults were counted: %+v", s)
	}
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
}

func TestWithoutTheDatabaseThereIsNoVerdict(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.mem.FailLoads(3)
	for range 3 {
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, 0)}); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if p := h.Ready(); len(p) != 1 || p[0].Part != "database" {
		t.Errorf("ready: %v", p)
	}
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	if p := h.Ready(); len(p) != 0 {
		t.Errorf("ready: %v", p)
	}
}

// An HSM that answers no more must not hold anyone up for longer than one
// timeout, however many attempts there are on one user.
func TestAnHSMThatHangsIsGivenUpForTheWholeBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		d, e := totp("T1"), totp("T2")
		h.give("alice", d)
		h.give("bob", e)
		h.must(h.SetPIN(ctx, h.admin, "", "bob", "4711", false))
		heal := h.keys.hang()
		defer heal()
		var a answers
		var all sync.WaitGroup
		begin := time.Now()
		for range 20 {
			all.Go(func() { h.ask(&a, h.Service, h.vpn, "alice", d.code(h, 0)) })
			all.Go(func() { h.ask(&a, h.Service, h.vpn, "bob", "4711"+e.code(h, 0)) })
			all.Go(func() { h.ask(&a, h.Service, h.vpn, "nobody", "1111"+e.code(h, 0)) })
		}
		all.Wait()
		if took := time.Since(begin); a.failed.Load() != 60 || took > 20*time.Second {
			t.Errorf("%v, after %v", &a, took)
		}
		heal()
		h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
		h.ends("bob", "4711"+e.code(h, 0), true, tokens.ReasonAccepted)
	})
}

func TestUnderOverloadTheNewestAreShedAndAllOthersAnswered(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Queue, c.BatchSize = 4, 2 })
	d := totp("T1")
	h.give("alice", d)
	heal := h.keys.hang()
	defer heal()
	var shed, answered atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			_, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: "000000"})
			switch {
			case errors.Is(err, tokens.ErrOverloaded):
				shed.Add(1)
			case err == nil:
				answered.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	for end := time.Now().Add(4 * time.Second); shed.Load() < 90 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	heal()
	all.Wait()
	if shed.Load() < 90 || answered.Load() < 5 || shed.Load()+answered.Load() != 100 {
		t.Errorf("%d shed, %d answered", shed.Load(), answered.Load())
	}
	if got, want := h.standing("alice").Failures, min(int(answered.Load()), 6); got != want {
		t.Errorf("%d failures are counted, want %d: none of those shed", got, want)
	}
}

func TestCloseAnswersEveryAttempt(t *testing.T) {
	h := newHouse(t)
	s := h.node(&firsts{})
	h.mem.Slow(time.Millisecond)
	var list []*device
	for i := range 50 {
		d := totp(fmt.Sprintf("T%d", i))
		h.give(fmt.Sprintf("user%d", i), d)
		list = append(list, d)
	}
	var a answers
	var all sync.WaitGroup
	for i, d := range list {
		for range 5 {
			all.Go(func() { h.ask(&a, s, h.vpn, fmt.Sprintf("user%d", i), d.code(h, 0)) })
		}
	}
	time.Sleep(time.Millisecond)
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	all.Wait()
	if sum := a.accepted.Load() + a.rejected.Load() + a.failed.Load(); sum != 250 {
		t.Errorf("%d of 250 were answered", sum)
	}
	if n := h.acceptedOnce(); int64(n) != a.accepted.Load() {
		t.Errorf("%v, and the audit has %d accepts", &a, n)
	}
	if _, err := s.Verify(ctx, h.vpn, tokens.Attempt{User: "user1", Code: "000000"}); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("after Close: %v", err)
	}
	h.intact()
}

func TestWhoeverGoesAwayIsAuditedAllTheSame(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	heal := h.keys.hang()
	gone, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if r, err := h.Verify(gone, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, 0)}); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
		t.Errorf("%+v, %v", r, err)
	}
	heal()
	h.ends("alice", d.code(h, 0), false, tokens.ReasonReplay)
	if n := h.acceptedOnce(); n != 1 {
		t.Errorf("%d accepts in the audit", n)
	}
}

// afterwards says that in the audit, whose order is that of the commits, no
// accept of the user comes after the last record of an action.
func (h *house) nothingAfter(action, user string) {
	h.Helper()
	acts := h.records(action, "ok")
	if len(acts) == 0 {
		h.Fatalf("no %s in the audit", action)
	}
	for _, r := range h.records("verify", "accept") {
		if r.User == user && r.ID > acts[0].ID {
			h.Errorf("%s was accepted (record %d) after %s (record %d)", user, r.ID, action, acts[0].ID)
		}
	}
}

func TestNothingIsAcceptedAfterAnActReturned(t *testing.T) {
	for action, act := range map[string]func(h *house) error{
		"token.lost":     func(h *house) error { _, err := h.MarkLost(ctx, h.admin, "", "H1", ""); return err },
		"token.suspend":  func(h *house) error { _, err := h.Suspend(ctx, h.admin, "", "H1", ""); return err },
		"token.revoke":   func(h *house) error { _, err := h.Revoke(ctx, h.admin, "", "H1", ""); return err },
		"token.unassign": func(h *house) error { _, err := h.Unassign(ctx, h.admin, "", "H1", ""); return err },
		"user.disable": func(h *house) error {
			_, err := h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled)
			return err
		},
		"user.pin": func(h *house) error { _, err := h.SetPIN(ctx, h.admin, "", "alice", "4711", false); return err },
	} {
		t.Run(action, func(t *testing.T) {
			h := newHouse(t)
			other := h.node(&firsts{})
			d := hotp("H1")
			h.give("alice", d)
			stop := make(chan struct{})
			var returned atomic.Bool
			var next, accepted atomic.Int64
			var all sync.WaitGroup
			for i := range 4 {
				s := []*tokens.Service{h.Service, other}[i%2]
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						var a answers
						late := returned.Load()
						if h.ask(&a, s, h.vpn, "alice", d.at(next.Load())) {
							next.Add(1)
							accepted.Add(1)
							if late {
								t.Errorf("accepted, and %s had returned before it was asked", action)
							}
						}
					}
				})
			}
			for end := time.Now().Add(10 * time.Second); accepted.Load() < 5 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if err := act(h); err != nil {
				t.Error(err)
			}
			returned.Store(true)
			time.Sleep(20 * time.Millisecond)
			close(stop)
			all.Wait()
			if accepted.Load() < 5 {
				t.Errorf("only %d were accepted before", accepted.Load())
			}
			h.nothingAfter(action, "alice")
			h.acceptedOnce()
			h.intact()
		})
	}
}

func TestNoNinthTokenSlipsIn(t *testing.T) {
	h := newHouse(t)
	services := []*tokens.Service{h.Service, h.node(&firsts{})}
	var list []*device
	for i := range 24 {
		list = append(list, totp(fmt.Sprintf("T%d", i)))
	}
	h.ship("", list...)
	h.user("alice")
	var all sync.WaitGroup
	var given, refused atomic.Int64
	for i, d := range list {
		all.Go(func() {
			_, err := services[i%2].Assign(ctx, h.admin, "", d.Serial, "alice")
			switch {
			case err == nil:
				given.Add(1)
			case errors.Is(err, tokens.ErrState):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	_, held, err := h.ShowUser(ctx, h.admin, "", "alice")
	if err != nil || len(held) != tokens.MaxTokensPerUser || given.Load() != tokens.MaxTokensPerUser || refused.Load() != 16 {
		t.Errorf("%d given, %d refused, %d held, %v", given.Load(), refused.Load(), len(held), err)
	}
	h.intact()
}

func TestATokenIsAssignedToOneOfManyAtOnce(t *testing.T) {
	h := newHouse(t)
	services := []*tokens.Service{h.Service, h.node(&firsts{})}
	h.ship("", totp("T1"))
	var all sync.WaitGroup
	var given atomic.Int64
	for i := range 10 {
		h.user(fmt.Sprintf("user%d", i))
	}
	for i := range 10 {
		all.Go(func() {
			if _, err := services[i%2].Assign(ctx, h.admin, "", "T1", fmt.Sprintf("user%d", i)); err == nil {
				given.Add(1)
			} else if !errors.Is(err, tokens.ErrState) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if given.Load() != 1 {
		t.Errorf("given %d times", given.Load())
	}
}

func TestAKeyMadeOnOneNodeIsGoodOnAnotherAtOnce(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	_, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "portal", Scope: "helpdesk"})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := other.Authenticate(ctx, text); err != nil || p.Scope != "helpdesk" {
		t.Errorf("the first call to the other node: %+v, %v", p, err)
	}
	// Who guesses ids does not make the node read for each of them.
	if _, err := other.Authenticate(ctx, "ww_0123456789abcdef_x"); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("an unknown key: %v", err)
	}
	before := h.db.lists.Load()
	for range 1000 {
		if _, err := other.Authenticate(ctx, "ww_0123456789abcdef_x"); !errors.Is(err, tokens.ErrUnknownKey) {
			t.Fatalf("an unknown key: %v", err)
		}
	}
	if n := h.db.lists.Load() - before; n > 20 {
		t.Errorf("1000 unknown keys made the node read %d times", n)
	}
}

func TestAKeyDeletedOnOneNodeDoesNothingOnAnother(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	d := totp("T1")
	h.give("alice", d)
	key, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "portal", Scope: "helpdesk"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Verify(ctx, h.vpn, tokens.Attempt{User: "nobody", Code: "000000"}); err != nil {
		t.Fatal(err) // any batch: it brings the registry up to date
	}
	p, err := other.Authenticate(ctx, text)
	if err != nil {
		t.Fatalf("a key made on one node is unknown on the other after a batch: %v", err)
	}
	if err := h.DeleteKey(ctx, h.admin, key.ID); err != nil {
		t.Fatal(err)
	}
	// The other node has not heard of it yet, and still does nothing.
	if r, err := other.Verify(ctx, p, tokens.Attempt{User: "alice", Code: d.code(h, 0)}); !errors.Is(err, tokens.ErrUnknownKey) || r.Accept {
		t.Errorf("verify: %v, %v", r, err)
	}
	if _, err := other.AddUser(ctx, p, "", "mallory"); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("user add: %v", err)
	}
	if _, err := other.Authenticate(ctx, text); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("authenticate: %v", err)
	}
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)

	if err := h.DeleteClient(ctx, h.admin, "localhost"); err != nil {
		t.Fatal(err)
	}
	h.clock.forward(30 * time.Second)
	if r, err := other.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, 0)}); !errors.Is(err, tokens.ErrUnknownKey) || r.Accept {
		t.Errorf("a deleted RADIUS client: %v, %v", r, err)
	}
}

// The same on a real HSM, behind a driver with sessions and cached handles.
func TestOnSoftHSMOneCodeManyTimesAtOnceIsAcceptedOnce(t *testing.T) {
	softhsm, _ := hsmtest.SoftHSM(t)
	mem := storetest.NewMemory(t)
	h := &house{TB: t, mem: mem, db: &editor{Memory: mem}, keys: &meter{Keystore: softhsm}, clock: &clock{}, log: &lockedBuffer{}}
	h.clock.set(start)
	h.open()
	for _, digest := range []hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512} {
		d, e := totp("T-"+digest.String()), hotp("H-"+digest.String())
		d.Algorithm, e.Algorithm, d.Digits = digest, digest, 8
		user := "user-" + digest.String()
		h.give(user, d, e)
		h.must(h.SetPIN(ctx, h.admin, "", user, "4711", false))
		var a, b answers
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() { h.ask(&a, h.Service, h.vpn, user, "4711"+d.code(h, 0)) })
			all.Go(func() { h.ask(&b, h.Service, h.vpn, user, "4711"+e.at(3)) })
		}
		all.Wait()
		if a.accepted.Load() != 1 || b.accepted.Load() != 1 || a.rejected.Load() != 29 || b.rejected.Load() != 29 {
			t.Errorf("%s: %v; %v; want 1 accepted, 29 rejected, of each", digest, &a, &b)
		}
	}
	h.acceptedOnce()
	h.intact()
}

// distant is an HSM at the other end of a network.
type distant struct{ tokens.Custody }

func (d distant) HMAC(ctx context.Context, jobs []*hsm.Job) error {
	time.Sleep(5 * time.Millisecond)
	return d.Custody.HMAC(ctx, jobs)
}

func TestWhoFloodsOneUserHasNobodyElseWait(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Custody = distant{c.Custody} })
	h.give("alice", totp("T1"))
	h.give("bob", totp("T2"))
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(stop)
	for range 500 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					var a answers
					h.ask(&a, h.Service, h.vpn, "alice", "000000")
				}
			}
		})
	}
	for h.standing("alice").Failures < 6 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	for range 4 {
		h.try("bob", "000000")
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("four attempts took %v", took)
	}
}
