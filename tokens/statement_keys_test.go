package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

const statementDocument = "statement.keys"

// states are those of the statement keys, the newest first.
func (h *house) states(s *tokens.Service) string {
	h.Helper()
	list, err := s.StatementKeys(ctx, h.admin)
	if err != nil {
		h.Fatal(err)
	}
	var out []string
	for _, k := range list {
		out = append(out, k.State)
	}
	return strings.Join(out, " ")
}

// held counts the statement keys in the HSM, attached or not.
func held(m *hsmtest.Memory) (n int) {
	for _, r := range m.Records() {
		if r.Name == hsm.KeyStatement {
			n++
		}
	}
	return n
}

// overwrite puts other data in a document's place, or nothing, as if somebody had
// edited the database and every node had noticed.
func (h *house) overwrite(name string, edit func([]byte) []byte) {
	h.Helper()
	d, err := h.mem.Document(ctx, name)
	if err != nil {
		h.Fatal(err)
	}
	w := tokens.DocumentWrite{Name: name, Expect: d.Version, Updated: h.clock.now().UTC(), Data: edit(bytes.Clone(d.Data))}
	chain, _, err := h.mem.MintChain(ctx)
	if err != nil {
		h.Fatal(err)
	}
	c := tokens.Change{Documents: []tokens.DocumentWrite{w}}
	c.Records, _ = audit.Append(audit.Head{Chain: chain}, []audit.Event{{Time: h.clock.now(), Action: "edit", Outcome: "ok"}})
	if err := h.mem.Commit(ctx, &c); err != nil {
		h.Fatal(err)
	}
	h.must(0, third(h.Users(ctx, h.admin, tokens.UserQuery{}))) // any use case notices
}

func TestAKeyIsPublishedBeforeItSignsAndAfter(t *testing.T) {
	h := newHouse(t)
	give := h.accepted()
	sign := func() string {
		t.Helper()
		jwt, err := give(h.Service, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := h.jwks(h.Service).reads(t, jwt); !ok {
			t.Error("a statement does not verify")
		}
		return header(jwt)
	}
	is := func(want string, published int) {
		t.Helper()
		if got := h.states(h.Service); got != want {
			t.Errorf("the keys are %s, want %s", got, want)
		}
		if got := len(h.jwks(h.Service)); got != published {
			t.Errorf("%d keys are published, want %d", got, published)
		}
	}
	is("next current", 2)
	first := sign()
	// Asked for right after the start, it is put off until the next key is known.
	h.must(h.RotateStatementKey(ctx, h.admin, false))
	is("next next current", 3)
	if sign() != first {
		t.Error("a key signs that nobody knows yet")
	}
	if _, err := h.RotateStatementKey(ctx, h.admin, false); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a rotation during a rotation: %v", err)
	}
	if r := h.last(); r.Action != "statement.rotate" || r.Outcome != "refused" || r.Reason != "state" {
		t.Errorf("audited as %+v", r)
	}
	h.clock.forward(2*tokens.JWKSMaxAge - time.Second)
	if sign() != first {
		t.Error("it signs too early")
	}
	h.clock.forward(time.Second)
	second := sign()
	if second == first {
		t.Error("it does not sign")
	}
	is("next current previous", 3)
	// The next was published since, and may sign at once.
	h.clock.forward(30 * time.Minute)
	h.must(h.RotateStatementKey(ctx, h.admin, false))
	third := sign()
	if third == second || third == first {
		t.Error("the key is the same after a rotation")
	}
	is("next current previous previous", 4)
	h.clock.forward(36 * time.Minute) // 66 minutes after the first signed last
	is("next current previous retired", 3)
	h.clock.forward(time.Hour)
	is("next current retired retired", 2)
	h.intact()
}

func TestRetiredKeysAreDestroyedAndNoOthers(t *testing.T) {
	h := newHouse(t)
	give := h.accepted()
	drop := func(want string, keys int) {
		t.Helper()
		if err := h.DropStatements(ctx, h.clock.now()); err != nil {
			t.Fatal(err)
		}
		if got := h.states(h.Service); got != want {
			t.Errorf("the keys are %s, want %s", got, want)
		}
		if n := held(h.keys.memory()); n != keys {
			t.Errorf("the HSM holds %d", n)
		}
		h.must(give(h.Service, 0))
	}
	drop("next current", 2)
	h.clock.forward(time.Hour)
	h.must(h.RotateStatementKey(ctx, h.admin, false))
	drop("next current previous", 3)
	h.clock.forward(70 * time.Minute)
	drop("next current retired", 3)
	h.clock.forward(10 * time.Minute)
	// While the HSM does not answer, it waits.
	h.keys.memory().Fail(errors.New("gone"))
	if err := h.DropStatements(ctx, h.clock.now()); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("without the HSM: %v", err)
	}
	h.keys.memory().Heal()
	// What was destroyed and could not be recorded is recorded later.
	h.mem.Inject(storetest.Failed)
	if err := h.DropStatements(ctx, h.clock.now()); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("without the database: %v", err)
	}
	drop("next current", 2)
	if r := h.records("statement.destroy", "ok"); len(r) != 1 || r[0].Actor != "system" || !strings.Contains(r[0].Detail[0].Name+r[0].Detail[0].Value, "destroyed1") {
		t.Errorf("audited as %+v", r)
	}
	// Versions are not used again.
	list, err := h.RotateStatementKey(ctx, h.admin, false)
	if err != nil || list[0].Version != 4 {
		t.Errorf("%+v, %v", list, err)
	}
	h.intact()
}

func TestARotationForACompromiseUnpublishesAtOnceOnEveryNode(t *testing.T) {
	h := newHouse(t)
	var f firsts
	other := h.node(&f)
	give := h.accepted()
	h.clock.forward(time.Hour)
	h.must(h.RotateStatementKey(ctx, h.admin, false))
	h.clock.forward(time.Minute)
	old, err := give(other, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	list, err := h.RotateStatementKey(ctx, h.admin, true)
	if err != nil || len(list) != 4 || list[0].State != "next" || list[1].State != "current" || list[2].State != "retired" || list[3].State != "retired" {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, s := range []*tokens.Service{h.Service, other} {
		if _, err := s.CheckStatement(ctx, h.admin, old, audience, 0); !isStatement(err, "unknown_key") {
			t.Errorf("node %d: the old statement: %v", i, err)
		}
		fresh, err := give(s, 0)
		if err != nil {
			t.Fatal(err)
		}
		keys := h.jwks(s)
		if _, ok := keys.reads(t, fresh); !ok || len(keys) != 2 || header(fresh) == header(old) {
			t.Errorf("node %d: %d keys are published, and a new statement verifies: %v", i, len(keys), ok)
		}
		if _, ok := keys.reads(t, old); ok {
			t.Errorf("node %d: the old statement verifies", i)
		}
	}
	if r := h.records("statement.rotate", "ok"); len(r) != 3 || r[0].Reason != "now" || r[1].Reason != "planned" || r[2].Reason != "first" || r[0].Actor != h.admin.Actor() {
		t.Errorf("audited as %+v", r)
	}
}

// Two nodes that look only at the database and at clocks that differ by seconds: a
// statement of either verifies, on both and for whoever kept an answer of JWKS that
// was not too old, until it expires, whatever is rotated meanwhile and whenever; or
// it was signed before a rotation for a compromise.
func TestWhateverIsRotatedStatementsAreBelievedUntilTheyExpire(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		h := newHouse(t)
		skew := time.Duration(rapid.IntRange(-2000, 2000).Draw(r, "skew")) * time.Millisecond
		var f firsts
		nodes := []*tokens.Service{h.Service, h.node(&f, func(c *tokens.Config) {
			c.Now = func() time.Time { return h.clock.now().Add(skew) }
		})}
		give := h.accepted()
		type given struct {
			jwt     string
			at      time.Time
			expires time.Time
		}
		type answer struct {
			at   time.Time
			keys published
		}
		var statements []given
		answers := []answer{{h.clock.now(), h.jwks(h.Service)}}
		var distrusted time.Time
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			h.clock.forward(time.Duration(rapid.OneOf(rapid.IntRange(0, 90), rapid.IntRange(0, 4000)).Draw(r, "seconds")) * time.Second)
			node := nodes[rapid.IntRange(0, 1).Draw(r, "node")]
			now := h.clock.now()
			switch rapid.SampledFrom([]string{"give", "give", "rotate", "rotate", "now", "drop"}).Draw(r, "act") {
			case "give":
				ttl := time.Duration(rapid.SampledFrom([]int{1, 300, 3600}).Draw(r, "ttl")) * time.Second
				jwt, err := give(node, ttl)
				if err != nil {
					r.Fatal(err)
				}
				statements = append(statements, given{jwt, now, now.Add(ttl)})
				for _, a := range answers {
					if now.Sub(a.at) > tokens.JWKSMaxAge || a.at.Before(distrusted) {
						continue
					}
					if _, ok := a.keys.reads(t, jwt); !ok {
						r.Fatalf("who kept an answer of %s ago does not know the key", now.Sub(a.at))
					}
				}
			case "rotate":
				if _, err := node.RotateStatementKey(ctx, h.admin, false); err != nil && !errors.Is(err, tokens.ErrState) {
					r.Fatal(err)
				}
			case "now":
				if rapid.IntRange(0, 3).Draw(r, "really") > 0 {
					break
				}
				if _, err := node.RotateStatementKey(ctx, h.admin, true); err != nil {
					r.Fatal(err)
				}
				distrusted = now
				h.clock.forward(5 * time.Second) // clocks differ, and what was just distrusted was so by either
			case "drop":
				if err := node.DropStatements(ctx, h.clock.now()); err != nil {
					r.Fatal(err)
				}
			}
			now = h.clock.now()
			for i, s := range nodes {
				h.must(s.StatementKeys(ctx, h.admin)) // else it may be a second behind
				keys := h.jwks(s)
				answers = append(answers, answer{now, keys})
				// A key stays for 65 minutes after the next one signs, which is 10 minutes
				// after the one before it at the earliest: 7 of those that were, one that
				// signs, one that will; and one more where the clocks differ.
				if len(keys) < 2 || len(keys) > 10 {
					r.Fatalf("node %d publishes %d keys", i, len(keys))
				}
				for _, g := range statements {
					_, ok := keys.reads(t, g.jwt)
					switch {
					case !g.at.After(distrusted) && !distrusted.IsZero():
						if ok {
							r.Fatalf("node %d: a statement of a key that is not trusted verifies", i)
						}
					case now.Before(g.expires) && !ok:
						r.Fatalf("node %d: a statement does not verify %s before it expires", i, g.expires.Sub(now))
					}
				}
			}
		}
	})
}

func TestOfTwoRotationsAtOnceOneIsMade(t *testing.T) {
	h := newHouse(t)
	nodes := []*tokens.Service{h.Service}
	for range 3 {
		nodes = append(nodes, h.node(new(firsts)))
	}
	give := h.accepted()
	for _, now := range []bool{false, true} {
		h.clock.forward(time.Hour)
		var all sync.WaitGroup
		errs := make([]error, len(nodes))
		for i, s := range nodes {
			all.Go(func() { _, errs[i] = s.RotateStatementKey(ctx, h.admin, now) })
		}
		all.Wait()
		made := 0
		for _, err := range errs {
			switch {
			case err == nil:
				made++
			case !errors.Is(err, tokens.ErrState) && !errors.Is(err, tokens.ErrUnavailable):
				t.Errorf("now %v: %v", now, err)
			}
		}
		if made == 0 {
			t.Errorf("now %v: nobody rotated: %v", now, errs)
		}
		for _, s := range nodes {
			jwt, err := give(s, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, other := range nodes {
				if _, ok := h.jwks(other).reads(t, jwt); !ok {
					t.Errorf("now %v: a statement of one node does not verify on another", now)
				}
			}
		}
	}
	list, err := h.StatementKeys(ctx, h.admin)
	if n := held(h.keys.memory()); err != nil || n != len(list) {
		t.Errorf("%d keys are listed and %d in the HSM, %v", len(list), n, err)
	}
}

// Two nodes, each with the HSM in its own way, as two processes have it.
func TestANodeLearnsOfANewKeyWithoutAStart(t *testing.T) {
	config := hsmtest.Token(t)
	keys, _ := hsmtest.OpenNew(t, config)
	h := &house{TB: t, mem: storetest.NewMemory(t), keys: &meter{Keystore: keys}, clock: &clock{}, log: &lockedBuffer{}}
	h.db = &editor{Memory: h.mem}
	h.clock.set(start)
	h.open()
	second, err := pkcs11.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close() })
	other, err := tokens.Open(ctx, tokens.Config{Database: h.db, Custody: second, Now: h.clock.now, Log: slog.New(slog.NewTextHandler(h.log, nil))}, second, new(firsts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	give := h.accepted()
	for round := range 6 {
		h.clock.forward(20 * time.Minute)
		rotating, signing := h.Service, other
		if round%2 == 1 {
			rotating, signing = other, h.Service
		}
		h.must(rotating.RotateStatementKey(ctx, h.admin, round == 3))
		if err := signing.DropStatements(ctx, h.clock.now()); err != nil {
			t.Error(err)
		}
		jwt, err := give(signing, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := h.jwks(rotating).reads(t, jwt); !ok {
			t.Errorf("round %d: the statement does not verify", round)
		}
	}
	if strings.Contains(h.log.String(), "level=ERROR") {
		t.Errorf("logged:\n%s", h.log.String())
	}
}

func TestTheFirstStatementKeysAreMadeOnce(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if _, err := open(t, mem, keys, &firsts{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	d, err := mem.Document(ctx, statementDocument)
	if err != nil || d.Version != 1 || held(keys) != 2 {
		t.Errorf("version %d, %d keys in the HSM, %v", d.Version, held(keys), err)
	}
	if bytes.Contains(d.Data, []byte("private")) {
		t.Error("the document holds a private key")
	}
}

// A database of before there were statements has HSM keys, and no statement key.
func TestStatementKeysAreMadeForAnOlderDatabase(t *testing.T) {
	h := newHouse(t)
	h.overwrite(statementDocument, func([]byte) []byte { return nil })
	give := h.accepted()
	if _, err := give(h.Service, 0); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("without keys: %v", err)
	}
	if _, err := h.JWKS(ctx); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("without keys JWKS is %v", err)
	}
	if err := h.DropStatements(ctx, h.clock.now()); err != nil {
		t.Errorf("without keys: %v", err)
	}
	s := h.node(new(firsts))
	h.must(give(s, 0))
	h.must(give(h.Service, 0))
}

// Who can write to the database cannot have a key published, nor another signed
// with; there are no statements until an administrator says so.
func TestAKeyThatSomebodyElseWroteIsNotPublished(t *testing.T) {
	for name, edit := range map[string]func([]byte) []byte{
		"another time": func(b []byte) []byte {
			return bytes.Replace(b, []byte("0001-01-01T00:00:00Z"), []byte("2099-01-01T00:00:00Z"), 1)
		},
		"another version": func(b []byte) []byte { return bytes.Replace(b, []byte(`"last":2`), []byte(`"last":3`), 1) },
		"another name":    func(b []byte) []byte { return bytes.Replace(b, []byte(`"kid":"`), []byte(`"kid":"x`), 1) },
		"no MAC": func(b []byte) []byte {
			return append(b[:bytes.LastIndex(b, []byte(`,"mac"`))], '}')
		},
		"nothing in it": func([]byte) []byte { return []byte("{}") },
		"no JSON":       func([]byte) []byte { return []byte{0xff} },
		"empty":         func([]byte) []byte { return []byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			give := h.accepted()
			h.must(give(h.Service, 0))
			h.overwrite(statementDocument, func(b []byte) []byte {
				was := bytes.Clone(b)
				if b = edit(b); bytes.Equal(b, was) {
					t.Fatal("nothing was edited")
				}
				return b
			})
			if _, err := give(h.Service, 0); !errors.Is(err, tokens.ErrTampered) {
				t.Errorf("a statement: %v", err)
			}
			if text, err := h.JWKS(ctx); !errors.Is(err, tokens.ErrTampered) || text != nil {
				t.Errorf("JWKS: %s, %v", text, err)
			}
			if _, err := h.RotateStatementKey(ctx, h.admin, false); !errors.Is(err, tokens.ErrTampered) {
				t.Errorf("a rotation: %v", err)
			}
			if err := h.DropStatements(ctx, h.clock.now()); err != nil {
				t.Errorf("housekeeping: %v", err)
			}
			other := h.node(new(firsts)) // it starts all the same
			if !strings.Contains(h.log.String(), "no statements are given") {
				t.Error("nobody is told")
			}
			h.must(other.RotateStatementKey(ctx, h.admin, true))
			for _, s := range []*tokens.Service{h.Service, other} {
				jwt, err := give(s, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := h.jwks(s).reads(t, jwt); !ok {
					t.Error("a statement does not verify")
				}
			}
		})
	}
}

// An HSM that was restored from an older backup lacks the newest keys: that stops
// nothing but statements, and they are back once the keys are rotated.
func TestKeysThatTheHSMLostAreReplaced(t *testing.T) {
	h := newHouse(t)
	give := h.accepted()
	h.must(give(h.Service, 0))
	lost := h.keys.memory()
	for _, r := range lost.Records() {
		if r.Name == hsm.KeyStatement {
			if err := lost.DestroyStatement(ctx, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if _, err := give(h.Service, 0); !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "version 1") {
			t.Errorf("a key that is lost: %v", err)
		}
	}
	other := h.node(new(firsts))
	if _, err := give(other, 0); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("on another node: %v", err)
	}
	list, err := other.RotateStatementKey(ctx, h.admin, true)
	if err != nil || len(list) != 4 || list[0].Version != 4 || list[1].State != "current" {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, s := range []*tokens.Service{h.Service, other} {
		h.must(give(s, 0))
	}
	h.clock.forward(time.Hour)
	if err := h.DropStatements(ctx, h.clock.now()); err != nil {
		t.Error(err)
	}
	if got := h.states(other); got != "next current" {
		t.Errorf("the keys are %s", got)
	}
}

// later is an HSM that does not find new keys at first.
type later struct {
	tokens.Custody
	mu   sync.Mutex
	from uint32 // versions from here on are not there; zero: all are
}

func (l *later) AttachStatement(ctx context.Context, keys []hsm.KeyRecord) error {
	l.mu.Lock()
	from := l.from
	l.mu.Unlock()
	there := slices.DeleteFunc(slices.Clone(keys), func(r hsm.KeyRecord) bool { return from > 0 && r.Version >= from })
	if err := l.Custody.AttachStatement(ctx, there); err != nil || len(there) == len(keys) {
		return err
	}
	return hsm.ErrKeyMismatch
}

// HSMs that copy keys to each other take a while; a node waits for that.
func TestAKeyThatComesLaterIsLookedForAgain(t *testing.T) {
	h := newHouse(t)
	l := &later{Custody: h.keys}
	other := h.node(new(firsts), func(c *tokens.Config) { c.Custody = l })
	give := h.accepted()
	h.clock.forward(time.Hour)
	l.from = 2
	h.must(h.RotateStatementKey(ctx, h.admin, false))
	if _, err := give(other, 0); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("before it is there: %v", err)
	}
	l.mu.Lock()
	l.from = 0
	l.mu.Unlock()
	deadline := time.Now().Add(30 * time.Second)
	for {
		_, err := give(other, 0)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is not found: %v", err)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// A rotation whose commit failed, or may not have, leaves keys that all agree on.
func TestARotationWhoseCommitFailed(t *testing.T) {
	for name, fault := range map[string]storetest.Fault{"failed": storetest.Failed, "failed, but persisted": storetest.FailedButPersisted} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			other := h.node(new(firsts))
			give := h.accepted()
			h.clock.forward(time.Hour)
			h.mem.Inject(fault)
			if _, err := h.RotateStatementKey(ctx, h.admin, false); !errors.Is(err, tokens.ErrUnavailable) {
				t.Fatalf("%v", err)
			}
			for _, s := range []*tokens.Service{h.Service, other} {
				jwt, err := give(s, 0)
				if err != nil {
					t.Fatal(err)
				}
				for _, reader := range []*tokens.Service{h.Service, other} {
					if _, ok := h.jwks(reader).reads(t, jwt); !ok {
						t.Error("a statement of one node does not verify on another")
					}
				}
			}
			h.clock.forward(time.Hour)
			h.must(h.RotateStatementKey(ctx, h.admin, false))
			h.must(give(other, 0))
			h.intact()
		})
	}
}

// What a rotation made in vain, since another node was first, is not left behind.
func TestARotationThatMetAnotherLeavesNoKey(t *testing.T) {
	h := newHouse(t)
	h.clock.forward(time.Hour)
	h.mem.Inject(storetest.Conflict, storetest.Conflict)
	list, err := h.RotateStatementKey(ctx, h.admin, false)
	if err != nil || len(list) != 3 || held(h.keys.memory()) != 3 {
		t.Errorf("%d keys are listed, %d in the HSM, %v", len(list), held(h.keys.memory()), err)
	}
}

func TestJWKSAsksTheDatabaseOnceASecond(t *testing.T) {
	h := newHouse(t)
	h.jwks(h.Service)
	before := h.db.loads.Load()
	began := time.Now()
	for range 200 {
		h.jwks(h.Service)
	}
	if asked := h.db.loads.Load() - before; asked > 1+int64(time.Since(began)/time.Second) {
		t.Errorf("200 strangers made %d queries", asked)
	}
	// And does not answer from memory what it cannot know to be still so.
	time.Sleep(1100 * time.Millisecond)
	h.mem.FailLoads(1)
	if text, err := h.JWKS(ctx); !errors.Is(err, tokens.ErrUnavailable) || text != nil {
		t.Errorf("without the database: %d bytes, %v", len(text), err)
	}
}

func isStatement(err error, reason string) bool {
	var bad *tokens.StatementError
	return errors.As(err, &bad) && bad.Reason == reason && errors.Is(err, tokens.ErrInvalid) && bad.Why != ""
}
