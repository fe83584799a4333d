package api

import (
	"context"
	"io"
	"strings"
	"time"

	"watchword/tokens"
)

// What scripted answers as the core, of the life of users and tokens.

func (s *scripted) CreateUser(_ context.Context, p tokens.Principal, r tokens.NewUserRequest) (tokens.UserEntry, error) {
	u := userEntry(1, r.Name)
	u.Profile, u.Groups = r.Profile, r.Groups
	return u, s.asked(p, r.Realm, r.Name, r)
}

func (s *scripted) EditUser(_ context.Context, p tokens.Principal, realm, name string, e tokens.ProfileEdit) (tokens.UserEntry, error) {
	return userEntry(1, name), s.asked(p, realm, name, e)
}

func (s *scripted) SetExpiry(_ context.Context, p tokens.Principal, realm, serial string, at time.Time) (tokens.Token, error) {
	t := token(1, serial, tokens.TOTP)
	t.Expires = at
	return t, s.asked(p, realm, "", at)
}

func (s *scripted) Annotate(_ context.Context, p tokens.Principal, realm, serial string, e tokens.NoteEdit) (tokens.Token, error) {
	t := token(1, serial, tokens.TOTP)
	t.Assigned, t.Tags = testTime, e.Add
	if e.Note != nil {
		t.Note = *e.Note
	}
	return t, s.asked(p, realm, "", e)
}

func (s *scripted) Replace(_ context.Context, p tokens.Principal, realm, serial, by, reason string) (old, next tokens.Token, err error) {
	return token(1, serial, tokens.TOTP), token(2, by, tokens.TOTP), s.asked(p, realm, "", "replace "+serial+" "+by+" "+reason)
}

func (s *scripted) Bulk(_ context.Context, p tokens.Principal, r tokens.BulkRequest, f func(tokens.BulkItem) error) (tokens.BulkReport, error) {
	if err := s.asked(p, r.Realm, "", r); err != nil {
		return tokens.BulkReport{}, err
	}
	if s.bulk != nil {
		return tokens.BulkReport{}, s.bulk(f)
	}
	for _, i := range []tokens.BulkItem{
		{Serial: "A1", User: "alice", Outcome: tokens.BulkDone}, {Serial: "A2", Outcome: tokens.BulkRefused, Reason: "token A2 is \"imported\""},
	} {
		if err := f(i); err != nil {
			return tokens.BulkReport{}, err
		}
	}
	return tokens.BulkReport{Matched: 2, Done: 1, Refused: 1}, nil
}

func (s *scripted) Realms(_ context.Context, p tokens.Principal) ([]tokens.RealmEntry, error) {
	return []tokens.RealmEntry{{Name: "corp", Users: 1, Tokens: 2, Clients: 3, Keys: 4}, {Name: "default"}}, s.asked(p, "", "", nil)
}

func (s *scripted) Rules(_ context.Context, p tokens.Principal, realm string) (tokens.RealmRules, error) {
	return tokens.RealmRules{Realm: realm, Rules: tokens.DefaultRules()}, s.asked(p, realm, "", nil)
}

// ruling is what SetRules was asked.
type ruling struct {
	expect int64
	rules  tokens.Rules
}

func (s *scripted) SetRules(_ context.Context, p tokens.Principal, realm string, expect int64, r tokens.Rules) (tokens.RealmRules, error) {
	return tokens.RealmRules{Realm: realm, Version: expect + 1, Own: true, Rules: r}, s.asked(p, realm, "", ruling{expect, r})
}

func (s *scripted) DropRules(ctx context.Context, p tokens.Principal, realm string) (tokens.RealmRules, error) {
	return s.Rules(ctx, p, realm)
}

// secret is a secret that the caller is to wipe.
func (s *scripted) secret(text string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := []byte(text)
	s.secrets = append(s.secrets, b)
	return b
}

func passcode(id int64, serial string, kind tokens.Type) tokens.Token {
	t := tokens.Token{
		ID: id, Realm: "default", Serial: serial, Type: kind, State: tokens.Active, OwnerID: 1, Owner: "alice", Created: testTime,
		Passcodes: [][]byte{[]byte("sealed-passcode-1"), []byte("sealed-passcode-2")}, Motion: tokens.Motion{Last: 1},
	}
	if kind == tokens.Temporary {
		t.Passcodes, t.Uses, t.Expires = t.Passcodes[:1], 3, testTime.Add(time.Hour)
	}
	return t
}

func (s *scripted) IssueRecovery(_ context.Context, p tokens.Principal, realm, user string) (tokens.Token, [][]byte, error) {
	if err := s.asked(p, realm, user, nil); err != nil {
		return tokens.Token{}, nil, err
	}
	return passcode(1, "R-1", tokens.Recovery), [][]byte{s.secret("aaaa-bbbb-cccc"), s.secret("dddd-eeee-ffff")}, nil
}

func (s *scripted) IssueTemporary(_ context.Context, p tokens.Principal, realm, user string, r tokens.TemporaryRequest) (tokens.Token, []byte, error) {
	if err := s.asked(p, realm, user, r); err != nil {
		return tokens.Token{}, nil, err
	}
	return passcode(1, "T-1", tokens.Temporary), s.secret("aaaa-bbbb-cccc"), nil
}

func (s *scripted) Lose(_ context.Context, p tokens.Principal, realm, serial, reason string, r *tokens.TemporaryRequest) (tokens.Token, *tokens.Token, []byte, error) {
	t, err := s.act("lost", p, realm, serial, reason)
	if err != nil || r == nil {
		return t, nil, nil, err
	}
	temporary := passcode(2, "T-1", tokens.Temporary)
	return t, &temporary, s.secret("aaaa-bbbb-cccc"), nil
}

func (s *scripted) Report(_ context.Context, p tokens.Principal, q tokens.ReportQuery, f func(tokens.ReportRow) error) error {
	if err := s.asked(p, q.Realm, "", q); err != nil {
		return err
	}
	if s.report != nil {
		return s.report(f)
	}
	for _, r := range []tokens.ReportRow{
		{
			Realm: "default", User: "alice", Display: "\uff1d1+1", UserState: tokens.UserEnabled, Locked: true, Failures: 3, PIN: "due",
			Serial: "-A1", Type: tokens.TOTP, Algorithm: "sha1", Digits: 6, Period: 30, State: tokens.Active, Assigned: testTime, LastUsed: testTime,
			DriftSeconds: new(-60), Expires: testTime, Attestation: "basic", Model: "\"C\", 200", Batch: 3, Tags: []string{"berlin", "spare"},
			Findings: []tokens.Finding{tokens.FindSHA1, tokens.FindExpired},
		},
		{Realm: "default", User: "bob", UserState: tokens.UserDisabled, PIN: "none"},
		{Realm: "default", Serial: "A3", Type: tokens.HOTP, State: tokens.Imported},
	} {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *scripted) Summary(_ context.Context, p tokens.Principal, realm string, unused time.Duration) (tokens.Summary, error) {
	return tokens.Summary{
		Time: testTime, Realm: realm, Users: 3, Disabled: 1, Unowned: 2,
		Tokens:   []tokens.TokenCount{{Type: tokens.TOTP, State: tokens.Active, Count: 3}},
		Findings: []tokens.FindingCount{{Finding: tokens.FindSHA1, Count: 1}},
		Resyncs:  []tokens.ResyncCount{{Batch: 3, Name: "shipment.csv", Tokens: 100, Resyncs: 9}},
	}, s.asked(p, realm, "", unused)
}

func (s *scripted) ChangePIN(_ context.Context, p tokens.Principal, a tokens.Attempt, pin string) (tokens.Result, error) {
	if err := s.asked(p, a.Realm, a.User, pin); err != nil {
		return tokens.Result{Accept: true}, err
	}
	return tokens.Result{Accept: a.Code == "4711755224", Serial: "24680017"}, nil
}

func (s *scripted) Drift(_ context.Context, p tokens.Principal, realm, serial string) (tokens.DriftHistory, error) {
	h := tokens.DriftHistory{
		Token: token(1, serial, tokens.TOTP), PPM: 4.2, Verdict: tokens.DriftGood, Says: "It runs as quartz does.",
		Points: []tokens.DriftPoint{{Time: testTime, Seconds: -12.5}, {Time: testTime.Add(time.Hour), Seconds: 31, Steps: 1, Resync: true}},
	}
	return h, s.asked(p, realm, "", serial)
}

func (s *scripted) story(before int64, limit int) (list []tokens.StoryItem, next int64) {
	for range s.count(limit) {
		list = append(list, tokens.StoryItem{
			Time: testTime, Until: testTime.Add(time.Hour), Action: "verify", Outcome: "accept", Actor: "client:vpn", User: "alice", Serial: "A1",
			Text: "41 logins.", Count: 41,
		})
	}
	return list, s.next(limit, before+100)
}

func (s *scripted) TokenStory(_ context.Context, p tokens.Principal, realm, serial string, before int64, limit int) ([]tokens.StoryItem, int64, error) {
	list, next := s.story(before, limit)
	return list, next, s.asked(p, realm, "", serial)
}

func (s *scripted) UserStory(_ context.Context, p tokens.Principal, realm, name string, before int64, limit int) ([]tokens.StoryItem, int64, error) {
	list, next := s.story(before, limit)
	return list, next, s.asked(p, realm, name, nil)
}

func (s *scripted) ImportUsers(_ context.Context, p tokens.Principal, i tokens.UserImport, r io.Reader) (tokens.UserReport, error) {
	if err := s.asked(p, i.Realm, "", i); err != nil {
		return tokens.UserReport{}, err
	}
	file, err := io.ReadAll(r)
	if err != nil {
		return tokens.UserReport{}, err
	}
	if strings.Contains(string(file), "bad") {
		return tokens.UserReport{Rejected: 1, Records: []tokens.UserOutcome{{Line: 2, Name: "bad", Outcome: tokens.UserRejected, Reason: "column mail: not an address"}}}, nil
	}
	return tokens.UserReport{Created: 1, Unchanged: 1, Records: []tokens.UserOutcome{{Line: 3, Name: "bob", Outcome: tokens.UserExists}}}, nil
}

func (s *scripted) ExportUsersCSV(_ context.Context, p tokens.Principal, realm string, w io.Writer) error {
	if err := s.asked(p, realm, "", nil); err != nil {
		return err
	}
	_, err := io.WriteString(w, "name,display\nalice,Alice\n")
	return err
}
