package storetest

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

// codes are the MACs of so many passcodes, each another.
func codes(n int) [][]byte {
	var list [][]byte
	for i := range n {
		list = append(list, append(bytes.Repeat([]byte{0, 0xFF, ','}, 10), byte(i), 0))
	}
	return list
}

// newSheet is a recovery sheet as it is enrolled for a user.
func newSheet(serial string, owner *tokens.User, n int) tokens.Token {
	return tokens.Token{
		Realm: "default", Serial: serial, Type: tokens.Recovery, State: tokens.Active, Created: now(),
		OwnerID: owner.ID, Owner: owner.Key, Passcodes: codes(n), Binding: slices.Repeat([]byte{0x5A, 3}, 16),
	}
}

// newTemporary is a temporary passcode as it is enrolled for a user.
func newTemporary(serial string, owner *tokens.User, uses int) tokens.Token {
	t := newSheet(serial, owner, 1)
	t.Type, t.Uses, t.Expires = tokens.Temporary, uses, now().Add(24*time.Hour)
	return t
}

// revoke is a change that revokes a user's token.
func (k *kit) revoke(name, serial string) tokens.Change {
	k.Helper()
	w := k.token(serial)
	w.State, w.Wrapped, w.Passcodes, w.Binding = tokens.Revoked, hsm.Wrapped{}, nil, []byte("another")
	return tokens.Change{
		Standings: []tokens.StandingWrite{next(k.subject(name))}, Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}},
	}
}

var passcodeTests = []test{
	{"PasscodesComeWithAllColumns", func(k *kit) {
		alice := k.user("alice")
		sheet, temporary := newSheet("R-1", &alice, 10), newTemporary("T-1", &alice, 5)
		var held []tokens.Token
		for _, want := range []tokens.Token{sheet, temporary} {
			got := k.enrol(want)
			want.ID, want.Version, want.Assigned = got.ID, 1, want.Created
			k.same("as listed", got, want)
			want.Assigned = time.Time{}
			held = append(held, want)
		}
		k.same("in their owner's hand", k.subject("alice").Tokens, held)
		k.same("the owner by one's serial", k.load(tokens.Ref{Realm: "default", Serial: "T-1"}).Subjects[0], k.subject("alice"))
		k.ship("A1")
		k.give("alice", "A1")
		k.enrol(newKey("K1", &alice))
		for _, t := range k.subject("alice").Tokens[2:] {
			if t.Passcodes != nil || t.Uses != 0 || !t.Expires.IsZero() {
				k.Errorf("a token of type %s has %+v", t.Type, t)
			}
		}
	}},
	{"ASheetHasOneCodeOrMany", func(k *kit) {
		for i, n := range []int{1, 2, 31, 32} {
			u := k.user(serialName(i))
			k.enrol(newSheet(serialName(i), &u, n))
			k.same("codes", k.subject(u.Key).Tokens[0].Passcodes, codes(n))
		}
	}},
	{"NoPasscodeIsLeftOnceItIsRevoked", func(k *kit) {
		alice := k.user("alice")
		k.enrol(newSheet("R-1", &alice, 10))
		k.enrol(newTemporary("T-1", &alice, 5))
		for _, serial := range []string{"R-1", "T-1"} {
			c := k.revoke("alice", serial)
			k.must(c)
			want := c.Tokens[0].Token
			want.Version = 2
			k.same("as listed", k.token(serial), want)
			want.Assigned = time.Time{}
			k.same("alone", k.load(tokens.Ref{Realm: "default", Serial: serial}).Subjects[0], &tokens.Subject{Tokens: []tokens.Token{want}})
		}
		if list := k.subject("alice").Tokens; len(list) != 0 {
			k.Errorf("alice holds %+v", list)
		}
	}},
	{"PasscodesAreReplacedWithTheirToken", func(k *kit) {
		alice := k.user("alice")
		w := k.enrol(newTemporary("T-1", &alice, 5))
		w.Passcodes, w.Uses, w.Expires, w.State = codes(2)[1:], 3, w.Expires.Add(time.Hour), tokens.Suspended
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(k.subject("alice"))}, Tokens: []tokens.TokenWrite{{Token: w, Expect: 1}}})
		w.Version = 2
		k.same("as listed", k.token("T-1"), w)
		w.Assigned = time.Time{}
		k.same("in its owner's hand", k.subject("alice").Tokens, []tokens.Token{w})
	}},
	{"PasscodesAreNotKeptWithWhatTheyComeWith", func(k *kit) {
		alice := k.user("alice")
		sheet := newSheet("R-1", &alice, 2)
		k.enrol(sheet)
		clear(sheet.Passcodes[0]) // as whoever wipes does
		clear(k.subject("alice").Tokens[0].Passcodes[1])
		k.same("codes", k.subject("alice").Tokens[0].Passcodes, codes(2))
	}},
	{"WhatIsNoPasscodeIsRefused", func(k *kit) {
		alice := k.user("alice")
		short, long, empty := newSheet("R-1", &alice, 2), newSheet("R-1", &alice, 2), newSheet("R-1", &alice, 2)
		short.Passcodes[1], long.Passcodes[1], empty.Passcodes[1] = make([]byte, 31), make([]byte, 33), nil
		totp, counted, key := newToken("A1"), newToken("A1"), newKey("K1", &alice)
		totp.Passcodes, counted.Uses, key.Passcodes = codes(1), 1, codes(1)
		for _, t := range []tokens.Token{short, long, empty, totp, counted, key} {
			c := tokens.Change{NewTokens: []*tokens.Token{&t}, Standings: []tokens.StandingWrite{next(k.subject("alice"))}}
			k.refuses(tokens.ErrInvalid, c)
		}
		good := k.enrol(newSheet("R-1", &alice, 2))
		bad := good
		bad.Passcodes = short.Passcodes
		stolen := k.ship("A2")[0]
		stolen.Passcodes = codes(1)
		for _, w := range []tokens.Token{bad, stolen} {
			k.refuses(tokens.ErrInvalid, tokens.Change{
				Standings: []tokens.StandingWrite{next(k.subject("alice"))}, Tokens: []tokens.TokenWrite{{Token: w, Expect: 1}},
			})
		}
		k.same("the sheet", k.token("R-1"), good)
		batch := k.begin()
		for _, t := range []tokens.Token{totp, counted} { // an import brings none
			if _, err := k.Stage(k.ctx, batch, []tokens.Token{t}); !errors.Is(err, tokens.ErrInvalid) {
				k.Errorf("Stage: %v", err)
			}
		}
	}},
	{"ACodeThatWasUsedStaysUsed", func(k *kit) {
		alice := k.user("alice")
		k.enrol(newSheet("R-1", &alice, 32))
		for _, used := range []int64{0b1, 0b101, 0b111, 1<<31 | 0b111, 1<<32 - 1} {
			if err := k.accept("alice", "R-1", used); err != nil {
				k.Fatal(err)
			}
			k.same("used", k.subject("alice").Tokens[0].Last, used)
		}
		if err := k.accept("alice", "R-1", 0b111); !errors.Is(err, tokens.ErrConflict) {
			k.Errorf("codes came back: %v", err)
		}
		k.same("used", k.subject("alice").Tokens[0].Last, int64(1<<32-1))
	}},
	{"OneOfManyUsesAPasscode", func(k *kit) {
		// As many as there are nodes read that the last use is left.
		alice := k.user("alice")
		k.enrol(newTemporary("T-1", &alice, 1))
		s := k.subject("alice")
		var won, wg = atomic.Int32{}, sync.WaitGroup{}
		for range 12 {
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				err := worker.try(tokens.Change{
					Standings: []tokens.StandingWrite{next(s)},
					Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[0].ID, UserID: s.User.ID, Last: 1, UsedAt: 9}},
				}, event("alice", "T-1"))
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, tokens.ErrConflict) {
					k.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			k.Errorf("%d commits used the passcode", n)
		}
	}},
	{"APasscodeIsUsedOrRevoked", func(k *kit) {
		// Its owner uses it while the helpdesk replaces it by another: whoever comes
		// second hears so.
		alice := k.user("alice")
		serial := "T-0"
		k.enrol(newTemporary(serial, &alice, 5))
		for i := range 20 {
			s := k.subject("alice")
			old := s.Tokens[0]
			gone, fresh := old, newTemporary(serialName(i), &alice, 5)
			gone.State, gone.Passcodes = tokens.Revoked, nil
			var used, replaced error
			var wg sync.WaitGroup
			owner, desk := newKit(k.TB, k.Database), newKit(k.TB, k.Database)
			wg.Go(func() {
				used = owner.try(tokens.Change{
					Standings: []tokens.StandingWrite{next(s)},
					Motions:   []tokens.MotionWrite{{TokenID: old.ID, UserID: s.User.ID, Last: old.Last + 1, UsedAt: 9}},
				}, event("alice", old.Serial))
			})
			wg.Go(func() {
				replaced = desk.try(tokens.Change{
					Standings: []tokens.StandingWrite{next(s)}, Tokens: []tokens.TokenWrite{{Token: gone, Expect: old.Version}},
					NewTokens: []*tokens.Token{&fresh},
				})
			})
			wg.Wait()
			if (used == nil) == (replaced == nil) {
				k.Fatalf("both or neither: %v, %v", used, replaced)
			}
			for _, err := range []error{used, replaced} {
				if err != nil && !errors.Is(err, tokens.ErrConflict) {
					k.Fatalf("Commit: %v", err)
				}
			}
			if replaced == nil {
				serial = fresh.Serial
			}
			if list := k.subject("alice").Tokens; len(list) != 1 || list[0].Serial != serial {
				k.Fatalf("alice holds %+v", list)
			}
		}
	}},
}
