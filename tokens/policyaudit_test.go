package tokens_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// realmless are the use cases that name no realm, on what there is in corpHouse. Those
// that are not among them end sessions, or begin them: see session_test.go.
func realmless(h *house, corp *corpDevices) map[string]func(p tokens.Principal) error {
	hook := tokens.NewSink{Name: "siem", Kind: tokens.SinkFile}
	shipment := func() int64 {
		list, err := h.Batches(ctx, h.admin, tokens.BatchQuery{})
		if err != nil || len(list) == 0 {
			h.Fatal("no shipment: ", err)
		}
		return list[0].ID
	}
	lookedFor := func(err error, kinds ...error) error { // it was allowed, and there is no such thing
		if slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(err, k) }) {
			return nil
		}
		return err
	}
	return map[string]func(p tokens.Principal) error{
		"Uninvite": func(p tokens.Principal) error {
			return lookedFor(h.Uninvite(ctx, p, "0011223344556677"), tokens.ErrNotFound)
		},
		"Batches":      func(p tokens.Principal) error { return second(h.Batches(ctx, p, tokens.BatchQuery{})) },
		"ShowBatch":    func(p tokens.Principal) error { return third(h.ShowBatch(ctx, p, shipment())) },
		"Undo":         func(p tokens.Principal) error { return lookedFor(third(h.Undo(ctx, p, shipment())), tokens.ErrState) },
		"Clients":      func(p tokens.Principal) error { return second(h.Clients(ctx, p)) },
		"Keys":         func(p tokens.Principal) error { return second(h.Keys(ctx, p)) },
		"Realms":       func(p tokens.Principal) error { return second(h.Realms(ctx, p)) },
		"VerifyAudit":  func(p tokens.Principal) error { return second(h.VerifyAudit(ctx, p)) },
		"CompareAudit": func(p tokens.Principal) error { return second(h.CompareAudit(ctx, p, nothingKept)) },
		"CheckpointAudit": func(p tokens.Principal) error {
			return second(h.CheckpointAudit(ctx, p))
		},
		"CutAudit": func(p tokens.Principal) error {
			return second(h.CutAudit(ctx, p, h.clock.now().AddDate(-1, 0, 0), false))
		},
		"CheckStatement": func(p tokens.Principal) error {
			return lookedFor(second(h.CheckStatement(ctx, p, "a.b.c", "wiki", 0)), tokens.ErrInvalid)
		},
		"RotateStatementKey": func(p tokens.Principal) error { return second(h.RotateStatementKey(ctx, p, false)) },
		"Sinks":              func(p tokens.Principal) error { return second(h.Sinks(ctx, p)) },
		"Sink":               func(p tokens.Principal) error { return second(h.Sink(ctx, p, "siem")) },
		"PutSink":            func(p tokens.Principal) error { return third(h.PutSink(ctx, p, hook)) },
		"CompareSink":        func(p tokens.Principal) error { return third(h.CompareSink(ctx, p, hook)) },
		"DeleteSink":         func(p tokens.Principal) error { return h.DeleteSink(ctx, p, "siem") },
		"TestSink":           func(p tokens.Principal) error { return h.TestSink(ctx, p, "siem") },
		"Policies":           func(p tokens.Principal) error { return second(h.Policies(ctx, p)) },
		"PutPolicies": func(p tokens.Principal) error {
			return second(h.PutPolicies(ctx, p, -1, puts(item("x", nightShift))))
		},
		"PolicyVersions":   func(p tokens.Principal) error { return second(h.PolicyVersions(ctx, p, 0)) },
		"RollBackPolicies": func(p tokens.Principal) error { return second(h.RollBackPolicies(ctx, p, 1)) },
		"CheckPolicies":    func(p tokens.Principal) error { return h.CheckPolicies(ctx, p, policy.Source{}) },
		"Simulate": func(p tokens.Principal) error {
			return second(h.Simulate(ctx, p, []tokens.SimQuery{{Principal: "key:" + corp.Model, Action: "token.revoke", Serial: "C1", Realm: "corp"}}, nil))
		},
		"Replay":           func(p tokens.Principal) error { return second(h.Replay(ctx, p, policy.Source{}, 5)) },
		"ApplyingPolicies": func(p tokens.Principal) error { return second(h.ApplyingPolicies(ctx, p, "key:"+corp.Model, "")) },
		"PolicySchema":     func(p tokens.Principal) error { return second(h.PolicySchema(ctx, p)) },
	}
}

func nothingKept() (*audit.Record, error) { return nil, nil }

// TestTheTableOfWhatNamesNoRealmIsWhole: sessions have tests of their own.
func TestTheTableOfWhatNamesNoRealmIsWhole(t *testing.T) {
	h := newHouse(t)
	table := realmless(h, &corpDevices{device: totp("C1")})
	elsewhere := []string{"EndSession", "CheckSession", "Me", "SignOut", "StepUp", "StepUpKey", "SignInKey", "StatementKeys"}
	for _, name := range withoutRealm {
		if table[name] == nil && !slices.Contains(elsewhere, name) {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// since are the records after a place, oldest first.
func (h *house) since(id int64) []audit.Record {
	h.Helper()
	list, _, err := h.mem.Records(ctx, tokens.RecordQuery{Limit: 1000})
	if err != nil {
		h.Fatal(err)
	}
	list = decidedBy(slices.DeleteFunc(list, func(r audit.Record) bool { return r.ID <= id }))
	slices.Reverse(list)
	return list
}

func why(r *audit.Record) string {
	for _, f := range r.Detail {
		if f.Name == "why" {
			return f.Value
		}
	}
	return ""
}

// TestEachUseCaseNamesThePoliciesThatDecided: every record that a use case leaves
// behind names the policies by which it was permitted; a refusal those that forbade it;
// and where none decided, as nothing permits it or the principal is of another realm,
// the record says that in words and names none.
func TestEachUseCaseNamesThePoliciesThatDecided(t *testing.T) {
	every := func(h *house, c *corpDevices) map[string]func(tokens.Principal) error {
		all := useCases(h, c)
		maps.Copy(all, realmless(h, c))
		return all
	}
	names := slices.Sorted(maps.Keys(every(newHouse(t), &corpDevices{device: totp("C1")})))
	// What is asked before something is done, which then is in the audit.
	silent := []string{"May", "MayImport", "MayWatch", "BeginImport", "OpenPGP", "KeyHolder", "KeyStock", "LoginHolder"}
	// The house's policies are asked where it is known who proved what: see gate_test.go.
	ungated := []string{"LoginHolder", "RefuseLogin", "Statement", "ChangePIN"}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			h, c := corpHouse(t, quick(newReceiver()))
			h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
			h.put(puts(item("night", nightShift)))
			do := every(h, c)[name]
			of := func(p tokens.Principal, outcome string, run func() error) []audit.Record {
				t.Helper()
				at := h.last().ID
				err := run()
				var mine []audit.Record
				for _, r := range h.since(at) {
					if r.Actor == p.Actor() {
						mine = append(mine, r)
					}
				}
				if denied := outcome == "denied"; denied != errors.Is(err, tokens.ErrForbidden) || !denied && err != nil {
					t.Fatalf("%s: %v", outcome, err)
				}
				if len(mine) == 0 && (outcome == "denied" || !slices.Contains(silent, name)) {
					t.Fatalf("%s: nothing is in the audit", outcome)
				}
				return mine
			}

			// Forbidden by a policy of the house. Those about policies are not asked about a
			// superuser's key, so that it is helpdesk's that is forbidden.
			scope := "admin"
			if strings.Contains(name, "Polic") || name == "Simulate" || name == "Replay" {
				scope = "helpdesk"
			}
			barred := h.key("", scope)
			h.put(puts(item("not-this-key", fmt.Sprintf("forbid (principal == Watchword::Key::%q, action, resource);", barred.ID))))
			if !slices.Contains(ungated, name) {
				for _, r := range of(barred, "denied", func() error {
					err := do(barred)
					if r := h.last(); r.Outcome == "reject" && r.Reason == "forbidden" { // attempts are told no more than that
						return tokens.ErrForbidden
					}
					return err
				}) {
					if r.Policy != "not-this-key" || r.Reason != "forbidden" {
						t.Errorf("forbidden by a policy, and audited as %+v", r)
					}
				}
			}

			// Permitted by none.
			nobody := tokens.Principal{}
			if name != "PolicySchema" && name != "SignIn" {
				if scope := leastScope(name); scope != "" {
					nobody = h.key("corp", scope)
				}
			}
			if nobody.Kind != "" {
				for _, r := range of(nobody, "denied", func() error { return do(nobody) }) {
					if r.Policy != "" || why(&r) == "" || r.Reason != "forbidden" {
						t.Errorf("permitted by none, and audited as %+v", r)
					}
				}
			}

			// Permitted by the built-in policy of superusers.
			free := h.key("", "admin")
			for _, r := range of(free, "ok", func() error { return do(free) }) {
				if r.Policy != "builtin.superuser" {
					t.Errorf("permitted, and audited as %+v", r)
				}
			}
			h.intact()
		})
	}
}

// leastScope is a scope that may not.
func leastScope(name string) string {
	switch name {
	case "Verify", "Ask", "VerifyKey", "RefuseLogin", "LoginHolder", "Statement", "ChangePIN", "CheckStatement":
		return "read"
	}
	return "verify"
}

// TestARefusalOfTheCoreNamesNoPolicy: where policies permit and the core does not, the
// record says why in words, and does not name the policies that permitted.
func TestARefusalOfTheCoreNamesNoPolicy(t *testing.T) {
	h := newHouse(t)
	h.person("root", "superuser")
	desk := h.key("", "helpdesk")
	if _, err := h.SetPIN(ctx, desk, "", "root", "081517", false); !errors.Is(err, tokens.ErrForbidden) {
		t.Fatalf("helpdesk sets a superuser's PIN: %v", err)
	}
	if r := h.last(); r.Outcome != "denied" || r.Policy != "" || !strings.Contains(why(&r), "has a role") {
		t.Errorf("audited as %+v", r)
	}
	d := h.person("second", "superuser")
	p := h.by(h.opens("second", d))
	if err := h.EndSession(ctx, h.admin, h.opens("second", d).ID); err != nil {
		t.Fatal(err)
	}
	if r := h.last(); r.Action != "session.end" || r.Policy != "builtin.superuser" {
		t.Errorf("audited as %+v", r)
	}
	h.put(puts(item("office", `permit (principal, action == Watchword::Action::"verify", resource);`)))
	h.opens("second", d)
	if r := h.last(); r.Action != "session.start" || !strings.Contains(r.Policy, "office") {
		t.Errorf("audited as %+v", r)
	}
	h.clock.forward(10 * time.Minute)
	if _, err := h.Revoke(ctx, p, "", "T-root", "gone"); !errors.Is(err, tokens.ErrMFARequired) {
		t.Fatalf("an old proof revokes: %v", err)
	}
	if r := h.last(); r.Outcome != "denied" || r.Policy != "builtin.mfa" {
		t.Errorf("audited as %+v", r)
	}
}
