package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"watchword/tokens"
)

func note(token int64, text string, add ...string) tokens.NoteWrite {
	return tokens.NoteWrite{TokenID: token, Note: &text, Add: add}
}

func notes(list ...tokens.NoteWrite) tokens.Change { return tokens.Change{Notes: list} }

// noted says what a token's note and tags are.
func (k *kit) noted(serial, text string, tags ...string) {
	k.Helper()
	t := k.token(serial)
	k.same("the note on "+serial, t.Note, text)
	k.same("the tags of "+serial, t.Tags, tags)
}

var noteTests = []test{
	{"NotesAndTagsAreListedAndNotLoaded", func(k *kit) {
		k.user("alice")
		k.ship("A1", "A2")
		k.give("alice", "A1")
		before, alone := k.subject("alice"), k.load(tokens.Ref{Realm: "default", Serial: "A2"}).Subjects
		k.noted("A1", "")
		k.must(notes(note(k.token("A1").ID, "in the drawer\nof \"Ünal\"", "vip", "berlin", "a-b_c.1"), note(k.token("A2").ID, "two", "vip")))
		k.noted("A1", "in the drawer\nof \"Ünal\"", "a-b_c.1", "berlin", "vip")
		k.noted("A2", "two", "vip")
		k.same("alice", k.subject("alice"), before) // nor does a version move
		k.same("the token of nobody", k.load(tokens.Ref{Realm: "default", Serial: "A2"}).Subjects, alone)
	}},
	{"ANoteChangesWhatItSays", func(k *kit) {
		id := k.ship("A1", "A2")[0].ID
		k.must(notes(note(id, "one", "a", "b")))
		k.must(notes(tokens.NoteWrite{TokenID: id, Add: []string{"c", "a", "c"}, Drop: []string{"b", "none", "b"}}))
		k.noted("A1", "one", "a", "c")
		k.must(notes(tokens.NoteWrite{TokenID: id, Drop: []string{"a", "c"}}))
		k.noted("A1", "one")
		k.must(notes(note(id, "", "z")))
		k.noted("A1", "", "z")
		k.must(notes(tokens.NoteWrite{TokenID: id}))
		k.noted("A1", "", "z")
		k.noted("A2", "")
	}},
	{"WhatCannotBeNotedIsRefused", func(k *kit) {
		id := k.ship("A1")[0].ID
		k.must(notes(note(id, "one", "a")))
		for _, bad := range []string{"\xff", "a\x00b"} {
			k.refuses(tokens.ErrInvalid, notes(note(id, bad)))
			k.refuses(tokens.ErrInvalid, notes(note(id, "", bad)))
		}
		for _, w := range []tokens.NoteWrite{
			note(id, "", ""), note(id, "", "a,b"), {TokenID: id, Drop: []string{"a,b"}}, {TokenID: id, Add: []string{"c"}, Drop: []string{"c"}},
		} {
			k.refuses(tokens.ErrInvalid, notes(w))
		}
		k.refuses(tokens.ErrInvalid, notes(note(id, "x"), note(id, "y")))
		batch := k.begin()
		k.stage(batch, newToken("S1"))
		// A staging token has an ID, which is one of those beside.
		for d := range int64(8) {
			if d != 0 {
				k.refuses(tokens.ErrNotFound, notes(note(id, "two"), note(id+d, "it is not there")))
			}
		}
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
		k.noted("A1", "one", "a")
		k.noted("S1", "")
	}},
	{"NotesStayWithTheToken", func(k *kit) {
		k.user("alice")
		id := k.ship("A1")[0].ID
		k.give("alice", "A1")
		k.must(notes(note(id, "one", "a")))
		write := func(state tokens.State, owner int64) {
			k.Helper()
			w := k.token("A1")
			w.State, w.OwnerID, w.Note, w.Tags = state, owner, "another", nil // which does not count
			if state == tokens.Revoked {
				w.Wrapped.Blob = nil
			}
			k.must(tokens.Change{
				Standings: []tokens.StandingWrite{next(k.subject("alice"))}, Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}},
			})
			k.noted("A1", "one", "a")
		}
		write(tokens.Imported, 0)
		write(tokens.Active, k.subject("alice").User.ID)
		write(tokens.Revoked, k.subject("alice").User.ID)
		k.must(notes(note(id, "why it was revoked", "b")))
		k.noted("A1", "why it was revoked", "a", "b")
	}},
	{"AnEnrolledTokenBeginsWithoutNotes", func(k *kit) {
		alice := k.user("alice")
		key := newKey("K1", &alice)
		key.Note, key.Tags = "one", []string{"a"}
		t := k.enrol(key)
		k.noted("K1", "")
		k.must(notes(note(t.ID, "two", "b")))
		k.noted("K1", "two", "b")
	}},
	{"ANoteGoesWithItsChangeOnly", func(k *kit) {
		k.user("alice")
		id := k.ship("A1")[0].ID
		c := notes(note(id, "one", "a"))
		c.NewUsers = []tokens.NewUser{{User: newUser("default", "alice")}}
		k.refuses(tokens.ErrExists, c)
		k.noted("A1", "")
		stale := k.token("A1")
		k.refuses(tokens.ErrConflict, tokens.Change{Notes: c.Notes, Tokens: []tokens.TokenWrite{{Token: stale, Expect: 7}}})
		k.noted("A1", "")
		k.must(tokens.Change{Notes: c.Notes, Tokens: []tokens.TokenWrite{{Token: stale, Expect: 1}}})
		k.noted("A1", "one", "a")
		k.same("version", k.token("A1").Version, int64(2))
	}},
	{"WhatWasNotedOnIsNotUndone", func(k *kit) {
		list := k.ship("U1", "U2", "U3")
		k.must(notes(note(list[0].ID, "one")))
		k.must(notes(tokens.NoteWrite{TokenID: list[1].ID, Add: []string{"a"}}))
		k.same("fresh", k.tally(list[0].Batch).Fresh, 1)
		if n, _, err := k.Remove(k.ctx, list[0].Batch, 0, 10, now()); n != 1 || err != nil {
			k.Errorf("Remove: %d, %v", n, err)
		}
		k.same("left", k.serials(tokens.TokenQuery{}), []string{"U1", "U2"})
		k.noted("U1", "one")
		k.noted("U2", "", "a")
	}},
	{"NotesMadeAtOnceAreAllKept", func(k *kit) {
		// Each adds tags of its own and the ones of all, and drops one that each
		// drops, on tokens in an order of its own.
		const workers, rounds = 6, 10
		list := k.ship("A1", "A2", "A3")
		for i := range list {
			k.must(notes(note(list[i].ID, "", "old")))
		}
		var wg sync.WaitGroup
		for w := range workers {
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				for r := range rounds {
					var c tokens.Change
					for i := range list {
						t := list[(i+w)%len(list)]
						c.Notes = append(c.Notes, note(t.ID, fmt.Sprint("by ", w), fmt.Sprint("t", w, ".", r), fmt.Sprint("all", r)))
						c.Notes[i].Drop = []string{"old"}
					}
					for { // as the core does
						err := worker.try(c)
						if err == nil {
							break
						}
						if !errors.Is(err, tokens.ErrConflict) {
							k.Errorf("Commit: %v", err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		var want []string
		for r := range rounds {
			want = append(want, fmt.Sprint("all", r))
			for w := range workers {
				want = append(want, fmt.Sprint("t", w, ".", r))
			}
		}
		slices.Sort(want)
		for i := range list {
			k.same("the tags of "+list[i].Serial, k.token(list[i].Serial).Tags, want)
		}
	}},
	{"ATokenHasNoMoreTagsThanItMayWhoeverAddsThemAtOnce", func(k *kit) {
		const workers, most = 8, 5
		list := k.ship("A1")
		k.must(notes(note(list[0].ID, "", "old", "older")))
		var wg sync.WaitGroup
		var added atomic.Int32
		for w := range workers {
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				n := note(list[0].ID, "", fmt.Sprint("t", w), "same")
				n.Most, n.Drop = most, []string{"older"}
				switch err := worker.try(notes(n)); {
				case err == nil:
					added.Add(1)
				case !errors.Is(err, tokens.ErrConflict):
					k.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if got := k.token("A1").Tags; len(got) > most || len(got) != int(added.Load())+2 {
			k.Errorf("%d were added, and the tags are %q", added.Load(), got)
		}
		// As many as it may have, and what it has already.
		n := note(list[0].ID, "", "same", "old")
		n.Most = len(k.token("A1").Tags)
		k.must(notes(n))
		n.Add = append(n.Add, "one more")
		k.refuses(tokens.ErrConflict, notes(n))
		n.Drop = []string{"old"}
		n.Add = []string{"one more"}
		k.must(notes(n))
	}},
	{"UndoingRacesNoting", func(k *kit) {
		// A token is noted on and stays, or is removed and not found: never both, and
		// no fault.
		const n = 60
		var serials []string
		for i := range n {
			serials = append(serials, serialName(i))
		}
		list := k.ship(serials...)
		var gone, kept atomic.Int32
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				last := int64(0)
				for range 4 * n {
					m, upTo, err := k.Remove(k.ctx, list[0].Batch, last, 2, now())
					if err != nil {
						k.Errorf("Remove: %v", err)
						return
					}
					gone.Add(int32(m))
					last = upTo // zero begins anew
				}
			})
		}
		worker := newKit(k.TB, k.Database)
		wg.Go(func() {
			for i := n - 1; i >= 0; i-- {
				for {
					err := worker.try(notes(note(list[i].ID, "kept", "kept")))
					if errors.Is(err, tokens.ErrConflict) {
						continue
					}
					if err == nil {
						kept.Add(1)
					} else if !errors.Is(err, tokens.ErrNotFound) {
						k.Errorf("noting: %v", err)
						return
					}
					break
				}
			}
		})
		wg.Wait()
		left := k.serials(tokens.TokenQuery{})
		if int(gone.Load()+kept.Load()) != n || len(left) != int(kept.Load()) {
			k.Errorf("%d tokens were removed and %d noted on, of %d; %d are there", gone.Load(), kept.Load(), n, len(left))
		}
		for _, serial := range left {
			k.noted(serial, "kept", "kept")
		}
	}},
}
