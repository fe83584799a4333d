package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"watchword/tokens"
)

func TestBodiesAreDecodedStrictly(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	for _, tt := range []struct {
		name, body string
		says       string // empty: accepted
	}{
		{"as documented", `{"user":"alice","code":"755224"}`, ""},
		{"with a realm and white space", " {\n \"realm\" : \"corp\" ,\t\"user\":\"alice\", \"code\":\"1\" } \r\n", ""},
		{"escaped name of a field", `{"\u0075ser":"alice","code":"1"}`, ""},
		{"braces and quotes inside a string", `{"user":"{\"code\":\\","code":"},{"}`, ""},
		{"unknown field", `{"user":"alice","code":"1","otp":"2"}`, `unknown field "otp"; there are: application, caller, code, realm, statement, user`},
		{"field in upper case", `{"USER":"alice","code":"1"}`, `unknown field "USER"`},
		{"field twice", `{"user":"alice","code":"1","user":"bob"}`, `the field "user" stands there twice`},
		{"field twice, once escaped", `{"user":"alice","code":"1","\u0075ser":"bob"}`, `the field "user" stands there twice`},
		{"null", `{"user":"alice","code":null}`, `the field "code" is null`},
		{"missing", `{"user":"alice"}`, `the field "code" is missing`},
		{"empty", `{"user":"","code":"1"}`, `the field "user" is empty`},
		{"number for a string", `{"user":"alice","code":755224}`, `the field "code" is no string`},
		{"text for an object", `{"user":"alice","code":"1","statement":"x"}`, `the field "statement" is no object`},
		{"text for a number", `{"user":"alice","code":"1","statement":{"audience":"x","ttl":"5"}}`, `the field "statement.ttl" is no whole number in range`},
		{"two objects", `{"user":"alice","code":"1"}{}`, "not valid JSON, at byte 28"},
		{"not JSON", `user=alice&code=1`, "not valid JSON"},
		{"array", `[{"user":"alice","code":"1"}]`, "not a JSON object"},
		{"null alone", `null`, "not a JSON object"},
		{"broken off", `{"user":"alice","code":"1"`, "not valid JSON"},
		{"not UTF-8", "{\"user\":\"al\xffice\",\"code\":\"1\"}", "not valid UTF-8"},
		{"NUL", `{"user":"al\u0000ice","code":"1"}`, "NUL"},
		{"white space", "  ", "not valid JSON"},
		{"an object inside", `{"user":"alice","code":"1","statement":{"audience":"x","ttl":5}}`, ""},
		{"unknown field inside", `{"user":"alice","code":"1","statement":{"audience":"x","nonse":"y"}}`, `unknown field "nonse"; there are: audience, nonce, ttl`},
		{"field twice inside", `{"user":"alice","code":"1","statement":{"audience":"x","audience":"y"}}`, `the field "audience" stands there twice`},
		{"null inside", `{"user":"alice","code":"1","statement":{"audience":"x","ttl":null}}`, `the field "ttl" is null`},
		{"missing inside", `{"user":"alice","code":"1","statement":{}}`, `the field "audience" is missing`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := do(h, "POST", "/v1/verify", tt.body)
			if tt.says == "" {
				if w.Code != 200 {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				return
			}
			if p := problemOf(t, w); w.Code != 400 || !strings.Contains(detail(p), tt.says) {
				t.Errorf("%d %s; want %q", w.Code, w.Body, tt.says)
			}
		})
	}
}

func TestErrorsDoNotQuoteBodies(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	for _, body := range []string{
		`{"user":"alice","code":755224}`, `{"user":"alice","code":"755224"`, `{"code":"755224"}`, `{"user":755224,"code":"755224"}`,
		`755224`, `"755224"`, `{"user":"alice","code":"755224","code":"755224"}`,
	} {
		if w := do(h, "POST", "/v1/verify", body); w.Code != 400 || strings.Contains(w.Body.String(), "755224") {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestOtherContentTypesAreRefused(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	for contentType, want := range map[string]int{
		"application/json":                  200,
		"application/json; charset=UTF-8":   200,
		"Application/JSON":                  200,
		"application/json; charset=latin1":  415,
		"application/x-www-form-urlencoded": 415,
		"text/plain":                        415,
		"":                                  415,
	} {
		w := do(h, "POST", "/v1/verify", `{"user":"alice","code":"1"}`, "Content-Type", contentType)
		if w.Code != want {
			t.Errorf("%q: %d %s", contentType, w.Code, w.Body)
		}
	}
	// A body that need not be there needs no type, and has one if it is there.
	if w := do(h, "POST", "/v1/tokens/A1/suspend", ""); w.Code != 200 {
		t.Errorf("no body: %d %s", w.Code, w.Body)
	}
	if w := do(h, "POST", "/v1/tokens/A1/suspend", `reason=x`, "Content-Type", "application/x-www-form-urlencoded"); w.Code != 415 {
		t.Errorf("a form: %d %s", w.Code, w.Body)
	}
}

func TestLargeBodiesAreRefused(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	fits := `{"user":"alice","code":"` + strings.Repeat("1", maxJSON-26) + `"}`
	if len(fits) != maxJSON {
		t.Fatalf("the body has %d bytes", len(fits))
	}
	if w := do(h, "POST", "/v1/verify", fits); w.Code != 200 {
		t.Errorf("%d bytes: %d %s", len(fits), w.Code, w.Body)
	}
	if w := do(h, "POST", "/v1/verify", fits+" "); w.Code != 413 {
		t.Errorf("%d bytes: %d %s", len(fits)+1, w.Code, w.Body)
	}
	// Nor is a body whose length is not told read further than that.
	body := &counted{r: strings.NewReader(strings.Repeat(" ", 10*maxJSON))}
	r := httptest.NewRequest("POST", "/v1/verify", body)
	r.ContentLength = -1
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+testKey)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 413 || body.n > maxJSON+1 {
		t.Errorf("%d after %d bytes", w.Code, body.n)
	}
}

type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestRealmComesFromQueryOrBody(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	for _, tt := range []struct {
		method, path, body string
		status             int
		realm              string
	}{
		{"POST", "/v1/users?realm=corp", `{"name":"alice"}`, 201, "corp"},
		{"POST", "/v1/users", `{"name":"alice","realm":"corp"}`, 201, "corp"},
		{"POST", "/v1/users?realm=corp", `{"name":"alice","realm":"corp"}`, 201, "corp"},
		{"POST", "/v1/users?realm=corp", `{"name":"alice","realm":"lab"}`, 400, ""},
		{"POST", "/v1/users", `{"name":"alice"}`, 201, ""},
		{"POST", "/v1/users/alice/unlock?realm=corp", ``, 200, "corp"},
		{"POST", "/v1/users/alice/unlock", `{"realm":"corp"}`, 200, "corp"},
		{"POST", "/v1/users/alice/unlock", `{}`, 200, ""},
		{"POST", "/v1/users/alice/disable?realm=lab", `{"realm":"corp"}`, 400, ""},
		{"PUT", "/v1/users/alice/pin?realm=corp", `{"pin":"4711"}`, 200, "corp"},
		{"DELETE", "/v1/users/alice/pin?realm=corp", ``, 200, "corp"},
		{"GET", "/v1/users/alice/why?realm=corp", ``, 200, "corp"},
		{"POST", "/v1/verify", `{"user":"alice","code":"1","realm":"corp"}`, 200, "corp"},
		{"POST", "/v1/verify?realm=corp", `{"user":"alice","code":"1"}`, 200, "corp"},
		{"POST", "/v1/verify?realm=lab", `{"user":"alice","code":"1","realm":"corp"}`, 400, ""},
		{"PUT", "/v1/clients/vpn?realm=corp", `{"prefix":"192.0.2.1","secret":"s"}`, 200, "corp"},
		{"POST", "/v1/keys?realm=corp", `{"name":"desk","scope":"helpdesk"}`, 201, "corp"},
		{"POST", "/v1/tokens/A1/assign?realm=corp", `{"user":"alice"}`, 200, "corp"},
		{"POST", "/v1/tokens/A1/lost", `{"realm":"corp"}`, 200, "corp"},
		{"POST", "/v1/tokens/A1/resync?realm=corp", `{"code1":"1","code2":"2"}`, 200, "corp"},
		{"POST", "/v1/tokens/A1/unlock?realm=corp", ``, 200, "corp"},
		{"GET", "/v1/audit?realm=corp", ``, 200, "corp"},
		{"POST", "/v1/clients", `{"name":"vpn","prefix":"192.0.2.1","secret":"s","realm":"corp"}`, 201, "corp"},
		{"POST", "/v1/keys", `{"name":"desk","scope":"helpdesk","realm":"corp"}`, 201, "corp"},
	} {
		core.realm = "untouched"
		w := do(h, tt.method, tt.path, tt.body)
		if w.Code != tt.status {
			t.Errorf("%s %s %s: %d %s", tt.method, tt.path, tt.body, w.Code, w.Body)
		} else if w.Code < 300 && core.realm != tt.realm {
			t.Errorf("%s %s %s: realm %q", tt.method, tt.path, tt.body, core.realm)
		}
	}
}

func TestMistypedQueryIsRefused(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	for path, says := range map[string]string{
		"/v1/imports?dryrun=true":            "unknown query parameter; there are: realm, format, name, dry_run, partial, all",
		"/v1/imports?psk=00112233":           "unknown query parameter",
		"/v1/imports?dry_run=yes":            "dry_run",
		"/v1/imports?dry_run=0&dry_run=1":    `"dry_run" stands there twice`,
		"/v1/imports?name=a%00b":             "control character",
		"/v1/imports?name=%ff":               "control character or is not valid UTF-8",
		"/v1/imports?dry_run=true;partial=1": "malformed",
		"/v1/verify?code=755224":             "unknown query parameter; there are: realm",
		"/v1/tokens/A%00/lost":               "the path holds a control character",
	} {
		core.arg = nil
		w := do(h, "POST", path, "x", "Content-Type", "application/octet-stream")
		if p := problemOf(t, w); w.Code != 400 || !strings.Contains(detail(p), says) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if core.arg != nil {
			t.Errorf("%s reached the core", path)
		}
		if strings.Contains(w.Body.String(), "00112233") {
			t.Errorf("%s is quoted: %s", path, w.Body)
		}
	}
}

func TestQueryWhereThereIsNoneIsRefused(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	if w := do(h, "DELETE", "/v1/keys/k1?force=1", ""); w.Code != 400 || !strings.Contains(w.Body.String(), "no query parameters here") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(h, "GET", "/healthz?probe=1", ""); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A name may hold anything that can be escaped in a path.
func TestNamesInPathsAreUnescapedOnce(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	for path, want := range map[string]string{
		"/v1/users/alice":            "alice",
		"/v1/users/alice@corp":       "alice@corp",
		"/v1/users/CORP%5Calice":     `CORP\alice`,
		"/v1/users/a%2Fb":            "a/b",
		"/v1/users/100%25":           "100%",
		"/v1/users/100%2525":         "100%25",
		"/v1/users/a%2Fb%2525":       "a/b%25",
		"/v1/users/a+b":              "a+b",
		"/v1/users/a%20b":            "a b",
		"/v1/users/a,b;c=d":          "a,b;c=d",
		"/v1/users/J%C3%BCrgen":      "Jürgen",
		"/v1/users/%E6%9D%8E%3F%23x": "李?#x",
		"/v1/users/%2E%2E":           "..",
		"/v1/users/:name":            ":name",
	} {
		core.user = ""
		if w := do(h, "GET", path, ""); w.Code != 200 || core.user != want {
			t.Errorf("%s: %d, user %q, want %q", path, w.Code, core.user, want)
		}
	}
}

func TestPagesEndWhereTheListingEnds(t *testing.T) {
	core := &scripted{rows: 1000}
	h := newServer(t, core).Handler()
	var page UserPage
	w := do(h, "GET", "/v1/users?limit=2", "")
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || len(page.Items) != 2 || value(page.Next) != "2" {
		t.Fatalf("%v %s", err, w.Body)
	}
	page = UserPage{}
	w = do(h, "GET", "/v1/users?limit=2&cursor="+"2", "")
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || len(page.Items) != 2 || value(page.Next) != "4" {
		t.Fatalf("%v %s", err, w.Body)
	}
	if q := core.arg.(tokens.UserQuery); q.After != 2 {
		t.Errorf("%+v", q)
	}
	core.rows = 2
	w = do(h, "GET", "/v1/users?limit=2", "")
	if !bytes.HasSuffix(bytes.TrimSpace(w.Body.Bytes()), []byte(`}]}`)) || strings.Contains(w.Body.String(), `"next"`) {
		t.Errorf("a next page of nothing: %s", w.Body)
	}
	for _, query := range []string{"limit=0", "limit=501", "limit=-1", "limit=x", "cursor=x", "cursor=-1", "cursor=0", "cursor=99999999999999999999"} {
		if w := do(h, "GET", "/v1/audit?"+query, ""); w.Code != 400 {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}

// FuzzBody: whatever stands in a body, it is decoded as encoding/json decodes
// it, or refused; and what is accepted says each thing once.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"user":"alice","code":"755224"}`, `{"user":"a","code":"1","realm":"r"}`, `{"\u0075ser":"a","code":"\\\""}`,
		`{"user":"a","code":"1","user":"b"}`, `{"user":{"a":[1,{"b":"}"}]},"code":"1"}`, `[]`, `null`, `{`, `{"user":"a","code":"1"}x`, "{\"user\":\"\xff\"}",
		` {  } `, `{"USER":"a","Code":"b"}`, `{"":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got VerifyRequest
		err := unmarshal(body, &got, []string{"user", "code"})
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		var want VerifyRequest
		if err := d.Decode(&want); err != nil || got.User != want.User || got.Code != want.Code || value(got.Realm) != value(want.Realm) {
			t.Fatalf("%q: %+v, encoding/json says %+v, %v", body, got, want, err)
		}
		if got.User == "" || got.Code == "" {
			t.Fatalf("%q: accepted without user or code: %+v", body, got)
		}
		var seen []string
		if err := members(body, func(name string, _ []byte) error { seen = append(seen, name); return nil }); err != nil {
			t.Fatal(err)
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(body, &object); err != nil || len(object) != len(seen) {
			t.Fatalf("%q: %d members of %v, %v", body, len(object), seen, err)
		}
	})
}
