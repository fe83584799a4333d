package tokens_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/policy"
)

func TestEachHelpdeskActSaysWhatToTellTheCaller(t *testing.T) {
	hardware := func(edit func(*tokens.Token)) *tokens.Token {
		x := &tokens.Token{Serial: "T1", Type: tokens.TOTP, State: tokens.Active, Batch: 1, Owner: "alice", OwnerID: 7}
		if edit != nil {
			edit(x)
		}
		return x
	}
	plain := &tokens.UserEntry{User: tokens.User{Name: "alice"}}
	withPIN := &tokens.UserEntry{User: tokens.User{Name: "alice", PINMAC: []byte{1}}}
	due := &tokens.UserEntry{User: tokens.User{Name: "alice", PINMAC: []byte{1}, PINDue: true}}
	at := time.Date(2099, 5, 4, 15, 30, 0, 0, time.UTC)
	for _, c := range []struct {
		action policy.Action
		t      *tokens.Token
		u      *tokens.UserEntry
		want   string
	}{
		{policy.TokenResume, hardware(nil), plain, "Your token works again. Wait for the next code and use that."},
		{policy.TokenResume, hardware(func(x *tokens.Token) { x.Expires = start.AddDate(-20, 0, 0) }), plain, "Your token is no longer good: you need another one."},
		{policy.TokenResync, hardware(nil), withPIN, "Your token is in step again. Wait for the next code; type your PIN first and the code right behind it."},
		{policy.TokenAssign, hardware(func(x *tokens.Token) { x.State = tokens.Pending }), plain, "The token is yours. Before you can use it, read me two codes that it shows, one right after the other."},
		{policy.TokenAssign, hardware(func(x *tokens.Token) { x.Ended = []string{"T-1"} }), plain, "The token is yours. Wait for the next code and use that. Your temporary passcode no longer works."},
		{policy.TokenAssign, hardware(func(x *tokens.Token) { x.Type = tokens.FIDO }), withPIN, "The security key is yours. Touch it when you are asked for it."},
		{policy.TokenActivate, hardware(func(x *tokens.Token) { x.Batch = 0 }), nil, "Your app is ready. Wait for the next code; if you have a PIN, type that first and the code right behind it."},
		{policy.TokenReplace, hardware(func(x *tokens.Token) { x.Type = tokens.YubicoOTP }), plain, "Your old token no longer works; the new YubiKey takes its place. Touch it when you are asked for a code."},
		{policy.TokenResync, hardware(func(x *tokens.Token) { x.Type = tokens.HOTP }), plain, "Your token is in step again. Press for a new code and use that."},
		{policy.TokenLost, hardware(nil), plain, "Your token is blocked: nobody can use it any more. If you find it, call us first."},
		{policy.TokenRevoke, hardware(func(x *tokens.Token) { x.Type, x.Batch = tokens.Recovery, 0 }), nil, "The recovery codes are turned off for good. Please destroy them, or send them back to us."},
		{policy.TokenExpire, hardware(func(x *tokens.Token) { x.Expires = at }), plain, "Your token works until 4 May 2099, 15:30 UTC."},
		{policy.TokenExpire, hardware(nil), plain, "Your token works without an end."},
		{policy.TemporaryAdd, hardware(func(x *tokens.Token) { x.Type, x.Uses, x.Expires = tokens.Temporary, 3, at }), plain, "Write this passcode down: it works 3 times, until 4 May 2099, 15:30 UTC. Type it in the place of the code, behind your PIN if you have one."},
		{policy.UserUnlock, nil, plain, "Your account is unlocked. Wait for a new code and try again."},
		{policy.UserPIN, nil, due, "You have a new PIN. You must change it to one of your own before you can sign in."},
		{policy.UserPIN, nil, plain, "You have no PIN any more: type the code alone."},
		{policy.UserPIN, nil, withPIN, "Your PIN is set. Type it first, and the code right behind it."},
		{policy.TokenNote, hardware(nil), plain, ""},
		{policy.TokenList, nil, nil, ""},
	} {
		if got := tokens.Say(c.action, c.t, c.u, nil); got != c.want {
			t.Errorf("%s: %q, want %q", c.action, got, c.want)
		}
	}
	for _, action := range []policy.Action{
		policy.TokenAssign, policy.TokenUnassign, policy.TokenResync, policy.TokenSuspend, policy.TokenResume, policy.TokenLost, policy.TokenRevoke,
		policy.TokenActivate, policy.TokenExpire, policy.TokenReplace, policy.TokenEnrol, policy.KeyEnrol, policy.RecoveryAdd, policy.TemporaryAdd,
		policy.UserUnlock, policy.UserEnable, policy.UserDisable, policy.UserPIN, policy.UserPINChange, policy.InviteAdd,
	} {
		if got := tokens.Say(action, hardware(nil), plain, nil); !sentences.MatchString(got) {
			t.Errorf("%s: %q", action, got)
		}
		for _, kind := range []error{
			tokens.ErrInvalid, tokens.ErrUnknownKey, tokens.ErrForbidden, tokens.ErrNotFound, tokens.ErrExists, tokens.ErrState,
			tokens.ErrWrongCode, tokens.ErrTampered, tokens.ErrUnavailable, tokens.ErrOverloaded, errors.New("whatever"),
		} {
			if got := tokens.Say(policy.TokenNote, nil, nil, kind); got != "" {
				t.Errorf("a note that failed with %v is told to the caller: %q", kind, got)
			}
			if got := tokens.Say(action, nil, nil, fmt.Errorf("%w: secret of mallory", kind)); !sentences.MatchString(got) || strings.Contains(got, "secret") {
				t.Errorf("%s, %v: %q", action, kind, got)
			}
		}
	}
}

// sentences are one or two of them, short enough to be said.
var sentences = regexp.MustCompile(`^[A-Z][^.?]{5,140}[.?]( [A-Z][^.?]{5,100}[.?]){0,2}$`)

// What is said of a refusal tells how to go on, and nothing of anybody else, nor that a
// row was altered.
func TestWhatIsSaidOfARefusalGivesNothingAway(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d, totp("T2"))
	h.give("bob", totp("T3"))
	h.must(h.MarkLost(ctx, h.admin, "", "T2", ""))
	said := func(action policy.Action, err error, want string) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s was done", action)
		}
		got := tokens.Say(action, nil, nil, err)
		if !strings.Contains(got, want) || !sentences.MatchString(got) {
			t.Errorf("%s, %v: %q, want %q", action, err, got, want)
		}
		for _, secret := range []string{"bob", "Bob", "alice", "alter", "tamper", "database"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s: %q tells of %s", action, got, secret)
			}
		}
	}
	said(policy.TokenAssign, second(h.Assign(ctx, h.admin, "", "T3", "alice")), "I cannot give you this one")
	said(policy.TokenAssign, second(h.Assign(ctx, h.admin, "", "T9", "alice")), "read me the serial number once more")
	said(policy.TokenReplace, third(h.Replace(ctx, h.admin, "", "T1", "T3", "")), "I cannot give you this one")
	said(policy.TokenResume, second(h.Resume(ctx, h.admin, "", "T2", "")), "tell me how you got it back")
	said(policy.TokenResync, second(h.Resync(ctx, h.admin, "", "T1", "12345", "")), "figure by figure")
	said(policy.UserUnlock, second(h.UnlockUser(ctx, h.admin, "", "mallory")), "How is it spelt?")
	said(policy.TokenAssign, second(h.Assign(ctx, h.admin, "", "T1", "mallory")), "How is it spelt?")
	said(policy.TokenActivate, second(h.Activate(ctx, h.admin, "", "T1", "123456", "654321")), "turned on already")
	said(policy.TokenReplace, third(h.Replace(ctx, h.admin, "", "T1", "T1", "")), "entered something wrong")
	said(policy.UserUnlock, second(h.UnlockOwner(ctx, h.admin, "", "T9")), "read me the serial number")
	h.ship("", totp("T5"))
	said(policy.UserUnlock, second(h.UnlockOwner(ctx, h.admin, "", "T5")), "read me the serial number")
	soft, _, err := h.EnrolSoft(ctx, h.admin, tokens.NewSoft{User: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	said(policy.TokenUnassign, second(h.Unassign(ctx, h.admin, "", soft.Serial, "")), "turn it off for good")
	h.must(h.SetRules(ctx, h.admin, "", -1, most(2)))
	h.ship("", totp("T4"))
	said(policy.TokenAssign, second(h.Assign(ctx, h.admin, "", "T4", "alice")), "Which one do you no longer use?")
	for range 6 {
		said(policy.TokenResync, second(h.Resync(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 0))), "These two codes do not fit")
	}
	said(policy.TokenResync, second(h.Resync(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 1))), "Wait a quarter of an hour")
	h.db.edit(func(e *editor) { e.token = func(t *tokens.Token) { t.Wrapped.Blob[0] ^= 1 } })
	said(policy.TokenResume, second(h.Resume(ctx, h.admin, "", "T2", "found")), "I pass it on")
	h.db.edit(func(e *editor) { e.token = nil })
	h.must(h.Revoke(ctx, h.admin, "", "T2", ""))
	said(policy.TokenResume, second(h.Resume(ctx, h.admin, "", "T2", "found")), "You need another one")
}

// Where the rules forbid what was asked for, neither the user nor the serial is to blame,
// and whoever wanted to mark a token lost learns that it is not.
func TestARefusalByTheRulesTellsOfTheRules(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	_, _, err := h.IssueTemporary(ctx, h.admin, "", "alice", tokens.TemporaryRequest{})
	if got := tokens.Say(policy.TemporaryAdd, nil, nil, err); got != "I cannot give you a passcode for the time in between." {
		t.Errorf("%v: %q", err, got)
	}
	for range 2 {
		_, _, _, err = h.Lose(ctx, h.admin, "", "T1", "", &tokens.TemporaryRequest{})
		if !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "temporary.allow") || !strings.Contains(err.Error(), "not marked lost") {
			t.Errorf("lost with a temporary passcode: %v", err)
		}
		if got := tokens.Say(policy.TokenLost, nil, nil, err); !strings.Contains(got, "I block your token now.") || !sentences.MatchString(got) {
			t.Errorf("%v: %q", err, got)
		}
	}
	if got := h.token("T1").State; got != tokens.Active {
		t.Errorf("the token is %s", got)
	}
	rules := tokens.DefaultRules()
	rules.Recovery.Allow = false
	h.must(h.SetRules(ctx, h.admin, "", -1, rules))
	_, _, err = h.IssueRecovery(ctx, h.admin, "", "alice")
	if got := tokens.Say(policy.RecoveryAdd, nil, nil, err); !strings.Contains(got, "recovery codes") || !sentences.MatchString(got) {
		t.Errorf("%v: %q", err, got)
	}
}
