package api

import (
	"database/sql"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"watchword/tokens"
)

// theirs is what a realm has that another is to learn nothing of, beside what there
// is nowhere: of the same length, and no other in kind.
type theirs struct{ there, nowhere any }

// plant makes the realm corp of users, tokens, keys, sessions and all else that has
// a name or an id; secrets are what no answer may show.
func (w *tries) plant() (ids map[string]theirs, secrets []string) {
	w.t.Helper()
	w.key = w.admin
	ids = map[string]theirs{"realm": {theirRealm, "carp"}, "user": {"theirs", "nobody"}}
	made := map[string]string{}
	const seed = "5f1c0a9e77d3b24681fe02c4a6b8d0e21357ace9"
	w.call("POST", "/v1/imports?realm="+theirRealm, "THEIRS1,"+seed+",hotp\nTHEIRS2,"+seed+",hotp\n", 200)
	w.call("POST", "/v1/users?realm="+theirRealm, `{"name":"theirs","external_id":"ext-theirs","groups":["theirgroup"]}`, 201)
	w.call("POST", "/v1/tokens/THEIRS1/assign?realm="+theirRealm, `{"user":"theirs"}`, 200)
	session := w.call("POST", "/v1/session?realm="+theirRealm, fmt.Sprintf(`{"user":"theirs","code":%q}`, hotpOf(w.t, seed, 0)), 201)
	w.call("PUT", "/v1/users/theirs/pin?realm="+theirRealm, `{"pin":"93847561029384"}`, 200)
	key := w.call("POST", "/v1/keys?realm="+theirRealm, `{"name":"their key","scope":"admin"}`, 201)
	recovery := w.call("POST", "/v1/users/theirs/recovery?realm="+theirRealm, "", 201)
	client := w.make(made, "client", theirRealm)
	invitation := w.call("POST", "/v1/users/theirs/invitations?realm="+theirRealm, "", 201)["id"]
	batch := w.call("GET", "/v1/imports?realm="+theirRealm, "", 200)["items"].([]any)[0].(map[string]any)["id"]
	sid := session["info"].(map[string]any)["id"]

	ids["serial"], ids["group"] = theirs{"THEIRS1", "NOWHERE"}, theirs{"theirgroup", "nonegroup0"}
	ids["external_id"] = theirs{"ext-theirs", "ext-nobody"}
	ids["key"], ids["client"] = theirs{key["id"], "0123456789abcdef"}, theirs{client, strings.Repeat("x", len(client))}
	ids["session"], ids["shown"] = theirs{sid, "0123456789abcdef"}, theirs{session["session"], "wsn_0123456789abcdef_" + strings.Repeat("A", 43)}
	ids["invitation"] = theirs{invitation, "0123456789abcdef"}
	ids["batch"] = theirs{batch, 987}
	ids["principal"], ids["resource"] = theirs{"admin:corp/theirs", "admin:corp/nobody"}, theirs{"token:corp/THEIRS1", "token:corp/NOWHERE"}

	raw, err := hex.DecodeString(seed)
	if err != nil {
		w.t.Fatal(err)
	}
	secrets = []string{string(raw), seed, base32.StdEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
		"93847561029384", "0123456789abcdef0", key["key"].(string), session["session"].(string)}
	for _, c := range recovery["codes"].([]any) {
		secrets = append(secrets, c.(string))
	}
	return ids, secrets
}

// standing is all that the database has of a realm, and of who may do what anywhere:
// each row as a text.
func (w *tries) standing(db *sql.DB, realm string) map[string]string {
	w.t.Helper()
	users := `(SELECT id FROM users WHERE realm = ?1)`
	out := map[string]string{}
	for table, where := range map[string]string{
		"users": "realm = ?1", "tokens": "realm = ?1", "batches": "realm = ?1",
		"motions":     "token_id IN (SELECT id FROM tokens WHERE realm = ?1)",
		"memberships": "user_id IN " + users, "invitations": "realm = ?1", "sessions": "home = ?1",
		"clients": "?1 = ?1", "role_grants": "?1 = ?1", "documents": "?1 = ?1",
	} {
		out[table] = w.rows(db, "SELECT * FROM "+table+" WHERE "+where+" ORDER BY 1, 2", realm)
	}
	// The tail of a standing says where the audit of the user ends, refusals too.
	out["standings"] = w.rows(db, "SELECT user_id, version, failures, locked, throttle FROM standings WHERE user_id IN "+users+" ORDER BY 1", realm)
	out["api_keys"] = w.rows(db, "SELECT id, name, scope, realm, mac FROM api_keys WHERE ?1 = ?1 ORDER BY 1", realm)
	return out
}

func (w *tries) rows(db *sql.DB, query, realm string) string {
	w.t.Helper()
	rows, err := db.Query(query, realm)
	if err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		w.t.Fatal(err)
	}
	var all strings.Builder
	for rows.Next() {
		row := make([]any, len(columns))
		for i := range row {
			row[i] = new(any)
		}
		if err := rows.Scan(row...); err != nil {
			w.t.Fatal(err)
		}
		for i := range row {
			fmt.Fprintf(&all, "%s=%v ", columns[i], *row[i].(*any))
		}
		all.WriteByte('\n')
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
	return all.String()
}

// kindOfSlot is what of another realm belongs in a slot; more than one where its
// name does not say.
func kindOfSlot(path string, s *slot) []string {
	switch s.name {
	case "realm", "in":
		return []string{"realm"}
	case "user", "role":
		return []string{"user"}
	case "name":
		if strings.Contains(path, "/clients") {
			return []string{"client"}
		}
		return []string{"user"}
	case "serial", "serials", "by":
		return []string{"serial"}
	case "group", "groups":
		return []string{"group"}
	case "external_id":
		return []string{"external_id"}
	case "batch", "cursor":
		return []string{"batch"}
	case "session":
		return []string{"shown"}
	case "principal", "resource":
		return []string{s.name}
	case "q":
		return []string{"user", "serial", "group"}
	case "id":
		switch {
		case strings.Contains(path, "/keys/"):
			return []string{"key"}
		case strings.Contains(path, "/sessions/"):
			return []string{"session"}
		case strings.Contains(path, "/invitations/"):
			return []string{"invitation"}
		case strings.Contains(path, "/imports/"):
			return []string{"batch"}
		}
		return []string{"user"}
	}
	return nil
}

// Whoever works in one realm, by a key or signed in, reaches nothing of another by
// any path, parameter or field that the contract has, learns nothing of what there
// is, and raises no right of their own.
func TestNothingOfAnotherRealmIsReached(t *testing.T) {
	w := newTries(t)
	ids, secrets := w.plant()
	w.call("POST", "/v1/users", `{"name":"ours"}`, 201)
	w.call("POST", "/v1/tokens/"+w.token("default")+"/assign", `{"user":"ours"}`, 200)
	ours := w.token("default")
	w.call("POST", "/v1/tokens/"+ours+"/assign", `{"user":"ours"}`, 200)
	key := w.call("POST", "/v1/keys", `{"name":"ours","scope":"helpdesk","realm":"default"}`, 201)["key"].(string)
	shown := map[string]string{"a key": key, "somebody signed in": w.signIn("helpdesk", "default", "default")}

	db, err := sql.Open("sqlite3", "file:"+w.database+"?mode=ro&_busy_timeout=10000")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	before := w.standing(db, theirRealm)
	for _, table := range []string{"users", "tokens", "sessions", "invitations", "api_keys", "clients", "role_grants", "documents", "standings", "batches"} {
		if before[table] == "" {
			t.Fatalf("there is nothing in %s to be reached", table)
		}
	}
	unchanged := func(after string) {
		t.Helper()
		now := w.standing(db, theirRealm)
		for table, rows := range before {
			if now[table] != rows {
				t.Fatalf("after %s: %s is\n%s\nand was\n%s", after, table, now[table], rows)
			}
		}
	}

	send := func(by string, c call) (code int, said string) {
		t.Helper()
		r := c.request()
		r.Header.Set("Authorization", "Bearer "+shown[by])
		answer := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(answer, r)
		text := answer.Body.String()
		for _, s := range secrets {
			if strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
				t.Errorf("%s: %s %s %s: a secret is in %s", by, c.method, c.path, c.body, text)
			}
		}
		if answer.Code >= 500 {
			t.Errorf("%s: %s %s %s: %d %s", by, c.method, c.path, c.body, answer.Code, text)
		}
		return answer.Code, instance.ReplaceAllString(text, "")
	}
	doc, _ := loadContract(t)
	tried := 0
	for _, path := range doc.Paths.InMatchingOrder() {
		item := doc.Paths.Value(path)
		for method, op := range item.Operations() {
			if op.OperationID == "signOut" || op.OperationID == "signIn" || !strings.HasPrefix(path, "/v1/") {
				continue // of the caller's own session; of nobody's realm
			}
			slots := slotsOf(item, op)
			for body, media := range bodiesOf(t, op) {
				for i := range slots {
					s := &slots[i]
					for _, kind := range kindOfSlot(path, s) {
						for by := range shown {
							var codes [2]int
							var texts [2]string
							for k, v := range []any{ids[kind].there, ids[kind].nowhere} {
								c := fillSlot(t, method, path, body, media, ours, slots, s, v)
								codes[k], texts[k] = send(by, c)
								if name, ok := v.(string); ok {
									texts[k] = strings.ReplaceAll(texts[k], name, "{}")
								}
								texts[k] = strings.ReplaceAll(texts[k], fmt.Sprintf(" %v", v), " {}")
								if codes[k] == 403 { // the core says in brackets why: of keys and clients, that they are another realm's
									texts[k], _, _ = strings.Cut(texts[k], " (")
								}
								tried++
							}
							if made := op.OperationID == "addUser" || op.OperationID == "editUser"; made {
								continue // there is one of the name, then, in the own realm
							}
							if codes[0] != codes[1] || codes[0] >= 400 && texts[0] != texts[1] {
								t.Errorf("%s: %s %s, %s: of another realm %d\n%s\nunknown %d\n%s", by, method, path, s.label(), codes[0], texts[0], codes[1], texts[1])
							}
						}
					}
				}
				// All at once, and with what would give more rights.
				for by := range shown {
					everything := any(map[string]any{})
					if json.Valid([]byte(body)) && body != "" {
						if err := json.Unmarshal([]byte(body), &everything); err != nil {
							t.Fatal(err)
						}
					}
					c := call{method: method, path: path, contentType: media}
					var query []string
					for i := range slots {
						s := &slots[i]
						kinds := kindOfSlot(path, s)
						if len(kinds) == 0 {
							continue
						}
						v := ids[kinds[0]].there
						switch s.in {
						case "path":
							c.path = strings.ReplaceAll(c.path, "{"+s.name+"}", fmt.Sprint(v))
						case "query":
							query = append(query, s.name+"="+fmt.Sprint(v))
						case "body":
							if s.schema.Type.Is("array") {
								v = []any{v}
							}
							everything = s.put(everything, v)
						}
					}
					if query != nil {
						c.path += "?" + strings.Join(query, "&")
					}
					if body != "" {
						if c.body = body; media == "application/json" {
							c.body = jsonOf(t, everything)
						}
					}
					send(by, c)
					tried++
				}
			}
			unchanged(method + " " + path)
		}
	}
	if tried < 500 {
		t.Errorf("only %d requests were made", tried)
	}
	w.key = key
	for _, m := range mays {
		if !strings.ContainsAny(m.who, "H*") && m.method == "GET" {
			if answer := w.ask(key, call{method: "GET", path: placeholder.ReplaceAllString(m.path, "x")}); answer.Code != 403 {
				t.Errorf("at the end the key may do %s: %d", m.path, answer.Code)
			}
		}
	}
	t.Logf("%d requests", tried)
}

// fillSlot makes a request with a value in one slot, and what is ours in the rest of
// its path.
func fillSlot(t *testing.T, method, path, body, media, serial string, slots []slot, s *slot, v any) call {
	t.Helper()
	c := call{method: method, path: path, body: body, contentType: media}
	for i := range slots {
		if o := &slots[i]; o.in == "path" {
			of := map[string]string{"name": "ours", "serial": serial, "realm": tokens.DefaultRealm, "role": "auditor"}[o.name]
			if of == "" {
				of = "0011223344556677"
			}
			if o.name == s.name && s.in == "path" {
				of = fmt.Sprint(v)
			}
			c.path = strings.ReplaceAll(c.path, "{"+o.name+"}", of)
		}
	}
	switch s.in {
	case "query":
		c.path += "?" + s.name + "=" + fmt.Sprint(v)
	case "body":
		if s.schema.Type.Is("array") && !slices.Contains(s.at, "0") {
			v = []any{v}
		}
		var plain any
		if err := json.Unmarshal([]byte(body), &plain); err != nil && body != "" {
			t.Fatalf("%s: %v", body, err)
		}
		c.body, c.contentType = jsonOf(t, s.put(plain, v)), "application/json"
	}
	return c
}
