package tokens_test

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// newStock is a key as a station enrols it for nobody.
func (h *house) newStock(realm string, k *seckey) tokens.NewFIDO {
	h.Helper()
	spend := h.challenge()
	holder, err := h.KeyStock(ctx, h.admin, realm, spend.Hash[:])
	if err != nil {
		h.Fatal(err)
	}
	c := k.credential(0)
	c.Handle, c.Discoverable = holder.Handle, true
	return tokens.NewFIDO{
		Realm: realm, Credential: c, Model: "Test key", SignCount: k.count, Spend: spend,
		Detail: []audit.Field{{Name: "aaguid", Value: "01020304"}},
	}
}

// stock enrols keys for nobody.
func (h *house) stock(list ...*seckey) {
	h.Helper()
	for _, k := range list {
		h.must(h.StockKey(ctx, h.admin, h.newStock("", k)))
	}
}

// before names what a registration enrolled.
func before(n tokens.NewFIDO) tokens.EnrolledBefore {
	c := &n.Credential
	return tokens.EnrolledBefore{
		Realm: n.Realm, User: n.User, RPID: c.RPID, ID: c.ID, PublicKey: c.PublicKey, UserID: c.UserID, Discoverable: c.Discoverable,
	}
}

// A key of stock proves nothing until it is somebody's, then that its owner has it, and
// from then on it is a key like others.
func TestAKeyOfStockIsTurnedOnByItsOwnersFirstSignIn(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("stocked")
	k.count = 7
	n := h.newStock("", k)
	made, err := h.StockKey(ctx, h.admin, n)
	if err != nil {
		t.Fatal(err)
	}
	if r := h.last(); r.Action != "key.stock" || r.Outcome != "ok" || r.Serial != k.serial || r.User != "" {
		t.Errorf("audited as %+v", r)
	}
	if made.State != tokens.Imported || made.Owner != "" || made.Serial != k.serial {
		t.Errorf("made %+v", made)
	}
	h.user("alice")
	h.user("bob")
	handle := n.Credential.Handle
	shows := func(user string) tokens.KeyAttempt {
		a := h.shows(user, k)
		a.Handle = handle
		return a
	}
	for _, user := range []string{"", "alice", "bob"} {
		h.concludes(shows(user), false, tokens.ReasonUnknownCredential)
	}

	given, err := h.Assign(ctx, h.admin, "", k.serial, "alice")
	if err != nil || given.State != tokens.Pending || given.Owner != "alice" {
		t.Fatalf("given: %+v, %v", given, err)
	}
	if _, err := h.Resume(ctx, h.admin, "", k.serial, ""); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "sign in") {
		t.Errorf("the helpdesk turns it on: %v", err)
	}
	if _, err := h.Activate(ctx, h.admin, "", k.serial, "123456", "234567"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("two codes turn it on: %v", err)
	}
	holder, err := h.LoginHolder(ctx, h.vpn, "", "alice", rp)
	if err != nil || len(holder.Credentials) != 1 || string(holder.Credentials[0].ID) != string(k.id) {
		t.Errorf("alice is not asked for it: %+v, %v", holder, err)
	}

	// Somebody else's, or one that is not the key's, turns nothing on.
	h.concludes(shows("bob"), false, tokens.ReasonUnknownCredential)
	wrong := shows("alice")
	wrong.Handle, err = h.UserHandle(ctx, h.userID("alice"))
	if err != nil {
		t.Fatal(err)
	}
	h.concludes(wrong, false, tokens.ReasonUnknownCredential)
	forged := shows("alice")
	forged.Check = (&assertion{signature: []byte("x")}).check
	h.concludes(forged, false, tokens.ReasonBadSignature)
	if got := h.token(k.serial); got.State != tokens.Pending {
		t.Errorf("it is %s", got.State)
	}

	first := shows("")
	r := h.concludes(first, true, tokens.ReasonAccepted)
	if r.User != "alice" || r.Token.State != tokens.Active {
		t.Errorf("accepted: %+v", r)
	}
	if got := h.token(k.serial); got.State != tokens.Active || got.Owner != "alice" || got.Last != int64(k.count) {
		t.Errorf("it is %+v", got)
	}
	on := h.records("token.activate", "ok")
	if len(on) != 1 || on[0].Actor != "system" || on[0].User != "alice" || on[0].Serial != k.serial {
		t.Errorf("audited as %+v", on)
	}
	h.concludes(first, false, tokens.ReasonReplay)
	h.concludes(shows("alice"), true, tokens.ReasonAccepted)
	if n := len(h.records("token.activate", "ok")); n != 1 {
		t.Errorf("it was turned on %d times", n)
	}
	story, _, err := h.TokenStory(ctx, h.admin, "", k.serial, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	told := ""
	for _, x := range story {
		told += x.Text + "\n"
	}
	for _, want := range []string{"as stock", "was given to alice", "signed in with it for the first time"} {
		if !strings.Contains(told, want) {
			t.Errorf("the story does not say %q:\n%s", want, told)
		}
	}
	h.acceptedOnce()
	h.intact()
}

// What comes back is stock again: the next owner proves possession, too.
func TestAKeyOfStockThatCameBackIsGivenToSomebodyElse(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("stocked")
	h.stock(k)
	h.user("alice")
	h.user("bob")
	h.must(h.Assign(ctx, h.admin, "", k.serial, "alice"))
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.must(h.Unassign(ctx, h.admin, "", k.serial, "left"))
	h.concludes(h.shows("alice", k), false, tokens.ReasonUnknownCredential)
	h.must(h.Assign(ctx, h.admin, "", k.serial, "bob"))
	if got := h.token(k.serial); got.State != tokens.Pending {
		t.Errorf("it is %s", got.State)
	}
	h.concludes(h.shows("alice", k), false, tokens.ReasonUnknownCredential)
	if r := h.concludes(h.shows("", k), true, tokens.ReasonAccepted); r.User != "bob" {
		t.Errorf("it is %s's", r.User)
	}
	h.intact()
}

// A key that somebody enrolled for themselves is still nobody else's.
func TestAUsersKeyDoesNotBecomeStock(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("own")
	h.enrol("alice", k)
	h.user("bob")
	h.must(h.Unassign(ctx, h.admin, "", k.serial, "left"))
	if _, err := h.Assign(ctx, h.admin, "", k.serial, "bob"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("bob gets it: %v", err)
	}
	for name, edit := range map[string]func(n *tokens.NewFIDO){
		"no handle":    func(n *tokens.NewFIDO) { n.Credential.Handle = nil },
		"short handle": func(n *tokens.NewFIDO) { n.Credential.Handle = n.Credential.Handle[:31] },
		"a user's":     func(n *tokens.NewFIDO) { n.Credential.UserID, n.Credential.Handle = 1, nil },
		"named":        func(n *tokens.NewFIDO) { n.User = "alice" },
		"serial":       func(n *tokens.NewFIDO) { n.Serial = "a b" },
		"late":         func(n *tokens.NewFIDO) { n.Spend.Expires = h.clock.now() },
	} {
		n := h.newStock("", newSeckey(name))
		edit(&n)
		if _, err := h.StockKey(ctx, h.admin, n); err == nil {
			t.Errorf("%s: it is enrolled", name)
		}
	}
	if n := len(h.records("key.stock", "ok")); n != 0 {
		t.Errorf("%d were enrolled", n)
	}
	h.intact()
}

// An owner who is disabled, or a key that is expired, is not turned on.
func TestWhoIsBarredTurnsNoKeyOn(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("stocked")
	h.stock(k)
	h.user("alice")
	h.must(h.Assign(ctx, h.admin, "", k.serial, "alice"))
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
	h.concludes(h.shows("alice", k), false, tokens.ReasonDisabled)
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserEnabled))
	h.must(h.SetExpiry(ctx, h.admin, "", k.serial, h.clock.now().Add(-time.Minute)))
	h.concludes(h.shows("alice", k), false, tokens.ReasonExpiredUsed)
	if got := h.token(k.serial); got.State != tokens.Pending {
		t.Errorf("it is %s", got.State)
	}
	h.must(h.SetExpiry(ctx, h.admin, "", k.serial, time.Time{}))
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.intact()
}

// Two nodes that get the first answers at once turn the key on once, and accept each
// answer at most once.
func TestTwoNodesTurnAKeyOnOnce(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	k := newSeckey("stocked") // which does not count
	h.stock(k)
	h.user("alice")
	h.must(h.Assign(ctx, h.admin, "", k.serial, "alice"))
	const each = 4
	same := h.shows("alice", k)
	var all sync.WaitGroup
	var mu sync.Mutex
	accepted, ofSame := 0, 0
	for _, node := range []*tokens.Service{h.Service, other} {
		for i := range each {
			a := same
			if i > 0 {
				a = h.shows("alice", k)
			}
			all.Go(func() {
				r, err := node.VerifyKey(ctx, h.vpn, a)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("verify: %v", err)
				}
				if r.Accept {
					accepted++
					if a.Spend == same.Spend {
						ofSame++
					}
				}
			})
		}
	}
	all.Wait()
	if ofSame != 1 || accepted != 2*(each-1)+1 {
		t.Errorf("%d accepts, %d of one answer", accepted, ofSame)
	}
	if n := len(h.records("token.activate", "ok")); n != 1 {
		t.Errorf("it was turned on %d times", n)
	}
	h.acceptedOnce()
	h.intact()
}

// Who did not hear what became of a registration asks again, and changes nothing.
func TestWhoAsksAgainIsToldWhatWasEnrolled(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	mine := h.newFIDO("alice", newSeckey("mine"))
	stock := h.newStock("", newSeckey("stocked"))
	for _, n := range []tokens.NewFIDO{mine, stock} {
		if _, err := h.Enrolled(ctx, h.admin, before(n)); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("before: %v", err)
		}
	}
	h.must(h.EnrolKey(ctx, h.admin, mine))
	h.must(h.StockKey(ctx, h.admin, stock))
	for i, n := range []tokens.NewFIDO{mine, stock} {
		got, err := h.Enrolled(ctx, h.admin, before(n))
		if err != nil || got.Serial != tokens.CredentialSerial(n.Credential.ID) {
			t.Errorf("after: %+v, %v", got, err)
		}
		if r := h.last(); r.Reason != "unchanged" || r.Serial != got.Serial || r.Action != []string{"key.enrol", "key.stock"}[i] {
			t.Errorf("audited as %+v", r)
		}
		other := before(n)
		other.PublicKey = append([]byte(nil), other.PublicKey...)
		other.PublicKey[9] ^= 1
		if _, err := h.Enrolled(ctx, h.admin, other); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("with another public key: %v", err)
		}
		other = before(n)
		other.UserID++
		if _, err := h.Enrolled(ctx, h.admin, other); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("for another user: %v", err)
		}
	}
	if _, err := h.StockKey(ctx, h.admin, stock); !errors.Is(err, tokens.ErrState) && !errors.Is(err, tokens.ErrExists) {
		t.Errorf("the same registration again: %v", err)
	}
	// A station that asks later does not see who has the key by now, or what they do.
	serial := tokens.CredentialSerial(stock.Credential.ID)
	h.must(h.Assign(ctx, h.admin, "", serial, "alice"))
	station := h.key("", "station")
	got, err := h.Enrolled(ctx, station, before(stock))
	if err != nil || got.Serial != serial || got.State != tokens.Imported || got.Owner != "" || got.OwnerID != 0 || got.UsedAt != 0 {
		t.Errorf("a key that was given out: %+v, %v", got, err)
	}
	if _, err := h.ShowToken(ctx, station, "", serial); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a station sees tokens: %v", err)
	}
	h.intact()
}

func TestACredentialOfStockIsEncodedWithItsHandle(t *testing.T) {
	c := newSeckey("one").credential(0)
	c.Handle = c.ID
	if err := c.Valid(); err != nil {
		t.Fatal(err)
	}
	b := c.Encode()
	got, err := tokens.DecodeCredential(b)
	if err != nil || !reflect.DeepEqual(*got, c) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range len(b) {
		if _, err := tokens.DecodeCredential(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken for all", n, len(b))
		}
	}
	if own := newSeckey("one").credential(3); own.Encode()[0] != 1 || b[0] != 2 {
		t.Errorf("versions %d and %d", own.Encode()[0], b[0])
	}
}
