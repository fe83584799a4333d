package api

import (
	"fmt"
	"strings"
	"testing"

	"watchword/webauthn/softkey"
)

// bare makes a call with this in the Authorization header; without one if it is empty.
func (w *whole) bare(shown, method, path, body string, status int) map[string]any {
	w.t.Helper()
	old := w.key
	w.key = shown
	defer func() { w.key = old }()
	return w.call(method, path, body, status)
}

// asserts begins a login and answers what finish is sent.
func (w *whole) asserts(k *softkey.Key, shown, user string) string {
	w.t.Helper()
	old := w.key
	w.key = shown
	defer func() { w.key = old }()
	options, session := w.begun("/v1/webauthn/login/begin", fmt.Sprintf(`{"user":%q}`, user))
	response, err := k.Assert(options, origin)
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf(`{"session":%q,"response":%s,"sign_in":{"duration_seconds":3600}}`, session, response)
}

func TestAPersonSignsInWithAFIDOKey(t *testing.T) {
	w := newWholeFIDO(t)
	k := newSoftKey(t, softkey.Options{UserVerification: true})
	w.trust(k)
	for _, name := range []string{"alice", "bob"} {
		w.call("POST", "/v1/users", `{"name":"`+name+`"}`, 201)
	}
	serial := w.register(k, "alice", 201)["serial"].(string)

	// Nobody of this name has a role yet.
	if got := w.bare("", "POST", "/v1/webauthn/login/finish", w.asserts(k, "", "alice"), 200); got["result"] != "reject" || got["session"] != nil {
		t.Errorf("without a role: %v", got)
	}
	w.call("PUT", "/v1/roles/superuser/users/alice?in=*", "", 200)
	answer := w.asserts(k, "", "alice")
	got := w.bare("", "POST", "/v1/webauthn/login/finish", answer, 200)
	session, _ := got["session"].(string)
	if got["result"] != "accept" || !strings.HasPrefix(session, "wsn_") {
		t.Fatalf("signing in: %v", got)
	}
	if again := w.bare("", "POST", "/v1/webauthn/login/finish", answer, 200); again["result"] != "reject" {
		t.Errorf("the same answer again: %v", again)
	}
	me := w.bare(session, "GET", "/v1/session", "", 200)
	if me["user"] != "alice" || me["serial"] != serial || fmt.Sprint(me["roles"]) != "[superuser]" || me["in"] != nil || me["source"] != "192.0.2.1" {
		t.Errorf("who am I: %v", me)
	}
	w.bare(session, "PUT", "/v1/roles/helpdesk/users/bob", "", 200)
	if got := w.bare(session, "POST", "/v1/webauthn/login/finish", w.asserts(k, session, "alice"), 200); got["result"] != "accept" || got["session"] != nil || got["info"] == nil {
		t.Errorf("renewing: %v", got)
	}
	// Whoever has no key and wants no session gets nothing of it.
	plain := strings.Replace(w.asserts(k, "", "alice"), `,"sign_in":{"duration_seconds":3600}`, "", 1)
	w.bare("", "POST", "/v1/webauthn/login/finish", plain, 401)
	w.bare(session, "POST", "/v1/tokens/"+serial+"/lost", "", 200)
	w.bare(session, "GET", "/v1/session", "", 401)
}

func TestAnApplicationGetsTemporaryCredentials(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/imports", "24680017,"+seedHex+",hotp\n", 200)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/tokens/24680017/assign", `{"user":"alice"}`, 200)
	app := w.call("POST", "/v1/keys", `{"name":"app","scope":"verify","realm":"default"}`, 201)["key"].(string)
	got := w.bare(app, "POST", "/v1/session", `{"user":"alice","code":"755224","duration_seconds":900}`, 201)
	session := got["session"].(string)
	if got := w.bare(app, "POST", "/v1/session", `{"user":"alice","code":"755224"}`, 200); got["result"] != "reject" {
		t.Errorf("the code again: %v", got)
	}
	checked := w.bare(app, "POST", "/v1/session/check", `{"session":"`+session+`"}`, 200)
	if checked["active"] != true || checked["user"] != "alice" || fmt.Sprint(checked["amr"]) != "[otp]" {
		t.Errorf("checking: %v", checked)
	}
	w.bare(session, "GET", "/v1/users/alice", "", 403)
	w.bare(session, "GET", "/v1/session", "", 200)
	w.bare(app, "GET", "/v1/session", "", 404)
	w.call("POST", "/v1/users/alice/disable", "", 200)
	if checked := w.bare(app, "POST", "/v1/session/check", `{"session":"`+session+`"}`, 200); checked["active"] != false {
		t.Errorf("of a disabled user: %v", checked)
	}
	w.bare(session, "GET", "/v1/session", "", 401)
	w.bare("wsn_0123456789abcdef_x", "GET", "/v1/session", "", 401)
	w.bare("", "GET", "/v1/session", "", 401)
	w.bare("wrong", "POST", "/v1/session", `{"user":"alice","code":"755224"}`, 401)
	for _, life := range []string{"0", "-1", "899", "129601", "99999999999"} {
		w.bare(app, "POST", "/v1/session", `{"user":"alice","code":"287082","duration_seconds":`+life+`}`, 400)
	}
}
