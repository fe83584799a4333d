package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestAnEditedRowIsRefusedAndAudited edits rows of the live database behind the
// server's back, also of tokens whose seeds the HSM has at hand.
func TestAnEditedRowIsRefusedAndAudited(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		n := startNode(t, nodeOptions{})
		editRows(t, n, func(t *testing.T, query string) {
			t.Helper()
			out, err := exec.Command("sqlite3", "-cmd", ".timeout 5000", filepath.Join(n.dir, "watchword.db"), query).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Fatalf("sqlite3: %v %s", err, out)
			}
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		url := newDatabase(t)
		n := startNode(t, nodeOptions{database: url})
		editRows(t, n, func(t *testing.T, query string) { t.Helper(); psql(t, url, query) })
	})
}

func editRows(t *testing.T, n *node, sql func(t *testing.T, query string)) {
	const pin = "4711"
	edits := []struct {
		name string
		// query edits the row of serial %[1]s, with the help of another token
		// %[2]s and its owner %[3]s.
		query string
		// before is done to the token over the API, after it was used.
		before func(n *node, k *hardToken)
		// typed is what the thief types; by default the owner types the code.
		user  func(k, other *hardToken) string
		typed func(k *hardToken, code string) string
		pin   bool // the owner has a PIN
	}{
		{name: "another token's wrapped seed", query: `UPDATE tokens SET blob = (SELECT blob FROM tokens WHERE serial = '%[2]s') WHERE serial = '%[1]s'`},
		{name: "another token's wrapped seed and binding", query: `UPDATE tokens SET blob = (SELECT blob FROM tokens WHERE serial = '%[2]s'), binding = (SELECT binding FROM tokens WHERE serial = '%[2]s') WHERE serial = '%[1]s'`},
		{name: "a changed period", query: `UPDATE tokens SET period = 60 WHERE serial = '%[1]s'`},
		{name: "fewer digits", query: `UPDATE tokens SET digits = 6 WHERE serial = '%[1]s'`},
		{name: "another algorithm", query: `UPDATE tokens SET algorithm = 2 WHERE serial = '%[1]s'`},
		{name: "another type", query: `UPDATE tokens SET type = 'totp', period = 30 WHERE serial = '%[1]s'`},
		{name: "another serial", query: `UPDATE tokens SET serial = '%[1]sX' WHERE serial = '%[1]s'`},
		{
			name: "another owner", query: `UPDATE tokens SET owner_id = (SELECT id FROM users WHERE key = '%[3]s') WHERE serial = '%[1]s'`,
			user: func(_, other *hardToken) string { return other.user },
		},
		{
			name: "a suspended token made active", query: `UPDATE tokens SET state = 'active' WHERE serial = '%[1]s'`,
			before: func(n *node, k *hardToken) { n.must(http.MethodPost, "/v1/tokens/"+k.serial+"/suspend", nil, nil) },
		},
		{
			name: "a lost token made active", query: `UPDATE tokens SET state = 'active' WHERE serial = '%[1]s'`,
			before: func(n *node, k *hardToken) { n.must(http.MethodPost, "/v1/tokens/"+k.serial+"/lost", nil, nil) },
		},
		{
			name: "a PIN removed", pin: true, query: `UPDATE users SET pin_mac = NULL, pin_salt = NULL WHERE id = (SELECT owner_id FROM tokens WHERE serial = '%[1]s')`,
			typed: func(_ *hardToken, code string) string { return code },
		},
		{
			name: "another user's PIN", pin: true,
			query: `UPDATE users SET pin_mac = (SELECT pin_mac FROM users WHERE key = '%[3]s'), pin_salt = (SELECT pin_salt FROM users WHERE key = '%[3]s') WHERE id = (SELECT owner_id FROM tokens WHERE serial = '%[1]s')`,
		},
		{name: "an altered binding", query: `UPDATE tokens SET binding = blob WHERE serial = '%[1]s'`},
		{name: "no binding", query: `UPDATE tokens SET binding = NULL WHERE serial = '%[1]s'`},
	}
	tokens := newTokens("E", len(edits), true)
	others := newTokens("O", len(edits), true)
	untouched := newTokens("U", 1, true)[0]
	n.equip(append(append(append([]*hardToken(nil), tokens...), others...), untouched)...)
	for i, e := range edits {
		k, other := tokens[i], others[i]
		t.Run(e.name, func(t *testing.T) {
			typed := func(code string) string { return code }
			if e.pin {
				n.must(http.MethodPut, "/v1/users/"+k.user+"/pin", map[string]string{"pin": pin}, nil)
				n.must(http.MethodPut, "/v1/users/"+other.user+"/pin", map[string]string{"pin": pin}, nil)
				typed = func(code string) string { return pin + code }
			}
			// Twice: the second time, the seed is at hand in the HSM.
			for range 2 {
				if got := n.verify(k.user, typed(k.press())); got != sawAccept {
					t.Fatalf("before the edit: %s", got)
				}
			}
			if e.before != nil {
				e.before(n, k)
			}
			sql(t, fmt.Sprintf(e.query, k.serial, other.serial, other.user))
			user, code := k.user, typed(k.press())
			if e.user != nil {
				user = e.user(k, other)
			}
			if e.typed != nil {
				code = e.typed(k, k.code(k.next-1))
			}
			for _, way := range []func() sight{
				func() sight { return n.verify(user, code) },
				func() sight { return n.newGateway(t, "").login(user, code, 10e9) },
			} {
				if got := way(); got != sawReject {
					t.Errorf("the code of an edited row: %s", got)
				}
				if last := n.lastAttempt(user); last.Outcome != "reject" || last.Reason != "tampered" {
					t.Errorf("the audit says %s, %s; want reject, tampered", last.Outcome, last.Reason)
				}
			}
		})
	}
	// What was not edited is as good as before.
	for range 2 {
		if got := n.verify(untouched.user, untouched.press()); got != sawAccept {
			t.Errorf("a token that nobody edited: %s", got)
		}
	}
	n.wantIntactAudit()

	t.Run("an audit record", func(t *testing.T) {
		sql(t, `UPDATE audit SET user_key = 'somebody-else' WHERE action = 'verify' AND outcome = 'accept' AND serial = '`+untouched.serial+`'`)
		var report struct{ Intact bool }
		n.must(http.MethodGet, "/v1/audit/verify", nil, &report)
		if report.Intact {
			t.Error("an edited audit record was not noticed")
		}
	})
}
