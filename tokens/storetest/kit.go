package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
	"watchword/tokens/audit"
)

// kit is a database under test, with a chain of its own and shorthands.
type kit struct {
	testing.TB
	tokens.Database
	ctx  context.Context
	head audit.Head
}

func newKit(t testing.TB, db tokens.Database) *kit {
	t.Helper()
	ctx := context.Background()
	chain, _, err := db.MintChain(ctx)
	if err != nil {
		t.Fatalf("MintChain: %v", err)
	}
	return &kit{TB: t, Database: db, ctx: ctx, head: audit.Head{Chain: chain}}
}

// now is a time that every database keeps exactly.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func event(user, serial string) audit.Event {
	return audit.Event{
		Time: now(), Action: "verify", Outcome: "accept", Realm: "default", User: user, Serial: serial,
		Actor: "client:vpn", Client: "vpn", Source: "192.0.2.1:1812", Reason: "ok",
		Detail: []audit.Field{{Name: "step", Value: "17"}},
	}
}

// try commits the change with one record more, and keeps the head if that was
// done.
func (k *kit) try(c tokens.Change, events ...audit.Event) error {
	if len(events) == 0 {
		events = []audit.Event{event("", "")}
	}
	var next audit.Head
	c.Records, next = audit.Append(k.head, events)
	err := k.Commit(k.ctx, &c)
	if err == nil {
		k.head = next
	}
	return err
}

func (k *kit) must(c tokens.Change, events ...audit.Event) {
	k.Helper()
	if err := k.try(c, events...); err != nil {
		k.Fatalf("Commit: %v", err)
	}
}

// refuses says that the change is refused with an error of that kind, and
// leaves the chain where it was.
func (k *kit) refuses(kind error, c tokens.Change, events ...audit.Event) {
	k.Helper()
	if err := k.try(c, events...); !errors.Is(err, kind) {
		k.Fatalf("Commit: %v, not %v", err, kind)
	}
}

func newUser(realm, name string) *tokens.User {
	key, err := tokens.FoldName(name)
	if err != nil {
		panic(err)
	}
	return &tokens.User{Realm: realm, Name: name, Key: key, State: tokens.UserEnabled, Created: now()}
}

// user makes a user in the default realm.
func (k *kit) user(name string) tokens.User {
	k.Helper()
	u := newUser("default", name)
	k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: u}}})
	if u.ID == 0 {
		k.Fatal("Commit gave the new user no ID")
	}
	return *u
}

func newToken(serial string) tokens.Token {
	blob := slices.Repeat([]byte{0xA5, byte(len(serial)), 0, 0xFF}, 10)
	copy(blob, serial)
	return tokens.Token{
		Realm: "default", Serial: serial, Type: tokens.TOTP, Algorithm: hsm.SHA256, Digits: 6, Period: 30,
		State: tokens.Imported, Model: "Model É", Created: now(),
		Wrapped: hsm.Wrapped{Mechanism: "aes-kwp", KEK: 4_000_000_000, Hash: hsm.SHA256, SeedLen: 20, Blob: blob},
		Binding: slices.Repeat([]byte{0x5A, 1}, 16),
		Motion:  tokens.Motion{Last: -1},
	}
}

func (k *kit) begin() int64 {
	k.Helper()
	id, err := k.Begin(k.ctx, tokens.Batch{
		Realm: "default", Name: "shipment.csv", Format: "oath-csv", Actor: "key:admin", Created: now(),
	})
	if err != nil {
		k.Fatalf("Begin: %v", err)
	}
	return id
}

func (k *kit) stage(batch int64, list ...tokens.Token) []bool {
	k.Helper()
	created, err := k.Stage(k.ctx, batch, list)
	if err != nil {
		k.Fatalf("Stage: %v", err)
	}
	if len(created) != len(list) {
		k.Fatalf("Stage answered for %d of %d tokens", len(created), len(list))
	}
	return created
}

// ship imports tokens of these serials and answers them as listed.
func (k *kit) ship(serials ...string) []tokens.Token {
	k.Helper()
	batch := k.begin()
	var list []tokens.Token
	for _, serial := range serials {
		list = append(list, newToken(serial))
	}
	for i, ok := range k.stage(batch, list...) {
		if !ok {
			k.Fatalf("token %s was not created", serials[i])
		}
	}
	k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch, SHA256: "00ff", Tokens: len(list), Published: now()}}})
	for i := range list {
		list[i] = k.token(list[i].Serial)
	}
	return list
}

// token answers a token as listed.
func (k *kit) token(serial string) tokens.Token {
	k.Helper()
	found, _, err := k.Tokens(k.ctx, tokens.TokenQuery{Realm: "default", Serial: serial, Limit: 2})
	if err != nil || len(found) != 1 {
		k.Fatalf("Tokens of serial %s: %d, %v", serial, len(found), err)
	}
	return found[0]
}

// subject loads one user.
func (k *kit) subject(name string) *tokens.Subject {
	k.Helper()
	s := k.load(tokens.Ref{Realm: "default", User: name}).Subjects[0]
	if s == nil || s.User == nil {
		k.Fatalf("user %s was not found", name)
	}
	return s
}

func (k *kit) load(refs ...tokens.Ref) tokens.View {
	k.Helper()
	view, err := k.Load(k.ctx, refs)
	if err != nil {
		k.Fatalf("Load: %v", err)
	}
	if len(view.Subjects) != len(refs) {
		k.Fatalf("Load answered %d subjects for %d refs", len(view.Subjects), len(refs))
	}
	// Attempts see the same, whatever a Store remembers.
	for range 2 {
		again, err := k.Recall(k.ctx, refs)
		if err != nil {
			k.Fatalf("Recall: %v", err)
		}
		again.Clock, again.Recalled, again.Read = view.Clock, 0, view.Read
		if !reflect.DeepEqual(again, view) {
			k.Fatalf("Recall answers\n%+v, and Load\n%+v", again, view)
		}
		for i := range refs {
			for j := range i {
				if one := view.Subjects[i] == view.Subjects[j]; one != (again.Subjects[i] == again.Subjects[j]) {
					k.Fatalf("Load says that %+v and %+v are one: %v; Recall says otherwise", refs[i], refs[j], one)
				}
			}
		}
	}
	return view
}

// next is a write of the subject's standing that changes nothing but the
// version.
func next(s *tokens.Subject) tokens.StandingWrite {
	w := tokens.StandingWrite{UserID: s.User.ID, Expect: s.Version, Next: s.Standing}
	w.Next.Version++
	return w
}

// give assigns a token to a user.
func (k *kit) give(name, serial string) {
	k.Helper()
	s := k.subject(name)
	t := k.token(serial)
	t.OwnerID, t.Owner, t.State = s.User.ID, s.User.Key, tokens.Active
	k.must(tokens.Change{
		Standings: []tokens.StandingWrite{next(s)},
		Tokens:    []tokens.TokenWrite{{Token: t, Expect: t.Version}},
	})
}

// accept moves a user's token to a step, as an accepted code does.
func (k *kit) accept(name, serial string, step int64) error {
	k.Helper()
	s := k.subject(name)
	i := slices.IndexFunc(s.Tokens, func(t tokens.Token) bool { return t.Serial == serial })
	if i < 0 {
		k.Fatalf("user %s does not hold %s", name, serial)
	}
	return k.try(tokens.Change{
		Standings: []tokens.StandingWrite{next(s)},
		Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[i].ID, UserID: s.User.ID, Last: step, UsedAt: 1_700_000_000}},
	}, event(name, serial))
}

func serialName(i int) string { return fmt.Sprintf("WW%06d", i) }
