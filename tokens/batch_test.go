package tokens_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/storetest"
)

// of is a record that names a user.
func of(serial, user string) tokens.NewToken {
	n := record(serial)
	n.User = user
	return n
}

func (h *house) add(i *tokens.Import, list ...tokens.NewToken) []tokens.Added {
	h.Helper()
	added, err := i.Add(ctx, list)
	if err != nil {
		h.Fatal(err)
	}
	if !wiped(list) {
		h.Error("seeds stay in the caller's memory")
	}
	return added
}

func (h *house) publish(i *tokens.Import, n int) tokens.Batch {
	h.Helper()
	b, err := i.Publish(ctx, strings.Repeat("ab", 32), n, 0, 0)
	if err != nil {
		h.Fatal(err)
	}
	return b
}

// codeOf is what a token made by record shows.
func (h *house) codeOf(serial string) string {
	d := totp(serial)
	d.seed = record(serial).Seed
	return d.code(h, 0)
}

// Where the rules ask for two codes, they do so of tokens that an import hands out, too.
func TestWhatAnImportHandsOutWaitsForItsCodesWhereTheRulesSaySo(t *testing.T) {
	h := newHouse(t)
	h.must(h.SetRules(ctx, h.admin, "", -1, byCode()))
	i := h.begin(tokens.NewImport{Name: "a.csv", Assign: true, Create: true})
	h.add(i, of("T1", "alice"), record("T2"))
	h.publish(i, 2)
	if got := h.token("T1"); got.State != tokens.Pending || got.Owner != "alice" {
		t.Errorf("it is %s, of %q", got.State, got.Owner)
	}
	if r := h.records("token.assign", "ok"); len(r) != 1 || !strings.Contains(fmt.Sprint(r[0].Detail), "{to pending}") {
		t.Errorf("audited as %+v", r)
	}
	if h.try("alice", h.codeOf("T1")) {
		t.Error("it is accepted before it showed two codes")
	}
	one := h.codeOf("T1")
	h.clock.forward(30 * time.Second)
	h.must(h.Activate(ctx, h.admin, "", "T1", one, h.codeOf("T1")))
	h.clock.forward(30 * time.Second)
	h.ends("alice", h.codeOf("T1"), true, tokens.ReasonAccepted)
	h.intact()
}

// The most that a user can hold counts as it is when the import is published.
func TestAnImportHandsOutNoMoreThanTheRulesSayByThen(t *testing.T) {
	h := newHouse(t)
	i := h.begin(tokens.NewImport{Name: "a.csv", Assign: true, Create: true})
	h.add(i, of("T1", "alice"), of("T2", "alice"), of("T3", "bob"))
	h.must(h.SetRules(ctx, h.admin, "", -1, most(1)))
	if _, err := i.Publish(ctx, "00", 3, 0, 0); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "alice") {
		t.Errorf("two tokens for alice: %v", err)
	}
	h.must(h.SetRules(ctx, h.admin, "", -1, most(2)))
	h.publish(i, 3)
	if u, held, err := h.ShowUser(ctx, h.admin, "", "alice"); err != nil || len(held) != 2 {
		t.Errorf("%+v, %v", u, err)
	}
	h.intact()
}

func TestAnImportHandsTokensToTheUsersOfTheFile(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	h.user("pia")
	h.must(h.SetPIN(ctx, h.admin, "", "pia", "4711", false))
	i := h.begin(tokens.NewImport{Name: "a.csv", Assign: true, Create: true})
	for _, a := range h.add(i, of("T1", "ALICE"), of("T2", "pia"), of("T3", "Zoë"), of("T4", "zoë"), record("T5")) {
		if a.Outcome != tokens.OutcomeCreated || a.Reason != "" {
			t.Fatalf("%+v", a)
		}
	}
	if _, _, err := h.mem.Users(ctx, tokens.UserQuery{Key: "zoë", Limit: 1}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.ShowUser(ctx, h.admin, "", "zoë"); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("a user is there before the import is: %v", err)
	}
	h.publish(i, 5)

	// One record for each.
	var got []string
	for _, r := range h.records("token.assign", "ok") {
		got = append(got, r.Serial+"="+r.User)
	}
	slices.Sort(got)
	if want := []string{"T1=alice", "T2=pia", "T3=zoë", "T4=zoë"}; !slices.Equal(got, want) {
		t.Errorf("audited: %v, want %v", got, want)
	}
	if made := h.records("user.add", "ok"); len(made) != 3 || made[0].User != "zoë" {
		t.Errorf("users made: %v", made)
	}
	h.ends("alice", h.codeOf("T1"), true, tokens.ReasonAccepted)
	h.ends("pia", "4711"+h.codeOf("T2"), true, tokens.ReasonAccepted)
	h.ends("zoë", h.codeOf("T3"), true, tokens.ReasonAccepted)
	h.ends("zoë", h.codeOf("T4"), true, tokens.ReasonAccepted)
	if tok := h.token("T5"); tok.State != tokens.Imported || tok.Owner != "" {
		t.Errorf("the record without a user: %+v", tok)
	}
	// They are tokens like any other.
	h.must(h.Suspend(ctx, h.admin, "", "T1", ""))
	h.must(h.Unassign(ctx, h.admin, "", "T3", ""))
	h.must(h.SetPIN(ctx, h.admin, "", "zoë", "0815", false))
	h.intact()
}

func TestWhoCannotGetATokenByAnImport(t *testing.T) {
	h := newHouse(t)
	h.user("gone")
	h.must(h.SetUserState(ctx, h.admin, "", "gone", tokens.UserDisabled))
	h.give("holder", totp("H1"))
	elsewhere := of("T4", "alice")
	elsewhere.UserRealm = "corp"
	list := func() []tokens.NewToken {
		all := []tokens.NewToken{of("T1", "nobody"), of("T2", "gone"), of("T3", "holder"), elsewhere, of("T5", " x"), of("H1", "nobody"), of("T6", strings.Repeat("x", 256))}
		for k := range all {
			all[k].Seed = record(all[k].Serial).Seed
		}
		return all
	}
	want := []string{"no user \"nobody\" in realm default; add the user first", "user gone is disabled", "holds a token already (H1)",
		`a user of realm "corp", and this import goes into realm "default"`, "begins or ends with a space", "", "longer than 255"}
	for name, in := range map[string]tokens.NewImport{"import": {Assign: true}, "dry run": {Assign: true, DryRun: true}} {
		i := h.begin(in)
		for k, a := range h.add(i, list()...) {
			outcome := tokens.OutcomeRejected
			if want[k] == "" {
				outcome = tokens.OutcomeDuplicate // whoever it names
			}
			if a.Outcome != outcome || !strings.Contains(a.Reason, want[k]) {
				t.Errorf("%s: record %d: %+v, want %s", name, k, a, want[k])
			}
		}
		if err := i.Discard(ctx, ""); err != nil {
			t.Error(err)
		}
	}
	// The ninth token for one user.
	i := h.begin(tokens.NewImport{Assign: true, Create: true})
	var nine []tokens.NewToken
	for k := range tokens.MaxTokensPerUser + 1 {
		nine = append(nine, of(fmt.Sprint("N", k), "new"))
	}
	added := h.add(i, nine...)
	if last := added[tokens.MaxTokensPerUser]; last.Outcome != tokens.OutcomeRejected || !strings.Contains(last.Reason, "more than 8") {
		t.Errorf("the ninth: %+v", last)
	}
	h.publish(i, 8)
	if _, held, err := h.ShowUser(ctx, h.admin, "", "new"); err != nil || len(held) != 8 {
		t.Errorf("%d tokens, %v", len(held), err)
	}
	if _, err := h.BeginImport(ctx, h.admin, tokens.NewImport{Create: true}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("users made, and nothing assigned: %v", err)
	}
	h.intact()
}

func TestWithoutAssigningAUserIsAHint(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	i := h.begin(tokens.NewImport{Name: "a.csv"})
	far := of("T2", "bob")
	far.UserRealm = "corp"
	odd := of("T3", "a\x00b\xff"+strings.Repeat("é", 200))
	h.add(i, of("T1", "alice"), far, odd)
	h.publish(i, 3)
	for serial, want := range map[string]string{"T1": "alice", "T2": `corp\bob`} {
		tok, err := h.ShowToken(ctx, h.admin, "", serial)
		if err != nil || tok.Hint != want || tok.Owner != "" || tok.State != tokens.Imported {
			t.Errorf("%+v, %v; want the hint %q", tok, err, want)
		}
	}
	if tok, err := h.ShowToken(ctx, h.admin, "", "T3"); err != nil || len(tok.Hint) > 255 || strings.ContainsRune(tok.Hint, 0) {
		t.Errorf("%q, %v", tok.Hint, err)
	}
	if h.try("alice", h.codeOf("T1")) {
		t.Error("a hint decided something")
	}
}

// What Publish finds otherwise than Add did keeps all of it out.
func TestNothingIsHandedOutIfSomebodyChangedMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(h *house)
		fails     string // nothing: it is published all the same
	}{
		"disabled":         {func(h *house) { h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled)) }, "alice is disabled"},
		"a token":          {func(h *house) { h.must(h.Assign(ctx, h.admin, "", "S1", "alice")) }, "alice holds a token already (S1)"},
		"another PIN":      {func(h *house) { h.must(h.SetPIN(ctx, h.admin, "", "alice", "4712", false)) }, ""},
		"a sheet":          {func(h *house) { h.recovery("alice") }, ""}, // it is none of the tokens that count
		"the user appears": {func(h *house) { h.user("bob") }, ""},
		"a conflict":       {func(h *house) { h.mem.Inject(storetest.Conflict, storetest.Conflict) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.ship("", totp("S1"))
			h.user("alice")
			i := h.begin(tokens.NewImport{Name: "a.csv", Assign: true, Create: true})
			h.add(i, of("T1", "alice"), of("T2", "bob"))
			c.meanwhile(h)
			_, err := i.Publish(ctx, "00", 2, 0, 0)
			if c.fails == "" {
				h.must(nil, err)
				pin := ""
				if name == "another PIN" {
					pin = "4712"
				}
				h.ends("alice", pin+h.codeOf("T1"), true, tokens.ReasonAccepted)
				h.ends("bob", h.codeOf("T2"), true, tokens.ReasonAccepted)
				h.intact()
				return
			}
			if !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("published: %v", err)
			}
			if err := i.Discard(ctx, "failed"); err != nil {
				t.Error(err)
			}
			if got := h.visible(); !slices.Equal(got, []string{"S1"}) {
				t.Errorf("%v are there", got)
			}
			if _, _, err := h.ShowUser(ctx, h.admin, "", "bob"); !errors.Is(err, tokens.ErrNotFound) {
				t.Errorf("bob was made: %v", err)
			}
			h.intact()
		})
	}
}

func TestAnImportIsShownWithWhatIsThereOfIt(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	i := h.begin(tokens.NewImport{Name: "a.csv", Format: "oath-csv"})
	list := []tokens.NewToken{record("T1"), record("T2"), record("T3")}
	list[2].Model = "C200"
	h.add(i, list...)
	b := h.publish(i, 3)
	h.must(h.Assign(ctx, h.admin, "", "T1", "alice"))
	h.must(h.Revoke(ctx, h.admin, "", "T2", ""))
	for _, scope := range []string{"admin", "helpdesk", "read"} {
		got, tally, err := h.ShowBatch(ctx, h.key("", scope), b.ID)
		if err != nil || got.Name != "a.csv" || tally.Fresh != 1 || tally.States[tokens.Active] != 1 || tally.States[tokens.Revoked] != 1 || tally.Tokens() != 3 || len(tally.Models) != 2 {
			t.Errorf("%s: %+v, %+v, %v", scope, got, tally, err)
		}
	}
	for name, try := range map[string]func(p tokens.Principal, id int64) error{
		"show": func(p tokens.Principal, id int64) error { _, _, err := h.ShowBatch(ctx, p, id); return err },
		"undo": func(p tokens.Principal, id int64) error { _, _, err := h.Undo(ctx, p, id); return err },
	} {
		if err := try(h.key("", "verify"), b.ID); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("%s, scope verify: %v", name, err)
		}
		if err := try(h.key("corp", "admin"), b.ID); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("%s, another realm's: %v", name, err)
		}
		for _, id := range []int64{0, -1, b.ID + 100, h.stagedBatch()} {
			if err := try(h.admin, id); !errors.Is(err, tokens.ErrNotFound) {
				t.Errorf("%s %d: %v", name, id, err)
			}
		}
	}
	for _, scope := range []string{"helpdesk", "read"} {
		if _, _, err := h.Undo(ctx, h.key("", scope), b.ID); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("undone by %s: %v", scope, err)
		}
	}
	if got := h.visible(); len(got) != 3 {
		t.Errorf("%v are there", got)
	}
}

// stagedBatch is the number of an import under way.
func (h *house) stagedBatch() int64 {
	h.Helper()
	id, err := h.mem.Begin(ctx, tokens.Batch{Realm: "default"})
	if err != nil {
		h.Fatal(err)
	}
	return id
}

func TestUndoingAnImportTakesBackWhatNobodyGot(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	var list []tokens.NewToken
	for k := range 1000 {
		list = append(list, record(fmt.Sprint("T", k)))
	}
	i := h.begin(tokens.NewImport{Name: "a.csv"})
	h.add(i, list...)
	h.add(i, record("U1"), record("U2"))
	b := h.publish(i, 1002)
	h.must(h.Assign(ctx, h.admin, "", "T5", "alice"))
	h.must(h.Assign(ctx, h.admin, "", "T6", "alice"))
	h.must(h.Unassign(ctx, h.admin, "", "T6", ""))
	h.ends("alice", h.codeOf("T5"), true, tokens.ReasonAccepted)

	got, tally, err := h.Undo(ctx, h.admin, b.ID)
	if err != nil || got.Removed != 1000 || got.Tokens != 1002 || got.Undone.IsZero() || tally.Tokens() != 2 || tally.Fresh != 0 {
		t.Fatalf("%+v, %+v, %v", got, tally, err)
	}
	if left := h.visible(); !slices.Equal(left, []string{"T5", "T6"}) {
		t.Errorf("%v are there", left)
	}
	records := h.records("import.undo", "ok")
	if len(records) != 2 || records[1].Reason != "begun" || records[0].Reason != "done" || !strings.Contains(fmt.Sprint(records[0].Detail), "{removed 1000} {kept 2}") {
		t.Errorf("audited: %+v", records)
	}
	// Again it is of no effect, and the serials are free.
	if got, _, err := h.Undo(ctx, h.admin, b.ID); err != nil || got.Removed != 1000 {
		t.Errorf("again: %+v, %v", got, err)
	}
	i = h.begin(tokens.NewImport{Name: "a.csv"})
	if added := h.add(i, record("T1"), record("T5")); added[0].Outcome != tokens.OutcomeCreated || added[1].Outcome != tokens.OutcomeDuplicate {
		t.Errorf("imported again: %v", added)
	}
	h.publish(i, 1)
	h.clock.forward(31e9)
	h.ends("alice", h.codeOf("T5"), true, tokens.ReasonAccepted)
	h.intact()
}

func TestUndoingIsSafeAgainstAssigning(t *testing.T) {
	h := newHouse(t)
	var list []tokens.NewToken
	for k := range 40 {
		list = append(list, record(fmt.Sprint("T", k)))
		h.user(fmt.Sprint("user", k))
	}
	i := h.begin(tokens.NewImport{Name: "a.csv"})
	h.add(i, list...)
	b := h.publish(i, len(list))
	other := h.node(&firsts{})
	var wg sync.WaitGroup
	given := make([]bool, len(list))
	for k := range list {
		wg.Go(func() {
			_, err := other.Assign(ctx, h.admin, "", list[k].Serial, fmt.Sprint("user", k))
			if given[k] = err == nil; err != nil && !errors.Is(err, tokens.ErrNotFound) {
				t.Errorf("assign: %v", err)
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			if _, _, err := h.Undo(ctx, h.admin, b.ID); err != nil {
				t.Errorf("undo: %v", err)
			}
		})
	}
	wg.Wait()
	var want []string
	for k := range list {
		if given[k] {
			want = append(want, list[k].Serial)
			h.ends(fmt.Sprint("user", k), h.codeOf(list[k].Serial), true, tokens.ReasonAccepted)
		}
	}
	if got := h.visible(); !slices.Equal(got, want) {
		t.Errorf("%v are there, and %v were given", got, want)
	}
	h.intact()
}

// vendor is a house whose HSM takes seeds over, and the key to encrypt them to.
func vendor(t *testing.T) (*house, *rsa.PublicKey) {
	keys := hsmtest.NewMemory(t)
	return vendorOf(t, keys, keys)
}

func vendorOf(t *testing.T, keys *hsmtest.Memory, custody tokens.Custody) (*house, *rsa.PublicKey) {
	t.Helper()
	h := &house{TB: t, mem: storetest.NewMemory(t), clock: &clock{}, log: &lockedBuffer{}}
	h.db, h.keys = &editor{Memory: h.mem}, &meter{Keystore: keys}
	h.clock.set(start)
	h.open(func(c *tokens.Config) { c.Custody = custody })
	if h.Transports() {
		t.Error("seeds are taken over without a key")
	}
	if _, err := h.MakeTransportKey(ctx, keys, 2048); err != nil {
		t.Fatal(err)
	}
	if !h.Transports() {
		t.Fatal("seeds are not taken over")
	}
	return h, keys.TransportKeys()[0].Public
}

// sealed is a record whose seed is encrypted to a key.
func sealed(t *testing.T, serial string, to *rsa.PublicKey, pkcs1 bool) tokens.NewToken {
	n := record(serial)
	n.Transported = &hsm.Transported{Mechanism: hsm.TransportOAEP, OAEPHash: crypto.SHA1, Hash: hsm.SHA1}
	n.TransportKey = to
	var err error
	if pkcs1 {
		n.Transported.Mechanism, n.Transported.OAEPHash = hsm.TransportPKCS1, 0
		//lint:ignore SA1019 makers still ship it
		n.Transported.Ciphertext, err = rsa.EncryptPKCS1v15(rand.Reader, to, n.Seed)
	} else {
		n.Transported.Ciphertext, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, to, n.Seed, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.Seed = nil
	return n
}

func TestSeedsEncryptedToTheTransportKeyAreTakenOver(t *testing.T) {
	h, to := vendor(t)
	i := h.begin(tokens.NewImport{Name: "a.pskc", Assign: true, Create: true})
	h.mem.Watch(record("T1").Seed)
	one, two, short, broken := sealed(t, "T1", to, false), record("T2"), sealed(t, "T3", to, false), sealed(t, "T4", to, false)
	one.User, two.User = "alice", "bob"
	var err error
	if short.Transported.Ciphertext, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, to, []byte("0123456789abcdef"), nil); err != nil {
		t.Fatal(err)
	}
	broken.Transported.Ciphertext[9] ^= 1
	added := h.add(i, one, two, short, broken)
	if added[0].Outcome != tokens.OutcomeCreated || added[0].Path != hsm.PathHSM || added[1].Outcome != tokens.OutcomeCreated || added[1].Path != "" {
		t.Errorf("%+v", added)
	}
	if added[2].Outcome != tokens.OutcomeRejected || !strings.HasSuffix(added[2].Reason, "if that is allowed (--allow-host-unwrap)") || added[2].Path != "" {
		t.Errorf("a seed that cannot be padded inside: %+v", added[2])
	}
	if added[3].Outcome != tokens.OutcomeRejected || added[3].Reason != hsm.ErrTransport.Error() {
		t.Errorf("an altered ciphertext: %+v", added[3])
	}
	h.publish(i, 2)
	if d := fmt.Sprint(h.records("import.publish", "ok")[0].Detail); !strings.Contains(d, "{through_hsm 1}") || strings.Contains(d, "host") {
		t.Errorf("audited with %s", d)
	}
	h.ends("alice", h.codeOf("T1"), true, tokens.ReasonAccepted)
	h.ends("bob", h.codeOf("T2"), true, tokens.ReasonAccepted)
	if n := len(h.records("import.transport", "")); n != 0 {
		t.Errorf("%d records of an attack, and there was none", n)
	}

	i = h.begin(tokens.NewImport{Name: "b.pskc", AllowHost: true})
	if added := h.add(i, short); added[0].Outcome != tokens.OutcomeCreated || added[0].Path != hsm.PathHost {
		t.Errorf("allowed to travel through memory: %+v", added)
	}
	h.publish(i, 1)
	h.intact()
}

// departing is custody whose caller is gone before it answers.
type departing struct {
	tokens.Custody
	hsm.Transporter
	hsm.PGPHolder
	leave func()
}

func (d *departing) Rewrap(ctx context.Context, items []hsm.Transported, options hsm.TransportOptions) ([]hsm.Rewrapped, error) {
	defer d.leave()
	return nil, gone(d.Transporter.Rewrap(ctx, items, options))
}

func (d *departing) OpenPGP(ctx context.Context, version uint32, ciphertext []byte) ([]byte, error) {
	defer d.leave()
	return nil, gone(d.PGPHolder.OpenPGP(ctx, version, ciphertext))
}

func gone[T any](T, error) error { return context.Canceled }

// Or who tries ciphertexts could leave before the answer is there, and use up all
// attempts without a trace.
func TestWhoLeavesBeforeTheAnswerIsAudited(t *testing.T) {
	keys := hsmtest.NewMemory(t)
	d := &departing{Custody: keys, Transporter: keys, PGPHolder: keys}
	h, to := vendorOf(t, keys, d)
	if _, err := h.MakePGPKey(ctx, keys, hsm.MinTransportBits); err != nil {
		t.Fatal(err)
	}
	audited := func(action string, want int) {
		t.Helper()
		list := h.records(action, "error")
		if len(list) != want {
			t.Fatalf("%d records of %s, want %d", len(list), action, want)
		}
		for _, r := range list {
			if r.Reason != "interrupted" {
				t.Errorf("audited as %+v", r)
			}
		}
	}
	attempt := func(in tokens.NewImport, list ...tokens.NewToken) {
		t.Helper()
		leaving, leave := context.WithCancel(ctx)
		d.leave = leave
		i := h.begin(in)
		if _, err := i.Add(leaving, list); err == nil || leaving.Err() == nil {
			t.Fatalf("%v, %v", err, leaving.Err())
		}
		if err := i.Discard(leaving, "the import failed"); err != nil {
			t.Error(err)
		}
	}
	attempt(tokens.NewImport{Name: "a.pskc", AllowPKCS1: true}, sealed(t, "T1", to, true), sealed(t, "T2", to, true), sealed(t, "T3", to, false))
	audited("import.transport", 1)
	if r := h.records("import.transport", "error")[0]; r.Serial != "T1" || !strings.Contains(fmt.Sprint(r.Detail), "{records 2}") {
		t.Errorf("audited as %+v", r)
	}
	// Nothing is to be learnt of these.
	attempt(tokens.NewImport{Name: "a.pskc"}, sealed(t, "T1", to, true))
	attempt(tokens.NewImport{Name: "a.pskc", AllowPKCS1: true}, sealed(t, "T1", to, false))
	audited("import.transport", 1)

	leaving, leave := context.WithCancel(ctx)
	d.leave = leave
	if _, err := h.OpenPGP(leaving, h.admin, "", 1, make([]byte, 256)); err == nil {
		t.Error("a message was opened for one who left")
	}
	audited("import.pgp", 1)
	h.intact()
}

func TestSeedsEncryptedToAnotherKeyRefuseTheFile(t *testing.T) {
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	h, to := vendor(t)
	bare := newHouse(t)
	for name, c := range map[string]struct {
		h  *house
		in tokens.NewImport
	}{"another": {h, tokens.NewImport{}}, "another, dry run": {h, tokens.NewImport{DryRun: true}}, "none": {bare, tokens.NewImport{}}, "none, dry run": {bare, tokens.NewImport{DryRun: true}}} {
		i := c.h.begin(c.in)
		if _, err := i.Add(ctx, []tokens.NewToken{sealed(t, "T1", &stranger.PublicKey, false)}); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "hsm transport-key") {
			t.Errorf("%s: %v", name, err)
		}
		if err := i.Discard(ctx, ""); err != nil {
			t.Error(err)
		}
	}
	i := h.begin(tokens.NewImport{})
	if _, err := i.Add(ctx, []tokens.NewToken{sealed(t, "T1", to, false), sealed(t, "T2", &stranger.PublicKey, false)}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("two keys in one file: %v", err)
	}
	if err := i.Discard(ctx, ""); err != nil {
		t.Error(err)
	}
	both := sealed(t, "T1", to, false)
	both.Seed = []byte("0123456789abcdefghij")
	i = h.begin(tokens.NewImport{})
	if added := h.add(i, both); added[0].Outcome != tokens.OutcomeRejected {
		t.Errorf("a seed that comes in two ways: %+v", added)
	}
	if err := i.Discard(ctx, ""); err != nil {
		t.Error(err)
	}
}

func TestWrongRSA15CiphertextsAreAuditedOneByOne(t *testing.T) {
	h, to := vendor(t)
	list := func(n int) (all []tokens.NewToken) {
		for k := range n {
			s := sealed(t, fmt.Sprint("T", k), to, true)
			s.Transported.Ciphertext[3] ^= 1
			all = append(all, s)
		}
		return all
	}
	i := h.begin(tokens.NewImport{Name: "a.pskc"})
	if added := h.add(i, list(1)...); added[0].Outcome != tokens.OutcomeRejected || added[0].Reason != hsm.ErrPKCS1.Error() {
		t.Errorf("not allowed: %+v", added)
	}
	if n := len(h.records("import.transport", "")); n != 0 {
		t.Errorf("%d records of what was not tried", n)
	}
	if err := i.Discard(ctx, ""); err != nil {
		t.Error(err)
	}
	i = h.begin(tokens.NewImport{Name: "a.pskc", AllowPKCS1: true})
	added := h.add(i, list(hsm.WrongAttempts+5)...)
	for k, a := range added {
		if a.Outcome != tokens.OutcomeRejected || (k < hsm.WrongAttempts) != (a.Reason == hsm.ErrTransport.Error()) {
			t.Errorf("record %d: %+v", k, a)
		}
	}
	h.add(i, list(3)...)
	wrong, limited := 0, []string{}
	for _, r := range h.records("import.transport", "refused") {
		switch r.Reason {
		case "wrong_ciphertext":
			wrong++
		case "limit":
			limited = append(limited, r.Detail[len(r.Detail)-1].Value)
		}
		if !strings.HasPrefix(r.Serial, "T") || !strings.Contains(fmt.Sprint(r.Detail), "a.pskc") {
			t.Errorf("%+v", r)
		}
	}
	if wrong != hsm.WrongAttempts || !slices.Equal(limited, []string{"3", "5"}) {
		t.Errorf("%d wrong ones are audited, and %v that were not tried", wrong, limited)
	}
	if err := i.Discard(ctx, ""); err != nil {
		t.Error(err)
	}
	h.intact()
}
