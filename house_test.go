// Package watchword_test checks the plan of the house: who may import whom.
package watchword_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "watchword"

// rooms says which rooms of the house each room may import. A room that is not
// listed may not exist. "test" rooms may also be imported by tests, and by
// nothing else.
var rooms = map[string][]string{
	"cmd/watchword": {"*"},

	"cmd/watchword-station": {"*"},
	"scripts/bench":         {"hsm/pkcs11", "tokens", "tokens/store", "webauthn", "webauthn/softkey"},
	"api":                   {"tokens", "tokens/audit", "tokens/policy", "webauthn", "seeds", "api/console"},
	"api/console":           {"tokens", "webauthn"},
	"radius":                {"tokens", "tokens/audit", "radius/eap"},
	"radius/eap":            {},
	"courier":               {"tokens", "tokens/audit"},
	"seeds":                 {"tokens", "tokens/audit", "hsm", "seeds/pskc", "seeds/xmlinput"},
	"seeds/pskc":            {"hsm", "seeds/xmlinput"},
	"seeds/xmlinput":        {},
	"tokens":                {"hsm", "tokens/audit", "tokens/policy"},
	"tokens/policy":         {},
	"tokens/store":          {"tokens", "tokens/audit", "tokens/policy", "webauthn", "migrations", "hsm"},
	"tokens/storetest":      {"tokens", "tokens/audit", "tokens/store", "hsm"},
	"hsm":                   {},
	"hsm/pkcs11":            {"hsm"},
	"hsm/hsmtest":           {"hsm", "hsm/pkcs11"},
	"tokens/audit":          {},
	"webauthn":              {"tokens", "tokens/audit"},
	"webauthn/softkey":      {},
	"webauthn/station":      {},
	"migrations":            {},
}

// outside says which libraries belong to which rooms alone. A library that is
// not listed may be used anywhere that needs it.
var outside = map[string][]string{
	"github.com/miekg/pkcs11":             {"hsm/pkcs11"},
	"layeh.com/radius":                    {"radius", "radius/eap"},
	"github.com/labstack/echo/v4":         {"api"},
	"github.com/getkin/kin-openapi":       {"api"},
	"github.com/oapi-codegen/runtime":     {"api"},
	"github.com/lib/pq":                   {"tokens/store"},
	"github.com/mattn/go-sqlite3":         {"tokens/store"},
	"github.com/pressly/goose/v3":         {"tokens/store"},
	"database/sql":                        {"tokens/store"},
	"github.com/spf13/cobra":              {"cmd/watchword", "cmd/watchword-station"},
	"rsc.io/qr":                           {"api/console", "cmd/watchword"},
	"github.com/cedar-policy/cedar-go":    {"tokens/policy"},
	"golang.org/x/text":                   {"tokens"},
	"github.com/ProtonMail/go-crypto":     {"seeds"},
	"encoding/xml":                        {"seeds", "seeds/pskc", "seeds/xmlinput"},
	"github.com/prometheus/client_golang": {"cmd/watchword", "radius", "api"},
	"github.com/go-webauthn/webauthn":     {"webauthn", "webauthn/softkey"},
	"github.com/fxamacker/cbor/v2":        {"webauthn", "webauthn/softkey"},
}

// testOnly says which rooms' tests alone may use a library; no room itself does.
var testOnly = map[string][]string{
	"github.com/chromedp/chromedp": {"cmd/watchword", "api"},
	"github.com/chromedp/cdproto":  {"cmd/watchword", "api"},
}

// plain rooms import nothing but the standard library and rooms.
var plain = []string{"hsm", "tokens/audit", "migrations"}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// TestWhoMayImportWhom holds the imports of every room against the plan.
func TestWhoMayImportWhom(t *testing.T) {
	for _, p := range list(t) {
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if room == "" {
			continue
		}
		allowed, known := rooms[room]
		if !known {
			t.Errorf("%s: the plan has no such room", room)
			continue
		}
		for _, imp := range p.Imports {
			other, ours := strings.CutPrefix(imp, module+"/")
			switch {
			case ours && !slices.Contains(allowed, other) && !slices.Contains(allowed, "*"):
				t.Errorf("%s imports %s, which the plan does not allow", room, other)
			case ours && strings.HasSuffix(other, "test") && !strings.HasSuffix(room, "test"):
				t.Errorf("%s imports the test room %s", room, other)
			case !ours && slices.Contains(plain, room) && strings.Contains(strings.Split(imp, "/")[0], "."):
				t.Errorf("%s imports %s; it may import the standard library only", room, imp)
			}
			for lib, where := range outside {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(where, room) {
					t.Errorf("%s imports %s, which belongs in %v", room, imp, where)
				}
			}
		}
	}
}

// TestWhatIsForTestsIsUsedByTestsAlone keeps a browser's driver and the like out
// of the programs, and in the tests of those rooms that need it.
func TestWhatIsForTestsIsUsedByTestsAlone(t *testing.T) {
	uses := func(imports []string, lib string) bool {
		return slices.ContainsFunc(imports, func(imp string) bool { return imp == lib || strings.HasPrefix(imp, lib+"/") })
	}
	for _, p := range list(t) {
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for lib, where := range testOnly {
			if uses(p.Imports, lib) {
				t.Errorf("%s imports %s, which is for tests", room, lib)
			}
			if uses(append(p.TestImports, p.XTestImports...), lib) && !slices.Contains(where, room) {
				t.Errorf("the tests of %s import %s, which belongs in those of %v", room, lib, where)
			}
		}
	}
}

// TestTransportsDoNotTestThroughEachOther keeps transports apart in tests too.
func TestTransportsDoNotTestThroughEachOther(t *testing.T) {
	for _, p := range list(t) {
		for _, imp := range append(p.TestImports, p.XTestImports...) {
			if p.ImportPath == module+"/api" && imp == module+"/radius" || p.ImportPath == module+"/radius" && imp == module+"/api" {
				t.Errorf("%s imports %s in its tests", p.ImportPath, imp)
			}
		}
	}
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages; the house has more rooms", len(all))
	}
	return all
}
