package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

func newSession(id string, u *tokens.User) tokens.Session {
	at := now()
	return tokens.Session{
		ID: id, UserID: u.ID, Home: u.Realm, User: u.Key, Realm: "default", Serial: "A1", Method: "otp", Bound: "192.0.2.7",
		Through: "key:app é", MAC: [32]byte{4, 0, 31: 7}, Created: at, Authenticated: at.Add(time.Millisecond), Expires: at.Add(time.Hour),
	}
}

func signIn(list ...tokens.Session) tokens.Change {
	var c tokens.Change
	for _, v := range list {
		c.Sessions = append(c.Sessions, tokens.SessionWrite{Session: v})
	}
	return c
}

func again(v tokens.Session) tokens.Change {
	return tokens.Change{Sessions: []tokens.SessionWrite{{Session: v, Replace: true}}}
}

func (k *kit) session(id string) tokens.Session {
	k.Helper()
	v, err := k.Session(k.ctx, id)
	if err != nil {
		k.Fatalf("Session: %v", err)
	}
	return v
}

// open are the IDs of the open sessions of a user, of a realm, or of all.
func (k *kit) open(home string, user int64, at time.Time, limit int) []string {
	k.Helper()
	list, err := k.OpenSessions(k.ctx, home, user, at, limit)
	if err != nil {
		k.Fatalf("OpenSessions: %v", err)
	}
	var ids []string
	for _, v := range list {
		ids = append(ids, v.ID)
		k.same("session as listed", v, k.session(v.ID))
	}
	return ids
}

var sessionTests = []test{
	{"ASessionBeginsIsRenewedAndEndsOnce", func(k *kit) {
		alice := k.user("alice")
		want := newSession("s1", &alice)
		k.must(signIn(want))
		k.same("session", k.session("s1"), want)
		k.refuses(tokens.ErrExists, signIn(newSession("s2", &alice), newSession("s1", &alice)))

		renewed := want
		renewed.Serial, renewed.Method, renewed.MAC = "K1", "key", [32]byte{5}
		renewed.Authenticated, renewed.Expires = now().Add(time.Minute), now().Add(2*time.Hour)
		write := renewed // what does not change of a session is left alone
		write.Home, write.User, write.Realm, write.Bound, write.Through, write.Created = "x", "x", "x", "x", "x", time.Time{}
		k.must(again(write))
		k.same("the renewed session", k.session("s1"), renewed)

		renewed.Ended = now()
		k.must(again(renewed))
		k.same("the ended session", k.session("s1"), renewed)
		reopened := renewed
		reopened.Ended = time.Time{}
		for _, v := range []tokens.Session{reopened, renewed, newSession("none", &alice)} {
			k.refuses(tokens.ErrNotFound, again(v))
		}
		k.same("the ended session", k.session("s1"), renewed)
		for _, id := range []string{"s2", "", "none", "\xff", "a\x00b"} {
			if _, err := k.Session(k.ctx, id); !errors.Is(err, tokens.ErrNotFound) {
				k.Errorf("session %q: %v", id, err)
			}
		}
	}},
	{"EndingAndRenewingAtOnceEnds", func(k *kit) {
		alice := k.user("alice")
		k.must(signIn(newSession("s1", &alice)))
		ended, renewed := k.session("s1"), k.session("s1")
		ended.Ended, renewed.Authenticated = now(), now().Add(time.Minute)
		var all sync.WaitGroup
		for _, v := range []tokens.Session{ended, renewed} {
			chain, _, err := k.MintChain(k.ctx)
			if err != nil {
				k.Fatal(err)
			}
			all.Go(func() {
				c := again(v)
				for range 50 {
					c.Records, _ = audit.Append(audit.Head{Chain: chain}, []audit.Event{event("alice", "")})
					err := k.Commit(k.ctx, &c)
					if errors.Is(err, tokens.ErrConflict) {
						continue
					}
					if err != nil && !(v.Ended.IsZero() && errors.Is(err, tokens.ErrNotFound)) {
						k.Errorf("Commit: %v", err)
					}
					return
				}
			})
		}
		all.Wait()
		if k.session("s1").Ended.IsZero() {
			k.Error("a session that was ended is open")
		}
	}},
	{"ASessionThatContradictsItselfIsRefused", func(k *kit) {
		alice := k.user("alice")
		k.must(signIn(newSession("s1", &alice)))
		for what, edit := range map[string]func(*tokens.SessionWrite){
			"no ID":           func(w *tokens.SessionWrite) { w.Session.ID = "" },
			"for ever":        func(w *tokens.SessionWrite) { w.Session.Expires = time.Time{} },
			"of nobody":       func(w *tokens.SessionWrite) { w.Session.UserID = 1 << 40 },
			"not proven":      func(w *tokens.SessionWrite) { w.Session.Authenticated = time.Time{} },
			"never begun":     func(w *tokens.SessionWrite) { w.Session.Created = time.Time{} },
			"ended":           func(w *tokens.SessionWrite) { w.Session.Ended = now() },
			"a NUL":           func(w *tokens.SessionWrite) { w.Session.Serial = "a\x00b" },
			"not UTF-8":       func(w *tokens.SessionWrite) { w.Session.Through = "\xff" },
			"renewed forever": func(w *tokens.SessionWrite) { w.Session.ID, w.Session.Expires, w.Replace = "s1", time.Time{}, true },
		} {
			w := tokens.SessionWrite{Session: newSession("s2", &alice)}
			edit(&w)
			if err := k.try(tokens.Change{Sessions: []tokens.SessionWrite{w}}); !errors.Is(err, tokens.ErrInvalid) {
				k.Errorf("%s: %v", what, err)
			}
		}
		s1 := k.session("s1")
		k.refuses(tokens.ErrInvalid, tokens.Change{Sessions: []tokens.SessionWrite{{Session: s1, Replace: true}, {Session: s1, Replace: true}}})
		k.same("sessions", k.open("", 0, now(), 10), []string{"s1"})
	}},
	{"OpenSessionsNewestFirst", func(k *kit) {
		alice, bob := k.user("alice"), k.user("bob")
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("abroad", "alice")}}})
		cyd := *k.load(tokens.Ref{Realm: "abroad", User: "alice"}).Subjects[0].User
		at := now()
		for i, u := range []*tokens.User{&alice, &bob, &alice, &cyd, &alice, &alice, &alice} {
			v := newSession(fmt.Sprint("s", i), u)
			v.Created = at.Add(time.Duration(i%5) * time.Minute) // s5 is as old as s0
			v.Expires = at.Add(time.Hour)
			if i == 4 {
				v.Expires = at // which has expired
			}
			k.must(signIn(v))
		}
		ended := k.session("s2")
		ended.Ended = at
		k.must(again(ended))
		for _, c := range []struct {
			home  string
			user  int64
			limit int
			want  []string
		}{
			{"", 0, 10, []string{"s3", "s6", "s1", "s5", "s0"}},
			{"", 0, 2, []string{"s3", "s6"}},
			{"default", 0, 10, []string{"s6", "s1", "s5", "s0"}},
			{"abroad", 0, 10, []string{"s3"}},
			{"", alice.ID, 10, []string{"s6", "s5", "s0"}},
			{"default", bob.ID, 10, []string{"s1"}},
			{"", 1 << 40, 10, nil},
			{"Default", 0, 10, nil},
			{"\xff", 0, 10, nil},
		} {
			k.same(fmt.Sprintf("sessions of %d in %q", c.user, c.home), k.open(c.home, c.user, at, c.limit), c.want)
		}
		k.same("sessions a little before", k.open("", alice.ID, at.Add(-time.Microsecond), 10), []string{"s4", "s6", "s5", "s0"})
		k.same("sessions when all have expired", k.open("", 0, at.Add(time.Hour), 10), []string(nil))
	}},
	{"SessionsThatExpiredAreForgotten", func(k *kit) {
		alice := k.user("alice")
		at := now()
		for i, in := range []time.Duration{-time.Hour, -time.Microsecond, 0, time.Hour} {
			v := newSession(fmt.Sprint("s", i), &alice)
			v.Expires = at.Add(in)
			k.must(signIn(v))
		}
		for _, want := range []int{2, 0} {
			if n, err := k.DropSessions(k.ctx, at); err != nil || n != want {
				k.Errorf("DropSessions: %d, %v; %d had expired", n, err, want)
			}
		}
		left := k.open("", alice.ID, at.Add(-2*time.Hour), 10)
		slices.Sort(left)
		k.same("sessions", left, []string{"s2", "s3"})
	}},
	{"SessionsLeaveTheGeneration", func(k *kit) {
		alice := k.user("alice")
		start := k.registry().Generation
		v := newSession("s1", &alice)
		k.must(signIn(v))
		v.Ended = now()
		k.must(again(v))
		if _, err := k.DropSessions(k.ctx, now().Add(48*time.Hour)); err != nil {
			k.Fatal(err)
		}
		k.same("generation", k.registry().Generation, start)
	}},
}
