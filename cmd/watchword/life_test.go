package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestABulkActIsDoneToWhatItShowed: a token that comes to match between the table
// and the answer is left alone.
func TestABulkActIsDoneToWhatItShowed(t *testing.T) {
	var mu sync.Mutex
	var asked []map[string]any
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in map[string]any
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.URL.Path != "/v1/tokens/bulk" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if asked = append(asked, in); len(asked) == 1 {
			w.Write([]byte(`{"matched":4,"done":0,"unchanged":1,"refused":1,"items":[
				{"serial":"10","user":"alice","outcome":"would","reason":""},{"serial":"11","user":"","outcome":"refused","reason":"nobody holds it"},
				{"serial":"12","user":"bob","outcome":"unchanged","reason":""},{"serial":"13","user":"bob","outcome":"would","reason":""}]}`))
			return
		}
		w.Write([]byte(`{"matched":2,"done":2,"unchanged":0,"refused":0,"items":[]}`))
	}))
	defer s.Close()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("ww_1_2"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := runOnTerminal(t, s.URL, key, "2\n", "token", "bulk", "suspend", "--tag", "contractor", "--reason", "contract ends")
	if !strings.Contains(out, "2 of 4 tokens would be changed, 1 stay as they are, 1 would be refused.") || !strings.Contains(out, "2 of 2 tokens changed") {
		t.Errorf("it showed:\n%s", out)
	}
	if len(asked) != 2 {
		t.Fatalf("the server was asked %d times", len(asked))
	}
	if asked[0]["dry_run"] != true || asked[0]["serials"] != nil || asked[0]["select"].(map[string]any)["tag"] != "contractor" {
		t.Errorf("first it asked for %v", asked[0])
	}
	second := asked[1]
	serials, _ := second["serials"].([]any)
	if !slices.Equal(serials, []any{"10", "13"}) || second["select"] != nil || second["dry_run"] != nil || second["reason"] != "contract ends" {
		t.Errorf("then it asked for %v", second)
	}
}

func TestNeverIsSaidAsNull(t *testing.T) {
	for _, args := range [][]string{
		{"token", "bulk", "expire", "10", "--expires", "never", "--yes"},
		{"token", "expire", "10", "never"},
	} {
		var in map[string]json.RawMessage
		_, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			w.Write([]byte(`{"serial":"10","matched":1,"done":1,"items":[]}`))
		}, args...)
		if err != nil || string(in["expires"]) != "null" {
			t.Errorf("%v: %v, expires %q", args, err, in["expires"])
		}
	}
}

// TestAnAnswerThatBreaksOffIsNotTakenForAWholeOne: half a report looks like a whole
// one of a smaller house.
func TestAnAnswerThatBreaksOffIsNotTakenForAWholeOne(t *testing.T) {
	for name, args := range map[string][]string{
		"a table":           {"report", "credentials"},
		"JSON":              {"report", "credentials", "--json"},
		"CSV":               {"report", "credentials", "--csv"},
		"CSV in a file":     {"report", "credentials", "--csv", "--out"},
		"users in a file":   {"user", "export", "--out"},
		"a chart in a file": {"token", "drift", "10", "--svg"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "out")
			if last := args[len(args)-1]; last == "--out" || last == "--svg" {
				args = append(slices.Clone(args), file)
			}
			_, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/csv")
				w.Write([]byte(`{"items":[{"user":"alice","serial":"10"}`))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}, args...)
			if err == nil {
				t.Error("it was taken for whole")
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("half of it is left in the file")
			}
		})
	}
}

// TestAPictureThatCannotBeWrittenMakesNoToken: the seed would be lost.
func TestAPictureThatCannotBeWrittenMakesNoToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "alice.png")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := runAgainst(t, func(http.ResponseWriter, *http.Request) { t.Error("the server was asked") }, "token", "new", "alice", "--png", file)
	if err == nil {
		t.Error("it was overwritten")
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
		t.Errorf("it holds %q, %v", text, err)
	}
	for name, answer := range map[string]string{
		"no picture":        `{"token":{"serial":"S-1"},"uri":"otpauth://totp/a?secret=ABCD","secret":"ABCD","qr":""}`,
		"something else":    `{"token":{"serial":"S-1"},"uri":"otpauth://totp/a?secret=ABCD","secret":"ABCD","qr":"data:image/png;base64,aGVsbG8="}`,
		"another data URI":  `{"token":{"serial":"S-1"},"uri":"otpauth://totp/a?secret=ABCD","secret":"ABCD","qr":"data:text/html;base64,aGVsbG8="}`,
		"an error":          `{"title":"Conflict"`,
		"half of an answer": `{"token":{"serial":"S-1"}`,
	} {
		file := filepath.Join(t.TempDir(), "bob.png")
		out, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(answer)) }, "token", "new", "bob", "--png", file)
		if err == nil || strings.Contains(out+err.Error(), "ABCD") {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s: a file is left", name)
		}
	}
}

// TestAStoryIsToldInOrder: pages come newest first, each oldest first, and one may
// be empty although there is more.
func TestAStoryIsToldInOrder(t *testing.T) {
	pages := map[string]string{
		"":   `{"items":[{"text":"fifth"},{"text":"sixth"}],"next":"40"}`,
		"40": `{"items":[],"next":"30"}`,
		"30": `{"items":[{"text":"third"},{"text":"fourth"}],"next":"20"}`,
		"20": `{"items":[{"text":"first"},{"text":"second"}]}`,
	}
	out, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(pages[r.URL.Query().Get("cursor")]))
	}, "token", "story", "10", "--limit", "0")
	if err != nil {
		t.Fatal(err)
	}
	at := -1
	for _, word := range []string{"first", "second", "third", "fourth", "fifth", "sixth"} {
		i := strings.Index(out, word)
		if i <= at {
			t.Errorf("%s is not in its place:\n%s", word, out)
		}
		at = i
	}
}

func TestAPasscodeCannotSteerTheTerminal(t *testing.T) {
	for _, args := range [][]string{{"user", "recovery", "alice"}, {"user", "temporary", "alice"}, {"token", "lost", "10", "--temporary"}} {
		out, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"serial":"10","token":{"serial":"R-\u001b[2J","user":"al\u202eice"},"codes":["\u001b[2Jabcd"],"code":"\u001b[2Jabcd",
				"temporary":{"token":{"serial":"T-1"},"code":"\u001b[2Jabcd"}}`))
		}, args...)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out, "\x1b\u202e") || !strings.Contains(out, "abcd") {
			t.Errorf("%v printed %q", args, out)
		}
	}
}

// runOnTerminal runs a command on a terminal of its own, by script of Debian's
// bsdutils, and answers all that it shows. typed is what is typed into it.
func runOnTerminal(t testing.TB, url, key, typed string, args ...string) string {
	t.Helper()
	line := program(t, false)
	for _, a := range append(args, "--url", url, "--api-key-file", key) {
		line += " '" + a + "'"
	}
	cmd := exec.Command("script", "--quiet", "--return", "--command", line, "/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.WriteString(in, typed); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("script (package bsdutils): %v\n%s", err, out)
	}
	return string(out)
}
