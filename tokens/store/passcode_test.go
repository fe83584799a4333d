package store_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
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

// replace gives alice another temporary passcode in the place of the one before,
// and writes down which one it is on A1 and in her profile: all in one commit.
func (w *writer) replace(ctx context.Context) (int64, error) {
	view, err := w.db.Load(ctx, []tokens.Ref{{Realm: "default", User: "alice"}})
	if err != nil {
		return 0, err
	}
	s := view.Subjects[0]
	n := int64(0)
	c := &tokens.Change{Standings: move(s)}
	for i := range s.Tokens {
		if t := s.Tokens[i]; t.Type == tokens.Temporary {
			if _, err := fmt.Sscanf(t.Serial, "T-%d", &n); err != nil {
				return 0, err
			}
			n++
			t.State, t.Passcodes = tokens.Revoked, nil
			c.Tokens = append(c.Tokens, tokens.TokenWrite{Token: t, Expect: t.Version})
		}
	}
	t := sampleSheet(fmt.Sprint("T-", n), s.User, 1)
	t.Type, t.Uses, t.Expires = tokens.Temporary, 5, time.Now().Add(time.Hour)
	c.NewTokens = []*tokens.Token{&t}
	c.Notes = []tokens.NoteWrite{{TokenID: s.Tokens[0].ID, Note: &t.Serial, Add: []string{t.Serial}, Drop: []string{fmt.Sprint("T-", n-1)}}}
	c.Profiles = []tokens.ProfileWrite{{UserID: s.User.ID, Profile: tokens.Profile{External: t.Serial}}}
	return n, w.commit(ctx, c, event("user.temporary"))
}

// A server that is killed has replaced a passcode or has not: there is always one,
// and what goes with it is its own.
func TestAPasscodeIsReplacedWholeOrNotAtAll(t *testing.T) {
	url := sqliteURL(t)
	alice(t, openMigrated(t, url))
	confirmed := int64(-1)
	for range 4 {
		cmd := command(t, "desk", url)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(400*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			n, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil || n <= confirmed {
				t.Fatalf("passcode %q was confirmed after %d", lines.Text(), confirmed)
			}
			confirmed = n
		}
		kill.Stop()
		_ = cmd.Wait()

		db := openMigrated(t, url)
		held := subject(t, db, tokens.Ref{Realm: "default", User: "alice"}).Tokens
		if len(held) == 1 && confirmed < 0 { // it was killed before it began
			continue
		}
		if len(held) != 2 || held[1].Type != tokens.Temporary || len(held[1].Passcodes) != 1 {
			t.Fatalf("alice holds %+v", held)
		}
		var n int64
		if _, err := fmt.Sscanf(held[1].Serial, "T-%d", &n); err != nil || n < confirmed {
			t.Fatalf("passcode %d was confirmed, and the last is %s", confirmed, held[1].Serial)
		}
		if on := listed(t, db, "A1"); on.Note != held[1].Serial || !slices.Equal(on.Tags, []string{held[1].Serial}) {
			t.Errorf("the last is %s, and noted are %q and %q", held[1].Serial, on.Note, on.Tags)
		}
		users, _, err := db.Users(context.Background(), tokens.UserQuery{Realm: "default", Key: "alice", Limit: 1})
		if err != nil || len(users) != 1 || users[0].Profile.External != held[1].Serial {
			t.Errorf("the last is %s, and alice is %+v, %v", held[1].Serial, users, err)
		}
		var revoked, kept int64
		if err := rawDatabase(t, url).QueryRow(`SELECT count(*), count(passcodes) FROM tokens WHERE state = 'revoked'`).Scan(&revoked, &kept); err != nil || revoked != n || kept != 0 {
			t.Errorf("of %d revoked passcodes %d are there, and %d keep their codes, %v", n, revoked, kept, err)
		}
		audited(t, db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if confirmed < 5 {
		t.Errorf("only %d passcodes were confirmed in all", confirmed+1)
	}
}
