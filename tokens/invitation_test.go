package tokens_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// invited makes an invitation and answers who holds it.
func (h *house) invited(user string, kinds ...string) (tokens.Principal, string) {
	h.Helper()
	_, code, err := h.Invite(ctx, h.admin, tokens.NewInvitation{User: user, Kinds: kinds})
	if err != nil {
		h.Fatal(err)
	}
	p, _, err := h.Invited(ctx, code)
	if err != nil {
		h.Fatal(err)
	}
	return p.From("192.0.2.44"), code
}

func TestWhoIsInvitedEnrolsOneToken(t *testing.T) {
	h := newHouse(t)
	h.user("Alice")
	made, code, err := h.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice"})
	if err != nil || !strings.HasPrefix(code, "wi_"+made.ID+"_") || len(code) != len("wi_")+16+1+43 {
		t.Fatalf("%+v, %v", made, err)
	}
	if !made.Expires.Equal(h.clock.now().Add(24*time.Hour)) || fmt.Sprint(made.Kinds) != "[fido totp]" || made.Actor != h.admin.Actor() {
		t.Errorf("%+v", made)
	}
	p, i, err := h.Invited(ctx, code)
	if err != nil || p.Kind != tokens.KindInvitation || p.Scope != policy.ScopeInvite || p.User != "alice" || p.Realm != "default" || i.ID != made.ID || i.MAC != [32]byte{} {
		t.Fatalf("%+v, %+v, %v", p, i, err)
	}
	holder, err := h.KeyHolder(ctx, p, "", "Alice", rp)
	if err != nil || holder.Name != "Alice" {
		t.Fatalf("%+v, %v", holder, err)
	}
	k := newSeckey("one")
	got, err := h.EnrolKey(ctx, p, h.newFIDO("alice", k))
	if err != nil {
		t.Fatal(err)
	}
	if r := h.last(); r.Actor != "invitation:"+made.ID || r.Action != "key.enrol" || r.Serial != got.Serial {
		t.Errorf("audited as %+v", r)
	}
	list, err := h.Invitations(ctx, h.admin, "", "ALICE")
	if err != nil || len(list) != 1 || list[0].Serial != got.Serial || list[0].Used.IsZero() || list[0].MAC != [32]byte{} {
		t.Errorf("%+v, %v", list, err)
	}
	for name, err := range map[string]error{
		"another key":      second(h.EnrolKey(ctx, p, h.newFIDO("alice", newSeckey("two")))),
		"the beginning":    second(h.KeyHolder(ctx, p, "", "alice", rp)),
		"a software token": third(h.EnrolSoft(ctx, p, tokens.NewSoft{User: "alice"})),
		"coming in again":  third(h.Invited(ctx, code)),
	} {
		if !errors.Is(err, tokens.ErrUnknownKey) {
			t.Errorf("%s after it was used: %v", name, err)
		}
	}
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.intact()
}

func third[T, U any](_ T, _ U, err error) error { return err }

func TestWhoIsInvitedEnrolsASoftwareTokenByItsFirstCode(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	p, _ := h.invited("alice", tokens.InviteTOTP)
	h.soft(p, "alice")
	made, d := h.soft(p, "alice") // the page was loaded again
	if _, err := h.Activate(ctx, p, "", made.Serial, d.code(h, 0), d.wrong(h.clock.now().Unix()/30)); !errors.Is(err, tokens.ErrWrongCode) {
		t.Fatal(err)
	}
	h.must(h.Activate(ctx, p, "", made.Serial, d.code(h, -1), d.code(h, 0)))
	if _, _, err := h.EnrolSoft(ctx, p, tokens.NewSoft{User: "alice"}); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("once more: %v", err)
	}
	h.ends("alice", d.code(h, 1), true, tokens.ReasonAccepted)
	if list, err := h.Invitations(ctx, h.admin, "", "alice"); err != nil || len(list) != 1 || list[0].Serial != made.Serial {
		t.Errorf("%+v, %v", list, err)
	}
	h.intact()
}

func TestAnInvitationIsToOneKindForOneUser(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	h.user("bob")
	bobs, d := h.soft(h.admin, "bob")
	fido, _ := h.invited("alice", tokens.InviteFIDO, tokens.InviteFIDO)
	soft, _ := h.invited("alice", tokens.InviteTOTP)
	other := fido
	other.User = "bob"
	wider := fido
	wider.Realm = ""
	more := fido
	more.Scope = policy.ScopeAdmin
	swapped := fido
	swapped.ID = soft.ID
	for name, c := range map[string]struct{ err, kind error }{
		"a software token":         {third(h.EnrolSoft(ctx, fido, tokens.NewSoft{User: "alice"})), tokens.ErrForbidden},
		"a key":                    {second(h.EnrolKey(ctx, soft, h.newFIDO("alice", newSeckey("one")))), tokens.ErrForbidden},
		"another user's key":       {second(h.EnrolKey(ctx, fido, h.newFIDO("bob", newSeckey("one")))), tokens.ErrForbidden},
		"another user":             {second(h.KeyHolder(ctx, fido, "", "bob", rp)), tokens.ErrForbidden},
		"another realm":            {second(h.KeyHolder(ctx, fido, "corp", "alice", rp)), tokens.ErrForbidden},
		"another user's token":     {third(h.EnrolSoft(ctx, soft, tokens.NewSoft{User: "bob"})), tokens.ErrForbidden},
		"another user's code":      {second(h.Activate(ctx, soft, "", bobs.Serial, d.code(h, -1), d.code(h, 0))), tokens.ErrNotFound},
		"another user, made up":    {second(h.KeyHolder(ctx, other, "", "bob", rp)), tokens.ErrForbidden},
		"all realms, made up":      {second(h.KeyHolder(ctx, wider, "", "alice", rp)), tokens.ErrUnknownKey},
		"another scope, made up":   {third(h.ShowUser(ctx, more, "", "alice")), tokens.ErrUnknownKey},
		"another kind, made up":    {third(h.EnrolSoft(ctx, swapped, tokens.NewSoft{User: "alice"})), tokens.ErrUnknownKey},
		"looking":                  {third(h.ShowUser(ctx, fido, "", "alice")), tokens.ErrForbidden},
		"inviting":                 {third(h.Invite(ctx, fido, tokens.NewInvitation{User: "alice"})), tokens.ErrForbidden},
		"verifying a code":         {second(h.Verify(ctx, fido, tokens.Attempt{User: "alice", Code: "000000"})), tokens.ErrForbidden},
		"verifying a key":          {second(h.VerifyKey(ctx, fido, h.shows("alice", newSeckey("one")))), tokens.ErrForbidden},
		"changing its user":        {second(h.SetGroups(ctx, fido, "", "alice", nil)), tokens.ErrForbidden},
		"refusing for another":     {h.RefuseKey(ctx, fido, "", "bob", "x", "y", nil), tokens.ErrForbidden},
		"refusing, which is audit": {h.RefuseKey(ctx, fido, "", "alice", "x", "y", nil), tokens.ErrInvalid},
	} {
		if !errors.Is(c.err, c.kind) {
			t.Errorf("%s: %v, want %v", name, c.err, c.kind)
		}
	}
	h.must(h.EnrolKey(ctx, fido, h.newFIDO("alice", newSeckey("one"))))
	h.intact()
}

// Whatever is wrong with a code, the answer is the same, and so is the work.
func TestAnInvitationsCodeIsRightOrItIsNot(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	made, code, err := h.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice", For: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	_, used := h.invited("alice")
	p, _, _ := h.Invited(ctx, used)
	h.must(h.EnrolKey(ctx, p, h.newFIDO("alice", newSeckey("one"))))
	taken, takenBack, err := h.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	held, _, _ := h.Invited(ctx, takenBack)
	if err := h.Uninvite(ctx, h.admin, taken.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.EnrolKey(ctx, held, h.newFIDO("alice", newSeckey("two"))); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("taken back: %v", err)
	}
	flip := "A"
	if strings.HasSuffix(code[:len(code)-1], "A") {
		flip = "B"
	}
	macs := func() int64 { return h.keys.bindings.Load() }
	want := ""
	wrong := map[string]string{
		"nothing": "", "the prefix": "wi_", "no secret": "wi_" + made.ID + "_", "the id": made.ID, "an API key": "ww_" + made.ID + "_x",
		"another id": "wi_0000000000000000" + code[len("wi_")+16:], "another secret": code[:len(code)-2] + flip + code[len(code)-1:],
		"cut off": code[:len(code)-1], "something behind": code + "x", "in capitals": strings.ToUpper(code), "used": used, "taken back": takenBack,
		"long": code + strings.Repeat("x", 10000), "not text": "wi_\x00\xff_",
	}
	for name, c := range wrong {
		before := macs()
		got, i, err := h.Invited(ctx, c)
		if !errors.Is(err, tokens.ErrUnknownKey) || !reflect.DeepEqual(got, tokens.Principal{}) || i.ID != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		if want == "" {
			want = err.Error()
		}
		if err.Error() != want || macs()-before != 1 {
			t.Errorf("%s is told apart: %v, %d MACs", name, err, macs()-before)
		}
	}
	right, _, err := h.Invited(ctx, code)
	if err != nil {
		t.Fatal(err)
	}
	h.clock.forward(time.Hour - time.Second)
	h.must(h.KeyHolder(ctx, right, "", "alice", rp))
	h.clock.forward(time.Second)
	if _, _, err := h.Invited(ctx, code); err == nil || err.Error() != want {
		t.Errorf("expired: %v", err)
	}
	if _, err := h.EnrolKey(ctx, right, h.newFIDO("alice", newSeckey("three"))); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("who came in before it expired: %v", err)
	}
	for _, id := range []string{taken.ID, "0000000000000000", "", code} {
		if err := h.Uninvite(ctx, h.admin, id); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("taken back once more, by %d characters: %v", len(id), err)
		}
	}
	if strings.Contains(fmt.Sprint(h.records("invitation.delete", ""), h.records("invitation.add", "")), code[len("wi_")+17:]) {
		t.Error("an invitation's secret is in the audit")
	}
	h.intact()
}

// An invitation's row that was made or altered in the database is good for
// nothing.
func TestAnInvitationsRowAlteredInTheDatabaseIsGoodForNothing(t *testing.T) {
	for name, alter := range map[string]func(i *tokens.Invitation, bob int64){
		"user":    func(i *tokens.Invitation, _ int64) { i.User = "bob" },
		"user id": func(i *tokens.Invitation, bob int64) { i.UserID = bob },
		"realm":   func(i *tokens.Invitation, _ int64) { i.Realm = "corp" },
		"kinds":   func(i *tokens.Invitation, _ int64) { i.Kinds = []string{"fido", "totp"} },
		"expires": func(i *tokens.Invitation, _ int64) { i.Expires = i.Expires.Add(time.Hour) },
		"mac":     func(i *tokens.Invitation, _ int64) { i.MAC[0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.user("alice")
			h.user("bob")
			made, code, err := h.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice", Kinds: []string{"fido"}})
			if err != nil {
				t.Fatal(err)
			}
			p, _, err := h.Invited(ctx, code)
			if err != nil {
				t.Fatal(err)
			}
			was := made
			alter(&made, h.userID("bob"))
			for _, w := range []tokens.InvitationWrite{{Invitation: was, Delete: true}, {Invitation: made}} {
				h.past(tokens.Change{Invites: []tokens.InvitationWrite{w}})
			}
			if _, _, err := h.Invited(ctx, code); !errors.Is(err, tokens.ErrUnknownKey) {
				t.Errorf("it lets in: %v", err)
			}
			if _, err := h.EnrolKey(ctx, p, h.newFIDO("alice", newSeckey("one"))); !errors.Is(err, tokens.ErrUnknownKey) {
				t.Errorf("who was in before: %v", err)
			}
		})
	}
}

// past commits a change past the core.
func (h *house) past(c tokens.Change) {
	h.Helper()
	chain, _, err := h.mem.MintChain(ctx)
	if err != nil {
		h.Fatal(err)
	}
	c.Records, _ = audit.Append(audit.Head{Chain: chain}, []audit.Event{{Time: h.clock.now(), Action: "server.start"}})
	if err := h.mem.Commit(ctx, &c); err != nil {
		h.Fatal(err)
	}
}

func TestAnInvitationIsUsedOnceByManyAtOnce(t *testing.T) {
	h := newHouse(t)
	services := []*tokens.Service{h.Service, h.node(&firsts{})}
	h.user("alice")
	p, _ := h.invited("alice")
	made, d := h.soft(p, "alice")
	var all sync.WaitGroup
	var keys, softs, refused atomic.Int64
	for n := range 20 {
		registration := h.newFIDO("alice", newSeckey(fmt.Sprint("key", n)))
		all.Go(func() {
			var err error
			if n%5 == 0 {
				if _, err = services[n%2].Activate(ctx, p, "", made.Serial, d.code(h, -1), d.code(h, 0)); err == nil {
					softs.Add(1)
				}
			} else if _, err = services[n%2].EnrolKey(ctx, p, registration); err == nil {
				keys.Add(1)
			}
			if errors.Is(err, tokens.ErrUnknownKey) {
				refused.Add(1)
			} else if err != nil && !errors.Is(err, tokens.ErrState) { // the token was confirmed by another
				t.Error(err)
			}
		})
	}
	all.Wait()
	if keys.Load()+softs.Load() != 1 {
		t.Errorf("%d keys and %d tokens with one invitation, %d refused", keys.Load(), softs.Load(), refused.Load())
	}
	_, held, err := h.ShowUser(ctx, h.admin, "", "alice")
	active := 0
	for _, x := range held {
		if x.State == tokens.Active {
			active++
		}
	}
	if err != nil || active != 1 {
		t.Errorf("%d active tokens, %v", active, err)
	}
	h.intact()
}

func TestInvitationsThatCannotBeAreRefused(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	for name, c := range map[string]struct {
		n    tokens.NewInvitation
		kind error
	}{
		"nobody":          {tokens.NewInvitation{User: "nobody"}, tokens.ErrNotFound},
		"no name":         {tokens.NewInvitation{}, tokens.ErrInvalid},
		"no such kind":    {tokens.NewInvitation{User: "alice", Kinds: []string{"hotp"}}, tokens.ErrInvalid},
		"too short":       {tokens.NewInvitation{User: "alice", For: time.Second}, tokens.ErrInvalid},
		"into the past":   {tokens.NewInvitation{User: "alice", For: -time.Hour}, tokens.ErrInvalid},
		"longer than two": {tokens.NewInvitation{User: "alice", For: 14*24*time.Hour + 1}, tokens.ErrInvalid},
	} {
		if i, code, err := h.Invite(ctx, h.admin, c.n); !errors.Is(err, c.kind) || code != "" || i.ID != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := h.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice", For: 14 * 24 * time.Hour}); err != nil {
		t.Error(err)
	}
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
	if _, _, err := h.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice"}); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a disabled user: %v", err)
	}
}

// With the API key that made them, invitations end, on every node; what was used
// stays in the list. A key that has merely expired leaves them alone.
func TestInvitationsEndWithTheKeyThatMadeThem(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	h.user("bob")
	var f firsts
	other := h.node(&f)
	key, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "desk", Scope: "helpdesk", Expires: h.clock.now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	desk, err := h.Authenticate(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	invite := func(p tokens.Principal, user string) (tokens.Principal, string) {
		t.Helper()
		_, code, err := h.Invite(ctx, p, tokens.NewInvitation{User: user})
		if err != nil {
			t.Fatal(err)
		}
		guest, _, err := other.Invited(ctx, code)
		if err != nil {
			t.Fatal(err)
		}
		return guest, code
	}
	listed := func(user string, want int) {
		t.Helper()
		list, err := other.Invitations(ctx, h.admin, "", user)
		if err != nil || len(list) != want {
			t.Errorf("%s has %d invitations, %v; want %d", user, len(list), err, want)
		}
	}
	used, _ := invite(desk, "alice")
	h.must(h.EnrolKey(ctx, used, h.newFIDO("alice", newSeckey("used"))))
	open, code := invite(desk, "alice")
	mine, mineCode := invite(h.admin, "bob")

	h.clock.forward(2 * time.Hour)
	if _, err := h.Authenticate(ctx, text); err == nil {
		t.Fatal("the key has not expired")
	}
	if _, _, err := other.Invited(ctx, code); err != nil {
		t.Errorf("after the key expired: %v", err)
	}
	listed("alice", 2)
	if err := h.DeleteKey(ctx, h.admin, key.ID); err != nil {
		t.Fatal(err)
	}
	// Who came in before is sent away by the node that knew nothing of it.
	for name, err := range map[string]error{
		"a key":            second(other.EnrolKey(ctx, open, h.newFIDO("alice", newSeckey("one")))),
		"a software token": third(other.EnrolSoft(ctx, open, tokens.NewSoft{User: "alice"})),
		"coming in":        third(h.Invited(ctx, code)),
	} {
		if !errors.Is(err, tokens.ErrUnknownKey) {
			t.Errorf("%s after the key was deleted: %v", name, err)
		}
	}
	listed("alice", 1)
	listed("bob", 1)
	if _, _, err := h.Invited(ctx, mineCode); err != nil {
		t.Errorf("another key's invitation: %v", err)
	}
	h.must(other.EnrolKey(ctx, mine, h.newFIDO("bob", newSeckey("mine"))))
	h.intact()
}

func TestNobodysInvitationsAreNotFound(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	if list, err := h.Invitations(ctx, h.admin, "", "alice"); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := h.Invitations(ctx, h.admin, "", "nobody"); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("%+v, %v", list, err)
	}
}
