package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// each calls f for every command there is.
func each(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			each(sub, f)
		}
	}
}

func TestEveryCommandHasAnExampleThatParses(t *testing.T) {
	commands := 0
	each(newRoot(), func(c *cobra.Command) {
		commands++
		if c.Short == "" || c.RunE == nil || c.Args == nil {
			t.Errorf("%s lacks a short description, what it does, or what arguments it takes", c.CommandPath())
		}
		if c.Example == "" {
			t.Fatalf("%s has no example", c.CommandPath())
		}
		own := false
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: the example %q is not indented", c.CommandPath(), line)
			}
			root := newRoot()
			args := exampleArgs(line)
			found, rest, err := root.Find(args)
			if err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
				continue
			}
			own = own || strings.HasPrefix(found.CommandPath(), c.CommandPath())
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
				continue
			}
			if err := found.Args(found, found.Flags().Args()); err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
			}
		}
		if !own {
			t.Errorf("%s: none of its examples is of it", c.CommandPath())
		}
	})
	if commands < 39 {
		t.Errorf("only %d commands were looked at", commands)
	}
}

// exampleArgs are the words after watchword in a line of shell.
func exampleArgs(line string) []string {
	_, line, _ = strings.Cut(line, "watchword ")
	for _, end := range []string{" > ", " < ", " | "} {
		line, _, _ = strings.Cut(line, end)
	}
	var args []string
	before := ""
	for i, quoted := range strings.Split(line, "'") {
		if i%2 == 1 {
			if n := len(args); n > 0 && before != "" && !strings.HasSuffix(before, " ") {
				args[n-1] += quoted // NAME='a value'
			} else {
				args = append(args, quoted)
			}
			continue
		}
		before = quoted
		for _, word := range strings.Fields(quoted) {
			args = append(args, strings.TrimRight(word, ")"))
		}
	}
	return args
}

// runAgainst runs a command against a server that answers like this.
func runAgainst(t *testing.T, handler http.HandlerFunc, args ...string) (string, error) {
	t.Helper()
	s := httptest.NewServer(handler)
	defer s.Close()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("ww_1_2\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	root := newRoot()
	root.SetOut(&out)
	root.SetArgs(append(args, "--url", s.URL, "--api-key-file", key))
	err := root.ExecuteContext(context.Background())
	return out.String(), err
}

func TestAnythingButAnAcceptIsNoAccept(t *testing.T) {
	for name, test := range map[string]struct {
		status   int
		body     string
		rejected bool
	}{
		"a reject":                  {200, `{"result":"reject"}`, true},
		"another word":              {200, `{"result":"ACCEPT"}`, false},
		"no word":                   {200, `{}`, false},
		"no JSON":                   {200, `accept`, false},
		"nothing":                   {200, ``, false},
		"another server":            {404, `<html>accept</html>`, false},
		"a fault":                   {503, `{"title":"Cannot answer now","status":503,"detail":"try again"}`, false},
		"an accept with status 500": {500, `{"result":"accept"}`, false},
		"a redirect":                {302, `{"result":"accept"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "/v1/elsewhere")
				w.WriteHeader(test.status)
				w.Write([]byte(test.body))
			}, "verify", "alice", "755224")
			if err == nil {
				t.Fatal("it was taken for an accept")
			}
			if errors.Is(err, errNo) != test.rejected {
				t.Errorf("errors.Is(err, errNo) = %v: %v", !test.rejected, err)
			}
			if strings.Contains(err.Error(), "755224") {
				t.Errorf("the error holds the code: %v", err)
			}
		})
	}
}

func TestTheKeyGoesNowhereElse(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed, with Authorization %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	asked := false
	_, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("Authorization") == "Bearer ww_1_2"
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}, "verify", "alice", "755224")
	if err == nil || !asked {
		t.Errorf("asked with the key: %v; error: %v", asked, err)
	}
}

func TestNamesAreOneSegmentOfThePath(t *testing.T) {
	for _, name := range []string{"a/b", "..", "a?b", "a b", "ä", "100%", `DOMAIN\alice`} {
		var got string
		_, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
			got = r.URL.EscapedPath()
			w.Write([]byte(`{"name":"x"}`))
		}, "user", "unlock", name)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if segments := strings.Split(got, "/"); len(segments) != 5 || segments[4] != "unlock" {
			t.Errorf("%q was asked for as %s", name, got)
		}
	}
}

func TestWhatOthersWroteCannotSteerTheTerminal(t *testing.T) {
	out, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"items":[{"name":"\u001b[2Jmallory\u202e\nroot","realm":"default","state":"enabled"}]}`))
	}, "user", "list")
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out, "\x1b\u202e") || strings.Count(out, "\n") != 2 {
		t.Errorf("printed %q", out)
	}
	if !strings.Contains(out, "mallory") {
		t.Errorf("the name is gone: %q", out)
	}
}

func TestAListReadsAsManyPagesAsItTakes(t *testing.T) {
	pages := 0
	out, err := runAgainst(t, func(w http.ResponseWriter, r *http.Request) {
		pages++
		switch r.URL.Query().Get("cursor") {
		case "":
			w.Write([]byte(`{"items":[{"serial":"1"}],"next":"17"}`))
		case "17":
			w.Write([]byte(`{"items":[{"serial":"2"}]}`))
		default:
			t.Errorf("cursor %q", r.URL.Query().Get("cursor"))
		}
	}, "token", "list", "--limit", "0", "--json")
	if err != nil {
		t.Fatal(err)
	}
	if pages != 2 || !strings.Contains(out, `"serial": "1"`) || !strings.Contains(out, `"serial": "2"`) {
		t.Errorf("%d pages: %s", pages, out)
	}
}
