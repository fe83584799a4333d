package api

import (
	"net/http"
	"strings"
	"testing"
)

// A station enrols keys, for users and as stock, sees what is known of models, and may
// do nothing else: see mays for that. Stock is for who brings tokens in.
func TestWhoMayEnrolStock(t *testing.T) {
	w := newTries(t)
	for _, by := range w.callers() {
		code := w.ask(by.shown, call{method: "POST", path: "/v1/webauthn/register/begin?realm=" + by.realm, body: `{"stock":true}`, contentType: "application/json"}).Code
		want := http.StatusForbidden
		switch {
		case by.letter == "N":
			want = http.StatusUnauthorized
		case strings.Contains("SOPE", by.letter):
			want = http.StatusOK
		}
		if code != want {
			t.Errorf("%s: %d, want %d", by.name, code, want)
		}
	}
}

func TestAKeyOfStockIsEnrolledAndAssignedByHTTP(t *testing.T) {
	w := newTries(t)
	w.key = w.admin
	user := w.call("POST", "/v1/users", `{"name":"stella"}`, 201)["name"].(string)
	options, session := w.begun("/v1/webauthn/register/begin", `{"stock":true,"attestation":"enterprise","discoverable":true}`)
	response, err := w.soft.Register(options, origin)
	if err != nil {
		t.Fatal(err)
	}
	finish := `{"session":"` + session + `","response":` + string(response) + `}`
	made := w.call("POST", "/v1/webauthn/register/finish", finish, 201)
	if made["state"] != "imported" || made["user"] != nil && made["user"] != "" {
		t.Errorf("made %v", made)
	}
	if again := w.call("POST", "/v1/webauthn/register/finish", finish, 201); again["serial"] != made["serial"] {
		t.Errorf("again %v", again)
	}
	serial := made["serial"].(string)
	if given := w.call("POST", "/v1/tokens/"+serial+"/assign", `{"user":"`+user+`"}`, 200); given["state"] != "pending" {
		t.Errorf("given %v", given)
	}
	for _, bad := range []string{`{}`, `{"user":""}`, `{"user":"stella","stock":true}`, `{"stock":false}`, `{"stock":true,"attestation":"none"}`, `{"stock":true,"user_verification":"no"}`} {
		w.call("POST", "/v1/webauthn/register/begin", bad, 400)
	}
}
