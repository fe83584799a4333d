package storetest

import (
	"errors"
	"slices"
	"time"

	"watchword/tokens"
)

// hand is a change that gives a token to a user, or to nobody; motion, if not nil,
// goes with it.
func (k *kit) hand(serial string, to *tokens.User, at *time.Time, motion *tokens.MotionWrite) tokens.Change {
	k.Helper()
	t := k.token(serial)
	var c tokens.Change
	if t.OwnerID != 0 {
		c.Standings = append(c.Standings, next(k.subject(t.Owner)))
	}
	t.OwnerID, t.Owner, t.State = 0, "", tokens.Imported
	if to != nil {
		t.OwnerID, t.Owner, t.State = to.ID, to.Key, tokens.Active
		c.Standings = append(c.Standings, next(k.subject(to.Key)))
	}
	c.Tokens = []tokens.TokenWrite{{Token: t, Expect: t.Version, Assigned: at}}
	if motion != nil {
		motion.TokenID = t.ID
		c.Motions = []tokens.MotionWrite{*motion}
	}
	return c
}

var lifeTests = []test{
	{"AnExpiryIsKeptToTheMicrosecond", func(k *kit) {
		alice := k.user("alice")
		at := time.Date(2031, 2, 3, 4, 5, 6, 789_123_456, time.FixedZone("", 3600))
		want := at.UTC().Truncate(time.Microsecond)
		staged, soft, key := newToken("A1"), newToken("S1"), newKey("K1", &alice)
		staged.Expires, soft.Expires, key.Expires = at, at, at
		batch := k.begin()
		k.stage(batch, staged, newToken("A2"))
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch, Tokens: 2}}})
		k.must(tokens.Change{NewTokens: []*tokens.Token{&soft}})
		k.enrol(key)
		for _, serial := range []string{"A1", "S1", "K1"} {
			k.same(serial+" as listed", k.token(serial).Expires, want)
			s := k.load(tokens.Ref{Realm: "default", Serial: serial}).Subjects[0]
			k.same(serial+" as loaded", s.Tokens[0].Expires, want)
		}
		k.same("one that never expires", k.token("A2").Expires, time.Time{})
		k.give("alice", "A1") // which leaves it
		k.same("in its owner's hand", k.subject("alice").Tokens[0].Expires, want)
		k.same("by the key", k.load(byKey("default", &key)).Subjects[0], k.subject("alice"))
	}},
	{"AnExpiryIsReplacedWithItsToken", func(k *kit) {
		alice := k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		k.enrol(newKey("K1", &alice))
		for _, at := range []time.Time{now().Add(time.Hour), now().Add(-time.Hour), {}} {
			for i := range 2 {
				s := k.subject("alice")
				w := s.Tokens[i]
				w.Expires = at
				k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
				w.Version++
				k.same("as loaded", k.subject("alice").Tokens[i], w)
				k.same("as listed", k.token(w.Serial).Expires, at)
			}
		}
	}},
	{"WhenATokenWasAssignedIsListed", func(k *kit) {
		alice, bob := k.user("alice"), k.user("bob")
		k.ship("A1")
		assigned := func(want time.Time) {
			k.Helper()
			k.same("assigned", k.token("A1").Assigned, want)
			s := k.load(tokens.Ref{Realm: "default", Serial: "A1"}).Subjects[0]
			k.same("assigned, as loaded", s.Tokens[0].Assigned, time.Time{})
		}
		assigned(time.Time{})
		at, later := now().Add(-time.Hour), now()
		k.must(k.hand("A1", &alice, &at, nil))
		assigned(at)
		s := k.subject("alice")
		w := s.Tokens[0]
		w.State, w.Assigned = tokens.Suspended, later // which does not count
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
		assigned(at)
		k.must(k.hand("A1", &bob, &later, nil)) // at once
		assigned(later)
		k.must(k.hand("A1", nil, &time.Time{}, nil))
		assigned(time.Time{})
		k.must(k.hand("A1", &alice, nil, nil)) // by who does not say when
		assigned(time.Time{})
		k.must(k.hand("A1", nil, &later, nil)) // nobody has it, since no time
		assigned(time.Time{})
	}},
	{"PublishingAssigns", func(k *kit) {
		alice := k.user("alice")
		batch := k.begin()
		list := []tokens.Token{newToken("G1"), newToken("G2")}
		list[0].Expires = now().Add(time.Hour)
		k.stage(batch, list...)
		k.grant(batch, nil, granted("G1", alice.ID))
		k.same("staging", k.subject("alice").Tokens == nil, true)
		at := now()
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(k.subject("alice"))}, Publish: []tokens.Batch{{ID: batch, Published: at}}})
		k.same("assigned", k.token("G1").Assigned, at)
		k.same("expires", k.token("G1").Expires, list[0].Expires)
		k.same("assigned to nobody", k.token("G2").Assigned, time.Time{})
		batch = k.begin()
		k.stage(batch, newToken("G3"))
		k.grant(batch, nil, granted("G3", alice.ID))
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(k.subject("alice"))}, Publish: []tokens.Batch{{ID: batch}}})
		if got := k.token("G3").Assigned; got.IsZero() || got != k.batch(batch).Published {
			k.Errorf("G3 was assigned at %v", got)
		}
	}},
	{"TheNextOwnerInheritsNoDrift", func(k *kit) {
		alice, bob := k.user("alice"), k.user("bob")
		k.ship("A1")
		k.give("alice", "A1")
		s := k.subject("alice")
		k.must(tokens.Change{
			Standings: []tokens.StandingWrite{next(s)},
			Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[0].ID, UserID: alice.ID, Last: 100, Drift: -7, UsedAt: 1_700_000_000}},
		})
		motion := func(last int64, drift int, usedAt, version int64) {
			k.Helper()
			k.same("motion", k.token("A1").Motion, tokens.Motion{Last: last, Drift: drift, UsedAt: usedAt, Version: version})
		}
		motion(100, -7, 1_700_000_000, 2)

		// Unassigning takes the drift, and leaves what was used.
		before, listed := k.subject("alice"), k.token("A1")
		err := k.try(k.hand("A1", nil, nil, &tokens.MotionWrite{UserID: alice.ID, Last: 99}))
		var conflict *tokens.ConflictError
		if !errors.As(err, &conflict) || !slices.Contains(conflict.TokenIDs, listed.ID) {
			k.Fatalf("unassigning to an earlier step: %v, not a conflict on the token", err)
		}
		k.same("alice", k.subject("alice"), before)
		k.same("A1", k.token("A1"), listed)
		k.must(k.hand("A1", nil, nil, &tokens.MotionWrite{UserID: alice.ID, Last: 100}))
		motion(100, 0, 0, 3)
		k.same("the owner", k.token("A1").OwnerID, int64(0))

		// Assigning can do it as well, in the name of nobody or of the new owner.
		k.must(tokens.Change{Motions: []tokens.MotionWrite{{TokenID: listed.ID, Expect: 3, Last: 120, Drift: 5, UsedAt: 9}}})
		motion(120, 5, 9, 4)
		k.refuses(tokens.ErrConflict, k.hand("A1", &bob, nil, &tokens.MotionWrite{Last: 119}))
		k.refuses(tokens.ErrConflict, k.hand("A1", &bob, nil, &tokens.MotionWrite{UserID: bob.ID, Last: 119}))
		motion(120, 5, 9, 4)
		k.must(k.hand("A1", &bob, nil, &tokens.MotionWrite{Last: 120}))
		motion(120, 0, 0, 5)
		if err := k.accept("bob", "A1", 119); !errors.Is(err, tokens.ErrConflict) {
			k.Errorf("the next owner used step 119 again: %v", err)
		}
		k.must(k.hand("A1", nil, nil, nil))
		k.must(k.hand("A1", &alice, nil, &tokens.MotionWrite{UserID: alice.ID, Last: 120, Drift: 2}))
		motion(120, 2, 0, 7)
		// From one owner to the next at once.
		k.must(k.hand("A1", &bob, nil, &tokens.MotionWrite{UserID: alice.ID, Last: 120}))
		motion(120, 0, 0, 8)
		k.same("bob's", k.subject("bob").Tokens[0].Motion, k.token("A1").Motion)
	}},
	{"AnImportedTokenIsAssignedWithItsMotion", func(k *kit) {
		// It has never changed, so that nothing of its motion is there to move.
		bob := k.user("bob")
		hotp := newToken("H1")
		hotp.Type, hotp.Period, hotp.Last, hotp.Drift = tokens.HOTP, 0, 500, 3
		batch := k.begin()
		k.stage(batch, hotp)
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
		k.refuses(tokens.ErrConflict, k.hand("H1", &bob, nil, &tokens.MotionWrite{UserID: bob.ID, Last: 499}))
		k.same("motion", k.token("H1").Motion, tokens.Motion{Version: 1, Last: 500, Drift: 3})
		k.must(k.hand("H1", &bob, nil, &tokens.MotionWrite{UserID: bob.ID, Last: 500}))
		k.same("motion", k.token("H1").Motion, tokens.Motion{Version: 2, Last: 500})
	}},
}
