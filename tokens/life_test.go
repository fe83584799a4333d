package tokens_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

// census watches all tokens of the default realm from act to act.
type census struct {
	h       *house
	t       *rapid.T
	devices map[string]*device // by serial
	keys    map[string]string  // FIDO: whom each was made for
	rules   tokens.Rules
	seen    map[int64]tokens.Token
	held    map[string]int // tokens that count, by user
}

var people = []string{"alice", "bob", "carol"}

// stored is all tokens, with what only listings have.
func (l *census) stored() []tokens.Token {
	list, _, err := l.h.mem.Tokens(ctx, tokens.TokenQuery{Realm: tokens.DefaultRealm, Limit: 1000})
	if err != nil {
		l.t.Fatal(err)
	}
	for i := range list {
		whole := l.h.token(list[i].Serial)
		whole.Assigned, whole.Note, whole.Tags = list[i].Assigned, list[i].Note, list[i].Tags
		list[i] = whole
	}
	return list
}

func isPasscode(t *tokens.Token) bool {
	return t.Type == tokens.Recovery || t.Type == tokens.Temporary
}

// check says what must be true of every token, whatever was done.
func (l *census) check() {
	rt := l.t
	held := map[string]int{}
	passcodes := map[string]int{}
	list := l.stored()
	for i := range list {
		t := &list[i]
		was, known := l.seen[t.ID]
		switch {
		case known && was.State == tokens.Revoked && t.State != tokens.Revoked:
			rt.Fatalf("%s came back from revoked: %s", t.Serial, t.State)
		case known && t.Last < was.Last:
			rt.Fatalf("%s went back from %d to %d", t.Serial, was.Last, t.Last)
		case known && t.Version < was.Version:
			rt.Fatalf("%s has version %d after %d", t.Serial, t.Version, was.Version)
		case t.State == tokens.Revoked && (len(t.Wrapped.Blob) > 0 || len(t.Passcodes) > 0 || t.OwnerID != 0):
			rt.Fatalf("%s was revoked, and has a seed of %d bytes, %d passcodes, owner %d", t.Serial, len(t.Wrapped.Blob), len(t.Passcodes), t.OwnerID)
		case (t.OwnerID == 0) != (t.State == tokens.Imported || t.State == tokens.Revoked):
			rt.Fatalf("%s is %s, and has owner %q", t.Serial, t.State, t.Owner)
		case t.State != tokens.Revoked && (t.OwnerID == 0) != t.Assigned.IsZero():
			rt.Fatalf("%s has owner %q since %v", t.Serial, t.Owner, t.Assigned)
		case t.State == tokens.Imported && (t.UsedAt != 0 || known && was.State != tokens.Imported && t.Drift != 0):
			rt.Fatalf("%s is nobody's, and was used at %d with drift %d", t.Serial, t.UsedAt, t.Drift)
		case t.Type == tokens.FIDO && t.OwnerID != 0 && l.keys[t.Serial] != t.Owner:
			rt.Fatalf("key %s was made for %s, and is %s's", t.Serial, l.keys[t.Serial], t.Owner)
		case t.Batch == 0 && t.Type != tokens.FIDO && t.State == tokens.Imported:
			rt.Fatalf("%s, whose seed its owner keeps, was taken back", t.Serial)
		case isPasscode(t) && t.State == tokens.Pending:
			rt.Fatalf("passcode %s is pending", t.Serial)
		}
		l.seen[t.ID] = *t
		if t.OwnerID == 0 {
			continue
		}
		if isPasscode(t) {
			passcodes[string(t.Type)+" of "+t.Owner]++
		} else {
			held[t.Owner]++
		}
	}
	for what, n := range passcodes {
		if n > 1 {
			rt.Fatalf("there are %d passcodes %s", n, what)
		}
	}
	owners := map[int64]string{}
	for _, user := range people {
		if n := held[user]; n > l.held[user] && n > l.rules.MaxTokens {
			rt.Fatalf("%s holds %d tokens, and %d are the most", user, n, l.rules.MaxTokens)
		}
		v, err := l.h.mem.Load(ctx, []tokens.Ref{{Realm: tokens.DefaultRealm, User: user}})
		if err != nil {
			rt.Fatal(err)
		}
		for _, t := range v.Subjects[0].Tokens {
			if other := owners[t.ID]; other != "" {
				rt.Fatalf("%s is %s's and %s's", t.Serial, other, user)
			}
			owners[t.ID] = user
		}
	}
	l.held = held
}

// pick is any token, more often one that the act can be done to.
func (l *census) pick(states ...tokens.State) tokens.Token {
	list := l.stored()
	var fit []tokens.Token
	for _, t := range list {
		for _, s := range states {
			if t.State == s {
				fit = append(fit, t)
			}
		}
	}
	if len(fit) > 0 && rapid.IntRange(0, 3).Draw(l.t, "fit") > 0 {
		list = fit
	}
	return list[rapid.IntRange(0, len(list)-1).Draw(l.t, "token")]
}

func (l *census) user() string { return rapid.SampledFrom(people).Draw(l.t, "user") }

// may says that an act was done, or refused as acts are.
func (l *census) may(err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, tokens.ErrState), errors.Is(err, tokens.ErrWrongCode), errors.Is(err, tokens.ErrInvalid):
		return false
	}
	l.t.Fatal(err)
	return false
}

// noTemporary says that a user has no temporary passcode any more.
func (l *census) noTemporary(user string) {
	for _, t := range l.stored() {
		if t.Type == tokens.Temporary && t.State != tokens.Revoked && t.Owner == user {
			l.t.Fatalf("%s has a token that works, and temporary passcode %s still", user, t.Serial)
		}
	}
}

// next are two codes that a token shows one after the other, both of them fresh.
func (l *census) next(t tokens.Token) (string, string) {
	d := l.devices[t.Serial]
	if d == nil {
		return "000000", "111111"
	}
	f := t.Last
	if t.Type == tokens.TOTP {
		f = max(l.h.clock.now().Unix()/int64(d.Period), t.Last+1)
	}
	return d.at(f), d.at(f + 1)
}

// No sequence of acts leads from revoked anywhere, makes a counter go back, leaves a
// seed or a passcode behind, gives a token two owners, or a user more tokens than the
// rules allow; also when commits meet conflicts.
func TestNoSequenceOfActsBreaksTheLifeOfAToken(t *testing.T) {
	done := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		var over atomic.Bool
		h := newHouse(t, func(c *tokens.Config) { c.Throttle = tokens.Throttle{Free: 1 << 30, LockAt: 1 << 30} })
		l := &census{h: h, t: rt, devices: map[string]*device{}, keys: map[string]string{}, seen: map[int64]tokens.Token{}, rules: tokens.DefaultRules()}
		var list []*device
		for i := range 3 {
			list = append(list, totp(fmt.Sprint("T", i)), hotp(fmt.Sprint("H", i)), yubico(fmt.Sprint("Y", i)))
		}
		h.ship("", list...)
		for _, d := range list {
			l.devices[d.Serial] = d
		}
		for _, user := range people {
			h.user(user)
			k := newSeckey(user)
			h.enrol(user, k)
			l.keys[k.serial] = user
		}
		act := func(name string, err error) bool {
			if !l.may(err) {
				return false
			}
			done[name]++
			return true
		}
		act("rules", second(h.SetRules(ctx, h.admin, "", -1, rules(func(r *tokens.Rules) { r.Temporary.Allow = true }))))
		l.rules.Temporary.Allow = true
		steps := map[string]func(){
			"assign": func() {
				act("assign", second(h.Assign(ctx, h.admin, "", l.pick(tokens.Imported).Serial, l.user())))
			},
			"unassign": func() {
				act("unassign", second(h.Unassign(ctx, h.admin, "", l.pick(tokens.Active, tokens.Pending).Serial, "")))
			},
			"suspend": func() { act("suspend", second(h.Suspend(ctx, h.admin, "", l.pick(tokens.Active).Serial, ""))) },
			"resume": func() {
				x := l.pick(tokens.Suspended, tokens.Lost)
				got, err := h.Resume(ctx, h.admin, "", x.Serial, rapid.SampledFrom([]string{"", "found"}).Draw(l.t, "reason"))
				if act("resume", err) && x.State != tokens.Active && !isPasscode(&x) && (got.Expires.IsZero() || h.clock.now().Before(got.Expires)) {
					l.noTemporary(got.Owner)
				}
			},
			"lose": func() {
				var r *tokens.TemporaryRequest
				if rapid.Bool().Draw(l.t, "temporary") {
					r = &tokens.TemporaryRequest{Uses: 2}
				}
				_, _, code, err := h.Lose(ctx, h.admin, "", l.pick(tokens.Active, tokens.Suspended).Serial, "", r)
				act("lose", err)
				clear(code)
			},
			"revoke": func() {
				act("revoke", second(h.Revoke(ctx, h.admin, "", l.pick(tokens.Lost, tokens.Revoked).Serial, "")))
			},
			"replace": func() {
				old, by := l.pick(tokens.Active, tokens.Lost, tokens.Pending), l.pick(tokens.Imported)
				_, next, err := h.Replace(ctx, h.admin, "", old.Serial, by.Serial, "")
				if act("replace", err) && old.State != tokens.Revoked && next.State == tokens.Active && next.Expires.IsZero() {
					l.noTemporary(next.Owner)
				}
			},
			"activate": func() {
				x := l.pick(tokens.Pending)
				one, two := l.next(x)
				got, err := h.Activate(ctx, h.admin, "", x.Serial, one, two)
				if err == nil && x.State != tokens.Pending {
					l.t.Fatalf("%s was %s, and was activated by codes that were never shown", x.Serial, x.State)
				}
				if act("activate", err) {
					l.noTemporary(got.Owner)
				}
			},
			"enrol": func() {
				made, uri, err := h.EnrolSoft(ctx, h.admin, tokens.NewSoft{User: l.user(), Digits: rapid.SampledFrom([]int{6, 8}).Draw(l.t, "digits")})
				if act("enrol", err) {
					l.devices[made.Serial] = softDevice(t, uri)
				}
			},
			"recovery": func() {
				_, codes, err := h.IssueRecovery(ctx, h.admin, "", l.user())
				act("recovery", err)
				clear(codes)
			},
			"temporary": func() {
				act("temporary", third(h.IssueTemporary(ctx, h.admin, "", l.user(), tokens.TemporaryRequest{})))
			},
			"expire": func() {
				at := rapid.SampledFrom([]time.Duration{0, time.Hour, 48 * time.Hour}).Draw(l.t, "in")
				when := h.clock.now().Add(at)
				if at == 0 {
					when = time.Time{}
				}
				act("expire", second(h.SetExpiry(ctx, h.admin, "", l.pick().Serial, when)))
			},
			"note": func() {
				tag := rapid.SampledFrom([]string{"red", "blue"}).Draw(l.t, "tag")
				act("note", second(h.Annotate(ctx, h.admin, "", l.pick().Serial, tokens.NoteEdit{Add: []string{tag}})))
			},
			"bulk": func() {
				r := tokens.BulkRequest{
					Act:    rapid.SampledFrom([]string{"suspend", "resume", "lost", "unassign", "expire"}).Draw(l.t, "act"),
					Select: tokens.TokenQuery{Owner: l.user()}, Reason: "all", DryRun: rapid.Bool().Draw(l.t, "dry"),
				}
				act("bulk", second(h.Bulk(ctx, h.admin, r, func(tokens.BulkItem) error { return nil })))
			},
			"verify": func() {
				x := l.pick(tokens.Active, tokens.Pending)
				one, _ := l.next(x)
				user := x.Owner
				if user == "" || rapid.IntRange(0, 5).Draw(l.t, "another") == 0 {
					user = l.user()
				}
				if h.try(user, one) {
					done["verify"]++
					if x.State != tokens.Active || x.Owner != user || !x.Expires.IsZero() && !h.clock.now().Before(x.Expires) {
						l.t.Fatalf("%s of %q is %s, expires %v, and its code was accepted of %s", x.Serial, x.Owner, x.State, x.Expires, user)
					}
				}
			},
			"rules": func() {
				l.rules.MaxTokens = rapid.IntRange(1, 5).Draw(l.t, "most")
				l.rules.Activation = rapid.SampledFrom([]tokens.Activation{tokens.ActivateAtOnce, tokens.ActivateByCode}).Draw(l.t, "activation")
				act("rules", second(h.SetRules(ctx, h.admin, "", -1, l.rules)))
			},
			"clock": func() {
				h.clock.forward(rapid.SampledFrom([]time.Duration{30 * time.Second, time.Hour, 25 * time.Hour}).Draw(l.t, "for"))
			},
		}
		actions := map[string]func(*rapid.T){
			"": func(rt *rapid.T) { l.t = rt; l.check() },
			"conflict": func(*rapid.T) {
				h.mem.InjectFunc(func(c *tokens.Change) storetest.Fault {
					if over.Load() || len(c.Standings)+len(c.Tokens) == 0 {
						return storetest.None
					}
					return storetest.Conflict
				})
			},
		}
		for name, f := range steps {
			actions[name] = func(rt *rapid.T) { l.t = rt; f() }
		}
		rt.Repeat(actions)
		over.Store(true)
		h.acceptedOnce()
		h.intact()
	})
	t.Logf("done in all sequences: %v", done)
	for _, name := range []string{"assign", "unassign", "suspend", "resume", "lose", "revoke", "replace", "activate", "enrol", "temporary", "recovery", "expire", "bulk", "verify"} {
		if done[name] == 0 {
			t.Errorf("the sequences say nothing of %s: it was never done", name)
		}
	}
}
