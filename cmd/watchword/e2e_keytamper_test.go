package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"watchword/webauthn/softkey"
)

// TestAnEditedRowOfAKeyIsRefusedAndAudited edits rows of keys behind the server's
// back.
func TestAnEditedRowOfAKeyIsRefusedAndAudited(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		n := startNode(t, nodeOptions{env: keySettings})
		editKeys(t, n, func(t *testing.T, query string) {
			t.Helper()
			out, err := exec.Command("sqlite3", "-cmd", ".timeout 5000", filepath.Join(n.dir, "watchword.db"), query).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Fatalf("sqlite3: %v %s", err, out)
			}
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		url := newDatabase(t)
		n := startNode(t, nodeOptions{database: url, env: keySettings})
		editKeys(t, n, func(t *testing.T, query string) { t.Helper(); psql(t, url, query) })
	})
}

func editKeys(t *testing.T, n *node, sql func(t *testing.T, query string)) {
	n.trustKeys()
	swap := func(columns ...string) string {
		set := ""
		for i, c := range columns {
			if i > 0 {
				set += ", "
			}
			set += c + " = (SELECT " + c + " FROM tokens WHERE serial = '%[2]s')"
		}
		return "UPDATE tokens SET " + set + " WHERE serial = '%[1]s'"
	}
	edits := []struct {
		name   string
		query  string // of the row of serial %[1]s, with the help of the thief's key %[2]s
		before string // done to the key over the API, after it was used
		thief  bool   // the thief, who has the other key, logs in as the owner; otherwise the owner does
	}{
		{name: "the thief's credential", query: "UPDATE tokens SET credential_key = NULL WHERE serial = '%[2]s'; " + swap("credential"), thief: true},
		{name: "the thief's credential and binding", query: "UPDATE tokens SET credential_key = NULL WHERE serial = '%[2]s'; " + swap("credential", "binding"), thief: true},
		{name: "the thief's key in the owner's hands", query: `UPDATE tokens SET owner_id = (SELECT owner_id FROM tokens WHERE serial = '%[1]s') WHERE serial = '%[2]s'`, thief: true},
		{name: "a lost key made active", query: `UPDATE tokens SET state = 'active' WHERE serial = '%[1]s'`, before: "lost"},
		{name: "a suspended key made active", query: `UPDATE tokens SET state = 'active' WHERE serial = '%[1]s'`, before: "suspend"},
		{name: "an altered binding", query: `UPDATE tokens SET binding = credential WHERE serial = '%[1]s'`},
		{name: "no binding", query: `UPDATE tokens SET binding = NULL WHERE serial = '%[1]s'`},
	}
	for i, e := range edits {
		t.Run(e.name, func(t *testing.T) {
			owner, thief := fmt.Sprintf("owner%d", i), fmt.Sprintf("thief%d", i)
			keys := n.equipKeys(softkey.Options{ZeroCounter: true}, owner, thief)
			k, other := keys[0], keys[1]
			for range 2 {
				if got := n.show(n.mustTouch(k)); got != sawAccept {
					t.Fatalf("before the edit: %s", got)
				}
			}
			// What a server offered before the edit is answered after it.
			as := n.mustTouch(k)
			if e.before != "" {
				n.must("POST", "/v1/tokens/"+k.serial+"/"+e.before, nil, nil)
			}
			sql(t, fmt.Sprintf(e.query, k.serial, other.serial))
			if e.thief {
				as = n.mustTouch(&heldKey{Key: other.Key, user: owner, serial: k.serial})
			}
			if got := n.show(as); got != sawReject {
				t.Errorf("the key of an edited row: %s", got)
			}
			if last := n.lastAttempt(owner); last.Outcome != "reject" || last.Reason != "tampered" {
				t.Errorf("the audit says %s, %s; want reject, tampered", last.Outcome, last.Reason)
			}
		})
	}
	n.wantIntactAudit()
}
