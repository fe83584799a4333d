package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/routers"

	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
	"watchword/seeds"
	"watchword/tokens"
	"watchword/tokens/store"
)

// The core, the importer and the database are what the handlers consume.
var (
	_ Core     = (*tokens.Service)(nil)
	_ Importer = (*seeds.Importer)(nil)
)

// whole is a server on the real core, SQLite and SoftHSM.
type whole struct {
	t        *testing.T
	server   *Server
	router   routers.Router
	key      string // of the caller
	keystore *pkcs11.Keystore
	database string // the file
}

// Save takes the first administrator's key.
func (w *whole) Save(adminKey, _ string) error {
	w.key = adminKey
	return nil
}

func newWhole(t *testing.T, change ...func(*tokens.Config)) *whole {
	t.Helper()
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "watchword.db")
	db, err := store.Open(ctx, "sqlite:"+file, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	keys, err := pkcs11.Open(ctx, hsmtest.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	w := &whole{t: t, keystore: keys, database: file}
	config := tokens.Config{Database: db, Custody: keys, Exclusive: true}
	for _, f := range change {
		f(&config)
	}
	core, err := tokens.Open(ctx, config, keys, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { core.Close(ctx) })
	w.server, err = New(Config{Core: core, Importer: seeds.NewImporter(seeds.Service(core)), Ready: core.Ready})
	if err != nil {
		t.Fatal(err)
	}
	_, w.router = loadContract(t)
	return w
}

// call makes a request, holds the answer against the contract, and decodes it.
func (w *whole) call(method, path, body string, status int) map[string]any {
	w.t.Helper()
	c := call{method: method, path: path, body: body, status: status}
	if strings.HasPrefix(path, "/v1/imports") && method == "POST" {
		c.contentType = "application/octet-stream"
	}
	r := c.request()
	r.Header.Set("Authorization", "Bearer "+w.key)
	if w.key == "" {
		r.Header.Del("Authorization")
	}
	answer := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(answer, r)
	if answer.Code != status {
		w.t.Fatalf("%s %s %s: %d %s", method, path, body, answer.Code, answer.Body)
	}
	conforms(w.t, w.router, c, answer)
	out := map[string]any{}
	if answer.Body.Len() > 0 {
		if err := json.Unmarshal(answer.Body.Bytes(), &out); err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

// verify answers the result of a code.
func (w *whole) verify(user, code string) any {
	w.t.Helper()
	return w.call("POST", "/v1/verify", fmt.Sprintf(`{"user":%q,"code":%q}`, user, code), 200)["result"]
}

const seedHex = "3132333435363738393031323334353637383930"

// hotp asks oathtool for the code of a counter.
func hotp(t *testing.T, counter int) string {
	t.Helper()
	return hotpOf(t, seedHex, counter)
}

// hotpOf is hotp for another seed.
func hotpOf(t *testing.T, seed string, counter int) string {
	t.Helper()
	out, err := exec.Command("oathtool", "-c", strconv.Itoa(counter), seed).Output()
	if err != nil {
		t.Fatalf("oathtool: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func TestFromSeedFileToAcceptedCode(t *testing.T) {
	w := newWhole(t)
	file := "serial,seed,type\nA1," + seedHex + ",hotp\nA2," + seedHex + ",hotp\nA3," + seedHex + ",hotp\n"

	bad := file + "A4,nonsense\n"
	if got := w.call("POST", "/v1/imports", bad, 422); got["created"] != 0.0 || got["published"] != false {
		t.Errorf("a file with a bad record: %v", got)
	}
	if got := w.call("POST", "/v1/imports?dry_run=true", file, 200); got["created"] != 3.0 || got["published"] != false {
		t.Errorf("dry run: %v", got)
	}
	if got := w.call("GET", "/v1/tokens", "", 200); len(got["items"].([]any)) != 0 {
		t.Errorf("tokens after a refused file and a dry run: %v", got)
	}
	if got := w.call("POST", "/v1/imports?name=shipment.csv", file, 200); got["created"] != 3.0 || len(got["records"].([]any)) != 0 {
		t.Errorf("import: %v", got)
	}
	if got := w.call("POST", "/v1/imports?all=true", file, 200); got["duplicate"] != 3.0 || len(got["records"].([]any)) != 3 {
		t.Errorf("import again: %v", got)
	}
	if got := w.call("POST", "/v1/imports?partial=true", "A5,"+seedHex+"\nA6,nonsense\n", 200); got["created"] != 1.0 || got["rejected"] != 1.0 {
		t.Errorf("partial: %v", got)
	}
	if got := w.call("GET", "/v1/imports", "", 200); len(got["items"].([]any)) != 2 {
		t.Errorf("imports: %v", got)
	}

	w.call("POST", "/v1/users", `{"name":"Alice"}`, 201)
	w.call("POST", "/v1/users", `{"name":"aLICE"}`, 409)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200)
	w.call("POST", "/v1/tokens/A9/assign", `{"user":"alice"}`, 404)
	w.call("POST", "/v1/tokens/A2/assign", `{"user":"bob"}`, 404)

	if got := w.call("POST", "/v1/verify", fmt.Sprintf(`{"user":"ALICE","code":%q}`, hotp(t, 0)), 200); got["result"] != "accept" || got["serial"] != "A1" {
		t.Errorf("the first code: %v", got)
	}
	for user, code := range map[string]string{"alice": hotp(t, 0), "nobody": hotp(t, 1), "alice ": hotp(t, 2)} {
		if got := w.verify(user, code); got != "reject" {
			t.Errorf("%q with %s: %v", user, code, got)
		}
	}
	if got := w.call("GET", "/v1/tokens/A1", "", 200); got["counter"] != 1.0 || got["user"] != "alice" || got["last_used"] == nil {
		t.Errorf("the token: %v", got)
	}

	w.call("PUT", "/v1/users/alice/pin", `{"pin":"4711"}`, 200)
	if got := w.verify("alice", hotp(t, 1)); got != "reject" {
		t.Errorf("a code without its PIN: %v", got)
	}
	if got := w.verify("alice", "4711"+hotp(t, 2)); got != "accept" {
		t.Errorf("PIN and code: %v", got)
	}
	w.call("DELETE", "/v1/users/alice/pin", "", 200)

	w.call("POST", "/v1/tokens/A1/resync", `{"code1":"000000","code2":"000001"}`, 422)
	w.call("POST", "/v1/tokens/A1/resync", fmt.Sprintf(`{"code1":%q,"code2":%q}`, hotp(t, 500), hotp(t, 501)), 200)
	if got := w.verify("alice", hotp(t, 502)); got != "accept" {
		t.Errorf("after resynchronisation: %v", got)
	}

	w.call("POST", "/v1/tokens/A1/lost", `{"reason":"stolen"}`, 200)
	if got := w.verify("alice", hotp(t, 503)); got != "reject" {
		t.Errorf("a lost token: %v", got)
	}
	if got := w.call("POST", "/v1/tokens/A1/resume", "", 400); got["status"] != 400.0 {
		t.Errorf("resumed without a reason: %v", got)
	}
	w.call("POST", "/v1/tokens/A1/resume", `{"reason":"found again"}`, 200)
	if got := w.verify("alice", hotp(t, 504)); got != "accept" {
		t.Errorf("a resumed token: %v", got)
	}
	w.call("POST", "/v1/tokens/A1/unassign", "", 200)
	w.call("POST", "/v1/tokens/A1/unlock", "", 409)
	w.call("POST", "/v1/tokens/A1/revoke", "", 200)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 409)

	why := w.call("GET", "/v1/users/alice/why", "", 200)["items"].([]any)
	if len(why) < 10 || why[0].(map[string]any)["words"] == "" {
		t.Errorf("why: %v", why)
	}
	list := w.call("GET", "/v1/audit?user=alice&action=verify&outcome=accept", "", 200)["items"].([]any)
	if len(list) != 4 {
		t.Errorf("%d accepts in the audit: %v", len(list), list)
	}
	for _, item := range list {
		if i := item.(map[string]any); i["source"] != "192.0.2.1" || i["serial"] != "A1" || i["user"] != "alice" {
			t.Errorf("audit item %v", i)
		}
	}
	if got := w.call("GET", "/v1/audit/verify", "", 200); got["intact"] != true {
		t.Errorf("audit: %v", got)
	}
}

// An encrypted file comes with its key or password, before it and not behind.
func TestEncryptedFilesAreImportedWithTheirSecret(t *testing.T) {
	w := newWhole(t)
	encrypt := func(serial string, args ...string) string {
		args = append([]string{"-e", "hex", "-x", "algorithm=urn:ietf:params:xml:ns:keyprov:pskc:hotp", "-x", "response_length=6"}, args...)
		cmd := exec.Command("csv2pskc", args...)
		cmd.Stdin = strings.NewReader("serial,secret,counter\n" + serial + "," + seedHex + ",0\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("csv2pskc (package pskc-utils): %v", err)
		}
		return string(out)
	}
	const key = "00112233445566778899aabbccddeeff"
	withKey, withPassword := encrypt("K1", "-s", key), encrypt("P1", "-p", "correct horse")
	for _, tt := range []struct {
		parts  []part
		status int
		says   string
	}{
		{[]part{{"file", withKey}}, 400, "--psk-file"},
		{[]part{{"file", withKey}, {"psk", key}}, 400, "must stand before"},
		{[]part{{"psk", strings.Repeat("0", 32)}, {"file", withKey}}, 400, ""},
		{[]part{{"psk", "abc"}, {"file", withKey}}, 400, "3 bytes"},
		{[]part{{"psk", key + "\n"}, {"file", withKey}}, 200, `"created":1`},
		{[]part{{"password", "wrong"}, {"file", withPassword}}, 400, ""},
		{[]part{{"password", "correct horse\n"}, {"file", withPassword}}, 200, `"created":1`},
	} {
		contentType, body := form(t, tt.parts...)
		answer := do(w.server.Handler(), "POST", "/v1/imports", body, "Content-Type", contentType, "Authorization", "Bearer "+w.key)
		if answer.Code != tt.status || !strings.Contains(answer.Body.String(), tt.says) {
			t.Errorf("%.40q: %d %s", tt.parts, answer.Code, answer.Body)
		}
		for _, secret := range []string{key, "correct horse", seedHex} {
			if strings.Contains(answer.Body.String(), secret) {
				t.Errorf("the answer holds a secret: %s", answer.Body)
			}
		}
	}
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	for i, serial := range []string{"K1", "P1"} {
		w.call("POST", "/v1/tokens/"+serial+"/assign", `{"user":"alice"}`, 200)
		if got := w.verify("alice", hotp(t, i)); got != "accept" {
			t.Errorf("%s: %v", serial, got)
		}
	}
}

func TestListingsArePagedToTheirEnd(t *testing.T) {
	w := newWhole(t)
	var file strings.Builder
	for i := range 25 {
		fmt.Fprintf(&file, "A%02d,%s\n", i, seedHex)
		w.call("POST", "/v1/users", fmt.Sprintf(`{"name":"user%02d"}`, i), 201)
	}
	w.call("POST", "/v1/imports", file.String(), 200)
	w.call("POST", "/v1/imports", "B0,"+seedHex+"\n", 200)
	w.call("POST", "/v1/imports", "C0,"+seedHex+"\n", 200)
	for path, want := range map[string]struct {
		field string
		total int
	}{
		"/v1/users": {"name", 25}, "/v1/users?q=USER1": {"name", 10}, "/v1/tokens": {"serial", 27}, "/v1/tokens?batch=2": {"serial", 1},
		"/v1/tokens?state=active": {"serial", 0}, "/v1/imports": {"id", 3}, "/v1/audit?action=user.add": {"user", 25},
	} {
		seen, cursor := map[any]bool{}, ""
		for pages := 0; ; pages++ {
			sep := map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")]
			got := w.call("GET", path+sep+"limit=2"+cursor, "", 200)
			for _, item := range got["items"].([]any) {
				seen[item.(map[string]any)[want.field]] = true
			}
			if got["next"] == nil {
				break
			}
			cursor = "&cursor=" + got["next"].(string)
			if pages > want.total {
				t.Fatalf("%s has no end", path)
			}
		}
		if len(seen) != want.total {
			t.Errorf("%s: %d of %d: %v", path, len(seen), want.total, seen)
		}
	}
}

func TestKeysMayDoWhatTheirScopeSays(t *testing.T) {
	w := newWhole(t)
	admin := w.key
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/users", `{"name":"alice","realm":"corp"}`, 201)
	made := map[string]string{}
	for name, body := range map[string]string{
		"helpdesk": `{"name":"desk","scope":"helpdesk"}`, "verify": `{"name":"vpn","scope":"verify"}`,
		"read": `{"name":"auditor","scope":"read"}`, "corp": `{"name":"corp","scope":"admin","realm":"corp"}`,
	} {
		made[name] = w.call("POST", "/v1/keys", body, 201)["key"].(string)
	}
	for _, tt := range []struct {
		key, method, path, body string
		status                  int
	}{
		{"helpdesk", "POST", "/v1/users/alice/unlock", "", 200},
		{"helpdesk", "POST", "/v1/imports", "A1," + seedHex, 403},
		{"helpdesk", "GET", "/v1/keys", "", 403},
		{"verify", "POST", "/v1/verify", `{"user":"alice","code":"000000"}`, 200},
		{"verify", "GET", "/v1/users/alice", "", 403},
		{"read", "GET", "/v1/users/alice", "", 200},
		{"read", "POST", "/v1/verify", `{"user":"alice","code":"000000"}`, 403},
		{"read", "GET", "/v1/clients", "", 200},
		{"read", "POST", "/v1/users/alice/unlock", "", 403},
		{"corp", "GET", "/v1/users/alice", "", 200},
		{"corp", "GET", "/v1/users/alice?realm=default", "", 403},
		{"corp", "POST", "/v1/users", `{"name":"bob"}`, 201},
		{"corp", "POST", "/v1/users", `{"name":"bob","realm":"default"}`, 403},
	} {
		w.key = made[tt.key]
		w.call(tt.method, tt.path, tt.body, tt.status)
	}
	for path, want := range map[string]int{"/v1/keys?realm=CORP": 1, "/v1/keys": 5, "/v1/clients?realm=corp": 0, "/v1/clients?realm=default": 1, "/v1/imports?realm=corp": 0} {
		w.key = admin
		if got := w.call("GET", path, "", 200)["items"].([]any); len(got) != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	w.key = made["corp"]
	if got := w.call("GET", "/v1/users", "", 200)["items"].([]any); len(got) != 2 {
		t.Errorf("users of corp: %v", got)
	}
	w.key = admin
	var id string
	for _, k := range w.call("GET", "/v1/keys", "", 200)["items"].([]any) {
		if k := k.(map[string]any); k["name"] == "vpn" {
			id = k["id"].(string)
		}
	}
	w.call("DELETE", "/v1/keys/"+id, "", 204)
	w.call("DELETE", "/v1/keys/"+id, "", 404)
	w.key = made["verify"]
	w.call("POST", "/v1/verify", `{"user":"alice","code":"000000"}`, 401)
}

func TestRADIUSClientsAreKept(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/clients", `{"name":"vpn","prefix":"192.0.2.0/24","secret":"0123456789abcdef"}`, 201)
	w.call("POST", "/v1/clients", `{"name":"VPN","prefix":"192.0.3.0/24","secret":"0123456789abcdef"}`, 409)
	w.call("POST", "/v1/clients", `{"name":"other","prefix":"192.0.2.0/24","secret":"0123456789abcdef"}`, 409)
	got := w.call("PUT", "/v1/clients/vpn", `{"prefix":"192.0.2.7","secret":"fedcba9876543210f","require_message_authenticator":false}`, 200)
	if got["prefix"] != "192.0.2.7/32" || got["secret_length"] != 17.0 || got["require_message_authenticator"] != false {
		t.Errorf("%v", got)
	}
	if list := w.call("GET", "/v1/clients", "", 200)["items"].([]any); len(list) != 2 { // with the first one, localhost
		t.Errorf("%v", list)
	}
	w.call("DELETE", "/v1/clients/vpn", "", 204)
	w.call("DELETE", "/v1/clients/vpn", "", 404)
}

func TestOneCodeIsAcceptedOnceHoweverOftenItIsSent(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/imports", "A1,"+seedHex+",hotp\n", 200)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200)
	code := hotp(t, 3)
	results := make(chan string, 200)
	var all sync.WaitGroup
	for range cap(results) {
		all.Go(func() {
			answer := do(w.server.Handler(), "POST", "/v1/verify", fmt.Sprintf(`{"user":"alice","code":%q}`, code), "Authorization", "Bearer "+w.key)
			var got VerifyResult
			if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || answer.Code != 200 {
				t.Errorf("%d %s", answer.Code, answer.Body)
			}
			results <- string(got.Result)
		})
	}
	all.Wait()
	count := map[string]int{}
	for range cap(results) {
		count[<-results]++
	}
	if count["accept"] != 1 || count["reject"] != cap(results)-1 {
		t.Errorf("%v", count)
	}
}

func TestNoHSMNoAccept(t *testing.T) {
	w := newWhole(t)
	w.call("POST", "/v1/imports", "A1,"+seedHex+",hotp\n", 200)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	w.call("POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200)
	w.call("GET", "/readyz", "", 200)
	w.keystore.Close()
	w.call("POST", "/v1/verify", fmt.Sprintf(`{"user":"alice","code":%q}`, hotp(t, 0)), 503)
	w.call("GET", "/readyz", "", 503)
}

// What no name or serial can hold is refused and takes nothing down.
func TestHostileNamesTakeNothingDown(t *testing.T) {
	w := newWhole(t)
	for _, c := range []call{
		{"GET", "/v1/tokens/%00", "", 400, ""}, {"GET", "/v1/tokens/%FF", "", 400, ""}, {"GET", "/v1/users/%00", "", 400, ""},
		{"GET", "/v1/audit?serial=%00", "", 400, ""}, {"GET", "/v1/tokens?q=%25%27%22%5C_", "", 200, ""},
		{"GET", "/v1/tokens/%27%3B--", "", 404, ""}, {"POST", "/v1/users", `{"name":" "}`, 400, ""},
		{"POST", "/v1/users", `{"name":"a\u0000b"}`, 400, ""}, {"POST", "/v1/tokens/A%20B/lost", "", 404, ""},
		{"GET", "/v1/users?realm=" + strings.Repeat("r", 300), "", 400, ""},
	} {
		w.call(c.method, c.path, c.body, c.status)
	}
	w.call("GET", "/readyz", "", 200)
}
