package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tokenObject is the file that SoftHSM writes anew at every login.
func tokenObject(t *testing.T, n *node) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, softHSMDir, "tokens", "*", "token.object"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	return files[0]
}

func TestATokenThatSoftHSMLeftCutShortIsPutBack(t *testing.T) {
	n := startNode(t, nodeOptions{plain: true})
	list := newTokens("CUT", 1, true)
	n.equip(list...)
	file := tokenObject(t, n)
	for name, harm := range map[string]func() error{
		"empty, as after a kill":             func() error { return os.Truncate(file, 0) },
		"cut short":                          func() error { return os.Truncate(file, 100) },
		"gone":                               func() error { return os.Remove(file) },
		"zeros, as after a power failure":    func() error { return os.WriteFile(file, make([]byte, 320), 0o600) },
		"not harmed, and so not put back":    func() error { return nil },
		"as it was, and the copies are gone": func() error { return os.RemoveAll(filepath.Join(n.dir, softHSMDir, keptDir)) },
	} {
		n.kill()
		if err := harm(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		began := len(n.log())
		n.start()
		n.waitReady()
		harmed := !strings.Contains(name, "not harmed") && !strings.Contains(name, "as it was")
		if told := strings.Contains(n.log()[began:], "put back from its copy"); told != harmed {
			t.Errorf("%s: told of it: %v", name, told)
		}
		if got := n.verify(list[0].user, list[0].press()); got != sawAccept {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestServersThatLogInOverAndOverShareOneToken has servers begin and end at the
// same moments on one data directory, whose token file each of them writes.
func TestServersThatLogInOverAndOverShareOneToken(t *testing.T) {
	database, dir := newDatabase(t), filepath.Join(t.TempDir(), "var")
	nodes := make([]*node, 4)
	for i := range nodes {
		nodes[i] = newNode(t, nodeOptions{database: database, dir: dir, plain: true})
	}
	for range 5 {
		for _, n := range nodes {
			n.start()
		}
		for _, n := range nodes {
			eventually(t, time.Minute, "every node is ready", func() bool {
				select {
				case <-n.ended:
					t.Fatalf("a node ended with exit code %d:\n%s", n.code, lastLines(n.log(), 8))
				default:
				}
				status, _ := n.get("/readyz")
				return status == http.StatusOK
			})
		}
		for _, n := range nodes {
			n.kill()
		}
	}
}

func TestATokenThatWasHalfMadeIsMadeAnewAndPutAside(t *testing.T) {
	n := newNode(t, nodeOptions{plain: true})
	half := filepath.Join(n.dir, softHSMDir, "tokens", "00000000-0000-0000-0000-000000000000")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		filepath.Join(half, "token.object"): "half",
		filepath.Join(n.dir, pinFile):       "0123456789abcdef0123456789abcdef\n",
		filepath.Join(n.dir, markerFile):    `{"watchword_data_directory": 1, "created": "2026-01-01T00:00:00Z", "softhsm_being_made": true, "softhsm": false}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.start()
	n.waitReady()
	if got := n.verify("nobody", "123456"); got != sawReject {
		t.Error(got)
	}
	aside, err := filepath.Glob(filepath.Join(n.dir, softHSMDir, "tokens.unfinished-*", "*", "token.object"))
	if err != nil || len(aside) != 1 {
		t.Errorf("the half token is not put aside: %v, %v", aside, err)
	}
	n.kill()
	n.start()
	n.waitReady()
}
