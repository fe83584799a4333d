package tokens_test

import (
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

// softDevice is the app that read a key URI.
func softDevice(t testing.TB, uri []byte) *device {
	t.Helper()
	u, err := url.Parse(string(uri))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	known := map[string]hsm.Hash{"SHA1": hsm.SHA1, "SHA256": hsm.SHA256, "SHA512": hsm.SHA512}
	if u.Scheme != "otpauth" || u.Host != "totp" || known[q.Get("algorithm")] == 0 {
		t.Fatalf("a key URI of %s, %s", u.Scheme, u.Host)
	}
	d := totp("")
	d.Algorithm = known[q.Get("algorithm")]
	if d.seed, err = base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(q.Get("secret")); err != nil {
		t.Fatal(err)
	}
	d.Digits, _ = strconv.Atoi(q.Get("digits"))
	d.Period, _ = strconv.Atoi(q.Get("period"))
	return d
}

func (h *house) soft(p tokens.Principal, user string) (tokens.Token, *device) {
	h.Helper()
	t, uri, err := h.EnrolSoft(ctx, p, tokens.NewSoft{User: user, Issuer: "Example & Co: IT"})
	if err != nil {
		h.Fatal(err)
	}
	d := softDevice(h.TB, uri)
	d.Serial = t.Serial
	h.mem.Watch(d.seed)
	return t, d
}

func TestASoftwareTokenIsOfUseOnceItShowedTwoCodes(t *testing.T) {
	h := newHouse(t)
	h.must(h.AddUser(ctx, h.admin, "", "Älice/x"))
	made, uri, err := h.EnrolSoft(ctx, h.admin, tokens.NewSoft{User: "älice/X", Issuer: "Example & Co: IT"})
	if err != nil {
		t.Fatal(err)
	}
	d := softDevice(t, uri)
	h.mem.Watch(d.seed)
	u, _ := url.Parse(string(uri))
	if u.EscapedPath() != "/Example%20%26%20Co%3A%20IT:%C3%84lice%2Fx" || u.Query().Get("issuer") != "Example & Co: IT" || strings.Contains(string(uri), "+") ||
		len(d.seed) != 20 || d.Digits != 6 || d.Period != 30 {
		t.Errorf("the key URI is %s with %v", u.EscapedPath(), u.Query()["issuer"])
	}
	if cap(uri) != len(uri) {
		t.Errorf("%d bytes in a buffer of %d: it may have been copied", len(uri), cap(uri))
	}
	if made.State != tokens.Pending || made.Owner != "älice/x" || !strings.HasPrefix(made.Serial, "S-") || len(made.Serial) != 18 || made.ID == 0 {
		t.Errorf("it is %+v", made)
	}
	user := "Älice/x"
	h.ends(user, d.code(h, 0), false, tokens.ReasonNoToken)
	if _, err := h.Activate(ctx, h.admin, "", made.Serial, d.code(h, 0), d.wrong(h.clock.now().Unix()/30)); !errors.Is(err, tokens.ErrWrongCode) {
		t.Fatalf("a wrong code: %v", err)
	}
	if s := h.standing("älice/x"); s.Failures != 1 {
		t.Errorf("a wrong code is counted as %d", s.Failures)
	}
	code := d.code(h, 0)
	got, err := h.Activate(ctx, h.admin, "", made.Serial, d.code(h, -1), code)
	if err != nil || got.State != tokens.Active || got.Last != h.clock.now().Unix()/30 {
		t.Fatalf("%+v, %v", got, err)
	}
	if r := h.last(); r.Action != "token.activate" || r.Outcome != "ok" || r.User != "älice/x" || r.Serial != made.Serial {
		t.Errorf("audited as %+v", r)
	}
	h.ends(user, code, false, tokens.ReasonReplay)
	h.ends(user, d.code(h, 1), true, tokens.ReasonAccepted)
	if _, err := h.Activate(ctx, h.admin, "", made.Serial, d.code(h, 1), d.code(h, 2)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("activated twice: %v", err)
	}
	// Its seed stays in the telephone: it is nobody else's, ever.
	if _, err := h.Unassign(ctx, h.admin, "", made.Serial, ""); !errors.Is(err, tokens.ErrState) {
		t.Errorf("unassigned: %v", err)
	}
	h.must(h.Revoke(ctx, h.admin, "", made.Serial, ""))
	h.intact()
}

func TestASoftwareTokenThatWaitsMovesNowhereElse(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	h.user("bob")
	made, d := h.soft(h.admin, "alice")
	for name, err := range map[string]error{
		"suspend":  second(h.Suspend(ctx, h.admin, "", made.Serial, "")),
		"resume":   second(h.Resume(ctx, h.admin, "", made.Serial, "found")),
		"lost":     second(h.MarkLost(ctx, h.admin, "", made.Serial, "")),
		"unassign": second(h.Unassign(ctx, h.admin, "", made.Serial, "")),
		"assign":   second(h.Assign(ctx, h.admin, "", made.Serial, "bob")),
		"resync":   second(h.Resync(ctx, h.admin, "", made.Serial, d.code(h, 0), d.code(h, 1))),
	} {
		if !errors.Is(err, tokens.ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := h.token(made.Serial); got.State != tokens.Pending {
		t.Errorf("it is %s", got.State)
	}
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	h.must(h.Activate(ctx, h.admin, "", made.Serial, d.code(h, -1), d.code(h, 0)))
	h.ends("alice", "4711"+d.code(h, 1), true, tokens.ReasonAccepted)
	h.intact()
}

func TestAUserHasOneTokenThatWaits(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	first, old := h.soft(h.admin, "alice")
	next, d := h.soft(h.admin, "alice")
	if next.Serial != first.Serial || next.ID != first.ID || bytes.Equal(d.seed, old.seed) {
		t.Errorf("%s with a new seed: %v", next.Serial, !bytes.Equal(d.seed, old.seed))
	}
	if _, err := h.Activate(ctx, h.admin, "", next.Serial, old.code(h, -1), old.code(h, 0)); !errors.Is(err, tokens.ErrWrongCode) {
		t.Errorf("a code of the seed that was replaced: %v", err)
	}
	h.must(h.Activate(ctx, h.admin, "", next.Serial, d.code(h, -1), d.code(h, 0)))
	if third, _ := h.soft(h.admin, "alice"); third.Serial == next.Serial {
		t.Error("an active token got a new seed")
	}
	h.intact()
}

func TestActivatingASoftwareTokenIsThrottledLikeVerifying(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	made, d := h.soft(h.admin, "alice")
	for range 6 {
		if _, err := h.Activate(ctx, h.admin, "", made.Serial, d.code(h, 0), d.code(h, 0)); !errors.Is(err, tokens.ErrWrongCode) {
			t.Fatal(err)
		}
	}
	if _, err := h.Activate(ctx, h.admin, "", made.Serial, d.code(h, -1), d.code(h, 0)); !errors.Is(err, tokens.ErrState) || h.last().Reason != string(tokens.ReasonThrottled) {
		t.Errorf("%v, %s", err, h.last().Reason)
	}
	h.clock.forward(time.Minute)
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
	if _, err := h.Activate(ctx, h.admin, "", made.Serial, d.code(h, -1), d.code(h, 0)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a disabled user: %v", err)
	}
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserEnabled))
	h.db.edit(func(e *editor) {
		e.token = func(t *tokens.Token) { t.Wrapped.Blob = bytes.Repeat([]byte{1}, len(t.Wrapped.Blob)) }
	})
	if _, err := h.Activate(ctx, h.admin, "", made.Serial, d.code(h, -1), d.code(h, 0)); !errors.Is(err, tokens.ErrTampered) {
		t.Errorf("an altered row: %v", err)
	}
	h.db.edit(func(e *editor) { e.token = nil })
	h.keys.memory().Fail(errors.New("away"))
	if _, err := h.Activate(ctx, h.admin, "", made.Serial, d.code(h, -1), d.code(h, 0)); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("without the HSM: %v", err)
	}
	h.keys.memory().Heal()
	h.must(h.Activate(ctx, h.admin, "", made.Serial, d.code(h, -1), d.code(h, 0)))
	for i := range 100 {
		h.clock.forward(16 * time.Minute)
		h.try("alice", fmt.Sprintf("wrong%d", i))
	}
	again, e := h.soft(h.admin, "alice")
	if _, err := h.Activate(ctx, h.admin, "", again.Serial, e.code(h, -1), e.code(h, 0)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a locked user: %v", err)
	}
	h.intact()
}

// The seed is in the URI and nowhere else: not in the database, the audit or the
// log; it is wiped where the HSM answered it; and no call answers it again.
func TestTheSeedOfASoftwareTokenIsInItsURIOnly(t *testing.T) {
	for _, digest := range []hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512} {
		made := &watchedSeeds{}
		h := newHouse(t, func(c *tokens.Config) { made.Custody, c.Custody = c.Custody, made })
		h.user("alice")
		token, uri, err := h.EnrolSoft(ctx, h.admin, tokens.NewSoft{User: "alice", Algorithm: digest, Digits: 8, Period: 60})
		if err != nil {
			t.Fatal(err)
		}
		d := softDevice(t, uri)
		h.mem.Watch(d.seed)
		if len(made.given) != 1 || len(made.given[0]) != digest.Size() || !bytes.Equal(made.given[0], make([]byte, digest.Size())) {
			t.Errorf("%s: %d seeds were made, or the seed is still in the buffer that it came in", digest, len(made.given))
		}
		if len(d.seed) != digest.Size() || d.Digits != 8 || d.Period != 60 || d.Algorithm != digest || token.Algorithm != digest || token.Digits != 8 || token.Period != 60 {
			t.Errorf("%s: the app read %d bytes, %d digits, %d s, %s; the token is %+v", digest, len(d.seed), d.Digits, d.Period, d.Algorithm, token)
		}
		got, err := h.Activate(ctx, h.admin, "", token.Serial, d.code(h, 0), d.code(h, 1))
		if err != nil {
			t.Fatal(err)
		}
		_, held, err := h.ShowUser(ctx, h.admin, "", "alice")
		if err != nil {
			t.Fatal(err)
		}
		listed, _, err := h.Tokens(ctx, h.admin, tokens.TokenQuery{})
		if err != nil {
			t.Fatal(err)
		}
		shown, err := h.ShowToken(ctx, h.admin, "", token.Serial)
		if err != nil {
			t.Fatal(err)
		}
		records, _, err := h.mem.Records(ctx, tokens.RecordQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		all := fmt.Sprintf("%+v %+v %+v %+v %+v %+v %s", token, got, held, listed, shown, records, h.log)
		for _, text := range []string{
			string(d.seed), base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(d.seed), fmt.Sprintf("%x", d.seed),
			strings.Trim(fmt.Sprint(d.seed), "[]"),
		} {
			if strings.Contains(all, text) {
				t.Errorf("%s: the seed shows up again", digest)
			}
		}
		h.ends("alice", d.code(h, 1), false, tokens.ReasonReplay)
		h.ends("alice", d.code(h, 2), true, tokens.ReasonAccepted)
		h.intact()
	}
}

// watchedSeeds is an HSM that remembers the buffers of the seeds that it made.
type watchedSeeds struct {
	tokens.Custody
	given [][]byte
}

func (w *watchedSeeds) Generate(ctx context.Context, hash hsm.Hash) (hsm.Wrapped, []byte, error) {
	wrapped, seed, err := w.Custody.Generate(ctx, hash)
	w.given = append(w.given, seed)
	return wrapped, seed, err
}

func TestASoftwareTokenIsWhatAppsKnowUnlessAskedOtherwise(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	for what, n := range map[string]tokens.NewSoft{
		"AES":              {Algorithm: hsm.AES128},
		"an unknown hash":  {Algorithm: 77},
		"five digits":      {Digits: 5},
		"nine digits":      {Digits: 9},
		"a negative":       {Period: -30},
		"45 seconds":       {Period: 45},
		"no issuer's name": {Issuer: "a\x00b"},
	} {
		n.User = "alice"
		if _, uri, err := h.EnrolSoft(ctx, h.admin, n); !errors.Is(err, tokens.ErrInvalid) || uri != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Another kind of token takes the place of the one that waits.
	first, _ := h.soft(h.admin, "alice")
	next, uri, err := h.EnrolSoft(ctx, h.admin, tokens.NewSoft{User: "alice", Digits: 8})
	if err != nil || next.Serial == first.Serial || next.Digits != 8 || next.Algorithm != hsm.SHA1 || next.Period != 30 {
		t.Fatalf("%+v, %v", next, err)
	}
	if gone := h.token(first.Serial); gone.State != tokens.Revoked || len(gone.Wrapped.Blob) > 0 {
		t.Errorf("the one that waited is %+v", gone)
	}
	if r := h.records("token.revoke", "ok"); len(r) != 1 || r[0].Serial != first.Serial || r[0].User != "alice" {
		t.Errorf("its end is audited as %+v", r)
	}
	d := softDevice(t, uri)
	h.mem.Watch(d.seed)
	h.must(h.Activate(ctx, h.admin, "", next.Serial, d.code(h, -1), d.code(h, 0)))
	h.ends("alice", d.code(h, 1), true, tokens.ReasonAccepted)
	h.intact()
}
