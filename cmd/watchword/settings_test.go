package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func loadText(t *testing.T, text string, environ ...string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := loadConfig(file, environ)
	return c, err
}

func TestAValueIsTakenAsItIsWritten(t *testing.T) {
	c, err := loadText(t, `
# a comment
data_dir: /var/lib/watchword   # and another
http:
  listen: [ "127.0.0.1:8080", '[::1]:8080' ]
radius:
  listen:
    - 127.0.0.1:1812
    - 127.0.0.1:1645
hsm:
  pin: 00123
  slot: 0x10
  token_label: "a \"label\""
  module:
verify:
  widen: 0s
throttle: {free: 7, wait: 1.5s}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.DataDir = "/var/lib/watchword"
	want.HTTP.Listen = []string{"127.0.0.1:8080", "[::1]:8080"}
	want.RADIUS.Listen = []string{"127.0.0.1:1812", "127.0.0.1:1645"}
	want.HSM.PIN, want.HSM.Slot, want.HSM.TokenLabel = "00123", "0x10", `a "label"`
	want.Verify.Widen = 0
	want.Throttle.Free, want.Throttle.Wait = 7, 1500*time.Millisecond
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v\nand not\n%+v", c, want)
	}
}

func TestNothingToConfigureIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "http:\n", "hsm: {}\n"} {
		c, err := loadText(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if !reflect.DeepEqual(c, defaultConfig()) {
			t.Errorf("%q gives %+v", text, c)
		}
	}
}

func TestAMistakeIsNamedByItsLineAndWithoutTheValue(t *testing.T) {
	for text, want := range map[string]string{
		"hsm:\n  pim: geheim\n":                 `line 2: unknown key "hsm.pim"; is "hsm.pin" meant?`,
		"\n\nwatchwort: geheim\n":               `line 3: unknown key "watchwort"`,
		"hsm: geheim\n":                         "line 1: hsm is a mapping",
		"hsm:\n  pin: {a: geheim}\n":            "line 2: hsm.pin is a value",
		"hsm:\n  pin: [geheim]\n  slot: [a, b]": "line 3: hsm.slot is one value",
		"hsm:\n  sessions: geheim\n":            "line 2: hsm.sessions is a whole number",
		"hsm:\n  sessions: 1.5\n":               "line 2: hsm.sessions is a whole number",
		"http:\n  listen: [[geheim]]\n":         "line 2: ",
		"http:\n  allow_plaintext: geheim\n":    "line 2: http.allow_plaintext is true or false",
		"hsm: [geheim\n":                        "line 1: ",
		"hsm:\n\tpin: geheim\n":                 "line 2: ",
		"data_dir: 'geheim\n":                   "line 1: ",
		"- geheim\n":                            "line 1: the configuration is a mapping",
		"geheim\n":                              "line 1: the configuration is a mapping",
	} {
		_, err := loadText(t, text)
		if err == nil {
			t.Errorf("%q was taken", text)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, and not %s", text, err, want)
		}
		if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%q: the error shows the value: %v", text, err)
		}
	}
}

func TestEveryKeyIsAVariableToo(t *testing.T) {
	all := settings(defaultConfig())
	seen := map[string]bool{}
	for _, s := range all {
		text, kind := "1", s.value.Interface()
		switch kind.(type) {
		case time.Duration:
			text = "90m"
		case bool:
			text = "true"
		case []string:
			text = "a, b"
		case []Party:
			text = "[{id: localhost, origins: ['http://localhost:8080']}]"
		}
		c, got, err := loadConfig("", []string{s.Env + "=" + text})
		if err != nil {
			t.Errorf("%s: %v", s.Env, err)
			continue
		}
		if reflect.DeepEqual(c, defaultConfig()) && s.Key != "verify.steps" {
			t.Errorf("%s changes nothing", s.Env)
		}
		for _, g := range got {
			if g.Key == s.Key && g.Origin != s.Env {
				t.Errorf("%s is from %q", s.Key, g.Origin)
			}
		}
		if seen[s.Env] {
			t.Errorf("%s is two keys", s.Env)
		}
		seen[s.Env] = true
	}
	if !seen["WATCHWORD_HSM_MODULE"] || !seen["WATCHWORD_DATA_DIR"] || len(seen) < 30 {
		t.Errorf("variables are missing: %d", len(seen))
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	comments, err := readManual()
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for _, s := range settings(defaultConfig()) {
		text, ok := comments[s.Key]
		if !ok {
			t.Errorf("%s is not in the manual", s.Key)
		}
		// Two that belong together may share the comment of the first.
		if text != "" {
			last = text
		}
		if last == "" {
			t.Errorf("%s is not explained", s.Key)
		}
	}
	if !strings.Contains(comments["hsm.handles"], "Default: 100000") || comments["hsm"] == "" {
		t.Errorf("the manual is read wrong: %q", comments["hsm.handles"])
	}
}

func TestDefaultsAreFitToServe(t *testing.T) {
	c := defaultConfig()
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	if !c.sqlite() || !filepath.IsAbs(c.DataDir) || c.Database != "sqlite:"+c.DataDir+"/watchword.db" {
		t.Errorf("data %s, database %s", c.DataDir, c.Database)
	}
}

func TestADatabasePasswordIsNeverShown(t *testing.T) {
	for _, url := range []string{
		"postgres://u:geheim@h/d", "postgresql://u:geheim@h1:5432,h2:5433/d", "postgres://h/d?user=u&password=geheim",
		"postgres://h/d?sslpassword=geheim", "postgres://u:ge%zzheim@h/d", "postgres://u:geheim@[h/d",
	} {
		if got := redactURL(url); strings.Contains(got, "heim") || !strings.HasPrefix(got, "postgres") {
			t.Errorf("%s is shown as %s", url, got)
		}
	}
	if got := redactURL("sqlite:/var/x.db"); got != "sqlite:/var/x.db" {
		t.Errorf("%s", got)
	}
}

func TestMisspeltVariablesAreNoticed(t *testing.T) {
	all := settings(defaultConfig())
	got := strangeVariables([]string{"WATCHWORD_HSM_MODUL=x", "WATCHWORD_URL=x", "WATCHWORD_DATA_DIR=x", "PATH=x"}, all)
	if !reflect.DeepEqual(got, []string{"WATCHWORD_HSM_MODUL"}) {
		t.Errorf("%v", got)
	}
}

func TestARelyingPartyIsReadStrictly(t *testing.T) {
	want := []Party{
		{ID: "example.org", Name: "Example: Corp", Origins: []string{"https://login.example.org", "https://example.net"}},
		{ID: "example.com", Origins: []string{"https://example.com"}},
		{ID: "localhost", Origins: []string{"http://localhost:8080"}},
	}
	c, err := loadText(t, `
fido:
  parties:
    - id: example.org
      name: "Example: Corp"
      origins: [https://login.example.org, https://example.net]
    - example.com
    - {id: localhost, origins: [ "http://localhost:8080" ]}
  allow_synced: true
`)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.FIDO.Parties, want) || !c.FIDO.AllowSynced {
		t.Errorf("%+v", c.FIDO)
	}
	// What 'watchword config' prints is read as the same.
	again, _, err := loadConfig("", []string{"WATCHWORD_FIDO_PARTIES=" + flowParties(want)})
	if err != nil || !reflect.DeepEqual(again.FIDO.Parties, want) {
		t.Errorf("%v: %+v", err, again)
	}
	usual, _, err := loadConfig("", []string{"WATCHWORD_FIDO_PARTIES=example.com, example.net"})
	if err != nil || !reflect.DeepEqual(usual.FIDO.Parties, []Party{usualParty("example.com"), usualParty("example.net")}) {
		t.Errorf("%v: %+v", err, usual)
	}
	for text, want := range map[string]string{
		"fido:\n  parties:\n    - id: a.example\n      origin: [https://a.example]\n": `line 4: unknown key "fido.parties.origin"; is "fido.parties.origins" meant?`,
		"fido:\n  parties: {id: a.example}\n":                                         "line 2: fido.parties is a list",
		"fido:\n  parties:\n    - name: A\n":                                          "line 3: an item of fido.parties has no id",
		"fido:\n  parties: [[a.example]]\n":                                           "line 2: an item of fido.parties is a name",
		"fido:\n  parties: [{id: [a, b]}]\n":                                          "line 2: fido.parties.id is one value",
	} {
		if _, err := loadText(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, and not %s", text, err, want)
		}
	}
	if _, _, err := loadConfig("", []string{"WATCHWORD_FIDO_PARTIES=[{id: a.example"}); err == nil {
		t.Error("half a list was taken")
	}
}

func TestFIDOSettingsThatCannotBeMeantAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"user_verification: sometimes":          "fido.user_verification",
		"attestation: indirect":                 "fido.attestation",
		"ceremony_ttl: 5s":                      "fido.ceremony_ttl",
		"ceremony_ttl: 2h":                      "fido.ceremony_ttl",
		"metadata_url: http://mds.example.org/": "fido.metadata_url",
		"metadata_grace: 0s":                    "fido.metadata_grace",
	} {
		c, err := loadText(t, "fido:\n  "+text+"\n")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	c := defaultConfig()
	c.FIDO.Parties, c.HTTP.Listen = []Party{usualParty("example.org")}, []string{"none"}
	if err := c.check(); err == nil || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("keys without HTTP: %v", err)
	}
	for _, address := range []string{"login.example.org", "https://login.example.org/pages", "ftp://example.org"} {
		c := defaultConfig()
		c.HTTP.PublicURL = address
		if err := c.check(); err == nil {
			t.Errorf("%s was taken for where the pages are", address)
		}
	}
}
