package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"watchword/courier"
	"watchword/tokens"
	"watchword/webauthn/softkey"
)

// may is a row of mays.
type may struct {
	method, path, who, body string
	status                  int // that it succeeds with; for who may
}

// media is the type of the row's body.
func (m *may) media() string {
	switch m.path {
	case "/v1/imports", "/v1/fido/metadata":
		return "application/octet-stream"
	case "/v1/users/import":
		return "text/csv"
	case "/v1/audit/verify":
		return "application/x-ndjson"
	}
	return "application/json"
}

// theirRealm is the realm of the superuser of one realm.
const theirRealm = "corp"

// tries is a server where each operation can succeed.
type tries struct {
	*whole
	admin  string
	behind atomic.Int64 // how long ago the core's clock says that things were
	n      int          // how many things were made
	used   int          // of the tokens
	soft   *softkey.Key
}

func newTries(t *testing.T) *tries {
	t.Helper()
	w := &tries{}
	w.whole = newWholeFIDO(t, func(c *tokens.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(w.behind.Load())) }
		c.Deliver = &courier.Courier{Dir: filepath.Join(t.TempDir(), "audit")}
	})
	w.admin = w.key
	w.soft = newSoftKey(t, softkey.Options{UserVerification: true, Resident: true})
	w.call("PUT", "/v1/fido/rules", `{"version":0,"rules":{"default":{"allow_unknown":true,"required_attestation":"none"}}}`, 200)
	w.call("PUT", "/v1/realms/*/rules", `{"rules":`+anyRules+`}`, 200)
	for _, realm := range []string{tokens.DefaultRealm, theirRealm} {
		var file strings.Builder
		for i := range 1500 {
			fmt.Fprintf(&file, "%s-%04d,%s,hotp\n", realm, i, seedHex)
		}
		w.call("POST", "/v1/imports?realm="+realm, file.String(), 200)
	}
	w.call("PUT", "/v1/policies", `{"put":[{"id":"first","text":`+somePolicy+`}]}`, 200)
	return w
}

const (
	anyRules = `{"max_tokens":12,"activation":"assign","pin":{"min":4,"max":16,"sequences":true,"change":false},` +
		`"recovery":{"allow":true,"codes":8},"temporary":{"allow":true,"valid_hours":48,"uses":3}}`
	somePolicy   = `"forbid (principal in Watchword::Role::\"nobody\", action, resource);"`
	someTemplate = `"permit (principal in ?principal, action == Watchword::Action::\"token.resync\", resource);"`
)

// placeholder is what stands in a row for what is made for one try.
var placeholder = regexp.MustCompile(`\{[a-z0-9 ]+\}`)

// fill makes what a row's path and body name, in a realm.
func (w *tries) fill(m *may, realm string) (path, body string) {
	w.t.Helper()
	w.key = w.admin
	w.n++
	made := map[string]string{}
	replace := func(s string) string {
		return placeholder.ReplaceAllStringFunc(s, func(name string) string {
			if made[name] == "" {
				made[name] = w.make(made, name[1:len(name)-1], realm)
			}
			return made[name]
		})
	}
	return replace(m.path), replace(m.body)
}

// make makes what a placeholder stands for.
func (w *tries) make(made map[string]string, name, realm string) string {
	w.t.Helper()
	in := "?realm=" + realm
	user := fmt.Sprintf("user-%04d", w.n)
	owner := func() string {
		if made["{user}"] == "" {
			w.call("POST", "/v1/users"+in, `{"name":"`+user+`"}`, 201)
			made["{user}"] = user
		}
		return user
	}
	item := func(path, body string, status int, field string) string {
		return fmt.Sprint(w.call("POST", path, body, status)[field])
	}
	fresh := fmt.Sprintf("new-%04d", w.n)
	switch name {
	case "realm":
		return realm
	case "new":
		return fresh
	case "user":
		return owner()
	case "auditor":
		w.call("PUT", "/v1/roles/auditor/users/"+owner()+in+"&in="+realm, "", 200)
		return user
	case "free":
		return w.token(realm)
	case "serial":
		serial := w.token(realm)
		w.call("POST", "/v1/tokens/"+serial+"/assign"+in, `{"user":"`+owner()+`"}`, 200)
		return serial
	case "code20", "code21":
		n, _ := strconv.Atoi(name[4:])
		return hotp(w.t, n)
	case "invitation":
		return item("/v1/users/"+owner()+"/invitations"+in, "", 201, "id")
	case "registering":
		options, session := w.begun("/v1/webauthn/register/begin"+in, `{"user":"`+owner()+`"}`)
		response, err := w.soft.Register(options, origin)
		if err != nil {
			w.t.Fatal(err)
		}
		made["{attested}"] = string(response)
		return session
	case "login":
		_, session := w.begun("/v1/webauthn/login/begin"+in, `{"user":"`+owner()+`"}`)
		return session
	case "import":
		return item("/v1/imports"+in, fresh+","+seedHex+"\n", 200, "batch")
	case "rules":
		return fmt.Sprint(w.call("GET", "/v1/fido/rules", "", 200)["version"])
	case "anyrules":
		return anyRules
	case "clock":
		w.call("POST", "/v1/imports"+in, fresh+","+seedHex+"\n", 200)
		w.call("POST", "/v1/tokens/"+fresh+"/assign"+in, `{"user":"`+owner()+`"}`, 200)
		return fresh
	case "sink":
		for _, name := range w.items("/v1/sinks", "name") {
			w.call("DELETE", "/v1/sinks/"+name, "", 204) // there can be few
		}
		w.call("PUT", "/v1/sinks/"+fresh, `{"kind":"file"}`, 200)
		return fresh
	case "network":
		return fmt.Sprintf("198.18.%d.%d", w.n/100, w.n%100*2)
	case "client":
		w.call("POST", "/v1/clients"+in, fmt.Sprintf(`{"name":"client-%d","prefix":"198.18.%d.%d","secret":"0123456789abcdef"}`, w.n, w.n/100, w.n%100*2+1), 201)
		return fmt.Sprintf("client-%d", w.n)
	case "key":
		return fmt.Sprint(w.call("POST", "/v1/keys"+in, `{"name":"`+fresh+`","scope":"verify"}`, 201)["id"])
	case "session":
		code := hotp(w.t, 0)
		w.call("POST", "/v1/tokens/"+w.token(realm)+"/assign"+in, `{"user":"`+owner()+`"}`, 200)
		return fmt.Sprint(w.call("POST", "/v1/session"+in, fmt.Sprintf(`{"user":%q,"code":%q}`, user, code), 201)["info"].(map[string]any)["id"])
	case "policy":
		return somePolicy
	case "template text":
		return someTemplate
	case "written":
		w.call("PUT", "/v1/policies/"+fresh, `{"text":`+somePolicy+`}`, 200)
		return fresh
	case "template":
		w.call("PUT", "/v1/policies/templates/t-"+fresh, `{"text":`+someTemplate+`}`, 200)
		return "t-" + fresh
	case "link":
		w.call("PUT", "/v1/policies/links/l-"+fresh, `{"template":"`+w.make(made, "template", realm)+`","principal":"Watchword::Role::\"nobody\""}`, 200)
		return "l-" + fresh
	}
	w.t.Fatalf("no %q can be made", name)
	return ""
}

// token answers the serial of a token that nothing was done to.
func (w *tries) token(realm string) string {
	w.used++
	return fmt.Sprintf("%s-%04d", realm, w.used)
}

// ask sends a request with a key or a session, or with none, and holds the answer
// against the contract.
func (w *tries) ask(shown string, c call) *httptest.ResponseRecorder {
	w.t.Helper()
	r := c.request()
	if r.Header.Del("Authorization"); shown != "" {
		r.Header.Set("Authorization", "Bearer "+shown)
	}
	answer := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(answer, r)
	conforms(w.t, w.router, c, answer)
	return answer
}

// signIn opens a session of somebody with the role, in all realms or in one.
func (w *tries) signIn(role, realm, in string) string {
	w.t.Helper()
	w.key = w.admin
	w.n++
	user, serial := fmt.Sprintf("person-%04d", w.n), w.token(realm)
	w.call("POST", "/v1/users?realm="+realm, `{"name":"`+user+`"}`, 201)
	w.call("POST", "/v1/tokens/"+serial+"/assign?realm="+realm, `{"user":"`+user+`"}`, 200)
	w.call("PUT", "/v1/users/"+user+"/pin?realm="+realm, `{"pin":"280714"}`, 200)
	w.call("PUT", "/v1/roles/"+role+"/users/"+user+"?realm="+realm+"&in="+in, "", 200)
	answer := w.ask("", call{"POST", "/v1/session?realm=" + realm, fmt.Sprintf(`{"user":%q,"code":%q}`, user, "280714"+hotp(w.t, 0)), 201, ""})
	var got SignedIn
	if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || answer.Code != 201 {
		w.t.Fatalf("%s signs in: %d %s", role, answer.Code, answer.Body)
	}
	return *got.Session
}

// caller is one of those who try.
type caller struct {
	name   string
	letter string
	realm  string // where what it asks for lies
	shown  string // key or session
	person bool
	stale  bool // what it was proved by was long ago
}

// callers are all of them.
func (w *tries) callers() []caller {
	list := []caller{{name: "nobody", letter: "N", realm: tokens.DefaultRealm}}
	for letter, role := range map[string]string{"S": "superuser", "H": "helpdesk", "P": "provisioner", "E": "enroller", "A": "auditor", "V": "verifier", "R": "night-shift"} {
		scope := map[string]string{"S": "admin", "H": "helpdesk", "P": "provision", "E": "station", "A": "read", "V": "verify", "R": "role:night-shift"}[letter]
		w.key = w.admin
		key := w.call("POST", "/v1/keys", `{"name":"`+role+`","scope":"`+scope+`"}`, 201)["key"].(string)
		list = append(list, caller{name: "a key of a " + role, letter: letter, realm: tokens.DefaultRealm, shown: key},
			caller{name: "a " + role, letter: letter, realm: tokens.DefaultRealm, shown: w.signIn(role, tokens.DefaultRealm, "*"), person: true})
	}
	w.key = w.admin
	key := w.call("POST", "/v1/keys", `{"name":"theirs","scope":"admin","realm":"`+theirRealm+`"}`, 201)["key"].(string)
	return append(list, caller{name: "a key of a superuser of one realm", letter: "O", realm: theirRealm, shown: key},
		caller{name: "a superuser of one realm", letter: "O", realm: theirRealm, shown: w.signIn("superuser", theirRealm, theirRealm), person: true})
}

// try has somebody try a row.
func (w *tries) try(by *caller, m *may) {
	w.t.Helper()
	path, body := w.fill(m, by.realm)
	c := call{method: m.method, path: path, body: body}
	if body != "" {
		c.contentType = m.media()
	}
	answer := w.ask(by.shown, c)
	want, kind := m.status, ""
	own, differs := personally[m.method+" "+m.path]
	switch open := strings.Contains(m.who, by.letter) || strings.Contains(m.who, "*"); {
	case by.letter == "N" && !open, by.letter == "N" && strings.Contains(m.who, "*#"):
		want, kind = http.StatusUnauthorized, "unknown-key"
	case by.person && differs:
		want = own
	case !open:
		want, kind = http.StatusForbidden, "forbidden"
	case by.stale && strings.Contains(m.who, "!"):
		want, kind = http.StatusForbidden, "mfa-required"
	}
	if answer.Code != want || kind != "" && !strings.Contains(answer.Body.String(), `"urn:watchword:problem:`+kind+`"`) {
		w.t.Errorf("%s: %s %s: %d %s, want %d %s", by.name, m.method, m.path, answer.Code, answer.Body, want, kind)
	}
}

// Each operation of the contract is tried by everybody, as the table says.
func TestWhoMayDoWhat(t *testing.T) {
	w := newTries(t)
	callers := w.callers()
	doc, router := loadContract(t)
	rows := map[string]bool{}
	for i := range mays {
		m := &mays[i]
		route, _, err := router.FindRoute(httptest.NewRequest(m.method, placeholder.ReplaceAllString(m.path, "x"), nil))
		if err != nil {
			t.Errorf("%s %s: the contract has no such operation: %v", m.method, m.path, err)
			continue
		}
		if rows[route.Operation.OperationID] {
			t.Errorf("%s %s: two rows are of %s", m.method, m.path, route.Operation.OperationID)
		}
		rows[route.Operation.OperationID] = true
		if _, ok := personally[m.method+" "+m.path]; ok != strings.Contains(m.who, "#") {
			t.Errorf("%s %s: persons are answered otherwise: %v", m.method, m.path, ok)
		}
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !rows[op.OperationID] {
				t.Errorf("%s %s: the table does not say who may: add a row to mays", method, path)
			}
		}
	}
	if t.Failed() {
		return
	}
	for i := range mays {
		for k := range callers {
			if mays[i].method == "DELETE" && mays[i].path == "/v1/session" && callers[k].person {
				continue // at the end
			}
			w.try(&callers[k], &mays[i])
		}
	}

	// What somebody proved six minutes ago is no longer enough for what is protected.
	w.behind.Store(int64(6 * time.Minute))
	for k := range callers {
		if callers[k].stale = callers[k].person; !callers[k].stale || !strings.Contains("SOHPA", callers[k].letter) {
			continue
		}
		for i := range mays {
			if strings.Contains(mays[i].who, "!") && strings.Contains(mays[i].who, callers[k].letter) {
				w.try(&callers[k], &mays[i])
			}
		}
	}
	for k := range callers {
		if callers[k].person {
			w.try(&callers[k], &may{"DELETE", "/v1/session", "*#", "", 404})
			if answer := w.ask(callers[k].shown, call{method: "GET", path: "/v1/session"}); answer.Code != 401 {
				t.Errorf("%s: after signing out: %d", callers[k].name, answer.Code)
			}
		}
	}
}
