package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"watchword/seeds"
	"watchword/tokens"
	"watchword/webauthn"
	"watchword/webauthn/softkey"
)

// origin is where the pages of the whole server's relying party are.
const origin = "https://login.example.com"

// newWholeFIDO is newWhole with a relying party.
func newWholeFIDO(t *testing.T, change ...func(*tokens.Config)) *whole {
	t.Helper()
	w := newWhole(t, change...)
	core := w.server.cfg.Core.(*tokens.Service)
	fido, err := webauthn.New(context.Background(), webauthn.Config{
		Core: core, Parties: []webauthn.Party{{ID: "example.com", Name: "Example", Origins: []string{origin, "https://app.example.com"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.server, err = New(Config{Core: core, Importer: seeds.NewImporter(seeds.Service(core)), Ready: core.Ready, FIDO: fido})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func newSoftKey(t *testing.T, o softkey.Options) *softkey.Key {
	t.Helper()
	k, err := softkey.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// begun is the answer to a begin.
func (w *whole) begun(path, body string) (options []byte, session string) {
	w.t.Helper()
	got := w.call("POST", path, body, 200)
	options, err := json.Marshal(got["options"])
	if err != nil {
		w.t.Fatal(err)
	}
	return options, got["session"].(string)
}

// register enrols a key, and answers the token.
func (w *whole) register(k *softkey.Key, user string, status int) map[string]any {
	w.t.Helper()
	options, session := w.begun("/v1/webauthn/register/begin", fmt.Sprintf(`{"user":%q,"discoverable":true}`, user))
	response, err := k.Register(options, origin)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.call("POST", "/v1/webauthn/register/finish", fmt.Sprintf(`{"session":%q,"response":%s}`, session, response), status)
}

// login signs in, and answers what an application gets. With more, a part of the
// body.
func (w *whole) login(k *softkey.Key, begin, more string) map[string]any {
	w.t.Helper()
	options, session := w.begun("/v1/webauthn/login/begin", begin)
	response, err := k.Assert(options, origin)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.call("POST", "/v1/webauthn/login/finish", fmt.Sprintf(`{"session":%q,"response":%s%s}`, session, response, more), 200)
}

// trust has the key's maker trusted.
func (w *whole) trust(k *softkey.Key) {
	w.t.Helper()
	body, err := json.Marshal(map[string]string{"pem": string(k.RootPEM())})
	if err != nil {
		w.t.Fatal(err)
	}
	if got := w.call("PUT", "/v1/fido/roots", string(body), 200)["items"].([]any); len(got) != 1 {
		w.t.Fatalf("%v", got)
	}
}

func TestFromInvitationToStatement(t *testing.T) {
	w := newWholeFIDO(t)
	k := newSoftKey(t, softkey.Options{UserVerification: true, Resident: true})
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/users", `{"name":"bob"}`, 201)

	if got := w.register(k, "alice", 400); !strings.Contains(got["detail"].(string), "model") {
		t.Errorf("a model that nobody vouches for: %v", got)
	}
	w.trust(k)
	enrolled := w.register(k, "alice", 201)
	serial := enrolled["serial"].(string)
	if enrolled["type"] != "fido" || enrolled["state"] != "active" || enrolled["attestation"] != "basic" || enrolled["aaguid"] != softkey.DefaultAAGUID || enrolled["user"] != "alice" {
		t.Errorf("%v", enrolled)
	}
	if got := w.call("GET", "/v1/tokens/"+serial, "", 200); got["rp_id"] != "example.com" || got["discoverable"] != true {
		t.Errorf("%v", got)
	}

	got := w.login(k, `{"user":"ALICE"}`, `,"statement":{"audience":"https://wiki.example.com","nonce":"n-1"}`)
	if got["result"] != "accept" || got["serial"] != serial || got["user"] != "alice" || got["user_verified"] != true {
		t.Fatalf("%v", got)
	}
	check := func(audience, more string) map[string]any {
		return w.call("POST", "/v1/statements/check", fmt.Sprintf(`{"statement":%q,"audience":%q%s}`, got["statement"], audience, more), 200)
	}
	checked := check("https://wiki.example.com", `,"max_age":60`)
	claims, _ := checked["claims"].(map[string]any)
	if checked["active"] != true || claims["sub"] != "alice" || claims["nonce"] != "n-1" || claims["token"].(map[string]any)["serial"] != serial {
		t.Errorf("%v", checked)
	}
	if checked := check("https://other.example.com", ""); checked["active"] != false || checked["reason"] != "wrong_audience" || checked["claims"] != nil {
		t.Errorf("for another audience: %v", checked)
	}
	kid := w.call("GET", "/v1/statements/keys", "", 200)["items"].([]any)
	if published := w.call("GET", "/.well-known/jwks.json", "", 200)["keys"].([]any); len(published) != len(kid) || len(kid) != 2 {
		t.Errorf("%d keys, %d published", len(kid), len(published))
	}
	w.call("POST", "/v1/statements/keys", `{"now":true}`, 200)
	if checked := check("https://wiki.example.com", ""); checked["active"] != false {
		t.Errorf("after the key was given up: %v", checked)
	}

	// A passkey says itself whose it is.
	if got := w.login(k, `{}`, ""); got["result"] != "accept" || got["user"] != "alice" {
		t.Errorf("a passkey: %v", got)
	}
	w.call("POST", "/v1/tokens/"+serial+"/lost", `{"reason":"stolen"}`, 200)
	if got := w.login(k, `{}`, ""); len(got) != 1 || got["result"] != "reject" {
		t.Errorf("a lost key: %v", got)
	}
	why := w.call("GET", "/v1/users/alice/why", "", 200)["items"].([]any)
	if first := why[0].(map[string]any); first["reason"] != "lost_token_used" && first["reason"] != "lost" {
		t.Errorf("%v", first)
	}
	if got := w.call("GET", "/v1/audit/verify", "", 200); got["intact"] != true {
		t.Errorf("audit: %v", got)
	}
}

func TestWhatIsNotTheAnswerToThisLoginIsRejected(t *testing.T) {
	w := newWholeFIDO(t)
	vendor, err := softkey.NewVendor("Works")
	if err != nil {
		t.Fatal(err)
	}
	alices, bobs := newSoftKey(t, softkey.Options{Vendor: vendor}), newSoftKey(t, softkey.Options{Vendor: vendor})
	w.trust(alices)
	for user, k := range map[string]*softkey.Key{"alice": alices, "bob": bobs} {
		w.call("POST", "/v1/users", fmt.Sprintf(`{"name":%q}`, user), 201)
		w.register(k, user, 201)
	}
	assert := func(k *softkey.Key, options []byte, from string) string {
		response, err := k.Assert(options, from)
		if err != nil {
			t.Fatal(err)
		}
		return string(response)
	}
	finish := func(session, response string) any {
		return w.call("POST", "/v1/webauthn/login/finish", fmt.Sprintf(`{"session":%q,"response":%s}`, session, response), 200)["result"]
	}
	options, session := w.begun("/v1/webauthn/login/begin", `{"user":"alice"}`)
	other, otherSession := w.begun("/v1/webauthn/login/begin", `{"user":"alice"}`)
	bobOptions, bobSession := w.begun("/v1/webauthn/login/begin", `{"user":"bob"}`)
	answer := assert(alices, options, origin)

	if got := finish(otherSession, answer); got != "reject" {
		t.Errorf("the answer to another challenge: %v", got)
	}
	if got := finish(bobSession, answer); got != "reject" {
		t.Errorf("the answer to another user's challenge: %v", got)
	}
	if got := finish(session, assert(bobs, bobOptions, origin)); got != "reject" {
		t.Errorf("another user's answer: %v", got)
	}
	// A page that is under the party's domain but no origin of its.
	if got := finish(otherSession, assert(alices, other, "https://evil.example.com")); got != "reject" {
		t.Errorf("from another origin: %v", got)
	}
	answer = assert(alices, options, origin)
	if got := finish(session, answer); got != "accept" {
		t.Fatalf("the right answer: %v", got)
	}
	if got := finish(session, answer); got != "reject" {
		t.Errorf("the same answer again: %v", got)
	}
	clone := alices.Clone()
	clone.SetCounter(1)
	if got := w.login(clone, `{"user":"alice"}`, ""); got["result"] != "reject" {
		t.Errorf("a clone: %v", got)
	}
	if got := w.login(alices, `{}`, ""); got["result"] != "reject" { // as a passkey: alice has no key any more
		t.Errorf("the original, after a clone was seen: %v", got)
	}
	for _, reason := range []string{"cloned", "replay", "wrong_origin"} {
		if got := w.call("GET", "/v1/audit?action=verify&outcome=reject&user=alice", "", 200)["items"]; !strings.Contains(fmt.Sprint(got), "reason:"+reason+" ") {
			t.Errorf("no %s in the audit: %v", reason, got)
		}
	}
	// Nobody is told whether somebody exists.
	for _, user := range []string{"alice", "nobody"} {
		got, _ := w.begun("/v1/webauthn/login/begin", fmt.Sprintf(`{"user":%q}`, user))
		if !bytes.Contains(got, []byte(`"allowCredentials":[{"id":`)) {
			t.Errorf("%s: %s", user, got)
		}
	}
}

// page makes a request as a browser does from a page of the server's.
func (w *whole) page(method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, origin+path, strings.NewReader(body))
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if strings.HasPrefix(path, "/console/") {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", origin)
	} else {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "null")
	}
	answer := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(answer, r)
	return answer
}

func TestAKeyIsEnrolledByAnInvitationOnce(t *testing.T) {
	w := newWholeFIDO(t)
	k := newSoftKey(t, softkey.Options{Resident: true})
	w.trust(k)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	invited := w.call("POST", "/v1/users/alice/invitations", `{"kinds":["fido"]}`, 201)
	path := invited["path"].(string)
	if invited["url"] != origin+path {
		t.Errorf("%v", invited)
	}
	code := invited["code"].(string)
	if got := w.page("GET", path, ""); got.Code != 200 || !strings.Contains(got.Body.String(), "<strong>alice</strong>") {
		t.Fatalf("%d %s", got.Code, got.Body)
	}
	if got := w.page("POST", path+"/app", ""); got.Code != 403 {
		t.Errorf("a software token by an invitation to a key: %d %s", got.Code, got.Body)
	}
	register := func() *httptest.ResponseRecorder {
		got := w.page("POST", "/console/enrol/begin", fmt.Sprintf(`{"code":%q,"passkey":true}`, code))
		if got.Code != 200 {
			return got
		}
		var begun struct {
			Options json.RawMessage
			Session string
		}
		if err := json.Unmarshal(got.Body.Bytes(), &begun); err != nil {
			t.Fatal(err)
		}
		response, err := k.Register(begun.Options, origin)
		if err != nil {
			t.Fatal(err)
		}
		return w.page("POST", "/console/enrol/finish", fmt.Sprintf(`{"code":%q,"session":%q,"response":%s}`, code, begun.Session, response))
	}
	if got := register(); got.Code != 200 || !strings.Contains(got.Body.String(), `"next":"/enrol/done`) {
		t.Fatalf("%d %s", got.Code, got.Body)
	}
	if got := register(); got.Code != 404 {
		t.Errorf("a second key: %d %s", got.Code, got.Body)
	}
	if got := w.page("GET", path, ""); got.Code != 404 || !strings.Contains(got.Body.String(), "cannot be used") {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	list := w.call("GET", "/v1/users/alice/invitations", "", 200)["items"].([]any)
	if first := list[0].(map[string]any); first["used"] == nil || !strings.HasPrefix(first["serial"].(string), "F-") {
		t.Errorf("%v", first)
	}
	if got := w.login(k, `{}`, ""); got["result"] != "accept" {
		t.Errorf("%v", got)
	}

	// One that is taken back is good for nothing either.
	invited = w.call("POST", "/v1/users/alice/invitations", "", 201)
	w.call("DELETE", "/v1/invitations/"+invited["id"].(string), "", 204)
	if got := w.page("GET", invited["path"].(string), ""); got.Code != 404 {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

func TestASoftwareTokenIsEnrolledByItsPage(t *testing.T) {
	w := newWhole(t) // without a relying party
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	path := w.call("POST", "/v1/users/alice/invitations", "", 201)["path"].(string)
	got := w.page("POST", path+"/app", "")
	key := regexp.MustCompile(`<code class="key">([A-Z2-7 ]+)</code>`).FindStringSubmatch(got.Body.String())
	serial := regexp.MustCompile(`name="serial" value="([^"]+)"`).FindStringSubmatch(got.Body.String())
	if got.Code != 200 || key == nil || serial == nil {
		t.Fatalf("%d %s", got.Code, got.Body)
	}
	now := time.Now()
	totp := func(at time.Time) string {
		out, err := exec.Command("oathtool", "--totp", "-b", "--now", at.UTC().Format("2006-01-02 15:04:05 UTC"), strings.ReplaceAll(key[1], " ", "")).Output()
		if err != nil {
			t.Fatalf("oathtool: %v", err)
		}
		return strings.TrimSpace(string(out))
	}
	if got := w.verify("alice", totp(now)); got != "reject" {
		t.Errorf("before it was confirmed: %v", got)
	}
	confirm := func(first, second string) *httptest.ResponseRecorder {
		return w.page("POST", path+"/confirm", url.Values{"serial": {serial[1]}, "first": {first}, "second": {second}}.Encode())
	}
	before := totp(now.Add(-30 * time.Second))
	if got := confirm("abc", before); got.Code != 422 || strings.Contains(got.Body.String(), key[1]) {
		t.Errorf("a wrong code: %d %s", got.Code, got.Body)
	}
	if got := confirm(totp(now), before); got.Code != 422 {
		t.Errorf("two codes that do not follow: %d %s", got.Code, got.Body)
	}
	if got := confirm(before, totp(now)); got.Code != 303 || !strings.HasPrefix(got.Header().Get("Location"), "/enrol/done") {
		t.Fatalf("two codes: %d %s", got.Code, got.Body)
	}
	if got := confirm(totp(now), totp(now.Add(30*time.Second))); got.Code != 404 {
		t.Errorf("a used invitation: %d %s", got.Code, got.Body)
	}
	if got := w.verify("alice", totp(now)); got != "reject" {
		t.Errorf("the second code again: %v", got)
	}
	if got := w.verify("alice", totp(now.Add(30*time.Second))); got != "accept" {
		t.Errorf("the next code: %v", got)
	}
	if got := w.call("GET", "/v1/tokens/"+serial[1], "", 200); got["state"] != "active" || got["batch"] != 0.0 {
		t.Errorf("%v", got)
	}
}

func TestRulesSayWhatMayBeEnrolled(t *testing.T) {
	w := newWholeFIDO(t)
	k := newSoftKey(t, softkey.Options{Format: softkey.Self})
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("PUT", "/v1/users/alice/groups", `{"groups":["Lab","lab"]}`, 200)
	if got := w.call("GET", "/v1/users/alice/groups", "", 200)["groups"]; fmt.Sprint(got) != "[lab]" {
		t.Errorf("%v", got)
	}
	if got := w.register(k, "alice", 400); got["status"] != 400.0 {
		t.Errorf("%v", got)
	}
	rules := w.call("GET", "/v1/fido/rules", "", 200)
	body := func(version any) string {
		return fmt.Sprintf(`{"version":%v,"rules":{"default":{},"realms":{"default":{"groups":{"lab":{"required_attestation":"self","allow_unknown":true}}}}}}`, version)
	}
	set := w.call("PUT", "/v1/fido/rules", body(rules["version"]), 200)
	w.call("PUT", "/v1/fido/rules", body(rules["version"]), 409)
	if set["version"] == rules["version"] {
		t.Errorf("%v after %v", set, rules)
	}
	for groups, want := range map[string]bool{"": false, "&groups=lab": true, "&groups=lab,staff": true, "&groups=staff": false} {
		got := w.call("GET", "/v1/fido/allowed?aaguid="+softkey.DefaultAAGUID+groups, "", 200)
		if got["allowed"] != want || want == (len(got["reasons"].([]any)) > 0 && !want) {
			t.Errorf("%q: %v", groups, got)
		}
	}
	w.register(k, "alice", 201)
	if got := w.call("GET", "/v1/fido/concerns", "", 200)["items"].([]any); len(got) != 0 {
		t.Errorf("%v", got)
	}
	w.call("GET", "/v1/fido/models", "", 200)
	w.call("GET", "/v1/fido/metadata", "", 404)
	answer := do(w.server.Handler(), "POST", "/v1/fido/metadata", "e30.e30.c2ln", "Content-Type", "application/octet-stream", "Authorization", "Bearer "+w.key)
	if answer.Code != 400 {
		t.Errorf("metadata that nobody signed: %d %s", answer.Code, answer.Body)
	}
}
