package api

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"watchword/tokens"
	"watchword/tokens/policy"
	"watchword/webauthn"
)

// What scripted answers as the core, of FIDO keys, invitations and statements.

func key(serial string) tokens.Token {
	return tokens.Token{
		ID: 1, Realm: "default", Serial: serial, Type: tokens.FIDO, State: tokens.Active, OwnerID: 1, Owner: "alice", Model: "Example Key 5",
		Created: testTime, Motion: tokens.Motion{Last: 7, UsedAt: testTime.Unix()},
		Credential: &tokens.Credential{
			ID: []byte("credential"), RPID: "example.com", UserID: 1, PublicKey: []byte("public"),
			AAGUID: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8}, Format: "packed", Attestation: "basic",
			Transports: []string{"usb", "nfc"}, Discoverable: true,
		},
	}
}

func invitation(id string) tokens.Invitation {
	return tokens.Invitation{
		ID: id, Realm: "default", UserID: 1, User: "alice", Kinds: []string{"fido", "totp"}, Actor: "key:test",
		Created: testTime, Expires: testTime.Add(24 * time.Hour),
	}
}

func (s *scripted) Invite(_ context.Context, p tokens.Principal, n tokens.NewInvitation) (tokens.Invitation, string, error) {
	return invitation("17"), "wi_17_secret", s.asked(p, n.Realm, n.User, n)
}

func (s *scripted) Invitations(_ context.Context, p tokens.Principal, realm, user string) ([]tokens.Invitation, error) {
	used := invitation("18")
	used.Used, used.Serial = testTime, "F-1"
	return []tokens.Invitation{used, invitation("17")}, s.asked(p, realm, user, nil)
}

func (s *scripted) Uninvite(_ context.Context, p tokens.Principal, id string) error {
	return s.asked(p, "", "", id)
}

func (s *scripted) Invited(_ context.Context, code string) (tokens.Principal, tokens.Invitation, error) {
	p := tokens.Principal{Kind: tokens.KindInvitation, ID: "17", User: "alice", Realm: "default", Scope: policy.ScopeInvite}
	if code != "wi_17_secret" {
		return tokens.Principal{}, tokens.Invitation{}, tokens.ErrUnknownKey
	}
	return p, invitation("17"), s.asked(p, "", "", code)
}

func (s *scripted) EnrolSoft(_ context.Context, p tokens.Principal, n tokens.NewSoft) (tokens.Token, []byte, error) {
	return token(1, "S-1", tokens.TOTP), s.secret("otpauth://totp/W:alice?secret=GEZDGNBVGY3TQOJQ&issuer=W"), s.asked(p, n.Realm, n.User, n)
}

func (s *scripted) Activate(_ context.Context, p tokens.Principal, realm, serial, code1, code2 string) (tokens.Token, error) {
	return token(1, serial, tokens.TOTP), s.asked(p, realm, "", "activate "+serial+" "+code1+" "+code2)
}

func (s *scripted) SetGroups(_ context.Context, p tokens.Principal, realm, user string, groups []string) ([]string, error) {
	return slices.Sorted(slices.Values(groups)), s.asked(p, realm, user, groups)
}

func (s *scripted) UserGroups(_ context.Context, p tokens.Principal, realm, user string) ([]string, error) {
	return nil, s.asked(p, realm, user, nil)
}

func (s *scripted) Statement(_ context.Context, p tokens.Principal, r tokens.StatementRequest, v tokens.Verified) (string, error) {
	if s.stating != nil {
		return "", s.stating
	}
	return "e30.e30.c2ln", s.asked(p, v.Realm, v.User, r)
}

func (s *scripted) CheckStatement(_ context.Context, p tokens.Principal, jwt, audience string, maxAge time.Duration) (tokens.StatementClaims, error) {
	if err := s.asked(p, "", "", maxAge); err != nil {
		return tokens.StatementClaims{}, err
	}
	if jwt != "e30.e30.c2ln" {
		return tokens.StatementClaims{}, &tokens.StatementError{Reason: "malformed", Why: "it is no JWT such as this server signs"}
	}
	return tokens.StatementClaims{
		Issuer: "watchword", Subject: "alice", Realm: "default", Audience: audience, IssuedAt: 1, Expires: 2, ID: "j", AuthTime: 1,
		Methods: []string{"otp"}, Token: tokens.StatementToken{Serial: "A1", Type: tokens.TOTP},
	}, nil
}

func (s *scripted) JWKS(context.Context) ([]byte, error) {
	return []byte(`{"keys":[{"kty":"EC"}]}`), s.err
}

func (s *scripted) StatementKeys(_ context.Context, p tokens.Principal) ([]tokens.StatementKey, error) {
	return []tokens.StatementKey{
		{Version: 3, KID: "c", State: "next", Created: testTime}, {Version: 2, KID: "b", State: "current", Created: testTime, Signs: testTime},
		{Version: 1, KID: "a", State: "previous", Created: testTime, Signs: testTime, Until: testTime},
	}, s.asked(p, "", "", nil)
}

func (s *scripted) RotateStatementKey(ctx context.Context, p tokens.Principal, now bool) ([]tokens.StatementKey, error) {
	list, _ := s.StatementKeys(ctx, p)
	return list, s.asked(p, "", "", now)
}

// scriptedFIDO answers for webauthn.Service.
type scriptedFIDO struct{ *scripted }

func (s *scripted) fido() FIDO { return scriptedFIDO{s} }

func (s scriptedFIDO) Parties() []webauthn.Party {
	return []webauthn.Party{
		{ID: "example.com", Name: "Example", Origins: []string{"https://example.com", "https://example.org"}},
		{ID: "example.net", Name: "Other", Origins: []string{"https://login.example.net"}},
	}
}

var begun = webauthn.Ceremony{Options: json.RawMessage(`{"publicKey":{"challenge":"AAAA"}}`), Session: "c2Vzc2lvbg", Expires: testTime}

func (s scriptedFIDO) BeginRegistration(_ context.Context, p tokens.Principal, r webauthn.RegistrationRequest) (webauthn.Ceremony, error) {
	return begun, s.asked(p, r.Realm, r.User, r)
}

func (s scriptedFIDO) FinishRegistration(_ context.Context, p tokens.Principal, session string, response []byte) (tokens.Token, error) {
	return key("F-1"), s.asked(p, "", "", session+" "+string(response))
}

func (s scriptedFIDO) BeginLogin(_ context.Context, p tokens.Principal, r webauthn.LoginRequest) (webauthn.Ceremony, error) {
	return begun, s.asked(p, r.Realm, r.User, r)
}

func (s scriptedFIDO) FinishLogin(_ context.Context, p tokens.Principal, session string, response []byte, transport string) (tokens.KeyResult, error) {
	if err := s.asked(p, "", "", session+" "+string(response)+" "+transport); err != nil {
		return tokens.KeyResult{}, err
	}
	if session != begun.Session {
		return tokens.KeyResult{}, nil
	}
	return tokens.KeyResult{
		Result: tokens.Result{Accept: true, Serial: "F-1"}, Token: key("F-1"), User: "alice", Realm: "default", At: testTime, UserVerified: true,
	}, nil
}

func (s scriptedFIDO) Metadata(_ context.Context, p tokens.Principal) (webauthn.MetadataInfo, error) {
	return webauthn.MetadataInfo{Number: 141, Issued: testTime, NextUpdate: testTime, Imported: testTime, Entries: 3, Age: "2 days", Unread: []string{"x"}}, s.asked(p, "", "", nil)
}

func (s scriptedFIDO) MayImportMetadata(_ context.Context, p tokens.Principal) error {
	return s.asked(p, "", "", nil)
}

func (s scriptedFIDO) ImportMetadata(ctx context.Context, p tokens.Principal, blob []byte) (webauthn.MetadataInfo, error) {
	info, _ := s.Metadata(ctx, p)
	return info, s.asked(p, "", "", string(blob))
}

func model(aaguid string) webauthn.Model {
	return webauthn.Model{
		AAGUID: aaguid, Name: "Example Key 5", Protocol: "fido2", Certification: "FIDO_CERTIFIED_L1", Changed: testTime, Transports: []string{"usb"},
		Status: []webauthn.StatusReport{{Status: "FIDO_CERTIFIED_L1", Since: testTime, Version: 2, Certificate: []byte{1}}}, Ours: 3,
	}
}

func (s scriptedFIDO) Models(_ context.Context, p tokens.Principal, q webauthn.ModelQuery) ([]webauthn.Model, error) {
	list := make([]webauthn.Model, 0, q.Limit)
	for range s.count(q.Limit) {
		list = append(list, model("01020304-0506-0708-0102-030405060708"))
	}
	return list, s.asked(p, "", "", q)
}

func (s scriptedFIDO) Concerns(_ context.Context, p tokens.Principal) ([]webauthn.Concern, error) {
	return []webauthn.Concern{{Serial: "F-1", Realm: "default", User: "alice", Model: "Example Key 5", Status: "REVOKED", Since: testTime, State: "active", Others: []string{"X"}}}, s.asked(p, "", "", nil)
}

func (s scriptedFIDO) Allowed(_ context.Context, p tokens.Principal, realm string, groups []string, aaguid string) (webauthn.Verdict, error) {
	m := model(aaguid)
	return webauthn.Verdict{Reasons: []string{"it is not certified"}, Model: &m}, s.asked(p, realm, "", groups)
}

func (s scriptedFIDO) Rules(_ context.Context, p tokens.Principal) (webauthn.RuleSet, int64, error) {
	return webauthn.RuleSet{Realms: map[string]webauthn.RealmRules{"lab": {Groups: map[string]webauthn.Rules{"board": {AllowUnknown: true}}}}}, 3, s.asked(p, "", "", nil)
}

func (s scriptedFIDO) SetRules(_ context.Context, p tokens.Principal, r webauthn.RuleSet, expect int64) error {
	return s.asked(p, "", "", r)
}

func (s scriptedFIDO) Roots(_ context.Context, p tokens.Principal) ([]webauthn.RootInfo, error) {
	return []webauthn.RootInfo{{Subject: "CN=Root", Until: testTime, SHA256: "00", PEM: "-----BEGIN CERTIFICATE-----\n"}}, s.asked(p, "", "", nil)
}

func (s scriptedFIDO) SetRoots(_ context.Context, p tokens.Principal, pem []byte) error {
	return s.asked(p, "", "", string(pem))
}
