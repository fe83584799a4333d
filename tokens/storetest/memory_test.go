package storetest_test

import (
	"context"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

func TestMemoryKeepsThePromises(t *testing.T) {
	storetest.Run(t, func(t *testing.T) tokens.Database {
		m := storetest.NewMemory(t)
		m.Forgive() // the suite does on purpose what is never to be done
		return m
	})
}

// witness notes accusations instead of failing.
type witness struct {
	testing.TB
	heard []string
}

func (w *witness) Helper() {}
func (w *witness) Errorf(format string, args ...any) {
	w.heard = append(w.heard, fmt.Sprintf(format, args...))
}

// scene is a Memory with alice, who holds token A1 at step 100.
type scene struct {
	*storetest.Memory
	*witness
	ctx   context.Context
	head  audit.Head
	alice *tokens.Subject
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{witness: &witness{TB: t}, ctx: context.Background()}
	s.Memory = storetest.NewMemory(s.witness)
	chain, _, err := s.MintChain(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.head.Chain = chain
	s.must(tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{Realm: "default", Name: "alice", Key: "alice"}}}})
	batch, err := s.Begin(s.ctx, tokens.Batch{Realm: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stage(s.ctx, batch, []tokens.Token{{Realm: "default", Serial: "A1", State: tokens.Imported}}); err != nil {
		t.Fatal(err)
	}
	s.must(tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
	token := s.load(tokens.Ref{Realm: "default", Serial: "A1"}).Tokens[0]
	s.alice = s.load(tokens.Ref{Realm: "default", User: "alice"})
	token.OwnerID, token.State = s.alice.User.ID, tokens.Active
	s.must(tokens.Change{Standings: s.standing(), Tokens: []tokens.TokenWrite{{Token: token, Expect: 1}}})
	s.alice = s.load(tokens.Ref{Realm: "default", User: "alice"})
	s.must(s.step(100))
	s.alice = s.load(tokens.Ref{Realm: "default", User: "alice"})
	if len(s.heard) > 0 {
		t.Fatalf("accused without a reason: %q", s.heard)
	}
	return s
}

func (s *scene) load(ref tokens.Ref) *tokens.Subject {
	view, err := s.Load(s.ctx, []tokens.Ref{ref})
	if err != nil || view.Subjects[0] == nil {
		s.Fatalf("Load: %v", err)
	}
	return view.Subjects[0]
}

func (s *scene) standing() []tokens.StandingWrite {
	next := s.alice.Standing
	next.Version++
	return []tokens.StandingWrite{{UserID: s.alice.User.ID, Expect: s.alice.Version, Next: next}}
}

func (s *scene) step(last int64) tokens.Change {
	return tokens.Change{Standings: s.standing(), Motions: []tokens.MotionWrite{
		{TokenID: s.alice.Tokens[0].ID, UserID: s.alice.User.ID, Last: last},
	}}
}

// sheet is a recovery sheet of alice's, and temporary a temporary passcode.
func (s *scene) sheet(serial string) *tokens.Token {
	return &tokens.Token{
		Realm: "default", Serial: serial, Type: tokens.Recovery, State: tokens.Active, OwnerID: s.alice.User.ID,
		Passcodes: [][]byte{make([]byte, 32), make([]byte, 32)},
	}
}

func (s *scene) temporary(serial string) *tokens.Token {
	t := s.sheet(serial)
	t.Type, t.Uses, t.Passcodes = tokens.Temporary, 5, t.Passcodes[:1]
	return t
}

func (s *scene) enrol(t *tokens.Token) {
	s.must(tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{t}})
	s.alice = s.load(tokens.Ref{Realm: "default", User: "alice"})
}

// key is a FIDO token that was made for alice.
func (s *scene) key(serial string) *tokens.Token {
	return &tokens.Token{
		Realm: "default", Serial: serial, Type: tokens.FIDO, State: tokens.Active, OwnerID: s.alice.User.ID,
		Credential: &tokens.Credential{ID: []byte(serial), RPID: "login.example", UserID: s.alice.User.ID, PublicKey: []byte{1}},
	}
}

func (s *scene) try(c tokens.Change) error {
	var next audit.Head
	c.Records, next = audit.Append(s.head, []audit.Event{{Time: time.Now(), Action: "test"}})
	err := s.Commit(s.ctx, &c)
	if err == nil {
		s.head = next
	}
	return err
}

func (s *scene) must(c tokens.Change) {
	if err := s.try(c); err != nil {
		s.Fatalf("Commit: %v", err)
	}
}

func TestMemoryAccuses(t *testing.T) {
	seed := []byte("a seed of twenty byt")
	for name, c := range map[string]struct {
		do   func(s *scene) error
		want string
	}{
		"a step that goes back": {func(s *scene) error { return s.try(s.step(99)) }, "goes back from 100 to 99"},
		"a version that is skipped": {func(s *scene) error {
			c := s.step(101)
			c.Standings[0].Next.Version++
			return s.try(c)
		}, "a version that goes from"},
		"a change without a record": {func(s *scene) error {
			c := s.step(101)
			return s.Commit(s.ctx, &c)
		}, "no audit record"},
		"a record with another hash": {func(s *scene) error {
			s.head.Hash[0] ^= 1
			return s.try(s.step(101))
		}, "does not continue the record before it"},
		"another's token": {func(s *scene) error {
			s.must(tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{Realm: "default", Key: "bob"}}}})
			bob := s.load(tokens.Ref{Realm: "default", User: "bob"})
			c := s.step(101)
			c.Motions[0].UserID = bob.User.ID
			c.Standings[0] = tokens.StandingWrite{UserID: bob.User.ID, Expect: 1, Next: tokens.Standing{Version: 2}}
			return s.try(c)
		}, "does not hold it"},
		"a revoked token with its seed": {func(s *scene) error {
			w := s.alice.Tokens[0]
			w.State, w.Wrapped.Blob = tokens.Revoked, []byte("x")
			return s.try(tokens.Change{Standings: s.standing(), Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
		}, "keeps its seed"},
		"a token that comes to be another": {func(s *scene) error {
			w := s.alice.Tokens[0]
			w.Digits = 8
			return s.try(tokens.Change{Standings: s.standing(), Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
		}, "never changes"},
		"a key that was made for another": {func(s *scene) error {
			key := s.key("K1")
			key.Credential.UserID++
			return s.try(tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{key}})
		}, "was made for user"},
		"a key that comes to be another": {func(s *scene) error {
			s.must(tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{s.key("K1")}})
			s.alice = s.load(tokens.Ref{Realm: "default", User: "alice"})
			w := s.alice.Tokens[1]
			w.Credential.PublicKey = []byte("another")
			return s.try(tokens.Change{Standings: s.standing(), Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
		}, "never changes"},
		"a ninth token that is enrolled": {func(s *scene) error {
			c := tokens.Change{Standings: s.standing()}
			for i := range tokens.MaxTokensPerUser { // and A1
				c.NewTokens = append(c.NewTokens, s.key(fmt.Sprint("K", i)))
			}
			return s.try(c)
		}, "gets more than 8 tokens"},
		"a key without a standing of its owner": {func(s *scene) error {
			return s.try(tokens.Change{NewTokens: []*tokens.Token{s.key("K1")}})
		}, "without a standing"},
		"a challenge that is spent twice": {func(s *scene) error {
			spend := tokens.Spend{Expires: time.Now()}
			return s.try(tokens.Change{Spends: []tokens.Spend{spend, spend}})
		}, "spent twice"},
		"a seed in a document": {func(s *scene) error {
			s.Watch(seed)
			return s.try(tokens.Change{Documents: []tokens.DocumentWrite{{Name: "a", Data: append([]byte("x"), seed...)}}})
		}, "plaintext seed"},
		"a seed in an invitation": {func(s *scene) error {
			s.Watch(seed)
			return s.try(tokens.Change{Invites: []tokens.InvitationWrite{{Invitation: tokens.Invitation{ID: string(seed)}}}})
		}, "plaintext seed"},
		"a seed in a group": {func(s *scene) error {
			s.Watch(seed)
			return s.try(tokens.Change{Groups: []tokens.GroupsWrite{{Groups: []string{string(seed)}}}})
		}, "plaintext seed"},
		"a seed in a token that is enrolled": {func(s *scene) error {
			s.Watch(seed)
			key := s.key("K1")
			key.Credential.PublicKey = seed
			return s.try(tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{key}})
		}, "plaintext seed"},
		"a seed in a blob": {func(s *scene) error {
			s.Watch(seed)
			w := s.alice.Tokens[0]
			w.Wrapped.Blob = append([]byte("x"), seed...)
			return s.try(tokens.Change{Standings: s.standing(), Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
		}, "plaintext seed"},
		"a seed in an audit record, in hexadecimal": {func(s *scene) error {
			s.Watch(seed)
			records, _ := audit.Append(s.head, []audit.Event{{Reason: "seed " + strings.ToUpper(hex.EncodeToString(seed))}})
			return s.Commit(s.ctx, &tokens.Change{Records: records})
		}, "plaintext seed"},
		"a seed in a batch's name, in base32": {func(s *scene) error {
			s.Watch(seed)
			_, err := s.Begin(s.ctx, tokens.Batch{Name: base32.StdEncoding.EncodeToString(seed)})
			return err
		}, "plaintext seed"},
		"a seed that is staged": {func(s *scene) error {
			s.Watch(seed)
			batch, err := s.Begin(s.ctx, tokens.Batch{})
			if err != nil {
				return err
			}
			_, err = s.Stage(s.ctx, batch, []tokens.Token{{Serial: "S2", State: tokens.Imported, Binding: seed}})
			return err
		}, "plaintext seed"},
		"a sheet beside another": {func(s *scene) error {
			return s.try(tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{s.sheet("R-1"), s.sheet("R-2")}})
		}, "second recovery sheet"},
		"a temporary passcode beside another": {func(s *scene) error {
			s.enrol(s.temporary("T-1"))
			return s.try(tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{s.temporary("T-2")}})
		}, "second temporary passcode"},
		"a sheet that forgets a code": {func(s *scene) error {
			s.enrol(s.sheet("R-1"))
			move := func(used int64) tokens.Change {
				return tokens.Change{Standings: s.standing(), Motions: []tokens.MotionWrite{
					{TokenID: s.alice.Tokens[1].ID, UserID: s.alice.User.ID, Last: used},
				}}
			}
			s.must(move(0b01))
			s.alice = s.load(tokens.Ref{Realm: "default", User: "alice"})
			return s.try(move(0b10))
		}, "forgets a code"},
		"a revoked sheet that keeps its codes": {func(s *scene) error {
			s.enrol(s.sheet("R-1"))
			w := s.alice.Tokens[1]
			w.State = tokens.Revoked
			return s.try(tokens.Change{Standings: s.standing(), Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
		}, "keeps its passcodes"},
		"a passcode that is none": {func(s *scene) error {
			sheet := s.sheet("R-1")
			sheet.Passcodes[1] = sheet.Passcodes[1][:31]
			return s.try(tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{sheet}})
		}, "not MACs"},
		"a passcode of a token of another type": {func(s *scene) error {
			w := s.alice.Tokens[0]
			w.Passcodes = s.sheet("R-1").Passcodes
			return s.try(tokens.Change{Standings: s.standing(), Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
		}, "not its to have"},
		"a profile without a standing": {func(s *scene) error {
			return s.try(tokens.Change{Profiles: []tokens.ProfileWrite{{UserID: s.alice.User.ID}}})
		}, "without a standing"},
		"a tag that is added and dropped": {func(s *scene) error {
			return s.try(tokens.Change{Notes: []tokens.NoteWrite{{TokenID: s.alice.Tokens[0].ID, Add: []string{"a"}, Drop: []string{"a"}}}})
		}, "added and dropped"},
		"a passcode in clear beside its MAC": {func(s *scene) error {
			s.Watch(seed)
			sheet := s.sheet("R-1")
			copy(sheet.Passcodes[0], seed)
			return s.try(tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{sheet}})
		}, "plaintext seed"},
		"a seed in a note": {func(s *scene) error {
			s.Watch(seed)
			text := hex.EncodeToString(seed)
			return s.try(tokens.Change{Notes: []tokens.NoteWrite{{TokenID: s.alice.Tokens[0].ID, Note: &text}}})
		}, "plaintext seed"},
		"a seed in a profile": {func(s *scene) error {
			s.Watch(seed)
			p := tokens.Profile{Attributes: map[string]string{"seed": hex.EncodeToString(seed)}}
			return s.try(tokens.Change{Standings: s.standing(), Profiles: []tokens.ProfileWrite{{UserID: s.alice.User.ID, Profile: p}}})
		}, "plaintext seed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			err := c.do(s)
			if len(s.heard) == 0 || !strings.Contains(s.heard[0], c.want) {
				t.Errorf("heard %q (Commit: %v), not %q", s.heard, err, c.want)
			}
			s = newScene(t)
			s.Forgive()
			_ = c.do(s)
			if len(s.heard) > 0 {
				t.Errorf("accused after Forgive: %q", s.heard)
			}
		})
	}
}

func TestMemoryDoesNotAccuseWhoLostARace(t *testing.T) {
	s := newScene(t)
	late := s.step(99)
	s.must(s.step(105))
	if err := s.try(late); !errors.Is(err, tokens.ErrConflict) {
		t.Errorf("Commit: %v", err)
	}
	old := s.head
	old.Seq--
	s.head = old
	if err := s.try(tokens.Change{}); !errors.Is(err, tokens.ErrChainMoved) {
		t.Errorf("Commit: %v", err)
	}
	if len(s.heard) > 0 {
		t.Errorf("accused: %q", s.heard)
	}
}

// Passcodes do not count among the tokens that a user may hold, and one may take
// the place of another.
func TestMemoryDoesNotAccuseOfPasscodes(t *testing.T) {
	s := newScene(t)
	for i := range tokens.MaxTokensPerUser - 1 { // and A1
		s.enrol(s.key(fmt.Sprint("K", i)))
	}
	s.enrol(s.sheet("R-1"))
	s.enrol(s.temporary("T-1"))
	for i := range 3 {
		c := tokens.Change{Standings: s.standing(), NewTokens: []*tokens.Token{s.sheet(fmt.Sprint("R-1", i)), s.temporary(fmt.Sprint("T-1", i))}}
		for _, w := range s.alice.Tokens {
			if len(w.Passcodes) > 0 {
				w.State, w.Passcodes = tokens.Revoked, nil
				c.Tokens = append(c.Tokens, tokens.TokenWrite{Token: w, Expect: w.Version})
			}
		}
		s.must(c)
		s.alice = s.load(tokens.Ref{Realm: "default", User: "alice"})
		if n := len(s.alice.Tokens); n != tokens.MaxTokensPerUser+2 {
			t.Errorf("alice holds %d tokens", n)
		}
	}
	if len(s.heard) > 0 {
		t.Errorf("accused: %q", s.heard)
	}
}

func TestMemoryInjectsFaults(t *testing.T) {
	s := newScene(t)
	s.Inject(storetest.Failed, storetest.Conflict, storetest.None)
	if err := s.try(s.step(101)); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Failed: %v", err)
	}
	var conflict *tokens.ConflictError
	if err := s.try(s.step(101)); !errors.As(err, &conflict) || len(conflict.UserIDs) != 1 || conflict.UserIDs[0] != s.alice.User.ID {
		t.Errorf("Conflict: %v", err)
	}
	if got := s.load(tokens.Ref{Realm: "default", User: "alice"}); got.Tokens[0].Last != 100 || got.Version != s.alice.Version {
		t.Errorf("a fault that is to store nothing left %+v", got)
	}
	s.must(s.step(101))

	s.alice = s.load(tokens.Ref{Realm: "default", User: "alice"})
	s.InjectFunc(func(c *tokens.Change) storetest.Fault {
		if len(c.Motions) == 1 && c.Motions[0].Last == 102 {
			return storetest.FailedButPersisted
		}
		return storetest.None
	})
	if err := s.try(s.step(102)); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("FailedButPersisted: %v", err)
	}
	if err := s.try(s.step(102)); !errors.Is(err, tokens.ErrChainMoved) {
		t.Errorf("the commit whose answer was lost, again: %v", err)
	}
	if got := s.load(tokens.Ref{Realm: "default", User: "alice"}); got.Tokens[0].Last != 102 {
		t.Errorf("a fault that is to store everything left %+v", got)
	}

	s.FailLoads(1)
	if _, err := s.Load(s.ctx, nil); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Load: %v", err)
	}
	s.Slow(20 * time.Millisecond)
	begun := time.Now()
	if _, err := s.Load(s.ctx, nil); err != nil || time.Since(begun) < 20*time.Millisecond {
		t.Errorf("a slow Load took %v, %v", time.Since(begun), err)
	}
	if len(s.heard) > 0 {
		t.Errorf("accused: %q", s.heard)
	}
}
