package tokens_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// rules are the default ones, but for what edit changes.
func rules(edit func(r *tokens.Rules)) tokens.Rules {
	r := tokens.DefaultRules()
	if edit != nil {
		edit(&r)
	}
	return r
}

// most are rules with a limit on tokens.
func most(n int) tokens.Rules { return rules(func(r *tokens.Rules) { r.MaxTokens = n }) }

func TestARealmsOwnRulesCountBeforeThoseOfAnyRealmAndTheDefaults(t *testing.T) {
	h := newHouse(t)
	counts := func(realm string, want tokens.RealmRules) {
		t.Helper()
		if got, err := h.Rules(ctx, h.admin, realm); err != nil || got != want {
			t.Errorf("in realm %q count %+v, %v; want %+v", realm, got, err, want)
		}
	}
	def := tokens.DefaultRules()
	counts("Corp", tokens.RealmRules{Realm: "corp", Rules: def})
	counts("", tokens.RealmRules{Realm: "default", Rules: def})
	counts("*", tokens.RealmRules{Realm: "*", Rules: def})

	if r, err := h.SetRules(ctx, h.admin, "*", 0, most(3)); err != nil || r != (tokens.RealmRules{Realm: "*", Version: 1, Own: true, Rules: most(3)}) {
		t.Fatalf("%+v, %v", r, err)
	}
	counts("corp", tokens.RealmRules{Realm: "corp", Rules: most(3)})
	counts("*", tokens.RealmRules{Realm: "*", Version: 1, Own: true, Rules: most(3)})

	if r, err := h.SetRules(ctx, h.admin, "CORP", -1, most(12)); err != nil || r != (tokens.RealmRules{Realm: "corp", Version: 1, Own: true, Rules: most(12)}) {
		t.Fatalf("%+v, %v", r, err)
	}
	counts("corp", tokens.RealmRules{Realm: "corp", Version: 1, Own: true, Rules: most(12)})
	counts("lab", tokens.RealmRules{Realm: "lab", Rules: most(3)})

	if r, err := h.DropRules(ctx, h.admin, "corp"); err != nil || r != (tokens.RealmRules{Realm: "corp", Rules: most(3)}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := h.DropRules(ctx, h.admin, "*"); err != nil || r != (tokens.RealmRules{Realm: "*", Rules: def}) {
		t.Fatalf("%+v, %v", r, err)
	}
	counts("corp", tokens.RealmRules{Realm: "corp", Rules: def})
	h.intact()
}

// Rules that were dropped and made anew are others than those that somebody has seen
// before, though both were the first after none.
func TestRulesThatWereDroppedComeBackUnderANewVersion(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	seen, err := h.SetRules(ctx, h.admin, "corp", 0, most(3))
	if err != nil {
		t.Fatal(err)
	}
	h.must(other.DropRules(ctx, h.admin, "corp"))
	if r, err := h.Rules(ctx, h.admin, "corp"); err != nil || r != (tokens.RealmRules{Realm: "corp", Rules: tokens.DefaultRules()}) {
		t.Errorf("dropped: %+v, %v", r, err)
	}
	h.must(h.DropRules(ctx, h.admin, "corp"))
	if r := h.last(); r.Action != "realm.rules.put" || r.Reason != "unchanged" {
		t.Errorf("dropped again: audited as %+v", r)
	}
	if _, err := h.SetRules(ctx, h.admin, "corp", seen.Version, most(5)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("over those that were dropped: %v", err)
	}
	next, err := other.SetRules(ctx, h.admin, "corp", 0, most(4))
	if err != nil || next.Version <= seen.Version {
		t.Errorf("anew: %+v, %v", next, err)
	}
	if _, err := h.SetRules(ctx, h.admin, "corp", seen.Version, most(5)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("over version %d: %v", seen.Version, err)
	}
	if r, err := h.Rules(ctx, h.admin, "corp"); err != nil || r != next || r.Rules != most(4) {
		t.Errorf("%+v, %v; want %+v", r, err, next)
	}
	h.intact()
}

func TestRulesAreReplacedByWhoHasSeenThem(t *testing.T) {
	h := newHouse(t)
	h.must(h.SetRules(ctx, h.admin, "", 0, most(3)))
	for _, stale := range []int64{0, 2, 7} {
		if _, err := h.SetRules(ctx, h.admin, "", stale, most(4)); !errors.Is(err, tokens.ErrState) {
			t.Errorf("over version %d: %v", stale, err)
		}
		if r := h.last(); r.Action != "realm.rules.put" || r.Outcome != "refused" || r.Reason != "state" || r.Realm != "default" {
			t.Errorf("audited as %+v", r)
		}
	}
	if r, err := h.SetRules(ctx, h.admin, "", 1, most(4)); err != nil || r.Version != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := h.SetRules(ctx, h.admin, "", -1, most(5)); err != nil || r.Version != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	h.intact()
}

func TestTheAuditSaysWhatRulesChanged(t *testing.T) {
	h := newHouse(t)
	said := func() string {
		r := h.last()
		return fmt.Sprint(r.Action, " ", r.Outcome, " ", r.Realm, " ", r.Reason, " ", r.Detail)
	}
	next := rules(func(r *tokens.Rules) {
		r.MaxTokens, r.Activation, r.PIN.Min = 12, tokens.ActivateByCode, 6
		r.Temporary = tokens.TemporaryRules{Allow: true, Valid: 48 * time.Hour, Uses: 1}
	})
	h.must(h.SetRules(ctx, h.admin, "corp", 0, next))
	if got, want := said(), "realm.rules.put ok corp  [{document rules/corp} {version 0} {rules new} {max_tokens 8 -> 12} {activation assign -> codes} {pin.min 4 -> 6} {temporary.allow false -> true} {temporary.valid_hours 24 -> 48} {temporary.uses 5 -> 1}]"; got != want {
		t.Errorf("said %s\nwant %s", got, want)
	}
	next.Recovery.Codes = 32
	h.must(h.SetRules(ctx, h.admin, "corp", 1, next))
	if got, want := said(), "realm.rules.put ok corp  [{document rules/corp} {version 1} {recovery.codes 10 -> 32}]"; got != want {
		t.Errorf("said %s\nwant %s", got, want)
	}
	// The reply was lost, and it is asked again.
	if r, err := h.SetRules(ctx, h.admin, "corp", -1, next); err != nil || r.Version != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if got, want := said(), "realm.rules.put ok corp unchanged [{document rules/corp} {version 2}]"; got != want {
		t.Errorf("said %s\nwant %s", got, want)
	}
	h.must(h.DropRules(ctx, h.admin, "corp"))
	if got, want := said(), "realm.rules.put ok corp  [{document rules/corp} {version 2} {rules dropped}]"; got != want {
		t.Errorf("said %s\nwant %s", got, want)
	}
	h.must(h.DropRules(ctx, h.admin, "corp"))
	if got, want := said(), "realm.rules.put ok corp unchanged [{document rules/corp} {version 0}]"; got != want {
		t.Errorf("said %s\nwant %s", got, want)
	}
	h.must(h.SetRules(ctx, h.admin, "*", 0, most(9)))
	if r := h.last(); r.Realm != "" || r.Detail[0].Value != "rules/" {
		t.Errorf("the rules of any realm are audited as %+v", r)
	}
}

func TestRulesOutOfBoundsAreRefused(t *testing.T) {
	h := newHouse(t)
	for want, edit := range map[string]func(r *tokens.Rules){
		"max_tokens is 0;":                 func(r *tokens.Rules) { r.MaxTokens = 0 },
		"max_tokens is 65;":                func(r *tokens.Rules) { r.MaxTokens = 65 },
		"pin.min is 3;":                    func(r *tokens.Rules) { r.PIN.Min = 3 },
		"pin.min is 33;":                   func(r *tokens.Rules) { r.PIN.Min, r.PIN.Max = 33, 33 },
		"pin.max is 5; 6 to 32":            func(r *tokens.Rules) { r.PIN.Min, r.PIN.Max = 6, 5 },
		"pin.max is 33;":                   func(r *tokens.Rules) { r.PIN.Max = 33 },
		"recovery.codes is 0;":             func(r *tokens.Rules) { r.Recovery.Codes = 0 },
		"recovery.codes is 33;":            func(r *tokens.Rules) { r.Recovery.Codes = 33 },
		"temporary.uses is 0;":             func(r *tokens.Rules) { r.Temporary.Uses = 0 },
		"temporary.uses is 101;":           func(r *tokens.Rules) { r.Temporary.Uses = 101 },
		"temporary.valid_hours is 0;":      func(r *tokens.Rules) { r.Temporary.Valid = 0 },
		"temporary.valid_hours is 1.5;":    func(r *tokens.Rules) { r.Temporary.Valid = 90 * time.Minute },
		"temporary.valid_hours is 721;":    func(r *tokens.Rules) { r.Temporary.Valid = 721 * time.Hour },
		`activation ""; it is assign or`:   func(r *tokens.Rules) { r.Activation = "" },
		`activation "now"; it is assign o`: func(r *tokens.Rules) { r.Activation = "now" },
	} {
		_, err := h.SetRules(ctx, h.admin, "", -1, rules(edit))
		if !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want ErrInvalid and %q", err, want)
		}
	}
	for _, edit := range []func(r *tokens.Rules){
		func(r *tokens.Rules) { r.MaxTokens, r.PIN.Min, r.PIN.Max, r.Recovery.Codes = 64, 32, 32, 32 },
		func(r *tokens.Rules) {
			r.MaxTokens, r.PIN.Max, r.Recovery.Codes, r.Temporary.Uses, r.Temporary.Valid = 1, 4, 1, 100, 720*time.Hour
		},
	} {
		if r, err := h.SetRules(ctx, h.admin, "", -1, rules(edit)); err != nil || r.Rules != rules(edit) {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// What a realm asks for is what it was told to, through JSON and database.
func TestRulesComeBackAsTheyWereSet(t *testing.T) {
	h := newHouse(t)
	rapid.Check(t, func(t *rapid.T) {
		r := tokens.Rules{
			MaxTokens:  rapid.IntRange(1, 64).Draw(t, "max"),
			Activation: rapid.SampledFrom([]tokens.Activation{tokens.ActivateAtOnce, tokens.ActivateByCode}).Draw(t, "activation"),
			Recovery:   tokens.RecoveryRules{Allow: rapid.Bool().Draw(t, "recovery"), Codes: rapid.IntRange(1, 32).Draw(t, "codes")},
			Temporary: tokens.TemporaryRules{
				Allow: rapid.Bool().Draw(t, "temporary"), Uses: rapid.IntRange(1, 100).Draw(t, "uses"),
				Valid: time.Duration(rapid.IntRange(1, 720).Draw(t, "hours")) * time.Hour,
			},
		}
		r.PIN.Min = rapid.IntRange(4, 32).Draw(t, "min")
		r.PIN.Max = rapid.IntRange(r.PIN.Min, 32).Draw(t, "most")
		r.PIN.Sequences, r.PIN.Change = rapid.Bool().Draw(t, "sequences"), rapid.Bool().Draw(t, "change")
		realm := rapid.SampledFrom([]string{"corp", "*", strings.Repeat("r", 255)}).Draw(t, "realm")
		if got, err := h.SetRules(ctx, h.admin, realm, -1, r); err != nil || got.Rules != r {
			t.Fatalf("set %+v: %+v, %v", r, got, err)
		}
		if got, err := h.Rules(ctx, h.admin, realm); err != nil || got.Rules != r || !got.Own {
			t.Fatalf("set %+v, got %+v, %v", r, got, err)
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back tokens.Rules
		if err := json.Unmarshal(text, &back); err != nil || back != r {
			t.Fatalf("%s is %+v, %v", text, back, err)
		}
	})
}

func TestRulesInJSONSayHours(t *testing.T) {
	text, err := json.Marshal(tokens.DefaultRules())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"max_tokens":8,"activation":"assign","pin":{"min":4,"max":32,"sequences":false,"change":false},` +
		`"recovery":{"allow":true,"codes":10},"temporary":{"allow":false,"valid_hours":24,"uses":5}}`
	if string(text) != want {
		t.Errorf("%s\nwant %s", text, want)
	}
	r := tokens.DefaultRules()
	if err := json.Unmarshal([]byte(`{"temporary":{"allow":true}}`), &r); err != nil || r != rules(func(r *tokens.Rules) { r.Temporary.Allow = true }) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{`{"temporary":{"valid":5}}`, `{"temporary":{"valid_hours":-1}}`, `{"temporary":{"valid_hours":9223372036854775807}}`} {
		if err := json.Unmarshal([]byte(bad), &r); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// Whoever writes to the database makes no rules: acts that need them are refused,
// and nobody is kept from logging in.
func TestAlteredRulesStopWhatNeedsThemAndNothingElse(t *testing.T) {
	for name, edit := range map[string]func(was []tokens.Document) func(d *tokens.Document){
		"edited": func([]tokens.Document) func(d *tokens.Document) {
			return func(d *tokens.Document) {
				d.Data = []byte(strings.Replace(string(d.Data), `"max_tokens":2`, `"max_tokens":9`, 1))
			}
		},
		"without a seal": func([]tokens.Document) func(d *tokens.Document) {
			return func(d *tokens.Document) { d.Data = []byte(`{"version":2,"rules":{"max_tokens":9}}`) }
		},
		"put back": func(was []tokens.Document) func(d *tokens.Document) {
			return func(d *tokens.Document) { d.Data = was[0].Data }
		},
		"another realm's": func(was []tokens.Document) func(d *tokens.Document) {
			return func(d *tokens.Document) { d.Data = was[1].Data }
		},
		"emptied": func([]tokens.Document) func(d *tokens.Document) {
			return func(d *tokens.Document) { d.Data = []byte{} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			a, b := totp("A1"), totp("B1")
			h.give("alice", a)
			h.ship("", b)
			h.must(h.SetRules(ctx, h.admin, "", 0, most(9)))
			first, err := h.mem.Document(ctx, "rules/default")
			if err != nil {
				t.Fatal(err)
			}
			h.must(h.SetRules(ctx, h.admin, "lab", 0, most(9)))
			h.must(h.SetRules(ctx, h.admin, "lab", 1, most(9)))
			h.must(h.SetRules(ctx, h.admin, "lab", 1, most(8)))
			lab, err := h.mem.Document(ctx, "rules/lab")
			if err != nil || lab.Version != 2 {
				t.Fatal(lab.Version, err)
			}
			h.must(h.SetRules(ctx, h.admin, "", 1, most(2)))
			alter := edit([]tokens.Document{first, lab})
			h.db.edit(func(d *editor) {
				d.document = func(d *tokens.Document) {
					if d.Name == "rules/default" {
						alter(d)
					}
				}
			})
			other := h.node(&firsts{})
			for what, err := range map[string]error{
				"assign": second(other.Assign(ctx, h.admin, "", "B1", "alice")),
				"invite": third(other.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice"})),
				"enrol":  third(other.EnrolSoft(ctx, h.admin, tokens.NewSoft{User: "alice"})),
				"rules":  second(other.Rules(ctx, h.admin, "")),
			} {
				if !errors.Is(err, tokens.ErrTampered) {
					t.Errorf("%s: %v, want ErrTampered", what, err)
				}
			}
			if r := h.last(); r.Outcome != "refused" || r.Reason != "tampered" {
				t.Errorf("audited as %+v", r)
			}
			if r, err := other.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: a.code(h, 0)}); err != nil || !r.Accept {
				t.Errorf("alice: %+v, %v", r, err)
			}
			if r, err := other.Rules(ctx, h.admin, "lab"); err != nil || r.Rules.MaxTokens != 8 {
				t.Errorf("another realm: %+v, %v", r, err)
			}
			// They can be set anew, as the administrator means them.
			h.db.edit(func(d *editor) {
				d.document = func(d *tokens.Document) {
					if d.Name == "rules/default" && d.Version == 2 {
						alter(d)
					}
				}
			})
			if r, err := other.SetRules(ctx, h.admin, "", 2, most(2)); err != nil || r.Version != 3 {
				t.Fatalf("set anew: %+v, %v", r, err)
			}
			if r := h.last(); r.Detail[len(r.Detail)-1].Name != "before" {
				t.Errorf("audited as %+v", r)
			}
			h.must(other.Assign(ctx, h.admin, "", "B1", "alice"))
			h.intact()
		})
	}
}

func TestAnotherNodeFollowsNewRulesWithItsNextAct(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	h.ship("", totp("A1"), totp("A2"))
	h.user("alice")
	h.must(other.Assign(ctx, h.admin, "", "A1", "alice"))
	h.must(h.SetRules(ctx, h.admin, "", 0, most(1)))
	if _, err := other.Assign(ctx, h.admin, "", "A2", "alice"); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "holds 1 tokens already") {
		t.Errorf("a second token: %v", err)
	}
	if r, err := other.SetRules(ctx, h.admin, "", 1, most(2)); err != nil || r.Version != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	h.must(h.Assign(ctx, h.admin, "", "A2", "alice"))
	h.intact()
}

func TestOfTwoWhoSetRulesAtOnceOneIsTold(t *testing.T) {
	h := newHouse(t)
	nodes := []*tokens.Service{h.Service, h.node(&firsts{})}
	for round := range int64(20) {
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = nodes[i%2].SetRules(ctx, h.admin, "", round, most(int(round)%2*10+i+1))
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, tokens.ErrState) {
				t.Error(err)
			}
		}
		if won != 1 {
			t.Fatalf("%d of them set the rules: %v", won, errs)
		}
	}
	// Who takes what there is is never refused for that.
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := nodes[i%2].SetRules(ctx, h.admin, "", -1, most(20+i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if r, err := h.Rules(ctx, h.admin, ""); err != nil || r.Version != 28 {
		t.Errorf("%+v, %v", r, err)
	}
	h.intact()
}

func TestTheRulesSayHowManyTokensAUserHolds(t *testing.T) {
	h := newHouse(t)
	h.mem.SetMost(10)
	h.must(h.SetRules(ctx, h.admin, "", 0, most(10)))
	h.user("alice")
	var shipped []*device
	for i := range 11 {
		shipped = append(shipped, totp(fmt.Sprint("A", i)))
	}
	h.ship("", shipped...)
	for _, d := range shipped[:10] {
		h.must(h.Assign(ctx, h.admin, "", d.Serial, "alice"))
	}
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "holds 10 tokens already") {
			t.Errorf("%s: %v", what, err)
		}
	}
	alice := h.userID("alice")
	full("assign", second(h.Assign(ctx, h.admin, "", "A10", "alice")))
	full("a software token", third(h.EnrolSoft(ctx, h.admin, tokens.NewSoft{User: "alice"})))
	full("an invitation", third(h.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice"})))
	full("a ceremony", second(h.KeyHolder(ctx, h.admin, "", "alice", rp)))
	full("a key", second(h.EnrolKey(ctx, h.admin, tokens.NewFIDO{User: "alice", Credential: newSeckey("k").credential(alice), Spend: h.challenge()})))

	h.must(h.SetRules(ctx, h.admin, "", 1, most(2)))
	h.user("bob")
	i, err := h.BeginImport(ctx, h.admin, tokens.NewImport{Name: "x.csv", Assign: true, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	var list []tokens.NewToken
	for k := range 3 {
		n := totp(fmt.Sprint("B", k)).NewToken
		n.Seed, n.User = make([]byte, 20), "bob"
		list = append(list, n)
	}
	added, err := i.Add(ctx, list)
	if err != nil || added[1].Outcome != tokens.OutcomeCreated || added[2].Outcome != tokens.OutcomeRejected || !strings.Contains(added[2].Reason, "more than 2 tokens for bob") {
		t.Errorf("imported: %+v, %v", added, err)
	}
	h.intact()
}

func TestOnlyWhoMayActEverywhereSeesAndSetsTheRulesOfAnyRealm(t *testing.T) {
	h := newHouse(t)
	corp := h.key("corp", "admin")
	if _, err := h.SetRules(ctx, corp, "*", -1, most(2)); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("set: %v", err)
	}
	if _, err := h.DropRules(ctx, corp, "*"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("drop: %v", err)
	}
	if _, err := h.Rules(ctx, corp, "*"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("show: %v", err)
	}
	h.must(h.SetRules(ctx, h.admin, "*", -1, most(2)))
	if r, err := h.Rules(ctx, corp, ""); err != nil || r != (tokens.RealmRules{Realm: "corp", Rules: most(2)}) {
		t.Errorf("what counts in its realm: %+v, %v", r, err)
	}
}

func TestASealedDocumentIsWhatWatchwordWrote(t *testing.T) {
	h := newHouse(t)
	for _, data := range []string{"one", "", "two\nlines"} {
		was, err := h.Document(ctx, "x")
		if err != nil && !errors.Is(err, tokens.ErrNotFound) {
			t.Fatal(err)
		}
		d, err := h.PutSealed(ctx, h.admin, policy.FIDORules, "", tokens.DocumentWrite{Name: "x", Expect: was.Version, Data: []byte(data)}, nil)
		if err != nil || string(d.Data) != data || d.Version != was.Version+1 {
			t.Fatalf("%+v, %v", d, err)
		}
		bindings := h.keys.bindings.Load()
		for range 3 {
			if d, err := h.SealedDocument(ctx, "x"); err != nil || string(d.Data) != data || d.Version != was.Version+1 {
				t.Errorf("%+v, %v", d, err)
			}
		}
		if n := h.keys.bindings.Load() - bindings; n != 1 {
			t.Errorf("it was proven %d times", n)
		}
	}
	kept, err := h.mem.Document(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	for name, alter := range map[string]func(d *tokens.Document){
		"another document's": func(d *tokens.Document) { d.Data = kept.Data },
		"shorter":            func(d *tokens.Document) { d.Data = d.Data[:64] },
		"another letter":     func(d *tokens.Document) { d.Data[len(d.Data)-1] ^= 1 },
		"another MAC":        func(d *tokens.Document) { d.Data[0] ^= 1 },
		"no line feed":       func(d *tokens.Document) { d.Data[64] = ' ' },
	} {
		was, err := h.Document(ctx, "y")
		if err != nil && !errors.Is(err, tokens.ErrNotFound) {
			t.Fatal(err)
		}
		h.db.edit(func(d *editor) {
			d.document = func(d *tokens.Document) {
				if d.Name == "y" {
					d.Data = append([]byte(nil), d.Data...)
					alter(d)
				}
			}
		})
		h.must(h.PutSealed(ctx, h.admin, policy.FIDORules, "", tokens.DocumentWrite{Name: "y", Expect: was.Version, Data: []byte("yes")}, nil))
		if d, err := h.SealedDocument(ctx, "y"); !errors.Is(err, tokens.ErrTampered) || d.Data != nil || d.Version != was.Version+1 {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	if _, err := h.SealedDocument(ctx, "z"); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("none: %v", err)
	}
}
