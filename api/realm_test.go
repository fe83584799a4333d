package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// instance is what is other in each problem.
var instance = regexp.MustCompile(`urn:watchword:request:[0-9a-f]+`)

// bodiesOf are the bodies that the contract shows of an operation; one that is
// empty, if it needs none.
func bodiesOf(t *testing.T, op *openapi3.Operation) map[string]string {
	t.Helper()
	bodies := map[string]string{}
	if op.RequestBody == nil {
		return map[string]string{"": ""}
	}
	for media, m := range op.RequestBody.Value.Content {
		shown := []any{m.Example}
		for _, e := range m.Examples {
			shown = append(shown, e.Value.Value)
		}
		for _, e := range shown {
			switch e := e.(type) {
			case nil:
			case string:
				bodies[e] = media
			default:
				text, err := json.Marshal(e)
				if err != nil {
					t.Fatal(err)
				}
				bodies[string(text)] = media
			}
		}
	}
	return bodies
}

// howMany is how many records the audit has.
var howMany = regexp.MustCompile(`"records":\d+`)

// Whoever has the key of one realm learns nothing of another: not by its users'
// names or its tokens' serials in a path, nor by those in a body. Every operation
// of the contract is tried, each with names that nobody asked for before, as the
// audit of the own realm has what was asked.
func TestNamesOfAnotherRealmAnswerLikeUnknownOnes(t *testing.T) {
	w := newWhole(t)
	admin := w.key
	w.call("POST", "/v1/imports", "24680017,"+seedHex+"\n24680018,"+seedHex+"\n", 200)
	w.call("POST", "/v1/users", `{"name":"alice"}`, 201)
	keys := map[string]string{}
	for _, scope := range []string{"admin", "helpdesk"} {
		keys[scope] = w.call("POST", "/v1/keys", `{"name":"`+scope+`","scope":"`+scope+`","realm":"default"}`, 201)["key"].(string)
	}
	var file strings.Builder
	for i := range 500 {
		fmt.Fprintf(&file, "theirs-%03d,%s\n", i, seedHex)
	}
	w.call("POST", "/v1/imports?realm=corp", file.String(), 200)

	// ask sends a request twice, with {} in it replaced by the name of a user and
	// the serial of a token of the other realm, and by those of none.
	tried := 0
	ask := func(key, method, path, media, body string) (there, nowhere string) {
		name := fmt.Sprintf("-%03d", tried)
		tried++
		w.key = admin
		w.call("POST", "/v1/users", `{"name":"theirs`+name+`","realm":"corp"}`, 201)
		w.call("POST", "/v1/tokens/theirs"+name+"/assign", `{"user":"theirs`+name+`","realm":"corp"}`, 200)
		send := func(name string) string {
			r := call{method: method, path: strings.ReplaceAll(path, "{}", name), body: strings.ReplaceAll(body, "{}", name), contentType: media}.request()
			r.Header.Set("Authorization", "Bearer "+key)
			answer := httptest.NewRecorder()
			w.server.Handler().ServeHTTP(answer, r)
			text := answer.Result().Status + "\n" + strings.ReplaceAll(instance.ReplaceAllString(answer.Body.String(), ""), name, "{}")
			text = howMany.ReplaceAllString(text, "") // what was asked before is in the audit
			for _, field := range slices.Sorted(maps.Keys(answer.Header())) {
				text += "\n" + field + ": " + strings.Join(answer.Header()[field], ",")
			}
			return text
		}
		return send("theirs" + name), send("nobody" + name)
	}
	doc, _ := loadContract(t)
	named := 0
	for path, item := range doc.Paths.Map() {
		inPath := strings.HasPrefix(path, "/v1/users/{name}") || strings.HasPrefix(path, "/v1/tokens/{serial}")
		path = strings.NewReplacer("{name}", "{}", "{serial}", "{}").Replace(path)
		for method, op := range item.Operations() {
			if inPath {
				named++
			}
			for body, media := range bodiesOf(t, op) {
				sent := body
				if !inPath {
					sent = strings.NewReplacer(`"user":"alice"`, `"user":"{}"`, `"24680017"`, `"{}"`, `"24680018"`, `"{}"`).Replace(body)
				}
				if !inPath && sent == body {
					continue // it names nobody
				}
				for _, key := range keys {
					for _, realm := range []string{"", "?realm=corp"} {
						if there, nowhere := ask(key, method, path+realm, media, sent); there != nowhere {
							t.Errorf("%s %s%s %s: of another realm\n%s\nunknown\n%s", method, path, realm, sent, there, nowhere)
						}
					}
				}
			}
		}
	}
	if named < 20 || tried < 100 {
		t.Errorf("only %d operations and %d requests were tried", named, tried)
	}
}
