package api

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/webauthn"
)

var _ FIDO = (*webauthn.Service)(nil)

func TestCeremoniesReachTheirService(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	for _, tt := range []struct {
		path, body string
		arg        any
	}{
		{"/v1/webauthn/register/begin", `{"user":"alice","rp_id":"example.net","realm":"corp","discoverable":true}`, webauthn.RegistrationRequest{Realm: "corp", User: "alice", RPID: "example.net", Discoverable: true}},
		{"/v1/webauthn/register/finish", `{"session":"s","response":{"id": "AA"}}`, `s {"id": "AA"}`},
		{"/v1/webauthn/login/begin?realm=corp", `{}`, webauthn.LoginRequest{Realm: "corp"}},
		{"/v1/webauthn/login/begin", `{"user":"alice","rp_id":"example.net","user_verification":"required"}`, webauthn.LoginRequest{User: "alice", RPID: "example.net", UserVerification: "required"}},
		{"/v1/webauthn/login/finish", `{"session":"s","response":{"id": "AA"}}`, `s {"id": "AA"} http`},
	} {
		core.arg = nil
		if w := do(h, "POST", tt.path, tt.body); w.Code >= 300 || !reflect.DeepEqual(core.arg, tt.arg) {
			t.Errorf("%s %s: %d %s; the service was asked %+v", tt.path, tt.body, w.Code, w.Body, core.arg)
		}
		if core.principal.ID != "test" || core.principal.Source != "192.0.2.1" {
			t.Errorf("%s: as %+v", tt.path, core.principal)
		}
	}
}

func TestARejectedLoginSaysNothingElse(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	w := do(h, "POST", "/v1/webauthn/login/finish", `{"session":"another","response":{},"statement":{"audience":"wiki"}}`)
	if w.Code != 200 || w.Body.String() != `{"result":"reject"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// An accept for which a statement was asked is given with it or not at all.
func TestNoStatementNoAccept(t *testing.T) {
	for err, want := range map[error]string{
		nil:                   `200 "result":"accept"`,
		tokens.ErrState:       `200 {"result":"reject"}`,
		tokens.ErrNotFound:    `200 {"result":"reject"}`,
		tokens.ErrTampered:    `200 {"result":"reject"}`,
		tokens.ErrUnavailable: `503 `,
		errors.New("a fault"): `500 `,
	} {
		h := newServer(t, &scripted{stating: err}).Handler()
		for path, body := range map[string]string{
			"/v1/verify":                `{"user":"alice","code":"755224","statement":{"audience":"wiki"}}`,
			"/v1/webauthn/login/finish": `{"session":"c2Vzc2lvbg","response":{},"statement":{"audience":"wiki"}}`,
		} {
			w := do(h, "POST", path, body)
			status, says, _ := strings.Cut(want, " ")
			if !strings.Contains(w.Body.String(), says) || status != w.Result().Status[:3] {
				t.Errorf("%v: %s: %d %s, want %s", err, path, w.Code, w.Body, want)
			}
			if err != nil && strings.Contains(w.Body.String(), "accept") {
				t.Errorf("%v: %s: accepted: %s", err, path, w.Body)
			}
		}
	}
}

// Nobody's code is used up for a statement that cannot be made.
func TestABadStatementRequestIsRefusedBeforeTheCodeIsLookedAt(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	for _, statement := range []string{
		`{}`, `{"audience":""}`, `{"audience":"a\nb"}`, `{"audience":"` + strings.Repeat("a", 256) + `"}`,
		`{"audience":"a","nonce":"` + strings.Repeat("a", 256) + `"}`, `{"audience":"a","ttl":0}`, `{"audience":"a","ttl":3601}`, `{"audience":"a","ttl":99999999999}`,
	} {
		core.arg = nil
		if w := do(h, "POST", "/v1/verify", `{"user":"alice","code":"755224","statement":`+statement+`}`); w.Code != 400 || core.arg != nil {
			t.Errorf("%s: %d %s, the core was asked %v", statement, w.Code, w.Body, core.arg)
		}
	}
	if w := do(h, "POST", "/v1/verify", `{"user":"alice","code":"755224","statement":{"audience":"a","nonce":"n","ttl":60}}`); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if want := (tokens.StatementRequest{Audience: "a", Nonce: "n", TTL: time.Minute}); core.arg != want {
		t.Errorf("asked for %+v", core.arg)
	}
}

func TestWithoutARelyingPartyThereAreNoKeys(t *testing.T) {
	core := &scripted{}
	s := newServer(t, core, func(c *Config) { c.FIDO = nil })
	for _, c := range calls {
		if !strings.HasPrefix(c.path, "/v1/webauthn/") && !strings.HasPrefix(c.path, "/v1/fido/") {
			continue
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, c.request())
		if w.Code != 409 || !strings.Contains(w.Body.String(), "fido.parties") {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	if w := do(s.Handler(), "GET", "/signin", ""); w.Code != 404 {
		t.Errorf("/signin: %d", w.Code)
	}
	if w := do(s.Handler(), "POST", "/v1/users/alice/invitations", `{"kinds":["fido"]}`); w.Code != 409 {
		t.Errorf("an invitation to a key: %d %s", w.Code, w.Body)
	}
	w := do(s.Handler(), "POST", "/v1/users/alice/invitations", "")
	if n := core.arg.(tokens.NewInvitation); w.Code != 201 || !reflect.DeepEqual(n.Kinds, []string{"totp"}) {
		t.Errorf("an invitation: %d, to %v", w.Code, n.Kinds)
	}
	if strings.Contains(w.Body.String(), `"url"`) {
		t.Errorf("an address that nobody knows: %s", w.Body)
	}
}

func TestAnInvitationSaysWhereItIsUsed(t *testing.T) {
	for address, want := range map[string]string{
		"": "https://example.com/enrol/wi_17_secret", "https://login.example.com/": "https://login.example.com/enrol/wi_17_secret",
	} {
		core := &scripted{}
		h := newServer(t, core, func(c *Config) { c.Address = address }).Handler()
		w := do(h, "POST", "/v1/users/alice/invitations", `{"kinds":["fido","totp"],"valid":3600}`)
		var got Invitation
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || value(got.Url) != want || value(got.Path) != "/enrol/wi_17_secret" || value(got.Code) != "wi_17_secret" {
			t.Errorf("%d %s %v", w.Code, w.Body, err)
		}
		if n := core.arg.(tokens.NewInvitation); n.For != time.Hour || n.User != "alice" {
			t.Errorf("%+v", n)
		}
	}
	// Only who made it sees the code.
	if w := do(newServer(t, &scripted{}).Handler(), "GET", "/v1/users/alice/invitations", ""); w.Code != 200 || strings.Contains(w.Body.String(), "wi_") || strings.Contains(w.Body.String(), "/enrol") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRelatedOriginsAreThoseOfTheHostAsked(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	for _, tt := range []struct {
		host, query string
		status      int
		says        string
	}{
		{"example.com", "", 200, `{"origins":["https://example.com","https://example.org"]}`},
		{"EXAMPLE.com:8443", "", 200, `"https://example.org"`},
		{"example.net", "", 200, `{"origins":["https://login.example.net"]}`},
		{"proxied.internal", "?rp_id=example.net", 200, `{"origins":["https://login.example.net"]}`},
		{"login.example.com", "", 404, ""},
		{"example.com", "?rp_id=example.edu", 404, ""},
	} {
		r := httptest.NewRequest("GET", "/.well-known/webauthn"+tt.query, nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) || tt.status == 200 && w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s%s: %d %v %s", tt.host, tt.query, w.Code, w.Header(), w.Body)
		}
	}
}

func TestMetadataIsReadToItsLimit(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	octets := []string{"Content-Type", "application/octet-stream"}
	if w := do(h, "POST", "/v1/fido/metadata", "e30.e30.c2ln", octets...); w.Code != 200 || core.arg != "e30.e30.c2ln" {
		t.Errorf("%d %s %v", w.Code, w.Body, core.arg)
	}
	// One whose length is not told is read no further than that.
	body := &counted{r: zeros{}}
	r := httptest.NewRequest("POST", "/v1/fido/metadata", body)
	r.ContentLength = -1
	r.Header.Set("Content-Type", "application/octet-stream")
	r.Header.Set("Authorization", "Bearer "+testKey)
	w := httptest.NewRecorder()
	core.arg = nil
	h.ServeHTTP(w, r)
	if w.Code != 413 || core.arg != nil || body.n > webauthn.MaxMetadata+(1<<20) {
		t.Errorf("%d after %d bytes", w.Code, body.n)
	}
	r.ContentLength = webauthn.MaxMetadata + 1
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 413 {
		t.Errorf("%d", w.Code)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A second blob while one is read is turned away: each may be large.
func TestMetadataIsImportedOneAtATime(t *testing.T) {
	s := newServer(t, &scripted{})
	s.blobs.Lock()
	if w := do(s.Handler(), "POST", "/v1/fido/metadata", "e30", "Content-Type", "application/octet-stream"); w.Code != 503 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s.blobs.Unlock()
	if w := do(s.Handler(), "POST", "/v1/fido/metadata", "e30", "Content-Type", "application/octet-stream"); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Nothing is read of the blob of whoever may not import it, so that nobody who may
// has to wait for its end.
func TestNoMetadataIsReadOfWhoMayNotImportIt(t *testing.T) {
	core := &scripted{err: tokens.ErrForbidden}
	s := newServer(t, core)
	s.blobs.Lock()
	defer s.blobs.Unlock()
	body := &counted{r: zeros{}}
	r := httptest.NewRequest("POST", "/v1/fido/metadata", body)
	r.ContentLength = -1
	r.Header.Set("Content-Type", "application/octet-stream")
	r.Header.Set("Authorization", "Bearer "+testKey)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != 403 || body.n != 0 {
		t.Errorf("%d after %d bytes", w.Code, body.n)
	}
}

func TestModelsArePagedByTheirNames(t *testing.T) {
	core := &scripted{rows: 1000}
	h := newServer(t, core).Handler()
	w := do(h, "GET", "/v1/fido/models?limit=2&cursor=abc&q=key", "")
	var page ModelPage
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || len(page.Items) != 2 || value(page.Next) != "01020304-0506-0708-0102-030405060708" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if q := core.arg.(webauthn.ModelQuery); q != (webauthn.ModelQuery{Q: "key", Limit: 3, After: "abc"}) {
		t.Errorf("%+v", q)
	}
	core.rows = 1
	if w := do(h, "GET", "/v1/fido/models", ""); strings.Contains(w.Body.String(), `"next"`) {
		t.Errorf("%s", w.Body)
	}
}

// What a mistyped rule would have forbidden must not be allowed by silence.
func TestRulesAreReadStrictly(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	for _, rules := range []string{
		`{"defualt":{}}`, `{"default":{"prohibited":[]}}`, `{"realms":{"lab":{"group":{}}}}`, `{"realms":{"lab":{"groups":{"x":{"y":1}}}}}`, `{"default":{"allow_unknown":"yes"}}`, `null`, `"x"`,
	} {
		core.arg = nil
		if w := do(h, "PUT", "/v1/fido/rules", `{"version":1,"rules":`+rules+`}`); w.Code != 400 || core.arg != nil {
			t.Errorf("%s: %d %s", rules, w.Code, w.Body)
		}
	}
}

func TestAFIDOTokenIsShownWithoutItsPublicKey(t *testing.T) {
	core := &scripted{}
	w := do(newServer(t, core).Handler(), "POST", "/v1/webauthn/register/finish", `{"session":"s","response":{}}`)
	want := `"aaguid":"01020304-0506-0708-0102-030405060708","attestation":"basic","batch":0,"counter":7,"created":"2025-11-03T09:10:02.482913Z","digits":0,` +
		`"discoverable":true,"format":"packed","last_used":"2025-11-03T09:10:02Z","model":"Example Key 5","realm":"default","rp_id":"example.com","serial":"F-1",` +
		`"state":"active","synced":false,"transports":["usb","nfc"],"type":"fido","user":"alice","user_verified":false}`
	var got, wanted map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte("{"+want), &wanted); err != nil {
		t.Fatal(err)
	}
	if w.Code != 201 || w.Header().Get("Location") != "/v1/tokens/F-1" || !reflect.DeepEqual(got, wanted) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Whatever stands in the body of a ceremony, nothing goes wrong; and what reaches
// the service is an object as it was sent.
func FuzzCeremonyBody(f *testing.F) {
	for _, seed := range []string{
		`{"user":"alice","rp_id":"example.com","discoverable":true}`, `{"session":"c2Vzc2lvbg","response":{"id":"AA","response":{"clientDataJSON":"e30"}}}`,
		`{"session":"s","response":{},"statement":{"audience":"a"}}`, `{"session":"s","response":null}`, `{"response":{"a":1},"response":{"a":2},"session":"s"}`, `{}`, `{"session":"s","response":{"}":"{"}}`,
	} {
		f.Add(uint8(0), []byte(seed))
		f.Add(uint8(3), []byte(seed))
	}
	paths := []string{"/v1/webauthn/register/begin", "/v1/webauthn/register/finish", "/v1/webauthn/login/begin", "/v1/webauthn/login/finish"}
	core := &scripted{}
	h := newServer(f, core).Handler()
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		path := paths[int(which)%len(paths)]
		core.arg = nil
		w := do(h, "POST", path, string(body))
		if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %q: %d %s", path, body, w.Code, w.Body)
		}
		if w.Code >= 300 || !strings.HasSuffix(path, "/register/finish") {
			return
		}
		var sent map[string]json.RawMessage
		var session string
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatalf("%q was taken: %v", body, err)
		}
		if err := json.Unmarshal(sent["session"], &session); err != nil || core.arg != session+" "+string(sent["response"]) {
			t.Fatalf("%q: the service was asked %q", body, core.arg)
		}
	})
}
