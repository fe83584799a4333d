package tokens_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

// Nobody learns by beginning to sign in whether there is a user, or a key.
func TestBeginningToSignInTellsNothing(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	h.enrol("alice", k)
	for _, user := range []string{"lost", "suspended", "revoked", "elsewhere"} {
		h.enrol(user, newSeckey(user))
	}
	h.must(h.MarkLost(ctx, h.admin, "", newSeckey("lost").serial, ""))
	h.must(h.Suspend(ctx, h.admin, "", newSeckey("suspended").serial, ""))
	h.must(h.Revoke(ctx, h.admin, "", newSeckey("revoked").serial, ""))
	h.user("keyless")
	h.give("codes", totp("T1"))

	begin := func(s *tokens.Service, user, rpID string) tokens.KeyHolder {
		t.Helper()
		before := h.keys.bindings.Load()
		got, err := s.LoginHolder(ctx, h.vpn, "", user, rpID)
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		if n := h.keys.bindings.Load() - before; n != 1 {
			t.Errorf("%q costs %d MACs", user, n)
		}
		if got.UserID != 0 || got.Handle != nil || got.Name != "" || got.Groups != nil || got.Realm != "default" {
			t.Errorf("%q: it says %+v", user, got)
		}
		return got
	}
	real := begin(h.Service, "Alice", rp)
	if len(real.Credentials) != 1 || !bytes.Equal(real.Credentials[0].ID, k.id) || real.User != "alice" {
		t.Errorf("alice's: %+v", real)
	}
	if elsewhere := begin(h.Service, "elsewhere", "other.example.org"); bytes.Equal(elsewhere.Credentials[0].ID, newSeckey("elsewhere").id) {
		t.Error("a credential of another relying party is named")
	}
	other := h.node(&firsts{})
	seen := map[string]string{}
	for _, user := range []string{"lost", "suspended", "revoked", "keyless", "codes", "nobody", "nobody2", "no\x00name", strings.Repeat("x", 300)} {
		got := begin(h.Service, user, rp)
		if n := len(got.Credentials); n < 1 || n > 8 {
			t.Errorf("%q has %d credentials", user, n)
		}
		for _, c := range got.Credentials {
			if n := len(c.ID); n < 16 || n > 64 || seen[string(c.ID)] != "" {
				t.Errorf("%q: a credential of %d bytes, by %v, seen with %q", user, n, c.Transports, seen[string(c.ID)])
			}
			seen[string(c.ID)] = user
		}
		if again := begin(other, user, rp); !reflect.DeepEqual(got, again) {
			t.Errorf("%q is told something else by another node", user)
		}
		if elsewhere := begin(h.Service, user, "other.example.org"); bytes.Equal(elsewhere.Credentials[0].ID, got.Credentials[0].ID) {
			t.Errorf("%q has the same credential with another relying party", user)
		}
	}
	if a, b := begin(h.Service, "NOBODY", rp), begin(h.Service, "nobody", rp); !reflect.DeepEqual(a, b) {
		t.Error("a name in capitals is another")
	}
	// A key that was lost and found is what it was.
	h.must(h.Resume(ctx, h.admin, "", newSeckey("lost").serial, "found"))
	if got := begin(h.Service, "lost", rp); !bytes.Equal(got.Credentials[0].ID, newSeckey("lost").id) {
		t.Error("a key that was found is not named")
	}
	if _, err := h.LoginHolder(ctx, h.vpn, "", "", rp); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("nobody: %v", err)
	}
}

// What is made up looks like what people have: of several lengths, sometimes two, now
// and then more, and not always with a word on how it is reached. Nothing that
// somebody has shows by itself that somebody is there.
func TestMadeUpCredentialsAreNotAllAlike(t *testing.T) {
	h := newHouse(t)
	sizes, counts, ways, silent := map[int]int{}, map[int]int{}, map[string]int{}, 0
	const names = 20000
	ids := map[string]bool{}
	for i := range names {
		got, err := h.LoginHolder(ctx, h.vpn, "", fmt.Sprint("nobody", i), rp)
		if err != nil {
			t.Fatal(err)
		}
		counts[len(got.Credentials)]++
		for _, c := range got.Credentials {
			sizes[len(c.ID)]++
			ways[fmt.Sprint(len(c.ID), c.Transports)]++
			if len(c.Transports) == 0 {
				silent++
			}
			if ids[string(c.ID)] {
				t.Fatalf("nobody%d has a credential that was there before", i)
			}
			ids[string(c.ID)] = true
		}
	}
	for n, least := range map[int]int{1: names * 8 / 10, 2: names / 16, 3: names / 80, 4: names / 400, 5: names / 2000} {
		if counts[n] < least {
			t.Errorf("%d of %d have %d", counts[n], names, n)
		}
	}
	if counts[0] != 0 || counts[9] != 0 || len(sizes) != 5 || len(ways) != 11 || silent < names/100 || silent > names/20 {
		t.Errorf("lengths %v, numbers %v, %v, %d without transports", sizes, counts, ways, silent)
	}
}

// The order in which transports stand does not tell a credential that there is from
// one that was made up.
func TestTransportsAreSortedWhoeverMadeTheCredential(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	k := newSeckey("one")
	n := h.newFIDO("alice", k)
	n.Credential.Transports = []string{"usb", "nfc", "ble"}
	h.must(h.EnrolKey(ctx, h.admin, n))
	users := []string{"alice"}
	for i := range 50 {
		users = append(users, fmt.Sprint("nobody", i))
	}
	for _, user := range users {
		got, err := h.LoginHolder(ctx, h.vpn, "", user, rp)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range got.Credentials {
			if !slices.IsSorted(c.Transports) {
				t.Errorf("%s: by %v", user, c.Transports)
			}
		}
	}
	if got := h.token(k.serial).Credential.Transports; !slices.Equal(got, []string{"usb", "nfc", "ble"}) {
		t.Errorf("the credential itself was changed: %v", got)
	}
}

// Whoever knows a user's name can send what is no answer of theirs to the sign-in
// page, as often as they like: it is counted, and does not fill the disk. What a
// key of the user's said is recorded each time, as is whatever an application sends.
func TestTheSigninPageFillsNoDisk(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(h *house, a *tokens.KeyAttempt)
		reason tokens.Reason
		each   bool
	}{
		"a wrong signature": {func(h *house, a *tokens.KeyAttempt) {
			a.Check = newSeckey("none").answers([32]byte{}).check
		}, tokens.ReasonBadSignature, false},
		"another credential": {func(h *house, a *tokens.KeyAttempt) {
			a.Credential = newSeckey("none").id
		}, tokens.ReasonUnknownCredential, false},
		"an old challenge": {func(h *house, a *tokens.KeyAttempt) {
			a.Expires = h.clock.now().Add(-time.Second)
		}, tokens.ReasonExpired, false},
		"another's handle": {func(h *house, a *tokens.KeyAttempt) {
			a.Handle = make([]byte, 32)
		}, tokens.ReasonUnknownCredential, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			k := newSeckey("one")
			h.enrol("alice", k)
			try := func(p tokens.Principal) int {
				before := len(h.records("verify", "reject"))
				for range 40 {
					a := h.shows("alice", k)
					c.spoil(h, &a)
					if r, err := h.VerifyKey(ctx, p, a); err != nil || r.Accept {
						t.Fatalf("%+v, %v", r, err)
					}
				}
				list := h.records("verify", "reject")
				if list[0].Reason != string(c.reason) || list[0].User != "alice" {
					t.Errorf("audited as %+v", list[0])
				}
				return len(list) - before
			}
			want := 10
			if c.each {
				want = 40
			}
			if n := try(tokens.ConsolePrincipal("192.0.2.1")); n != want {
				t.Errorf("40 from the page are %d records, want %d", n, want)
			}
			if n := try(h.vpn); n != 40 {
				t.Errorf("40 from an application are %d records", n)
			}
			h.intact()
		})
	}
}

// An answer costs the same whether there is a key in use, another or none, or no
// user: one signature is checked, and the HSM makes one MAC. Where the row was proven
// before and there is no user handle, that is for nothing but to see that the HSM
// answers; a handle that is wrong is held against the right one each time.
func TestAnAnswerCostsTheSameForStrangers(t *testing.T) {
	h := newHouse(t)
	k, stranger := newSeckey("one"), newSeckey("none")
	h.enrol("alice", k)
	h.enrol("bob", newSeckey("bobs"))
	h.user("carol")
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	for _, handle := range [][]byte{nil, make([]byte, 32)} {
		for name, a := range map[string]tokens.KeyAttempt{
			"a wrong signature": h.attempt("alice", k, h.challenge(), stranger.answers([32]byte{})), "another credential": h.shows("alice", stranger),
			"no key": h.shows("carol", stranger), "nobody": h.shows("nobody", stranger), "no name": h.shows("\x00", stranger),
			"a passkey": h.shows("", stranger), "bob's name": h.shows("bob", k),
		} {
			checks := 0
			check := a.Check
			a.Check = func(c *tokens.Credential, u *tokens.User) (tokens.Assertion, error) {
				checks++
				if !bytes.Equal(c.ID, a.Credential) || c.RPID != rp || len(c.PublicKey) < 65 {
					t.Errorf("%s: asked about %+v", name, c)
				}
				return check(c, u)
			}
			a.Handle = handle
			before := h.keys.bindings.Load()
			if r, err := h.VerifyKey(ctx, h.vpn, a); err != nil || r.Accept {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			if n := h.keys.bindings.Load() - before; checks != 1 || n != 1 {
				t.Errorf("%s: %d checks, %d MACs", name, checks, n)
			}
		}
	}
}
