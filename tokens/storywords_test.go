package tokens

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// policyActions are all that the policy knows, from its source.
func policyActions(t *testing.T) []policy.Action {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "policy/action.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []policy.Action
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if of, ok := v.Type.(*ast.Ident); ok && of.Name == "Action" {
				text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, policy.Action(text))
			}
		}
		return true
	})
	if len(all) < 60 {
		t.Fatalf("the policy knows %d actions", len(all))
	}
	return all
}

// Each act on a user or a token is told in words of its own.
func TestEachActHasItsSentence(t *testing.T) {
	s := new(Service)
	s.reg.Store(&registry{})
	about := func(a policy.Action) bool {
		kind, _, _ := strings.Cut(string(a), ".")
		switch a {
		case policy.UserList, policy.UserImport, policy.TokenList, policy.TokenBulk: // of many
			return false
		case policy.KeyEnrol:
			return true
		}
		return kind == "user" || kind == "token" || kind == "invitation" || kind == "recovery" || kind == "temporary"
	}
	n := 0
	for _, a := range policyActions(t) {
		for _, outcome := range []string{"ok", "refused", "denied", "error"} {
			r := audit.Record{Event: audit.Event{Action: string(a), Outcome: outcome, User: "alice", Serial: "T1", Actor: "key:0011", Reason: "state"}}
			text := s.sentence(&r)
			if strings.Contains(text, "TOKEN") || strings.Contains(text, "USER") || !strings.HasSuffix(text, ".") || strings.Contains(text, "..") {
				t.Errorf("%s, %s: %s", a, outcome, text)
			}
			if about(a) && !looksOnly(&r) {
				n++
				if _, ok := deeds[a]; !ok && outcome != "denied" {
					t.Errorf("%s has no words of its own: %s", a, text)
				}
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d acts are about a user or a token", n)
	}
	for _, r := range allReasons(t) {
		if text := s.sentence(&audit.Record{Event: audit.Event{Action: "verify", Outcome: "reject", Reason: r, User: "alice"}}); !strings.HasSuffix(text, ".") {
			t.Errorf("a login refused for %s: %s", r, text)
		}
	}
}

// allReasons are the constants of type Reason.
func allReasons(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "decide.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if of, ok := v.Type.(*ast.Ident); ok && of.Name == "Reason" {
				text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, text)
			}
		}
		return true
	})
	if len(all) < 25 {
		t.Fatalf("there are %d reasons", len(all))
	}
	return all
}

// What a record's details say is told, each act's in its own way.
func TestParticularsAreTold(t *testing.T) {
	s := new(Service)
	s.reg.Store(&registry{keys: map[string]*heldKey{"0011": {APIKey: APIKey{ID: "0011", Name: "Anna of the helpdesk"}}}})
	for _, c := range []struct {
		action  policy.Action
		details []audit.Field
		want    string
	}{
		{policy.TokenAssign, []audit.Field{{Name: "replaces", Value: "T0"}, {Name: "from", Value: "imported"}, {Name: "to", Value: "pending"}}, `Token T1 was given to alice by the API key "Anna of the helpdesk", in the place of T0; it waits for two codes of it, or, if it is a key, for its owner to sign in with it.`},
		{policy.TokenAssign, []audit.Field{{Name: "batch", Value: "7"}, {Name: "to", Value: "active"}}, `Token T1 was given to alice by the API key "Anna of the helpdesk", as import 7 said.`},
		{policy.TokenReplace, []audit.Field{{Name: "by", Value: "T2"}, {Name: "reason", Value: "broken"}}, `Token T1 was replaced by the API key "Anna of the helpdesk", with T2. The reason given: "broken".`},
		{policy.TokenExpire, []audit.Field{{Name: "from", Value: "never"}, {Name: "to", Value: "2026-12-31T00:00:00Z"}}, `The expiry of token T1 was changed by the API key "Anna of the helpdesk", from never to 2026-12-31T00:00:00Z.`},
		{policy.TokenNote, []audit.Field{{Name: "note", Value: "a\nb"}, {Name: "tags_added", Value: "x,y"}}, `Token T1 was noted on by the API key "Anna of the helpdesk": note "a b", tags added "x,y".`},
		{policy.RecoveryAdd, []audit.Field{{Name: "codes", Value: "10"}}, `Recovery codes were made for alice (sheet T1) by the API key "Anna of the helpdesk": 10 codes.`},
		{policy.TemporaryAdd, []audit.Field{{Name: "uses", Value: "1"}, {Name: "expires", Value: "2026-03-02T08:00:00Z"}}, `A temporary passcode was made for alice (T1) by the API key "Anna of the helpdesk": good for 1 use, until 2026-03-02T08:00:00Z.`},
		{policy.TokenResync, []audit.Field{{Name: "factor", Value: "9"}, {Name: "drift", Value: "-3"}}, `Token T1 was resynchronised by the API key "Anna of the helpdesk"; its clock is off by -3 time steps.`},
		{policy.TokenLost, []audit.Field{{Name: "from", Value: "suspended"}, {Name: "to", Value: "lost"}}, `Token T1 was marked lost by the API key "Anna of the helpdesk"; it had been suspended.`},
		{policy.UserPINChange, nil, `alice chose a new PIN.`},
	} {
		r := audit.Record{Event: audit.Event{Action: string(c.action), Outcome: "ok", User: "alice", Serial: "T1", Actor: "key:0011", Detail: c.details}}
		if got := s.sentence(&r); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.action, got, c.want)
		}
	}
}
