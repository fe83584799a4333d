package api

import (
	"context"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/tokens/policy"
)

func (s *scripted) RotateKey(_ context.Context, p tokens.Principal, id string, overlap time.Duration) (tokens.APIKey, string, error) {
	return tokens.APIKey{ID: "k2", Name: "desk", Scope: "helpdesk", Created: testTime, Successor: ""}, "ww_k2_x", s.asked(p, "", id, overlap)
}

func someGrant(r tokens.RoleRequest) tokens.Grant {
	return tokens.Grant{UserID: 1, User: r.User, Home: "default", Role: r.Role, Realm: strings.Trim(r.In, "*"), Actor: "key:test", Created: testTime}
}

func (s *scripted) Grants(_ context.Context, p tokens.Principal, realm string) ([]tokens.Grant, error) {
	r := tokens.RoleRequest{User: "alice", Role: "helpdesk"}
	return []tokens.Grant{someGrant(r), someGrant(tokens.RoleRequest{User: "bob", Role: "night-shift", In: "corp"})}, s.asked(p, realm, "", r)
}

func (s *scripted) GrantRole(_ context.Context, p tokens.Principal, r tokens.RoleRequest) (tokens.Grant, error) {
	return someGrant(r), s.asked(p, r.Realm, r.User, r)
}

func (s *scripted) RevokeRole(_ context.Context, p tokens.Principal, r tokens.RoleRequest) error {
	return s.asked(p, r.Realm, r.User, r)
}

func someSession(text string) *tokens.SignedIn {
	return &tokens.SignedIn{Text: text, Roles: []policy.Role{policy.Helpdesk}, Session: tokens.Session{
		ID: "9c1e5a7702f4d3b8", Home: "default", User: "alice", Realm: "corp", Serial: "24680017", Method: "otp,pin,mfa", Bound: "192.0.2.1",
		Created: testTime, Authenticated: testTime, Expires: testTime.Add(time.Hour),
	}}
}

func (s *scripted) SignIn(_ context.Context, p tokens.Principal, r tokens.SignInRequest) (*tokens.SignedIn, error) {
	if err := s.asked(p, r.Realm, r.User, r); err != nil || r.Code != "4711755224" {
		return nil, err
	}
	return someSession("wsn_9c1e5a7702f4d3b8_x"), nil
}

func (s *scripted) SignInKey(_ context.Context, p tokens.Principal, r tokens.SignInRequest, k tokens.KeyResult) (*tokens.SignedIn, error) {
	return someSession("wsn_9c1e5a7702f4d3b8_x"), s.asked(p, k.Realm, k.User, r)
}

func (s *scripted) StepUp(_ context.Context, p tokens.Principal, code, _ string) (*tokens.SignedIn, error) {
	if err := s.asked(p, "", "", code); err != nil || code != "4711755224" {
		return nil, err
	}
	return someSession(""), nil
}

func (s *scripted) StepUpKey(_ context.Context, p tokens.Principal, k tokens.KeyResult) (*tokens.SignedIn, error) {
	return someSession(""), s.asked(p, k.Realm, k.User, nil)
}

func (s *scripted) Me(_ context.Context, p tokens.Principal) (*tokens.SignedIn, error) {
	return someSession(""), s.asked(p, "", "", nil)
}

func (s *scripted) SignOut(_ context.Context, p tokens.Principal) error {
	return s.asked(p, "", "", nil)
}

func (s *scripted) Sessions(_ context.Context, p tokens.Principal, realm, user string) ([]tokens.Session, error) {
	return []tokens.Session{someSession("").Session}, s.asked(p, realm, user, nil)
}

func (s *scripted) EndSession(_ context.Context, p tokens.Principal, id string) error {
	return s.asked(p, "", "", id)
}

func (s *scripted) CheckSession(_ context.Context, p tokens.Principal, text string) (tokens.Checked, error) {
	if err := s.asked(p, "", "", text); err != nil || text != "wsn_9c1e5a7702f4d3b8_x" {
		return tokens.Checked{}, err
	}
	return tokens.Checked{
		Active: true, User: "alice", Realm: "default", Serial: "24680017", Methods: []string{"otp"}, Authenticated: testTime, Expires: testTime.Add(time.Hour),
	}, nil
}
