package api

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"watchword/tokens"
	"watchword/tokens/policy"
)

func aPolicySet() tokens.PolicySet {
	return tokens.PolicySet{
		PolicyVersion: tokens.PolicyVersion{Version: 3, Time: testTime, Actor: "key:test", From: 1, Policies: 1, Templates: 1, Links: 1, Sum: "00ff"},
		Source: policy.Source{
			Policies:  []policy.Item{{ID: "no-revoking", Text: `forbid (principal, action, resource);`, Note: "for now"}},
			Templates: []policy.Item{{ID: "resync", Text: `permit (principal in ?principal, action, resource);`}},
			Links:     []policy.Link{{ID: "resync.corp", Template: "resync", Principal: `Watchword::Role::"x"`}},
		},
	}
}

func (s *scripted) Policies(_ context.Context, p tokens.Principal) (tokens.PolicySet, error) {
	return aPolicySet(), s.asked(p, "", "", nil)
}

func (s *scripted) PutPolicies(_ context.Context, p tokens.Principal, expect int64, edit tokens.PolicyEdit) (tokens.PolicySet, error) {
	return aPolicySet(), s.asked(p, "", "", fmt.Sprintf("%d %+v", expect, edit))
}

func (s *scripted) PolicyVersions(_ context.Context, p tokens.Principal, n int) ([]tokens.PolicyVersion, error) {
	return []tokens.PolicyVersion{aPolicySet().PolicyVersion, {Version: 2, Time: testTime}}, s.asked(p, "", "", n)
}

func (s *scripted) RollBackPolicies(_ context.Context, p tokens.Principal, version int64) (tokens.PolicySet, error) {
	return aPolicySet(), s.asked(p, "", "", version)
}

func (s *scripted) CheckPolicies(_ context.Context, p tokens.Principal, src policy.Source) error {
	if err := s.asked(p, "", "", src); err != nil {
		return err
	}
	if _, err := policy.Compile(src); err != nil {
		return fmt.Errorf("%w: the policies are not right: %w", tokens.ErrInvalid, err)
	}
	return nil
}

func (s *scripted) Simulate(_ context.Context, p tokens.Principal, list []tokens.SimQuery, draft *policy.Source) ([]tokens.SimResult, error) {
	out := make([]tokens.SimResult, len(list))
	for i, q := range list {
		out[i].Query = policy.Query{
			Principal: policy.Principal{Kind: policy.KindKey, ID: "k1", Roles: q.Roles}, Action: policy.Action(q.Action),
			Resource: policy.Resource{Type: policy.Token, Realm: "default", Serial: q.Serial},
		}
		out[i].Decision = policy.Decision{Reason: "policy x forbids it", Policies: []string{"x"}, MFA: true, Faults: []string{"x: why"}}
	}
	return out, s.asked(p, "", "", fmt.Sprintf("%+v %+v", list, draft))
}

func (s *scripted) Replay(_ context.Context, p tokens.Principal, draft policy.Source, last int) (tokens.ReplayReport, error) {
	return tokens.ReplayReport{
		Read: last, Compared: 1, Changed: 1, Denied: 1,
		Changes: []tokens.ReplayChange{{Record: 7, Time: testTime, Actor: "key:k1", Action: "token.lost", Realm: "default", User: "alice", Serial: "A1", Was: true, WasPolicies: []string{"a"}, NowPolicies: []string{"b"}, Reason: "no"}},
		Left:    []tokens.ReplayLeft{{Why: "gone", Count: 1, Records: []int64{6}}},
	}, s.asked(p, "", "", last)
}

func (s *scripted) ApplyingPolicies(_ context.Context, p tokens.Principal, principal, resource string) ([]policy.Applied, error) {
	return []policy.Applied{
		{ID: "a", Effect: "permit", BuiltIn: true},
		{ID: "b", Effect: "forbid", Template: "t", Conditional: true, Actions: []string{"verify"}},
	}, s.asked(p, "", "", principal+" "+resource)
}

// policyCalls are calls that try policies, for the contract.
var policyCalls = []call{
	{"GET", "/v1/policies", "", 200, ""},
	{"PUT", "/v1/policies", `{"version":3,"put":[{"id":"a","text":"x","note":"n"}],"delete":["b"],"put_templates":[{"id":"t","text":"x"}],"delete_templates":["u"],"put_links":[{"id":"l","template":"t","principal":"p","resource":"r"}],"delete_links":["m"]}`, 200, ""},
	{"GET", "/v1/policies/versions", "", 200, ""},
	{"POST", "/v1/policies/rollback", `{"version":2}`, 200, ""},
	{"POST", "/v1/policies/rollback", `{"version":0}`, 200, ""},
	{"POST", "/v1/policies/check", `{"policies":[{"id":"a","text":"permit (principal, action, resource);"}],"templates":[],"links":[]}`, 204, ""},
	{"POST", "/v1/policies/simulate", `{"queries":[{"principal":"key:k1","action":"token.lost","serial":"A1"}]}`, 200, ""},
	{"POST", "/v1/policies/simulate", `{"queries":[{"roles":["helpdesk"],"in":"corp","action":"verify","realm":"corp","user":"alice","serial":"A1","groups":["staff"],"token":{"type":"fido","model":"m","aaguid":"x","attested":true,"unused_days":3},"at":"2026-03-02T09:00:00Z","source":"192.0.2.1","path":"radius","mfa_age":5,"nas":"vpn","caller":"2001:db8::1"}],"draft":{"policies":[]}}`, 200, ""},
	{"POST", "/v1/policies/replay", `{"draft":{},"last":100}`, 200, ""},
	{"GET", "/v1/policies/applying", "", 200, ""},
	{"GET", "/v1/policies/applying?principal=role:helpdesk&resource=user:default/alice", "", 200, ""},
	{"GET", "/v1/policies/schema", "", 200, ""},
	{"GET", "/v1/policies/no-revoking", "", 200, ""},
	{"PUT", "/v1/policies/no-revoking", `{"text":"x","note":"n","version":0}`, 200, ""},
	{"DELETE", "/v1/policies/no-revoking?version=3", "", 200, ""},
	{"GET", "/v1/policies/templates/resync", "", 200, ""},
	{"PUT", "/v1/policies/templates/resync", `{"text":"x"}`, 200, ""},
	{"DELETE", "/v1/policies/templates/resync", "", 200, ""},
	{"DELETE", "/v1/policies/templates/resync?version=1", "", 200, ""},
	{"POST", "/v1/policies/links", `{"links":[{"id":"l","template":"t"}],"version":1}`, 200, ""},
	{"GET", "/v1/policies/links/resync.corp", "", 200, ""},
	{"PUT", "/v1/policies/links/resync.corp", `{"template":"t","principal":"p","resource":"r","version":2}`, 200, ""},
	{"DELETE", "/v1/policies/links/resync.corp?version=1", "", 200, ""},
}

func init() { calls = append(calls, policyCalls...) }

// asks makes one call.
func asks(t *testing.T, core *scripted, c call) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	newServer(t, core).Handler().ServeHTTP(w, c.request())
	return w
}

func TestPoliciesReachTheCore(t *testing.T) {
	for _, c := range []struct {
		call
		want string
	}{
		{call{"PUT", "/v1/policies/a", `{"text":"x"}`, 200, ""}, "-1 {Put:[{ID:a Text:x Note:}] Delete:[] PutTemplates:[] DeleteTemplates:[] PutLinks:[] DeleteLinks:[]}"},
		{call{"PUT", "/v1/policies/templates/a", `{"text":"x","version":0}`, 200, ""}, "0 {Put:[] Delete:[] PutTemplates:[{ID:a Text:x Note:}] DeleteTemplates:[] PutLinks:[] DeleteLinks:[]}"},
		{call{"DELETE", "/v1/policies/a?version=4", "", 200, ""}, "4 {Put:[] Delete:[a] PutTemplates:[] DeleteTemplates:[] PutLinks:[] DeleteLinks:[]}"},
		{call{"DELETE", "/v1/policies/templates/a", "", 200, ""}, "-1 {Put:[] Delete:[] PutTemplates:[] DeleteTemplates:[a] PutLinks:[] DeleteLinks:[]}"},
		{call{"DELETE", "/v1/policies/links/a", "", 200, ""}, "-1 {Put:[] Delete:[] PutTemplates:[] DeleteTemplates:[] PutLinks:[] DeleteLinks:[a]}"},
		{call{"PUT", "/v1/policies/links/a", `{"template":"t","resource":"r"}`, 200, ""}, "-1 {Put:[] Delete:[] PutTemplates:[] DeleteTemplates:[] PutLinks:[{ID:a Template:t Principal: Resource:r}] DeleteLinks:[]}"},
	} {
		core := &scripted{}
		w := asks(t, core, c.call)
		if got := strings.ReplaceAll(fmt.Sprint(core.arg), "<nil>", "[]"); w.Code != c.status || got != c.want {
			t.Errorf("%s %s: %d %s\n%s", c.method, c.path, w.Code, w.Body, got)
		}
	}
}

func TestWhatIsWrongWithPoliciesIsNamedWithItsPlace(t *testing.T) {
	w := asks(t, &scripted{}, call{"POST", "/v1/policies/check", `{"policies":[{"id":"a","text":"permit (principal, action, resource)\nwhen { context.hour = 9 };"}]}`, 400, ""})
	for _, want := range []string{`"problems":[{`, `"id":"a"`, `"line":2`, `"column":21`, `"says":`} {
		if w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%d %s, want %s", w.Code, w.Body, want)
		}
	}
	w = asks(t, &scripted{err: errors.Join(tokens.ErrMFARequired)}, call{"PUT", "/v1/policies/a", `{"text":"x"}`, 403, ""})
	if w.Code != 403 || !strings.Contains(w.Body.String(), "mfa-required") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func (s *scripted) PolicySchema(_ context.Context, p tokens.Principal) (string, error) {
	return "namespace Watchword {}", s.asked(p, "", "", nil)
}
