package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// What is read quickly is read like anything else: the same is filled in, and nothing
// would have been wrong with it.
func TestABodyThatIsReadQuicklyWouldHaveBeenReadAllTheSame(t *testing.T) {
	var quick, slow int
	one := func(t *rapid.T) {
		blank := func() string { return rapid.SampledFrom([]string{"", "", "", " ", "\n\t\r "}).Draw(t, "blank") }
		value := func() string {
			return rapid.SampledFrom([]string{
				`"alice"`, `""`, `"é"`, `"a\"b"`, `"\u0041"`, "\"a\x01\"", `"`, `null`, `7`, `true`, `{}`, `{"id":"AAA","response":{"a":[1,-2.5e3,"\\"]}}`, `{"a":tru}`, `{"a":1,}`, `[1]`, `[`, `nul`, `{"a":"b"`,
				strings.Repeat("[", 200) + strings.Repeat("]", 200), `{"a":01}`, `"x" "y"`,
			}).Draw(t, "value")
		}
		var members []string
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			name := rapid.SampledFrom([]string{"user", "code", "realm", "session", "response", "statement", "sign_in", "User", "", "-", "nothing", `us\u0065r`}).Draw(t, "name")
			members = append(members, blank()+`"`+name+`"`+blank()+":"+blank()+value()+blank())
		}
		if rapid.Bool().Draw(t, "sound") { // as the others seldom are
			members = append(members[:0], `"session":"abc"`, blank()+`"response":`+blank()+`{"id":"x"}`, `"user":"alice","code":"755224"`)[:rapid.IntRange(1, 3).Draw(t, "of")]
		}
		body := blank() + "{" + strings.Join(members, ",") + "}" + blank() + rapid.SampledFrom([]string{"", "", "", "}", "x", ","}).Draw(t, "rest")
		if rapid.IntRange(0, 4).Draw(t, "cut") == 0 {
			body = body[:rapid.IntRange(0, len(body)).Draw(t, "at")]
		}
		if !utf8.ValidString(body) {
			return
		}
		for _, c := range []struct {
			fast, well any
			required   []string
		}{
			{new(LoginResponse), new(LoginResponse), []string{"session", "response"}},
			{new(VerifyRequest), new(VerifyRequest), []string{"user", "code"}},
			{new(LoginRequest), new(LoginRequest), nil},
		} {
			ok := quickly([]byte(body), reflect.ValueOf(c.fast).Elem(), c.required)
			err := thoroughly([]byte(body), c.well, c.required)
			if !ok {
				if err == nil {
					slow++
				}
				continue
			}
			quick++
			if err != nil || !reflect.DeepEqual(c.fast, c.well) {
				t.Fatalf("%q is read as %+v; it is %+v, %v", body, c.fast, c.well, err)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			one(t)
		}
	})
	if quick < 10 || slow < 1 {
		t.Errorf("%d bodies were read quickly, and %d good ones not: too few to tell", quick, slow)
	}
}

// The bodies of logins are what this is for.
func TestALoginsBodyIsReadQuickly(t *testing.T) {
	for _, c := range []struct {
		body     string
		into     any
		required []string
	}{
		{`{"session":"abc","response":{"id":"x","rawId":"x","type":"public-key","response":{"clientDataJSON":"e30"}}}`, new(LoginResponse), []string{"session", "response"}},
		{`{ "user": "alice", "code": "755224", "realm": "corp" }`, new(VerifyRequest), []string{"user", "code"}},
		{`{"user":"alice"}`, new(LoginRequest), nil},
	} {
		if !quickly([]byte(c.body), reflect.ValueOf(c.into).Elem(), c.required) {
			t.Errorf("%s is not", c.body)
		}
	}
}

func BenchmarkDecodeLogin(b *testing.B) {
	inner, _ := json.Marshal(strings.Repeat("A", 300))
	body := fmt.Appendf(nil, `{"session":%s,"response":{"id":%s,"rawId":"x","type":"public-key","response":{"clientDataJSON":%s,"signature":"abc"}}}`, inner, inner, inner)
	for name, read := range map[string]func() error{
		"unmarshal":  func() error { return unmarshal(body, new(LoginResponse), []string{"session", "response"}) },
		"thoroughly": func() error { return thoroughly(body, new(LoginResponse), []string{"session", "response"}) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
