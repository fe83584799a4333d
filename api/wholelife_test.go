package api

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// totpOf asks oathtool for the code of a base32 secret.
func totpOf(t *testing.T, secret string, at time.Time, args ...string) string {
	t.Helper()
	args = append(args, "-b", "--now", at.UTC().Format("2006-01-02 15:04:05 UTC"), secret)
	out, err := exec.Command("oathtool", args...).Output()
	if err != nil {
		t.Fatalf("oathtool: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// items are those of a listing, by one of their members.
func (w *whole) items(path, member string) []string {
	w.t.Helper()
	var list []string
	for _, i := range w.call("GET", path, "", 200)["items"].([]any) {
		list = append(list, fmt.Sprint(i.(map[string]any)[member]))
	}
	return list
}

func TestAUserHasAProfile(t *testing.T) {
	w := newWhole(t)
	got := w.call("POST", "/v1/users", `{"name":"alice","display":"Alice Example","mail":"alice@example.com","external_id":"4711","groups":["Staff"],"attributes":{"site":"Berlin","desk":"12"}}`, 201)
	if got["display"] != "Alice Example" || fmt.Sprint(got["groups"]) != "[staff]" || fmt.Sprint(got["attributes"]) != "map[desk:12 site:Berlin]" {
		t.Errorf("made: %v", got)
	}
	w.call("POST", "/v1/users", `{"name":"bob","external_id":"4711"}`, 409)
	w.call("POST", "/v1/users", `{"name":"bob","mail":"no address"}`, 400)
	w.call("POST", "/v1/users", `{"name":"bob"}`, 201)
	got = w.call("PATCH", "/v1/users/alice", `{"mail":"","attributes":{"site":"Bonn","desk":null}}`, 200)
	if got["mail"] != nil || got["display"] != "Alice Example" || fmt.Sprint(got["attributes"]) != "map[site:Bonn]" {
		t.Errorf("edited: %v", got)
	}
	if got = w.call("GET", "/v1/users/alice", "", 200); got["external_id"] != "4711" || fmt.Sprint(got["groups"]) != "[staff]" {
		t.Errorf("shown: %v", got)
	}
	for query, want := range map[string]string{"external_id=4711": "[alice]", "external_id=47": "[]", "group=STAFF": "[alice]", "group=board": "[]"} {
		if list := w.items("/v1/users?"+query, "name"); fmt.Sprint(list) != want {
			t.Errorf("%s: %v", query, list)
		}
	}
}

func TestASoftwareTokenIsMadeAndActivated(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	made := w.call("POST", "/v1/users/alice/tokens", `{"issuer":"Example","algorithm":"sha256","digits":8,"period":60}`, 201)
	serial, secret := made["token"].(map[string]any)["serial"].(string), made["secret"].(string)
	if made["token"].(map[string]any)["state"] != "pending" || !strings.Contains(made["uri"].(string), "secret="+secret+"&") {
		t.Errorf("%v", made)
	}
	now := time.Now()
	code := func(step int) string {
		return totpOf(t, secret, now.Add(time.Duration(step)*time.Minute), "--totp=sha256", "-d", "8", "-s", "60")
	}
	if got := w.verify("alice", code(0)); got != "reject" {
		t.Errorf("before it is active: %v", got)
	}
	path := "/v1/tokens/" + serial + "/activate"
	w.call("POST", path, fmt.Sprintf(`{"code1":%q,"code2":%q}`, code(0), code(-1)), 422)
	if got := w.call("POST", path, fmt.Sprintf(`{"code1":%q,"code2":%q}`, code(-1), code(0)), 200); got["state"] != "active" {
		t.Errorf("activated: %v", got)
	}
	if got := w.verify("alice", code(0)); got != "reject" {
		t.Errorf("a code that activated: %v", got)
	}
	if got := w.verify("alice", code(1)); got != "accept" {
		t.Errorf("the next code: %v", got)
	}
	w.call("POST", "/v1/users/bob/tokens", "", 404)
}

func TestALostTokenIsReplaced(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/imports", "A1,"+seedHex+",hotp\nA2,"+seedHex+",hotp\n", 200)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200)

	// What the rules do not allow is refused, whatever the reason, and changes nothing.
	w.call("POST", "/v1/tokens/A1/lost", `{"temporary":{}}`, 409)
	if got := w.call("GET", "/v1/tokens/A1", "", 200); got["state"] != "active" || got["assigned"] == nil {
		t.Errorf("after a refusal: %v", got)
	}
	rules := w.call("GET", "/v1/realms/default/rules", "", 200)
	if rules["own"] != false || rules["version"] != 0.0 {
		t.Errorf("%v", rules)
	}
	w.call("PUT", "/v1/realms/default/rules", `{"version":7,"rules":`+someRules+`}`, 409)
	if got := w.call("PUT", "/v1/realms/default/rules", `{"version":0,"rules":`+someRules+`}`, 200); got["own"] != true {
		t.Errorf("%v", got)
	}
	w.call("POST", "/v1/tokens/A1/lost", `{"temporary":{"uses":99}}`, 400)

	lost := w.call("POST", "/v1/tokens/A1/lost", `{"reason":"train","temporary":{"valid_minutes":30,"uses":2}}`, 200)
	temporary := lost["temporary"].(map[string]any)
	code, of := temporary["code"].(string), temporary["token"].(map[string]any)
	if lost["state"] != "lost" || of["left"] != 2.0 || of["expires"] == nil || of["user"] != "alice" {
		t.Errorf("%v", lost)
	}
	if got := w.verify("alice", hotp(t, 0)); got != "reject" {
		t.Errorf("the lost token: %v", got)
	}
	for i, want := range []string{"accept", "accept", "reject"} {
		if got := w.verify("alice", strings.ToUpper(code)); got != want {
			t.Errorf("use %d of the passcode: %v", i+1, got)
		}
	}
	if got := w.call("GET", "/v1/tokens/"+of["serial"].(string), "", 200); got["left"] != 0.0 || got["uses"] != 2.0 {
		t.Errorf("used up: %v", got)
	}

	// Under these rules the new one waits for its codes.
	got := w.call("POST", "/v1/tokens/A1/replace", `{"by":"A2","reason":"left in a train"}`, 200)
	old, next := got["old"].(map[string]any), got["token"].(map[string]any)
	if old["state"] != "revoked" || next["serial"] != "A2" || next["state"] != "pending" || next["user"] != "alice" {
		t.Errorf("%v", got)
	}
	if got := w.call("POST", "/v1/tokens/A2/activate", fmt.Sprintf(`{"code1":%q,"code2":%q}`, hotp(t, 4), hotp(t, 5)), 200); got["state"] != "active" {
		t.Errorf("%v", got)
	}
	if got := w.verify("alice", hotp(t, 6)); got != "accept" {
		t.Errorf("the new token: %v", got)
	}
	if got := w.call("DELETE", "/v1/realms/default/rules", "", 200); got["own"] != false {
		t.Errorf("%v", got)
	}
	if list := w.items("/v1/realms", "name"); len(list) == 0 {
		t.Errorf("realms: %v", list)
	}
}

func TestRecoveryCodesAreGoodOnce(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	sheet := w.call("POST", "/v1/users/alice/recovery", "", 201)
	codes := sheet["codes"].([]any)
	serial := sheet["token"].(map[string]any)["serial"].(string)
	if len(codes) != 10 || sheet["token"].(map[string]any)["left"] != 10.0 {
		t.Fatalf("%v", sheet)
	}
	for i, want := range []string{"accept", "reject"} {
		if got := w.verify("alice", codes[3].(string)); got != want {
			t.Errorf("use %d: %v", i+1, got)
		}
	}
	if got := w.call("GET", "/v1/tokens/"+serial, "", 200); got["left"] != 9.0 || got["type"] != "recovery" || got["algorithm"] != nil {
		t.Errorf("%v", got)
	}
	w.call("POST", "/v1/users/alice/recovery", "", 201)
	if got := w.verify("alice", codes[4].(string)); got != "reject" {
		t.Errorf("a code of the older sheet: %v", got)
	}
	if list := w.items("/v1/tokens?user=alice&type=recovery&state=active", "serial"); len(list) != 1 || list[0] == serial {
		t.Errorf("%v", list)
	}
	if got := w.call("GET", "/v1/tokens/"+serial, "", 200); got["state"] != "revoked" || got["left"] != 0.0 {
		t.Errorf("the older sheet: %v", got)
	}
}

func TestNotesTagsAndExpiryAreKept(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/imports", "A1,"+seedHex+",hotp\nA2,"+seedHex+",hotp\n", 200)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200)
	got := w.call("PATCH", "/v1/tokens/A1", `{"note":"scratched\nand old","add_tags":["Berlin","spare"]}`, 200)
	if got["note"] != "scratched\nand old" || fmt.Sprint(got["tags"]) != "[berlin spare]" {
		t.Errorf("%v", got)
	}
	got = w.call("PATCH", "/v1/tokens/A1", `{"drop_tags":["spare"]}`, 200)
	if got["note"] != "scratched\nand old" || fmt.Sprint(got["tags"]) != "[berlin]" {
		t.Errorf("%v", got)
	}
	w.call("PATCH", "/v1/tokens/A1", `{}`, 400)
	held := w.call("GET", "/v1/users/alice", "", 200)["tokens"].([]any)[0].(map[string]any)
	if shown := w.call("GET", "/v1/tokens/A1", "", 200); fmt.Sprint(shown) != fmt.Sprint(held) || held["note"] != "scratched\nand old" || held["assigned"] == nil {
		t.Errorf("of the user %v, by itself %v", held, shown)
	}
	if list := w.items("/v1/tokens?tag=berlin", "serial"); fmt.Sprint(list) != "[A1]" {
		t.Errorf("%v", list)
	}
	if got := w.call("PUT", "/v1/tokens/A1/expiry", `{"expires":"2020-01-01T00:00:00Z"}`, 200); got["expires"] != "2020-01-01T00:00:00Z" {
		t.Errorf("%v", got)
	}
	if got := w.verify("alice", hotp(t, 0)); got != "reject" {
		t.Errorf("an expired token: %v", got)
	}
	if got := w.call("PUT", "/v1/tokens/A1/expiry", `{"expires":null}`, 200); got["expires"] != nil {
		t.Errorf("%v", got)
	}
	if got := w.verify("alice", hotp(t, 1)); got != "accept" {
		t.Errorf("a token that does not expire any more: %v", got)
	}
}

func TestAUserChangesThePIN(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/imports", "A1,"+seedHex+",hotp\n", 200)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200)
	w.call("PUT", "/v1/users/alice/pin", `{"pin":"1234"}`, 400)
	if got := w.call("PUT", "/v1/users/alice/pin", `{"pin":"280714","change":true}`, 200); got["pin_due"] != true || got["has_pin"] != true {
		t.Errorf("%v", got)
	}
	if got := w.verify("alice", "280714"+hotp(t, 0)); got != "reject" {
		t.Errorf("while the PIN is due: %v", got)
	}
	change := func(user, code, pin string, status int) any {
		t.Helper()
		return w.call("POST", "/v1/pin", fmt.Sprintf(`{"user":%q,"code":%q,"new_pin":%q}`, user, code, pin), status)["result"]
	}
	change("alice", "280714"+hotp(t, 0), "1111", 400)
	for user, code := range map[string]string{"nobody": "280714" + hotp(t, 0), "alice": "280715" + hotp(t, 0)} {
		if got := change(user, code, "906153", 200); got != "reject" {
			t.Errorf("%s with %s: %v", user, code, got)
		}
	}
	if got := change("alice", "280714"+hotp(t, 0), "906153", 200); got != "accept" {
		t.Errorf("%v", got)
	}
	if got := w.call("GET", "/v1/users/alice", "", 200); got["pin_due"] != nil || got["has_pin"] != true {
		t.Errorf("%v", got)
	}
	for code, want := range map[string]string{"906153" + hotp(t, 0): "reject", "280714" + hotp(t, 1): "reject", "906153" + hotp(t, 2): "accept"} {
		if got := w.verify("alice", code); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
	admin := w.key
	for scope, status := range map[string]int{"verify": 200, "helpdesk": 403, "read": 403} {
		w.key = admin
		w.key = w.call("POST", "/v1/keys", fmt.Sprintf(`{"name":%q,"scope":%q}`, scope, scope), 201)["key"].(string)
		change("alice", "000000", "906153", status)
	}
}

func TestATokensStoryIsTold(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/imports", "A1,"+seedHex+",hotp\nA2,"+seedHex+",totp\n", 200)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200)
	for i := range 3 {
		w.verify("alice", hotp(t, i))
	}
	w.call("POST", "/v1/tokens/A1/lost", `{"reason":"train"}`, 200)
	for _, path := range []string{"/v1/tokens/A1/story", "/v1/users/alice/story"} {
		actions := w.items(path, "action")
		if at := strings.Join(actions, " "); !strings.Contains(at, "token.assign verify token.lost") {
			t.Errorf("%s: %q", path, actions)
		}
		for _, text := range w.items(path, "text") {
			if text == "" {
				t.Errorf("%s says nothing", path)
			}
		}
	}
	if got := w.call("GET", "/v1/tokens/A2/drift", "", 200); got["verdict"] != "none" || len(got["points"].([]any)) != 0 {
		t.Errorf("%v", got)
	}
	w.call("GET", "/v1/tokens/A1/drift", "", 409)
	for format, want := range map[string]string{"svg": "<svg", "text": "\n"} {
		answer := do(w.server.Handler(), "GET", "/v1/tokens/A2/drift?format="+format, "", "Authorization", "Bearer "+w.key)
		if answer.Code != 200 || !strings.Contains(answer.Body.String(), want) || strings.Contains(answer.Body.String(), "<script") {
			t.Errorf("%s: %d %s", format, answer.Code, answer.Body)
		}
	}
}

func TestTheReportNamesEveryUserAndToken(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/imports", "A1,"+seedHex+",totp\nA2,"+seedHex+",hotp\n", 200)
	w.call("POST", "/v1/users", `{"name":"alice","display":"Alice Example"}`, 201)
	w.call("POST", "/v1/users", `{"name":"bob"}`, 201)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200)
	w.call("PATCH", "/v1/tokens/A1", `{"add_tags":["berlin"]}`, 200)
	if got := w.items("/v1/reports/credentials?unowned=true", "serial"); fmt.Sprint(got) != "[A1  A2]" {
		t.Errorf("%q", got)
	}
	if got := w.items("/v1/reports/credentials?find=no_second_factor", "user"); fmt.Sprint(got) != "[bob]" {
		t.Errorf("%q", got)
	}
	if got := w.items("/v1/reports/credentials?find=sha1", "tags"); fmt.Sprint(got) != "[[berlin]]" {
		t.Errorf("%q", got)
	}
	got := w.call("GET", "/v1/reports/summary", "", 200)
	if got["users"] != 2.0 || got["unowned"] != 1.0 || len(got["tokens"].([]any)) != 2 {
		t.Errorf("%v", got)
	}
}

func TestUsersComeAndGoAsAFile(t *testing.T) {
	w := newWhole(t)
	load := func(query, file string, status int) map[string]any {
		t.Helper()
		c := call{"POST", "/v1/users/import" + query, file, status, "text/csv"}
		r := c.request()
		r.Header.Set("Authorization", "Bearer "+w.key)
		answer := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(answer, r)
		if answer.Code != status {
			t.Fatalf("%s: %d %s", query, answer.Code, answer.Body)
		}
		conforms(t, w.router, c, answer)
		var got map[string]any
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	file := "\ufeffname,display,mail,external_id,groups,attr:site\r\nalice,Alice,alice@example.com,4711,staff;board,=Berlin\r\nbob,Bob,,,,\r\n"
	if got := load("", file+"carol,Carol,no address,,,\r\n", 422); got["rejected"] != 1.0 || !strings.Contains(fmt.Sprint(got["records"]), "line:4") {
		t.Errorf("a bad record: %v", got)
	}
	load("", "name,colour\nalice,red\n", 400)
	if got := load("?dry_run=true", file, 200); got["created"] != 2.0 || got["dry_run"] != true {
		t.Errorf("dry run: %v", got)
	}
	if list := w.items("/v1/users", "name"); len(list) != 0 {
		t.Errorf("after refusals and a dry run: %v", list)
	}
	if got := load("", file, 200); got["created"] != 2.0 {
		t.Errorf("%v", got)
	}
	changed := strings.Replace(file, "Bob", "Bobby", 1)
	if got := load("", changed, 200); got["unchanged"] != 2.0 || got["updated"] != 0.0 {
		t.Errorf("again: %v", got)
	}
	if got := load("?update=true", changed, 200); got["updated"] != 1.0 || got["unchanged"] != 1.0 {
		t.Errorf("update: %v", got)
	}
	answer := do(w.server.Handler(), "GET", "/v1/users/export", "", "Authorization", "Bearer "+w.key)
	if answer.Code != 200 || answer.Header().Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Fatalf("%d %v", answer.Code, answer.Header())
	}
	rows, err := csv.NewReader(answer.Body).ReadAll()
	if err != nil || fmt.Sprint(rows) != "[[name display mail external_id groups attr:site] [alice Alice alice@example.com 4711 board;staff '=Berlin] [bob Bobby    ]]" {
		t.Errorf("%v %v", err, rows)
	}
	// What was exported is what is there.
	exported := do(w.server.Handler(), "GET", "/v1/users/export", "", "Authorization", "Bearer "+w.key).Body.String()
	if got := load("?update=true", exported, 200); got["unchanged"] != 2.0 {
		t.Errorf("what was exported, imported: %v", got)
	}
	w.call("POST", "/v1/users", `{"name":"export"}`, 201)
	if got := w.call("GET", "/v1/users/%65xport", "", 200); got["name"] != "export" {
		t.Errorf("%v", got)
	}
}
