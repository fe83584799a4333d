package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

// sampleSheet is a recovery sheet of so many codes as it is enrolled.
func sampleSheet(serial string, owner *tokens.User, n int) tokens.Token {
	t := tokens.Token{
		Realm: "default", Serial: serial, Type: tokens.Recovery, State: tokens.Active, OwnerID: owner.ID, Owner: owner.Key,
		Created: time.Now(), Binding: []byte{7},
	}
	for i := range n {
		t.Passcodes = append(t.Passcodes, bytes.Repeat([]byte{byte(i + 1)}, 32))
	}
	return t
}

// Somebody who alters a row in the database must not keep others out, nor make up
// a code.
func TestDamagedPasscodesHarmNobodyElse(t *testing.T) {
	for name, url := range map[string]string{"sqlite": sqliteURL(t), "postgres": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			db := openMigrated(t, url)
			w := alice(t, db)
			bob := &tokens.User{Realm: "default", Name: "bob", Key: "bob"}
			if err := w.commit(context.Background(), &tokens.Change{NewUsers: []tokens.NewUser{{User: bob}}}, event("user.add")); err != nil {
				t.Fatal(err)
			}
			ours := subject(t, db, tokens.Ref{Realm: "default", User: "alice"}).User
			damaged, whole := sampleSheet("R-1", ours, 2), sampleSheet("R-2", bob, 2)
			enrol(t, w, &damaged)
			enrol(t, w, &whole)
			all := bytes.Join(damaged.Passcodes, nil)
			for _, c := range []struct {
				stored any
				codes  int
			}{
				{nil, 0}, {[]byte{}, 0}, {all[:31], 0}, {all[:33], 0}, {append(all[:64:64], 0), 0}, {all[32:], 1}, {all, 2},
			} {
				if _, err := rawDatabase(t, url).Exec(`UPDATE tokens SET passcodes = $1 WHERE serial = 'R-1'`, c.stored); err != nil {
					t.Fatal(err)
				}
				view, err := db.Load(context.Background(), []tokens.Ref{
					{Realm: "default", User: "alice"}, {Realm: "default", Serial: "R-1"}, {Realm: "default", User: "bob"},
				})
				if err != nil {
					t.Fatalf("Load: %v", err)
				}
				s := view.Subjects
				if s[0] == nil || s[0] != s[1] || len(s[0].Tokens) != 2 || len(s[0].Tokens[1].Passcodes) != c.codes {
					t.Errorf("the owner of %x: %+v", c.stored, s[0])
				}
				for _, mac := range s[0].Tokens[1].Passcodes {
					if len(mac) != 32 {
						t.Errorf("a code of %d bytes", len(mac))
					}
				}
				if s[2] == nil || len(s[2].Tokens) != 1 || len(s[2].Tokens[0].Passcodes) != 2 {
					t.Errorf("another: %+v", s[2])
				}
			}
		})
	}
}

// Nearly no row has passcodes, and none once they are revoked, whatever the change
// that does it brings along.
func TestNoRowKeepsPasscodesThatAreRevoked(t *testing.T) {
	for name, url := range map[string]string{"sqlite": sqliteURL(t), "postgres": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			db := openMigrated(t, url)
			w := alice(t, db)
			sheet := sampleSheet("R-1", subject(t, db, tokens.Ref{Realm: "default", User: "alice"}).User, 10)
			enrol(t, w, &sheet)
			row := func(serial string, want any) {
				t.Helper()
				var got sql.NullInt64
				if err := rawDatabase(t, url).QueryRow(`SELECT length(passcodes) FROM tokens WHERE serial = $1`, serial).Scan(&got); err != nil {
					t.Fatal(err)
				}
				if value, _ := got.Value(); value != want {
					t.Errorf("%s has %v bytes of passcodes, not %v", serial, value, want)
				}
			}
			row("A1", nil)
			row("R-1", int64(320))
			sheet.State = tokens.Revoked
			if err := w.commit(context.Background(), &tokens.Change{
				Standings: move(subject(t, db, tokens.Ref{Realm: "default", User: "alice"})), Tokens: []tokens.TokenWrite{{Token: sheet, Expect: 1}},
			}, event("token.revoke")); err != nil {
				t.Fatal(err)
			}
			row("R-1", nil)
		})
	}
}
