package api

import (
	"context"
	"time"

	"watchword/tokens"
)

// What scripted answers as the core, of the life of users and tokens.

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
