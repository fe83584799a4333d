package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"watchword/tokens"
	"watchword/webauthn"
)

var (
	_ Enroller   = (*tokens.Service)(nil)
	_ Ceremonies = (*webauthn.Service)(nil)
)

// Mail scanners open every link, some of them many times.
func TestLookingAtAnInvitationDoesNotUseItUp(t *testing.T) {
	s := newSite(t)
	for _, method := range []string{"GET", "HEAD", "GET"} {
		w := s.send(method, "/enrol/"+code, "")
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", method, w.Code, w.Body)
		}
		if method == "GET" && (!strings.Contains(w.Body.String(), "<strong>alice</strong>") || !strings.Contains(w.Body.String(), `datetime="2025-11-04T09:12:00Z"`)) {
			t.Errorf("the page does not say whom it is for, or until when: %s", w.Body)
		}
	}
	if len(s.core.asked) != 0 {
		t.Errorf("looking did %v", s.core.asked)
	}
}

func TestAnInvitationOffersWhatItIsFor(t *testing.T) {
	const key, app, elsewhere = `id="enrol"`, `/app"`, "Keys cannot be enrolled at the address of this page"
	for _, tt := range []struct {
		kinds, host string
		shows       []string
	}{
		{"fido totp", "example.com", []string{key, app}},
		{"fido", "login.example.com:8443", []string{key}},
		{"fido", "LOCALHOST:8080", []string{key}},
		{"totp", "example.com", []string{app}},
		{"fido totp", "127.0.0.1:8080", []string{elsewhere, app}},
		{"fido", "login.example.com", []string{elsewhere}},
	} {
		s := newSite(t)
		s.core.invite.Kinds = strings.Fields(tt.kinds)
		page := s.send("GET", "/enrol/"+code, "", "Host", tt.host).Body.String()
		for _, part := range []string{key, app, elsewhere} {
			if got := strings.Contains(page, part); got != slices.Contains(tt.shows, part) {
				t.Errorf("%s at %s: %s is shown: %v", tt.kinds, tt.host, part, got)
			}
		}
	}
}

func TestUsedExpiredAndUnknownInvitationsLookAlike(t *testing.T) {
	s := newSite(t)
	var first string
	for _, path := range []string{"/enrol/wi_x_y", "/enrol/" + code + "x", "/enrol/nonsense"} {
		for _, r := range []*httptest.ResponseRecorder{s.send("GET", path, ""), s.send("POST", path+"/app", ""), s.send("POST", path+"/confirm", "serial=S-1&first=123456&second=234567")} {
			if first == "" {
				first = r.Body.String()
			}
			if r.Code != 404 || r.Body.String() != first || !strings.Contains(first, used.Title) {
				t.Errorf("%s: %d %s", path, r.Code, r.Body)
			}
		}
	}
	for _, path := range []string{"/console/enrol/begin", "/console/enrol/finish"} {
		if w := s.send("POST", path, `{"code":"wi_x_y"}`); w.Code != 404 || !strings.Contains(w.Body.String(), used.Title) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if len(s.core.asked) != 0 {
		t.Errorf("something was done: %v", s.core.asked)
	}
}

// everyAnswer is one of each kind of answer there is.
func everyAnswer(t *testing.T) map[string]*httptest.ResponseRecorder {
	s := newSite(t)
	all := map[string]*httptest.ResponseRecorder{
		"invitation":   s.send("GET", "/enrol/"+code, ""),
		"elsewhere":    s.send("GET", "/enrol/"+code, "", "Host", "192.0.2.1"),
		"no such":      s.send("GET", "/enrol/x", ""),
		"app":          s.send("POST", "/enrol/"+code+"/app", ""),
		"done":         s.send("GET", "/enrol/done?kind=fido&serial=F-1", ""),
		"done, app":    s.send("GET", "/enrol/done", ""),
		"sign in":      s.send("GET", "/signin?realm=corp", ""),
		"sign in off":  s.send("GET", "/signin", "", "Host", "192.0.2.1"),
		"nothing":      s.send("GET", "/enrol/", ""),
		"other page":   s.send("POST", "/enrol/"+code+"/app", "", "Sec-Fetch-Site", "cross-site"),
		"style":        s.send("GET", "/assets/console.css", ""),
		"script":       s.send("GET", "/assets/console.js", ""),
		"no asset":     s.send("GET", "/assets/x.js", ""),
		"begin":        s.send("POST", "/console/enrol/begin", `{"code":"`+code+`","passkey":true}`),
		"other script": s.send("POST", "/console/enrol/begin", `{}`, "Origin", "https://evil.example"),
	}
	s.core.err = tokens.ErrWrongCode
	all["wrong code"] = s.send("POST", "/enrol/"+code+"/confirm", "serial=S-1&first=000000&second=000001")
	s.core.err = tokens.ErrUnavailable
	all["busy"] = s.send("POST", "/enrol/"+code+"/app", "")
	for range limitBurst {
		all["hurried"] = s.send("GET", "/signin", "")
	}
	if all["hurried"].Code != 429 || all["busy"].Code != 503 || all["app"].Code != 200 {
		t.Fatalf("%d %d %d", all["hurried"].Code, all["busy"].Code, all["app"].Code)
	}
	return all
}

func TestEveryAnswerIsStrict(t *testing.T) {
	for name, w := range everyAnswer(t) {
		h := w.Header()
		want := map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			"Referrer-Policy":         "no-referrer", "X-Content-Type-Options": "nosniff",
			"Permissions-Policy": "publickey-credentials-create=(self), publickey-credentials-get=(self)",
		}
		if name != "style" && name != "script" {
			want["Cache-Control"] = "no-store"
		}
		for k, v := range want {
			if h.Get(k) != v {
				t.Errorf("%s: %s is %q", name, k, h.Get(k))
			}
		}
		if len(h.Values("Set-Cookie")) != 0 {
			t.Errorf("%s sets a cookie", name)
		}
	}
}

// What the Content-Security-Policy forbids is not in the pages, nor is anything of
// another origin.
func TestPagesLoadNothingButOurAssets(t *testing.T) {
	inline := regexp.MustCompile(`(?i)\son[a-z]+\s*=|\sstyle\s*=|<style|javascript:`)
	loads := regexp.MustCompile(`(?i)<(script|link|img|iframe|object|embed|source|form)\b[^>]*?\s(src|href|action)="([^"]*)"`)
	for name, w := range everyAnswer(t) {
		if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
			continue
		}
		page := w.Body.String()
		if found := inline.FindString(page); found != "" {
			t.Errorf("%s: inline %q", name, found)
		}
		if strings.Count(page, "<script") != 1 || !strings.Contains(page, `<script src="/assets/console.js" defer></script>`) {
			t.Errorf("%s: scripts of its own", name)
		}
		for _, m := range loads.FindAllStringSubmatch(page, -1) {
			if ours := strings.HasPrefix(m[3], "/assets/") || m[1] == "form" && strings.HasPrefix(m[3], "/enrol/"); !ours && !strings.HasPrefix(m[3], "data:") {
				t.Errorf("%s: <%s> loads %s", name, m[1], m[3])
			}
		}
	}
}

// A page can be read to somebody, and worked with a keyboard: it has a language, a
// title, one heading of the first level, and a name for each thing in it.
func TestPagesCanBeReadAloud(t *testing.T) {
	field := regexp.MustCompile(`<(input|select|textarea)\b([^>]*)>`)
	id := regexp.MustCompile(`\sid="([^"]*)"`)
	for name, w := range everyAnswer(t) {
		if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
			continue
		}
		page := w.Body.String()
		if !strings.Contains(page, `<html lang="en">`) || strings.Count(page, "<h1") != 1 || strings.Count(page, "<main>") != 1 || strings.Contains(page, "<title> ") {
			t.Errorf("%s: no language, title, heading or main part: %s", name, page)
		}
		ids := map[string]bool{}
		for _, m := range id.FindAllStringSubmatch(page, -1) {
			if ids[m[1]] {
				t.Errorf("%s: the id %s twice", name, m[1])
			}
			ids[m[1]] = true
		}
		for _, m := range regexp.MustCompile(`(?:aria-labelledby|aria-describedby|for)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
			if !ids[m[1]] {
				t.Errorf("%s: %s refers to nothing", name, m[0])
			}
		}
		for _, m := range field.FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[2], `type="hidden"`) || strings.Contains(m[2], `type="checkbox"`) && strings.Contains(page, "<label><input"+m[2]) {
				continue
			}
			if i := id.FindStringSubmatch(m[2]); i == nil || !strings.Contains(page, `<label for="`+i[1]+`"`) {
				t.Errorf("%s: %s has no label", name, m[0])
			}
		}
		for _, img := range regexp.MustCompile(`<img[^>]*>`).FindAllString(page, -1) {
			if !strings.Contains(img, ` alt="`) {
				t.Errorf("%s: an image without words", name)
			}
		}
		if tab := regexp.MustCompile(`tabindex="[1-9]`).FindString(page); tab != "" {
			t.Errorf("%s: %s breaks the order", name, tab)
		}
	}
}

// Names are data, whatever they look like.
func TestNamesAreEscaped(t *testing.T) {
	const evil = `<script>alert(1)</script>"'&`
	s := newSite(t, func(c *Config) { c.Name = evil })
	s.core.invite.User, s.core.invite.Realm = evil, evil
	s.core.err = fmt.Errorf("%w: %s", tokens.ErrState, evil)
	for _, w := range []*httptest.ResponseRecorder{
		s.send("GET", "/enrol/"+code, ""), s.send("POST", "/enrol/"+code+"/app", ""), s.send("GET", "/signin?realm="+`%3Cscript%3Ealert(1)%3C/script%3E`, ""),
		s.send("GET", "/enrol/done?serial=%3Cscript%3Ealert(1)", ""), s.send("POST", "/enrol/"+code+"/confirm", "serial=%22%3E%3Cscript%3Ealert(1)&first=1"),
	} {
		if strings.Contains(w.Body.String(), "<script>") || !strings.Contains(html.UnescapeString(w.Body.String()), evil) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestAKeyIsEnrolledByItsInvitationOnly(t *testing.T) {
	s := newSite(t)
	s.core.invite.Realm = "corp"
	w := s.send("POST", "/console/enrol/begin", `{"code":"`+code+`","passkey":true}`)
	if w.Code != 200 || w.Body.String() != `{"options":{"publicKey":{"challenge":"AAAA"}},"session":"session"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if want := (webauthn.RegistrationRequest{Realm: "corp", User: "alice", RPID: "example.com", Discoverable: true}); s.core.arg != want {
		t.Errorf("%+v", s.core.arg)
	}
	if s.core.as.Kind != tokens.KindInvitation || s.core.as.User != "alice" || s.core.as.Source == "" {
		t.Errorf("as %+v", s.core.as)
	}
	w = s.send("POST", "/console/enrol/finish", `{"code":"`+code+`","session":"session","response":{"id":"AA"}}`)
	if w.Code != 200 || w.Body.String() != `{"next":"/enrol/done?kind=fido\u0026serial=F-1"}` || s.core.arg != `session {"id":"AA"}` {
		t.Errorf("%d %s %v", w.Code, w.Body, s.core.arg)
	}
	w = s.send("POST", "/console/enrol/begin", `{"code":"`+code+`"}`, "Host", "192.0.2.1", "Origin", "https://192.0.2.1")
	if w.Code != 409 {
		t.Errorf("at an address without a relying party: %d %s", w.Code, w.Body)
	}
}

func TestASoftwareTokenIsActivatedByTwoCodes(t *testing.T) {
	s := newSite(t)
	w := s.send("POST", "/enrol/"+code+"/confirm", "serial=S-1&first=+755+224+&second=287+082")
	if w.Code != 303 || w.Header().Get("Location") != "/enrol/done?kind=totp&serial=S-1" || s.core.arg != "default S-1 755224 287082" {
		t.Errorf("%d %v %v", w.Code, w.Header(), s.core.arg)
	}
	s.core.err = tokens.ErrWrongCode
	w = s.send("POST", "/enrol/"+code+"/confirm", "serial=S-1&first=755224&second=287082")
	if w.Code != 422 || !strings.Contains(w.Body.String(), html.EscapeString(wrongCodes)) || !strings.Contains(w.Body.String(), `name="serial" value="S-1"`) || strings.Contains(w.Body.String(), "@@") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s.core.err = fmt.Errorf("%w: too many failures; wait, or unlock the user", tokens.ErrState)
	w = s.send("POST", "/enrol/"+code+"/confirm", "serial=S-1&first=755224&second=287082")
	if w.Code != 422 || !strings.Contains(w.Body.String(), "Too many failures; wait, or unlock the user.") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestTheSignInPageShowsWhatAnApplicationGets(t *testing.T) {
	s := newSite(t)
	w := s.send("POST", "/console/signin/begin", `{"user":" alice ","realm":""}`)
	if want := (webauthn.LoginRequest{User: "alice", RPID: "example.com"}); w.Code != 200 || s.core.arg != want {
		t.Errorf("%d %s %+v", w.Code, w.Body, s.core.arg)
	}
	if d := s.core.as; !reflect.DeepEqual(d, tokens.ConsolePrincipal("192.0.2.1:1234")) {
		t.Errorf("as %+v", d)
	}
	w = s.send("POST", "/console/signin/finish", `{"session":"session","response":{"id":"AA"}}`)
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"result": "accept", "user": "alice", "realm": "default", "serial": "F-1", "model": "Example Key 5", "aaguid": "01020304-0506-0708-0102-030405060708",
		"attestation": "basic", "format": "packed", "user_verified": true, "time": "2025-11-04T09:12:00Z",
	}
	if !reflect.DeepEqual(got, want) || s.core.arg != `session {"id":"AA"} console` {
		t.Errorf("%v; asked %v", got, s.core.arg)
	}
}

func TestARejectedSignInSaysNothingElse(t *testing.T) {
	s := newSite(t)
	s.core.reject = true
	for _, err := range []error{nil, tokens.ErrInvalid, tokens.ErrNotFound, tokens.ErrState, tokens.ErrTampered, tokens.ErrWrongCode, tokens.ErrExists} {
		s.core.err = err
		if w := s.send("POST", "/console/signin/finish", `{"session":"s","response":{}}`); w.Code != 200 || w.Body.String() != `{"result":"reject"}` {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
	for err, status := range map[error]int{tokens.ErrUnavailable: 503, tokens.ErrOverloaded: 503, errors.New("a fault"): 500} {
		s.core.err = err
		if w := s.send("POST", "/console/signin/finish", `{"session":"s","response":{}}`); w.Code != status || strings.Contains(w.Body.String(), "fault") {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
}

func TestOnlyOurOwnPagesAreAnswered(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		site, origin string
		script, form bool
	}{
		{"same-origin", "https://example.com", true, true},
		{"", "https://example.com", true, true},
		{"", "http://EXAMPLE.com", true, true}, // something before us may end TLS
		{"same-origin", "", true, true},
		{"same-origin", "null", false, true},
		{"", "null", false, true},
		{"", "", false, true},
		{"same-site", "https://example.com", false, false},
		{"cross-site", "https://example.com", false, false},
		{"none", "", false, false},
		{"", "https://evil.example", false, false},
		{"same-origin", "https://evil.example", false, false},
		{"", "https://example.com.evil.example", false, false},
		{"", "https://example.com:8443", false, false},
		{"", "ftp://example.com", false, false},
		{"", "example.com", false, false},
	} {
		for path, allowed := range map[string]bool{"/console/signin/begin": tt.script, "/enrol/" + code + "/confirm": tt.form} {
			s.core.asked = nil
			w := s.send("POST", path, `{}`, "Sec-Fetch-Site", tt.site, "Origin", tt.origin)
			if got := w.Code != 403; got != allowed || got != (len(s.core.asked) > 0) {
				t.Errorf("%s from %q %q: %d, did %v", path, tt.site, tt.origin, w.Code, s.core.asked)
			}
		}
	}
}

func TestWhatScriptsSendIsBounded(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		body, kind string
		status     int
	}{
		{`{"session":"s","response":{}}`, "application/json", 200},
		{`{"session":"s","response":{}}`, "application/json; charset=utf-8", 200},
		{`{"session":"s","response":{}}`, "text/plain", 415},
		{`{"session":"s","response":{}}`, "", 415},
		{`{"session":"s","response":{},"x":1}`, "application/json", 422},
		{`{"session":"s","response":{}} {}`, "application/json", 422},
		{`{"session":1}`, "application/json", 422},
		{`[]`, "application/json", 422},
		{``, "application/json", 422},
		{`{"session":"` + strings.Repeat("s", maxBody) + `"}`, "application/json", 413},
	} {
		s.core.asked = nil
		w := s.send("POST", "/console/signin/finish", tt.body, "Content-Type", tt.kind)
		if w.Code != tt.status || (len(s.core.asked) > 0) != (tt.status == 200) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%.40q as %q: %d %s", tt.body, tt.kind, w.Code, w.Body)
		}
	}
	if w := s.send("POST", "/enrol/"+code+"/confirm", "first="+strings.Repeat("1", maxBody)); w.Code != 422 {
		t.Errorf("a long form: %d", w.Code)
	}
}

func TestWithoutARelyingPartyThereIsTheAppAlone(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Keys = nil })
	if w := s.send("GET", "/signin", ""); w.Code != 404 {
		t.Errorf("/signin: %d", w.Code)
	}
	if w := s.send("POST", "/console/signin/begin", `{}`); w.Code != 404 {
		t.Errorf("begin: %d", w.Code)
	}
	if slices.ContainsFunc(s.Paths(), func(p [2]string) bool { return p[1] == "/signin" || p[1] == "/console/" }) {
		t.Errorf("%v", s.Paths())
	}
	w := s.send("GET", "/enrol/"+code, "")
	if page := w.Body.String(); w.Code != 200 || !strings.Contains(page, "not set up for them") || !strings.Contains(page, `/app"`) || !strings.Contains(page, "· Watchword</title>") {
		t.Errorf("%d %s", w.Code, page)
	}
}

// Whatever a script sends, it is answered in JSON, and nothing goes wrong.
func FuzzScripts(f *testing.F) {
	s := newSite(f)
	for _, body := range []string{`{"code":"` + code + `","passkey":true}`, `{"code":"` + code + `","session":"s","response":{"id":"AA"}}`, `{"user":"alice"}`, `{`, `[]`, "\xff"} {
		f.Add(uint8(0), body)
	}
	paths := []string{"/console/enrol/begin", "/console/enrol/finish", "/console/signin/begin", "/console/signin/finish"}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		s.limit = limiter{}
		w := s.send("POST", paths[int(which)%len(paths)], body)
		if w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}
