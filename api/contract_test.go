package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"watchword/seeds"
	"watchword/tokens"
)

func init() {
	openapi3filter.RegisterBodyDecoder("image/svg+xml", openapi3filter.FileBodyDecoder) // as a text
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", openapi3filter.FileBodyDecoder)
}

func loadContract(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(contract)
	if err != nil {
		t.Fatal(err)
	}
	// Validate holds the examples against their schemas, too.
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, router
}

// call is a request that a test makes of an operation.
type call struct {
	method, path, body string
	status             int
	contentType        string // default application/json if there is a body
}

// someRules are the rules of a realm, each other than it is without.
const someRules = `{"max_tokens":12,"activation":"codes","pin":{"min":6,"max":16,"sequences":true,"change":true},` +
	`"recovery":{"allow":false,"codes":8},"temporary":{"allow":true,"valid_hours":48,"uses":3}}`

var calls = []call{
	{"POST", "/v1/verify", `{"user":"alice","code":"755224"}`, 200, ""},
	{"POST", "/v1/verify", `{"user":"alice","code":"000000","realm":"corp"}`, 200, ""},
	{"GET", "/v1/users", "", 200, ""},
	{"GET", "/v1/users?realm=corp&q=ali&cursor=17&limit=5", "", 200, ""},
	{"POST", "/v1/users", `{"name":"alice"}`, 201, ""},
	{"GET", "/v1/users/alice", "", 200, ""},
	{"POST", "/v1/users/alice/enable", "", 200, ""},
	{"POST", "/v1/users/alice/disable", `{"realm":"corp"}`, 200, ""},
	{"POST", "/v1/users/alice/unlock", "", 200, ""},
	{"PUT", "/v1/users/alice/pin", `{"pin":"4711"}`, 200, ""},
	{"DELETE", "/v1/users/alice/pin", "", 200, ""},
	{"GET", "/v1/users/alice/why?limit=3", "", 200, ""},
	{"GET", "/v1/users?external_id=4711&group=staff", "", 200, ""},
	{"GET", "/v1/tokens", "", 200, ""},
	{"GET", "/v1/tokens?type=totp&tag=berlin", "", 200, ""},
	{"GET", "/v1/tokens?realm=corp&user=alice&state=active&q=24&batch=1&cursor=1&limit=500", "", 200, ""},
	{"GET", "/v1/tokens/24680017", "", 200, ""},
	{"POST", "/v1/tokens/24680017/assign", `{"user":"alice"}`, 200, ""},
	{"POST", "/v1/tokens/24680017/unassign", "", 200, ""},
	{"POST", "/v1/tokens/24680017/suspend", `{"reason":"left at home"}`, 200, ""},
	{"POST", "/v1/tokens/24680017/resume", `{"reason":"found"}`, 200, ""},
	{"POST", "/v1/tokens/24680017/lost", "", 200, ""},
	{"POST", "/v1/tokens/24680017/revoke", "", 200, ""},
	{"POST", "/v1/tokens/24680017/resync", `{"code1":"755224","code2":"287082"}`, 200, ""},
	{"POST", "/v1/tokens/24680017/unlock", "", 200, ""},
	{"POST", "/v1/tokens/24680017/activate", `{"code1":"755224","code2":"287082"}`, 200, ""},
	{"PATCH", "/v1/tokens/24680017", `{"note":"scratched\nand old","add_tags":["berlin"],"drop_tags":["spare"]}`, 200, ""},
	{"PATCH", "/v1/tokens/bulk", `{"note":""}`, 200, ""},
	{"PUT", "/v1/tokens/24680017/expiry", `{"expires":"2027-12-31T23:00:00Z"}`, 200, ""},
	{"PUT", "/v1/tokens/24680017/expiry?realm=corp", `{"expires":null}`, 200, ""},
	{"POST", "/v1/tokens/24680017/replace", `{"by":"24680018","reason":"broken"}`, 200, ""},
	{"POST", "/v1/tokens/24680017/lost", `{"reason":"train","temporary":{}}`, 200, ""},
	{"POST", "/v1/tokens/24680017/lost", `{"temporary":{"valid_minutes":480,"uses":3}}`, 200, ""},
	{"POST", "/v1/users/alice/recovery", "", 201, ""},
	{"POST", "/v1/users/alice/recovery", `{"realm":"corp"}`, 201, ""},
	{"POST", "/v1/users/alice/temporary", "", 201, ""},
	{"POST", "/v1/users/alice/temporary", `{"valid_minutes":480,"uses":3}`, 201, ""},
	{"POST", "/v1/users/alice/tokens", "", 201, ""},
	{"POST", "/v1/users/alice/tokens?realm=corp", `{"type":"totp","issuer":"Example","algorithm":"sha512","digits":8,"period":60}`, 201, ""},
	{"POST", "/v1/users?realm=corp", `{"name":"alice","display":"Alice Example","mail":"alice@example.com","external_id":"4711","groups":["staff"],"attributes":{"site":"Berlin"}}`, 201, ""},
	{"PATCH", "/v1/users/alice", `{"display":"Alice","mail":"","attributes":{"site":"Bonn","desk":null}}`, 200, ""},
	{"PATCH", "/v1/users/alice?realm=corp", `{}`, 200, ""},
	{"PUT", "/v1/users/alice/pin", `{"pin":"4711","change":true}`, 200, ""},
	{"POST", "/v1/tokens/bulk", `{"act":"revoke","serials":["A1","A2"],"reason":"recalled"}`, 200, ""},
	{"POST", "/v1/tokens/bulk?realm=corp", `{"act":"tag","select":{"user":"alice","state":"active","type":"totp","q":"24","tag":"old","batch":3},"tags":["spare"],"dry_run":true}`, 200, ""},
	{"POST", "/v1/tokens/bulk", `{"act":"expire","serials":["A1"],"expires":null}`, 200, ""},
	{"POST", "/v1/tokens/bulk", `{"act":"note","serials":["A1"],"note":""}`, 200, ""},
	{"GET", "/v1/reports/credentials", "", 200, ""},
	{"GET", "/v1/reports/credentials?format=csv&unowned=true&unused_days=30&find=sha1&realm=corp", "", 200, ""},
	{"GET", "/v1/reports/summary", "", 200, ""},
	{"GET", "/v1/reports/summary?unused_days=30&realm=corp", "", 200, ""},
	{"POST", "/v1/pin", `{"user":"alice","code":"4711755224","new_pin":"280714"}`, 200, ""},
	{"POST", "/v1/pin?realm=corp", `{"user":"alice","code":"4711000000","new_pin":"280714"}`, 200, ""},
	{"GET", "/v1/tokens/24680017/drift", "", 200, ""},
	{"GET", "/v1/tokens/24680017/drift?format=json&realm=corp", "", 200, ""},
	{"GET", "/v1/tokens/24680017/drift?format=svg", "", 200, ""},
	{"GET", "/v1/tokens/24680017/drift?format=text", "", 200, ""},
	{"GET", "/v1/tokens/24680017/story", "", 200, ""},
	{"GET", "/v1/users/alice/story?cursor=9&limit=2&realm=corp", "", 200, ""},
	{"POST", "/v1/users/import", "name,display\nalice,Alice\nbob,Bob\n", 200, "text/csv"},
	{"POST", "/v1/users/import?realm=corp&dry_run=true&update=true", "name\nbad\n", 200, "text/csv; charset=UTF-8"},
	{"GET", "/v1/users/export", "", 200, ""},
	{"GET", "/v1/users/export?realm=corp", "", 200, ""},
	{"GET", "/v1/users/%65xport", "", 200, ""},
	{"GET", "/v1/users/import", "", 200, ""},
	{"GET", "/v1/tokens/bulk", "", 200, ""},
	{"GET", "/v1/realms", "", 200, ""},
	{"GET", "/v1/realms/corp/rules", "", 200, ""},
	{"PUT", "/v1/realms/corp/rules", `{"version":3,"rules":` + someRules + `}`, 200, ""},
	{"PUT", "/v1/realms/*/rules", `{"rules":` + someRules + `}`, 200, ""},
	{"DELETE", "/v1/realms/corp/rules", "", 200, ""},
	{"GET", "/v1/imports?cursor=3&limit=5&realm=corp", "", 200, ""},
	{"POST", "/v1/imports?dry_run=true&partial=false&all=1&format=auto&name=x.csv&realm=corp", "A1,00", 200, "application/octet-stream"},
	{"POST", "/v1/imports?type=totp&hash=sha256&digits=8&period=60&encoding=base32&time_origin=1970-01-01T00:00:00Z&allow_rsa_1_5=true&allow_host_unwrap=true&assign=true&create_users=true", "A1,00", 200, "application/octet-stream"},
	{"GET", "/v1/imports/17", "", 200, ""},
	{"POST", "/v1/imports/17/undo", "", 200, ""},
	{"GET", "/v1/sinks", "", 200, ""},
	{"GET", "/v1/sinks/siem", "", 200, ""},
	{"PUT", "/v1/sinks/siem", `{"kind":"syslog","address":"tls://logs.example.org:6514","server_name":"logs","ca":"x","certificate":"x","key":"x","from":"now"}`, 200, ""},
	{"PUT", "/v1/sinks/archive", `{"kind":"file","format":"ocsf","max_bytes":1048576,"keep":3,"from":"start"}`, 200, ""},
	{"PUT", "/v1/sinks/pager", `{"kind":"webhook","url":"https://hooks.example.org/","events":["token.lost"],"new_secret":true}`, 200, ""},
	{"PUT", "/v1/sinks/pager?dry_run=true", `{"kind":"webhook","url":"https://hooks.example.org/","secret":"whsec_Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="}`, 200, ""},
	{"POST", "/v1/sinks/siem/test", "", 204, ""},
	{"DELETE", "/v1/sinks/siem", "", 204, ""},
	{"GET", "/v1/clients?realm=corp", "", 200, ""},
	{"GET", "/v1/clients", "", 200, ""},
	{"POST", "/v1/clients", `{"name":"vpn","prefix":"192.0.2.10","secret":"0123456789abcdef"}`, 201, ""},
	{"POST", "/v1/clients", `{"name":"vpn","prefix":"192.0.2.10","secret":"0123456789abcdef","methods":["chap"],"dialogues":["pin","next_code"],"joined":["new_pin"],"rate":5,` +
		`"replies":[{"group":"Staff","attributes":[{"name":"Class","value":"x"}]}],"messages":{"reject":"no"}}`, 201, ""},
	{"PUT", "/v1/clients/vpn", `{"prefix":"192.0.2.0/28","secret":"0123456789abcdef","require_message_authenticator":false,"name_rule":"strip"}`, 200, ""},
	{"DELETE", "/v1/clients/vpn", "", 204, ""},
	{"POST", "/v1/clients/vpn/test", `{"user":"alice","code":"755224","method":"mschapv2","nas":"gate","caller":"192.0.2.44","state":"AAEC"}`, 200, ""},
	{"POST", "/v1/clients/vpn/test", `{}`, 200, ""},
	{"GET", "/v1/radius/watch", "", 200, ""},
	{"GET", "/v1/radius/watch?client=vpn&user=alice&realm=corp", "", 200, ""},
	{"GET", "/v1/keys", "", 200, ""},
	{"POST", "/v1/keys", `{"name":"desk","scope":"helpdesk","realm":"corp","expires":"2027-01-01T00:00:00Z"}`, 201, ""},
	{"DELETE", "/v1/keys/k1", "", 204, ""},
	{"POST", "/v1/keys", `{"name":"vpn","scope":"role:night-shift","sources":["192.0.2.0/24","2001:db8::1"]}`, 201, ""},
	{"POST", "/v1/keys/k1/rotate", "", 201, ""},
	{"POST", "/v1/keys/k1/rotate", `{"overlap_seconds":86400}`, 201, ""},
	{"GET", "/v1/roles?realm=corp", "", 200, ""},
	{"PUT", "/v1/roles/helpdesk/users/alice", "", 200, ""},
	{"PUT", "/v1/roles/night-shift/users/alice?realm=corp&in=*", "", 200, ""},
	{"DELETE", "/v1/roles/helpdesk/users/alice?in=corp", "", 204, ""},
	{"POST", "/v1/session", `{"user":"alice","code":"4711755224"}`, 201, ""},
	{"POST", "/v1/session?realm=corp", `{"user":"alice","code":"4711755224","in":"*","duration_seconds":3600}`, 201, ""},
	{"POST", "/v1/session", `{"user":"alice","code":"000000"}`, 200, ""},
	{"GET", "/v1/session", "", 200, ""},
	{"DELETE", "/v1/session", "", 204, ""},
	{"POST", "/v1/session/renew", `{"code":"4711755224"}`, 200, ""},
	{"POST", "/v1/session/renew", `{"code":"000000"}`, 200, ""},
	{"POST", "/v1/session/check", `{"session":"wsn_9c1e5a7702f4d3b8_x"}`, 200, ""},
	{"POST", "/v1/session/check", `{"session":"x"}`, 200, ""},
	{"GET", "/v1/sessions", "", 200, ""},
	{"GET", "/v1/sessions?realm=corp&user=alice", "", 200, ""},
	{"DELETE", "/v1/sessions/9c1e5a7702f4d3b8", "", 204, ""},
	{"POST", "/v1/webauthn/login/finish", `{"session":"c2Vzc2lvbg","response":{"id":"AAAA"},"sign_in":{"duration_seconds":3600}}`, 200, ""},
	{"GET", "/v1/audit", "", 200, ""},
	{"GET", "/v1/audit?realm=corp&user=alice&serial=A1&action=verify&outcome=reject&cursor=9&limit=1", "", 200, ""},
	{"GET", "/v1/audit?actor=key:k1&policy=builtin.helpdesk&since=2025-11-01T00:00:00Z&until=2025-12-01T00:00:00Z", "", 200, ""},
	{"GET", "/v1/audit/verify", "", 200, ""},
	{"POST", "/v1/audit/verify", `{"chain":3,"seq":7,"time":"2025-11-03T10:02:11Z","hash":"` + strings.Repeat("a", 64) + `"}` + "\n", 200, "application/x-ndjson"},
	{"GET", "/v1/audit/export", "", 200, ""},
	{"GET", "/v1/audit/export?format=jsonl&realm=corp&user=alice&serial=A1&action=verify&outcome=reject", "", 200, ""},
	{"GET", "/v1/audit/export?format=csv&actor=key:k1&policy=builtin.helpdesk&since=2025-11-01T00:00:00Z&until=2025-12-01T00:00:00Z", "", 200, ""},
	{"POST", "/v1/audit/checkpoint", "", 200, ""},
	{"POST", "/v1/audit/cut", `{"before":"2025-01-01T00:00:00Z","dry_run":true}`, 200, ""},
	{"POST", "/v1/audit/cut", `{"before":"2025-01-01T00:00:00Z"}`, 200, ""},
	{"POST", "/v1/verify", `{"user":"alice","code":"755224","statement":{"audience":"https://wiki.example.com","nonce":"n","ttl":60}}`, 200, ""},
	{"POST", "/v1/webauthn/register/begin?realm=corp", `{"user":"alice","rp_id":"example.com","discoverable":true}`, 200, ""},
	{"POST", "/v1/webauthn/register/begin", `{"user":"alice"}`, 200, ""},
	{"POST", "/v1/webauthn/register/finish", `{"session":"c2Vzc2lvbg","response":{"id":"AAAA"}}`, 201, ""},
	{"POST", "/v1/webauthn/login/begin", `{"user":"alice","realm":"corp","user_verification":"required"}`, 200, ""},
	{"POST", "/v1/webauthn/login/begin", `{}`, 200, ""},
	{"POST", "/v1/webauthn/login/finish", `{"session":"c2Vzc2lvbg","response":{"id":"AAAA"}}`, 200, ""},
	{"POST", "/v1/webauthn/login/finish", `{"session":"c2Vzc2lvbg","response":{"id":"AAAA"},"statement":{"audience":"wiki"}}`, 200, ""},
	{"POST", "/v1/webauthn/login/finish", `{"session":"another","response":{}}`, 200, ""},
	{"POST", "/v1/statements/check", `{"statement":"e30.e30.c2ln","audience":"wiki","max_age":900}`, 200, ""},
	{"POST", "/v1/statements/check", `{"statement":"e30","audience":"wiki"}`, 200, ""},
	{"GET", "/v1/statements/keys", "", 200, ""},
	{"POST", "/v1/statements/keys", "", 200, ""},
	{"POST", "/v1/statements/keys", `{"now":true}`, 200, ""},
	{"POST", "/v1/users/alice/invitations", "", 201, ""},
	{"POST", "/v1/users/alice/invitations", `{"kinds":["fido"],"valid":3600,"realm":"corp"}`, 201, ""},
	{"GET", "/v1/users/alice/invitations?realm=corp", "", 200, ""},
	{"DELETE", "/v1/invitations/17", "", 204, ""},
	{"GET", "/v1/users/alice/groups", "", 200, ""},
	{"PUT", "/v1/users/alice/groups?realm=corp", `{"groups":["staff","board"]}`, 200, ""},
	{"PUT", "/v1/users/alice/groups", `{"groups":[]}`, 200, ""},
	{"GET", "/v1/fido/metadata", "", 200, ""},
	{"POST", "/v1/fido/metadata", "e30.e30.c2ln", 200, "application/octet-stream"},
	{"GET", "/v1/fido/models?q=key&aaguid=01020304-0506-0708-0102-030405060708&cursor=x&limit=2", "", 200, ""},
	{"GET", "/v1/fido/models", "", 200, ""},
	{"GET", "/v1/fido/allowed?aaguid=01020304-0506-0708-0102-030405060708&groups=board,staff&realm=corp", "", 200, ""},
	{"GET", "/v1/fido/allowed?aaguid=01020304-0506-0708-0102-030405060708", "", 200, ""},
	{"GET", "/v1/fido/rules", "", 200, ""},
	{"PUT", "/v1/fido/rules", `{"version":0,"rules":{"default":{"synced":true},"realms":{"lab":{"allow_unknown":true,"groups":{"board":{}}}}}}`, 200, ""},
	{"GET", "/v1/fido/roots", "", 200, ""},
	{"PUT", "/v1/fido/roots", `{"pem":""}`, 200, ""},
	{"GET", "/v1/fido/concerns", "", 200, ""},
	{"GET", "/.well-known/jwks.json", "", 200, ""},
	{"GET", "/.well-known/webauthn", "", 200, ""},
	{"GET", "/.well-known/webauthn?rp_id=example.net", "", 200, ""},
	{"GET", "/openapi.yaml", "", 200, ""},
	{"GET", "/healthz", "", 200, ""},
	{"GET", "/readyz", "", 200, ""},
	{"GET", "/metrics", "", 200, ""},
}

// request makes a call's request, anew each time: its body is read once.
func (c call) request() *http.Request {
	r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
	if c.body == "" {
		r = httptest.NewRequest(c.method, c.path, nil)
	}
	r.Header.Set("Authorization", "Bearer "+testKey)
	switch {
	case c.contentType != "":
		r.Header.Set("Content-Type", c.contentType)
	case c.body != "":
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// conforms fails the test if the answer is none that the contract knows.
func conforms(t *testing.T, router routers.Router, c call, w *httptest.ResponseRecorder) string {
	t.Helper()
	r := c.request()
	route, params, err := router.FindRoute(r)
	if err != nil {
		t.Fatalf("%s %s is not in the contract: %v", c.method, c.path, err)
	}
	in := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	if w.Code < 300 {
		if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil {
			t.Errorf("%s %s: we accepted what the contract does not: %v", c.method, c.path, err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: w.Code, Header: w.Header(), Body: io.NopCloser(bytes.NewReader(w.Body.Bytes())), Options: in.Options,
	}
	if err := openapi3filter.ValidateResponse(r.Context(), out); err != nil {
		t.Errorf("%s %s: %d %s: %v", c.method, c.path, w.Code, w.Body, err)
	}
	return route.Operation.OperationID
}

func TestEveryOperationAnswersAsTheContractSays(t *testing.T) {
	doc, router := loadContract(t)
	done := map[string]bool{}
	for _, rows := range []int{1, 1000} {
		s := newServer(t, &scripted{rows: rows})
		for _, c := range calls {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, c.request())
			if w.Code != c.status {
				t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
				continue
			}
			done[conforms(t, router, c, w)] = true
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !done[op.OperationID] {
				t.Errorf("%s %s was never called", method, path)
			}
		}
	}
}

func TestEveryOperationFailsAsTheContractSays(t *testing.T) {
	_, router := loadContract(t)
	for _, tt := range []struct {
		err    error
		status int
	}{
		{tokens.ErrInvalid, 400}, {tokens.ErrForbidden, 403}, {io.ErrClosedPipe, 500}, {tokens.ErrUnavailable, 503}, {tokens.ErrOverloaded, 503}, {tokens.ErrUnknownKey, 401},
	} {
		s := newServer(t, &scripted{err: tt.err}, func(c *Config) {
			c.Ready = func() []tokens.Problem { return []tokens.Problem{{Part: "hsm", Says: "CKR_DEVICE_ERROR"}} }
		})
		for _, c := range calls {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, c.request())
			if strings.HasPrefix(c.path, "/v1/") && w.Code != tt.status {
				t.Errorf("%v: %s %s: %d %s", tt.err, c.method, c.path, w.Code, w.Body)
			}
			conforms(t, router, c, w)
		}
	}
	// What only some operations can answer.
	for _, tt := range []struct {
		err  error
		call call
	}{
		{tokens.ErrNotFound, call{"GET", "/v1/users/bob", "", 404, ""}},
		{tokens.ErrNotFound, call{"GET", "/v1/users/bob/why", "", 404, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/users/bob/unlock", "", 404, ""}},
		{tokens.ErrNotFound, call{"PUT", "/v1/users/bob/pin", `{"pin":"4711"}`, 404, ""}},
		{tokens.ErrNotFound, call{"GET", "/v1/tokens/B", "", 404, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/tokens/B/assign", `{"user":"alice"}`, 404, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/tokens/B/unlock", "", 404, ""}},
		{tokens.ErrNotFound, call{"GET", "/v1/imports/9", "", 404, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/imports/9/undo", "", 404, ""}},
		{tokens.ErrState, call{"POST", "/v1/imports?assign=true", "A1,00", 409, "application/octet-stream"}},
		{nil, call{"GET", "/v1/imports/nine", "", 400, ""}},
		{nil, call{"POST", "/v1/imports?type=ocra", "A1,00", 400, "application/octet-stream"}},
		{nil, call{"POST", "/v1/imports?hash=md5", "A1,00", 400, "application/octet-stream"}},
		{nil, call{"POST", "/v1/imports?digits=5", "A1,00", 400, "application/octet-stream"}},
		{nil, call{"POST", "/v1/imports?digits=0", "A1,00", 400, "application/octet-stream"}},
		{nil, call{"POST", "/v1/imports?period=0", "A1,00", 400, "application/octet-stream"}},
		{nil, call{"POST", "/v1/imports?encoding=base64", "A1,00", 400, "application/octet-stream"}},
		{nil, call{"POST", "/v1/imports?time_origin=2000", "A1,00", 400, "application/octet-stream"}},
		{nil, call{"POST", "/v1/imports?pgp_key=secret", "A1,00", 400, "application/octet-stream"}},
		{tokens.ErrNotFound, call{"DELETE", "/v1/clients/b", "", 404, ""}},
		{tokens.ErrNotFound, call{"DELETE", "/v1/keys/b", "", 404, ""}},
		{tokens.ErrExists, call{"POST", "/v1/users", `{"name":"alice"}`, 409, ""}},
		{tokens.ErrExists, call{"POST", "/v1/clients", `{"name":"vpn","prefix":"192.0.2.1","secret":"s"}`, 409, ""}},
		{tokens.ErrExists, call{"PUT", "/v1/clients/vpn", `{"prefix":"192.0.2.1","secret":"s"}`, 409, ""}},
		{tokens.ErrState, call{"POST", "/v1/tokens/A/resume", "", 409, ""}},
		{tokens.ErrState, call{"DELETE", "/v1/keys/last", "", 409, ""}},
		{tokens.ErrTampered, call{"POST", "/v1/tokens/A/suspend", "", 409, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/webauthn/register/begin", `{"user":"bob"}`, 404, ""}},
		{tokens.ErrExists, call{"POST", "/v1/webauthn/register/finish", `{"session":"s","response":{}}`, 409, ""}},
		{tokens.ErrState, call{"POST", "/v1/webauthn/register/finish", `{"session":"s","response":{}}`, 409, ""}},
		{nil, call{"POST", "/v1/webauthn/register/finish", `{"session":"s","response":[]}`, 400, ""}},
		{nil, call{"POST", "/v1/webauthn/register/finish", `{"session":"s"}`, 400, ""}},
		{nil, call{"POST", "/v1/webauthn/login/finish", `{"session":"s","response":"x"}`, 400, ""}},
		{nil, call{"POST", "/v1/webauthn/login/finish", `{"session":"s","response":{},"statement":{"audience":""}}`, 400, ""}},
		{nil, call{"POST", "/v1/webauthn/login/begin", `{"user_verification":"perhaps"}`, 400, ""}},
		{nil, call{"POST", "/v1/webauthn/login/begin", `{"user":"` + strings.Repeat("a", maxJSON) + `"}`, 413, ""}},
		{nil, call{"POST", "/v1/verify", `{"user":"alice","code":"755224","statement":{"audience":"x","ttl":0}}`, 400, ""}},
		{nil, call{"POST", "/v1/verify", `{"user":"alice","code":"755224","statement":{"audience":"x","ttl":3601}}`, 400, ""}},
		{nil, call{"POST", "/v1/statements/check", `{"statement":"x","audience":"y","max_age":0}`, 400, ""}},
		{tokens.ErrState, call{"POST", "/v1/statements/keys", "", 409, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/users/bob/invitations", "", 404, ""}},
		{tokens.ErrState, call{"POST", "/v1/users/bob/invitations", "", 409, ""}},
		{tokens.ErrNotFound, call{"DELETE", "/v1/invitations/9", "", 404, ""}},
		{tokens.ErrNotFound, call{"GET", "/v1/users/bob/groups", "", 404, ""}},
		{tokens.ErrNotFound, call{"PUT", "/v1/users/bob/groups", `{"groups":["a"]}`, 404, ""}},
		{tokens.ErrState, call{"PUT", "/v1/fido/rules", `{"version":2,"rules":{"default":{}}}`, 409, ""}},
		{nil, call{"PUT", "/v1/fido/rules", `{"version":2,"rules":{"default":{"alow_unknown":true}}}`, 400, ""}},
		{nil, call{"PUT", "/v1/fido/rules", `{"version":2,"rules":[]}`, 400, ""}},
		{tokens.ErrNotFound, call{"GET", "/v1/fido/metadata", "", 404, ""}},
		{nil, call{"POST", "/v1/fido/metadata", `{}`, 415, ""}},
		{nil, call{"POST", "/v1/fido/metadata", "", 400, "application/octet-stream"}},
		{nil, call{"GET", "/v1/fido/allowed", "", 400, ""}},
		{nil, call{"GET", "/v1/fido/models?limit=0", "", 400, ""}},
		{nil, call{"GET", "/.well-known/webauthn?rp_id=example.edu", "", 404, ""}},
		{tokens.ErrWrongCode, call{"POST", "/v1/tokens/A/resync", `{"code1":"1","code2":"2"}`, 422, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/users/bob/tokens", "", 404, ""}},
		{tokens.ErrState, call{"POST", "/v1/users/bob/tokens", "", 409, ""}},
		{nil, call{"POST", "/v1/users/bob/tokens", `{"type":"hotp"}`, 400, ""}},
		{nil, call{"POST", "/v1/users/bob/tokens", `{"algorithm":"md5"}`, 400, ""}},
		{nil, call{"POST", "/v1/users/bob/tokens", `{"digits":0}`, 400, ""}},
		{nil, call{"POST", "/v1/users/bob/tokens", `{"period":45}`, 400, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/users/bob/recovery", "", 404, ""}},
		{tokens.ErrState, call{"POST", "/v1/users/bob/temporary", "", 409, ""}},
		{nil, call{"POST", "/v1/users/bob/temporary", `{"uses":0}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/A/lost", `{"temporary":{"valid_minutes":-5}}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/A/lost", `{"temporary":{"hours":5}}`, 400, ""}},
		{tokens.ErrNotFound, call{"PATCH", "/v1/users/bob", `{"mail":"bob@example.com"}`, 404, ""}},
		{tokens.ErrExists, call{"PATCH", "/v1/users/bob", `{"external_id":"4711"}`, 409, ""}},
		{nil, call{"PATCH", "/v1/users/bob", `{"mail":null}`, 400, ""}},
		{nil, call{"PATCH", "/v1/users/bob", `{"attributes":{"site":"a","site":"b"}}`, 400, ""}},
		{nil, call{"PATCH", "/v1/users/bob", `{"attributes":{"site":4}}`, 400, ""}},
		{nil, call{"POST", "/v1/users", `{"name":"bob","attributes":{"site":null}}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"assign","serials":["A"]}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"lost"}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"lost","serials":[]}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"lost","serials":["A"],"select":{"q":"A"}}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"lost","select":{"owner":"alice"}}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"lost","select":{"state":"gone"}}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"expire","serials":["A"]}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"lost","serials":["A"],"expires":null}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"note","serials":["A"]}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"untag","serials":["A"]}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/bulk", `{"act":"lost","serials":["` + strings.Repeat("A", maxBulk) + `"]}`, 413, ""}},
		{nil, call{"GET", "/v1/reports/credentials?format=xml", "", 400, ""}},
		{nil, call{"GET", "/v1/reports/credentials?find=ghosts", "", 400, ""}},
		{nil, call{"GET", "/v1/reports/summary?unused_days=0", "", 400, ""}},
		{nil, call{"POST", "/v1/pin", `{"user":"alice","code":"1"}`, 400, ""}},
		{tokens.ErrState, call{"GET", "/v1/tokens/A/drift", "", 409, ""}},
		{tokens.ErrNotFound, call{"GET", "/v1/tokens/A/drift?format=svg", "", 404, ""}},
		{nil, call{"GET", "/v1/tokens/A/drift?format=png", "", 400, ""}},
		{tokens.ErrNotFound, call{"GET", "/v1/tokens/A/story", "", 404, ""}},
		{tokens.ErrNotFound, call{"GET", "/v1/users/bob/story", "", 404, ""}},
		{nil, call{"GET", "/v1/users/bob/story?cursor=x", "", 400, ""}},
		{nil, call{"POST", "/v1/users/import", "name,mail\nbad,x\n", 422, "text/csv"}},
		{nil, call{"POST", "/v1/users/import", "{}", 415, ""}},
		{nil, call{"POST", "/v1/users/import", "name\nal\xefce\n", 415, "text/csv; charset=latin1"}},
		{nil, call{"POST", "/v1/users/import?dryrun=true", "name\nalice\n", 400, "text/csv"}},
		{tokens.ErrWrongCode, call{"POST", "/v1/tokens/A/activate", `{"code1":"1","code2":"2"}`, 422, ""}},
		{tokens.ErrState, call{"POST", "/v1/tokens/A/replace", `{"by":"B"}`, 409, ""}},
		{tokens.ErrNotFound, call{"POST", "/v1/tokens/A/replace", `{"by":"B"}`, 404, ""}},
		{tokens.ErrNotFound, call{"PATCH", "/v1/tokens/A", `{"note":"x"}`, 404, ""}},
		{tokens.ErrNotFound, call{"PUT", "/v1/tokens/A/expiry", `{"expires":null}`, 404, ""}},
		{nil, call{"PUT", "/v1/tokens/A/expiry", `{}`, 400, ""}},
		{nil, call{"PUT", "/v1/tokens/A/expiry", `{"expires":"tomorrow"}`, 400, ""}},
		{nil, call{"POST", "/v1/tokens/A/replace", `{"reason":"x"}`, 400, ""}},
		{nil, call{"GET", "/v1/tokens?type=ocra", "", 400, ""}},
		{tokens.ErrState, call{"PUT", "/v1/realms/corp/rules", `{"version":2,"rules":` + someRules + `}`, 409, ""}},
		{tokens.ErrTampered, call{"GET", "/v1/realms/corp/rules", "", 409, ""}},
		{nil, call{"PUT", "/v1/realms/corp/rules", `{"version":-1,"rules":` + someRules + `}`, 400, ""}},
		{nil, call{"PUT", "/v1/realms/corp/rules", `{"rules":{"max_tokens":8}}`, 400, ""}},
		{nil, call{"PUT", "/v1/realms/corp/rules", `{"rules":` + strings.Replace(someRules, "uses", "use", 1) + `}`, 400, ""}},
		{nil, call{"POST", "/v1/verify", `{"user":"alice"}`, 400, ""}},
		{nil, call{"POST", "/v1/verify", `{"user":"` + strings.Repeat("a", maxJSON) + `"}`, 413, ""}},
		{nil, call{"POST", "/v1/users", `name=alice`, 415, "application/x-www-form-urlencoded"}},
		{nil, call{"POST", "/v1/imports", `A1,00`, 415, "text/csv"}},
	} {
		w := httptest.NewRecorder()
		newServer(t, &scripted{err: tt.err}).Handler().ServeHTTP(w, tt.call.request())
		if w.Code != tt.call.status {
			t.Errorf("%s %s: %d %s", tt.call.method, tt.call.path, w.Code, w.Body)
		}
		conforms(t, router, tt.call, w)
	}
}

func TestRefusedImportAnswersItsReport(t *testing.T) {
	_, router := loadContract(t)
	core := &scripted{importing: func(_ context.Context, o seeds.Options, r io.Reader) (*seeds.Report, error) {
		_, err := io.Copy(io.Discard, r)
		return &seeds.Report{
			Format: "oath-csv", Rejected: 2, DryRun: o.DryRun, Partial: o.Partial, Message: "Nothing was imported: 1 of 2 records is bad.",
			Records: []seeds.Outcome{{Line: 17, Serial: "A1", Outcome: tokens.OutcomeRejected, Reason: "the seed is not hexadecimal"}}, Omitted: 1,
		}, err
	}}
	h := newServer(t, core).Handler()
	for query, status := range map[string]int{"": 422, "?partial=true": 200, "?dry_run=true": 200} {
		c := call{"POST", "/v1/imports" + query, "A1,xx", status, "application/octet-stream"}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, c.request())
		if w.Code != status || !strings.Contains(w.Body.String(), `"line":17`) || !strings.Contains(w.Body.String(), `"rejected":2`) {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
		conforms(t, router, c, w)
	}
}

// The table of query parameters says what the contract says.
func TestQueryParametersAreThoseOfTheContract(t *testing.T) {
	doc, _ := loadContract(t)
	s := newServer(t, &scripted{})
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			var want []string
			for _, p := range append(slices.Clone(item.Parameters), op.Parameters...) {
				if p.Value.In == "query" {
					want = append(want, p.Value.Name)
				}
			}
			routed := strings.NewReplacer("{", ":", "}", "").Replace(path)
			to := s.routes[routeKey{method, routed}]
			if to == nil {
				t.Errorf("%s %s is not routed", method, path)
				continue
			}
			got := slices.Clone(to.query)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s %s takes %v, the contract says %v", method, path, got, want)
			}
			if open := op.Security != nil && len(*op.Security) == 0; to.key == open {
				t.Errorf("%s %s: a key is needed: %v", method, path, to.key)
			}
		}
	}
}

// Every operation that takes a body shows one, and every answer of 200 or 201.
func TestContractShowsExamples(t *testing.T) {
	doc, _ := loadContract(t)
	shown := func(where string, content openapi3.Content) {
		for media, m := range content {
			if m.Example == nil && len(m.Examples) == 0 && media != "multipart/form-data" {
				t.Errorf("%s: no example of %s", where, media)
			}
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			where := method + " " + path
			if op.Summary == "" || op.OperationID == "" || len(op.Tags) != 1 {
				t.Errorf("%s is not described", where)
			}
			if op.RequestBody != nil {
				shown(where, op.RequestBody.Value.Content)
			}
			for status, r := range op.Responses.Map() {
				shown(where+" "+status, r.Value.Content)
			}
		}
	}
}

// api.gen.go is what go generate made of the contract as it is.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	sums, err := os.ReadFile("api.gen.sum")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"openapi.yaml", "oapi-codegen.yaml", "api.gen.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(sums), fmt.Sprintf("%x  %s\n", sha256.Sum256(b), name)) {
			t.Errorf("%s is not what api.gen.go was made with: run go generate ./api", name)
		}
	}
}

// The contract's enums are the core's values.
func TestEnumsAreTheCores(t *testing.T) {
	for _, k := range []tokens.Type{tokens.TOTP, tokens.HOTP, tokens.YubicoOTP, tokens.FIDO, tokens.Recovery, tokens.Temporary} {
		if !TokenType(k).Valid() {
			t.Errorf("token type %s", k)
		}
	}
	for _, k := range []string{tokens.InviteFIDO, tokens.InviteTOTP} {
		if !NewInvitationKinds(k).Valid() {
			t.Errorf("kind of invitation %s", k)
		}
	}
	for _, st := range []tokens.State{tokens.Imported, tokens.Pending, tokens.Active, tokens.Suspended, tokens.Lost, tokens.Revoked} {
		if !TokenState(st).Valid() {
			t.Errorf("token state %s", st)
		}
	}
	for _, st := range []tokens.UserState{tokens.UserEnabled, tokens.UserDisabled} {
		if !UserState(st).Valid() {
			t.Errorf("user state %s", st)
		}
	}
	for _, o := range []string{tokens.BulkDone, tokens.BulkWould, tokens.BulkUnchanged, tokens.BulkRefused} {
		if !BulkItemOutcome(o).Valid() {
			t.Errorf("outcome of a bulk %s", o)
		}
	}
	for _, f := range tokens.Findings() {
		if !Finding(f).Valid() {
			t.Errorf("finding %s", f)
		}
	}
	for _, a := range []tokens.Activation{tokens.ActivateAtOnce, tokens.ActivateByCode} {
		if !RulesActivation(a).Valid() {
			t.Errorf("activation %s", a)
		}
	}
	for _, rule := range []tokens.NameRule{tokens.NamePlain, tokens.NameStrip, tokens.NameRealm} {
		if !NameRule(rule).Valid() {
			t.Errorf("name rule %s", rule)
		}
	}
	for _, o := range []tokens.Outcome{tokens.OutcomeCreated, tokens.OutcomeDuplicate, tokens.OutcomeRejected} {
		if !ImportRecordOutcome(o).Valid() {
			t.Errorf("outcome %s", o)
		}
	}
}

// Nothing of a report is lost on its way.
func TestReportViewHasEveryField(t *testing.T) {
	tag := func(t reflect.Type) (names []string) {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	if got, want := tag(reflect.TypeFor[ImportReport]()), tag(reflect.TypeFor[seeds.Report]()); !slices.Equal(got, want) {
		t.Errorf("ImportReport has %v, seeds.Report %v", got, want)
	}
	if got, want := tag(reflect.TypeFor[ImportRecord]()), tag(reflect.TypeFor[seeds.Outcome]()); !slices.Equal(got, want) {
		t.Errorf("ImportRecord has %v, seeds.Outcome %v", got, want)
	}
}
