package tokens_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// key makes an API key and answers its principal.
func (h *house) key(realm, scope string) tokens.Principal {
	h.Helper()
	_, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "key", Realm: realm, Scope: scope})
	if err != nil {
		h.Fatal(err)
	}
	p, err := h.Authenticate(ctx, text)
	if err != nil {
		h.Fatal(err)
	}
	return p
}

// useCases is every method of Service that a principal can call, on what lies
// in realm corp. New ones must be added here: TestEveryUseCaseIsTried sees to it.
func useCases(h *house, corp *corpDevices) map[string]func(p tokens.Principal) error {
	code := func() (string, string) { return corp.code(h, 0), corp.code(h, 1) }
	return map[string]func(p tokens.Principal) error{
		"Verify": func(p tokens.Principal) error {
			c, _ := code()
			r, err := h.Verify(ctx, p, tokens.Attempt{Realm: "corp", User: "carol", Code: c})
			if err == nil && !r.Accept {
				return errors.New("rejected")
			}
			return err
		},
		"Ask": func(p tokens.Principal) error {
			c, _ := code()
			answer := make(chan error, 1)
			h.Ask(ctx, p, tokens.Attempt{Realm: "corp", User: "carol", Code: c}, func(r tokens.Result, err error) {
				if err == nil && !r.Accept {
					err = errors.New("rejected")
				}
				answer <- err
			})
			return <-answer
		},
		"ChangePIN": func(p tokens.Principal) error {
			c, _ := code() // carol has no PIN, so that it is rejected
			_, err := h.ChangePIN(ctx, p, tokens.Attempt{Realm: "corp", User: "carol", Code: c}, "0815")
			return err
		},
		"AddUser": func(p tokens.Principal) error { _, err := h.AddUser(ctx, p, "corp", "dave"); return err },
		"ImportUsers": func(p tokens.Principal) error {
			_, err := h.ImportUsers(ctx, p, tokens.UserImport{Realm: "corp", Update: true}, strings.NewReader("name,display\ncarol,Carol\ndave,Dave\n"))
			return err
		},
		"ExportUsers": func(p tokens.Principal) error {
			return h.ExportUsers(ctx, p, "corp", func(tokens.UserEntry) error { return nil })
		},
		"ExportUsersCSV": func(p tokens.Principal) error { return h.ExportUsersCSV(ctx, p, "corp", io.Discard) },
		"CreateUser": func(p tokens.Principal) error {
			_, err := h.CreateUser(ctx, p, tokens.NewUserRequest{Realm: "corp", Name: "dave", Profile: tokens.Profile{Mail: "dave@example.com"}, Groups: []string{"Staff"}})
			return err
		},
		"EditUser": func(p tokens.Principal) error {
			mail := "carol@example.com"
			_, err := h.EditUser(ctx, p, "corp", "carol", tokens.ProfileEdit{Mail: &mail})
			return err
		},
		"ShowUser": func(p tokens.Principal) error { _, _, err := h.ShowUser(ctx, p, "corp", "carol"); return err },
		"Users": func(p tokens.Principal) error {
			_, _, err := h.Users(ctx, p, tokens.UserQuery{Realm: "corp"})
			return err
		},
		"SetUserState": func(p tokens.Principal) error {
			_, err := h.SetUserState(ctx, p, "corp", "carol", tokens.UserDisabled)
			return err
		},
		"UnlockUser":  func(p tokens.Principal) error { _, err := h.UnlockUser(ctx, p, "corp", "carol"); return err },
		"UnlockOwner": func(p tokens.Principal) error { _, err := h.UnlockOwner(ctx, p, "corp", "C1"); return err },
		"SetPIN":      func(p tokens.Principal) error { _, err := h.SetPIN(ctx, p, "corp", "carol", "4711", false); return err },
		"Assign":      func(p tokens.Principal) error { _, err := h.Assign(ctx, p, "corp", "C2", "carol"); return err },
		"Unassign":    func(p tokens.Principal) error { _, err := h.Unassign(ctx, p, "corp", "C1", ""); return err },
		"Suspend":     func(p tokens.Principal) error { _, err := h.Suspend(ctx, p, "corp", "C1", ""); return err },
		"Resume":      func(p tokens.Principal) error { _, err := h.Resume(ctx, p, "corp", "C1", "found"); return err },
		"MarkLost":    func(p tokens.Principal) error { _, err := h.MarkLost(ctx, p, "corp", "C1", ""); return err },
		"Revoke":      func(p tokens.Principal) error { _, err := h.Revoke(ctx, p, "corp", "C2", ""); return err },
		"Resync": func(p tokens.Principal) error {
			a, b := code()
			_, err := h.Resync(ctx, p, "corp", "C1", a, b)
			return err
		},
		"ShowToken": func(p tokens.Principal) error { _, err := h.ShowToken(ctx, p, "corp", "C1"); return err },
		"Tokens": func(p tokens.Principal) error {
			_, _, err := h.Tokens(ctx, p, tokens.TokenQuery{Realm: "corp"})
			return err
		},
		"Why":   func(p tokens.Principal) error { _, err := h.Why(ctx, p, "corp", "carol", 5); return err },
		"Drift": func(p tokens.Principal) error { _, err := h.Drift(ctx, p, "corp", "C1"); return err },
		"TokenStory": func(p tokens.Principal) error {
			_, _, err := h.TokenStory(ctx, p, "corp", "C1", 0, 5)
			return err
		},
		"UserStory": func(p tokens.Principal) error {
			_, _, err := h.UserStory(ctx, p, "corp", "carol", 0, 5)
			return err
		},
		"Report": func(p tokens.Principal) error {
			return h.Report(ctx, p, tokens.ReportQuery{Realm: "corp", Unowned: true}, func(tokens.ReportRow) error { return nil })
		},
		"Summary": func(p tokens.Principal) error { _, err := h.Summary(ctx, p, "corp", 0); return err },
		"Records": func(p tokens.Principal) error {
			_, _, err := h.Records(ctx, p, tokens.RecordQuery{Realm: "corp"})
			return err
		},
		"ExportAudit": func(p tokens.Principal) error {
			return h.ExportAudit(ctx, p, tokens.RecordQuery{Realm: "corp"}, func(*audit.Record) error { return nil })
		},
		"BeginImport": func(p tokens.Principal) error {
			_, err := h.BeginImport(ctx, p, tokens.NewImport{Realm: "corp", Name: "x"})
			return err
		},
		"OpenPGP": func(p tokens.Principal) error {
			_, err := h.OpenPGP(ctx, p, "corp", 1, make([]byte, 384))
			if errors.Is(err, tokens.ErrInvalid) { // it was tried, and is no session key
				return nil
			}
			return err
		},
		"MayImport": func(p tokens.Principal) error {
			return h.MayImport(ctx, p, tokens.NewImport{Realm: "corp", Name: "x"})
		},
		"RefuseImport": func(p tokens.Principal) error {
			why := errors.New("line 1: no serial")
			if err := h.RefuseImport(ctx, p, tokens.NewImport{Realm: "corp", Name: "x"}, why); err != why {
				return err
			}
			return nil
		},
		"PutClient": func(p tokens.Principal) error {
			_, err := h.PutClient(ctx, p, tokens.NewClient{Name: "nas", Prefix: netip.MustParsePrefix("192.0.2.7/32"), Realm: "corp", Secret: []byte("xyzzy5461")}, true)
			return err
		},
		"CompareClient": func(p tokens.Principal) error {
			_, _, err := h.CompareClient(ctx, p, tokens.NewClient{Name: "nas", Prefix: netip.MustParsePrefix("192.0.2.7/32"), Realm: "corp", Secret: []byte("xyzzy5461")})
			return err
		},
		"DeleteClient": func(p tokens.Principal) error { return h.DeleteClient(ctx, p, "nas") },
		"WatchClients": func(p tokens.Principal) error {
			return second(h.WatchClients(ctx, p, tokens.Watching{Realm: "corp", Client: "nas"}))
		},
		"MayWatch": func(p tokens.Principal) error { return h.MayWatch(ctx, p, tokens.Watching{Realm: "corp"}) },
		"TestClient": func(p tokens.Principal) error {
			return second(h.TestClient(ctx, p, tokens.ClientTest{Client: "nas", User: "carol", Method: "pap"}))
		},
		"AddKey": func(p tokens.Principal) error {
			_, _, err := h.AddKey(ctx, p, tokens.NewKey{Name: "x", Realm: "corp", Scope: "read"})
			return err
		},
		"DeleteKey": func(p tokens.Principal) error { return h.DeleteKey(ctx, p, corp.Model) },
		"RotateKey": func(p tokens.Principal) error {
			_, _, err := h.RotateKey(ctx, p, corp.Model, time.Hour)
			return err
		},
		"Grants": func(p tokens.Principal) error { _, err := h.Grants(ctx, p, "corp"); return err },
		"GrantRole": func(p tokens.Principal) error {
			_, err := h.GrantRole(ctx, p, tokens.RoleRequest{Realm: "corp", User: "carol", Role: "auditor"})
			return err
		},
		"RevokeRole": func(p tokens.Principal) error {
			err := h.RevokeRole(ctx, p, tokens.RoleRequest{Realm: "corp", User: "carol", Role: "auditor"})
			if errors.Is(err, tokens.ErrNotFound) { // it was looked for
				return nil
			}
			return err
		},
		"Sessions": func(p tokens.Principal) error { _, err := h.Sessions(ctx, p, "corp", "carol"); return err },
		"SignIn": func(p tokens.Principal) error {
			c, _ := code()
			v, err := h.SignIn(ctx, p, tokens.SignInRequest{Realm: "corp", User: "carol", Code: c})
			if err == nil && v == nil {
				return errors.New("rejected")
			}
			return err
		},

		"VerifyKey": func(p tokens.Principal) error {
			a := h.shows("carol", corp.key)
			a.Realm = "corp"
			r, err := h.VerifyKey(ctx, p, a)
			if err == nil && !r.Accept {
				return errors.New("rejected")
			}
			return err
		},
		"RefuseLogin": func(p tokens.Principal) error {
			return h.RefuseLogin(ctx, p, "corp", "carol", tokens.ReasonExpired, "the challenge is none of ours", "http")
		},
		"LoginHolder": func(p tokens.Principal) error { _, err := h.LoginHolder(ctx, p, "corp", "carol", rp); return err },
		"KeyHolder":   func(p tokens.Principal) error { _, err := h.KeyHolder(ctx, p, "corp", "carol", rp); return err },
		"EnrolKey": func(p tokens.Principal) error {
			n := tokens.NewFIDO{Realm: "corp", User: "carol", Credential: newSeckey("new").credential(corp.owner), Spend: h.challenge()}
			_, err := h.EnrolKey(ctx, p, n)
			return err
		},
		"KeyStock": func(p tokens.Principal) error { _, err := h.KeyStock(ctx, p, "corp", []byte("nonce")); return err },
		"StockKey": func(p tokens.Principal) error {
			_, err := h.StockKey(ctx, p, h.newStock("corp", newSeckey("stock")))
			return err
		},
		"Enrolled": func(p tokens.Principal) error {
			_, err := h.Enrolled(ctx, p, before(tokens.NewFIDO{Realm: "corp", User: "carol", Credential: corp.key.credential(corp.owner)}))
			return err
		},
		"RefuseKey": func(p tokens.Principal) error {
			err := h.RefuseKey(ctx, p, "corp", "carol", "prohibited", "the model is prohibited", nil)
			if errors.Is(err, tokens.ErrInvalid) {
				return nil
			}
			return err
		},
		"EnrolSoft": func(p tokens.Principal) error {
			_, uri, err := h.EnrolSoft(ctx, p, tokens.NewSoft{Realm: "corp", User: "carol", Issuer: "Corp"})
			clear(uri)
			return err
		},
		"Activate": func(p tokens.Principal) error {
			_, err := h.Activate(ctx, p, "corp", corp.soft, "000000", "111111")
			if errors.Is(err, tokens.ErrWrongCode) { // it was looked at
				return nil
			}
			return err
		},
		"SetExpiry": func(p tokens.Principal) error {
			return second(h.SetExpiry(ctx, p, "corp", "C1", start.AddDate(1, 0, 0)))
		},
		"Annotate": func(p tokens.Principal) error {
			return second(h.Annotate(ctx, p, "corp", "C1", tokens.NoteEdit{Add: []string{"blue"}}))
		},
		"Replace":       func(p tokens.Principal) error { return third(h.Replace(ctx, p, "corp", "C1", "C2", "broken")) },
		"IssueRecovery": func(p tokens.Principal) error { return third(h.IssueRecovery(ctx, p, "corp", "carol")) },
		"IssueTemporary": func(p tokens.Principal) error {
			err := third(h.IssueTemporary(ctx, p, "corp", "carol", tokens.TemporaryRequest{}))
			if errors.Is(err, tokens.ErrState) { // the realm's rules were looked at
				return nil
			}
			return err
		},
		"Lose": func(p tokens.Principal) error {
			_, _, _, err := h.Lose(ctx, p, "corp", "C1", "", &tokens.TemporaryRequest{})
			if errors.Is(err, tokens.ErrState) {
				return nil
			}
			return err
		},
		"Bulk": func(p tokens.Principal) error {
			r, err := h.Bulk(ctx, p, tokens.BulkRequest{Realm: "corp", Act: "suspend", Serials: []string{"C1"}}, func(tokens.BulkItem) error { return nil })
			if err == nil && r.Done+r.Unchanged != 1 {
				return fmt.Errorf("%+v", r)
			}
			return err
		},
		"Invite": func(p tokens.Principal) error {
			_, _, err := h.Invite(ctx, p, tokens.NewInvitation{Realm: "corp", User: "carol"})
			return err
		},
		"Invitations": func(p tokens.Principal) error { _, err := h.Invitations(ctx, p, "corp", ""); return err },
		"SetGroups": func(p tokens.Principal) error {
			_, err := h.SetGroups(ctx, p, "corp", "carol", []string{"Staff"})
			return err
		},
		"UserGroups": func(p tokens.Principal) error { _, err := h.UserGroups(ctx, p, "corp", "carol"); return err },
		"PutDocument": func(p tokens.Principal) error {
			_, err := h.PutDocument(ctx, p, policy.FIDORules, "corp", tokens.DocumentWrite{Name: "fido.rules", Data: []byte("{}")}, nil)
			return err
		},
		"PutSealed": func(p tokens.Principal) error {
			_, err := h.PutSealed(ctx, p, policy.FIDORules, "corp", tokens.DocumentWrite{Name: "fido.rules", Data: []byte("{}")}, nil)
			return err
		},
		"Rules": func(p tokens.Principal) error { _, err := h.Rules(ctx, p, "corp"); return err },
		"SetRules": func(p tokens.Principal) error {
			_, err := h.SetRules(ctx, p, "corp", -1, tokens.DefaultRules())
			return err
		},
		"DropRules": func(p tokens.Principal) error { _, err := h.DropRules(ctx, p, "corp"); return err },
		"May":       func(p tokens.Principal) error { return h.May(ctx, p, policy.FIDORules, "corp") },
		"Allow":     func(p tokens.Principal) error { return h.Allow(ctx, p, policy.FIDOShow, audit.Event{Realm: "corp"}) },
		"Statement": func(p tokens.Principal) error {
			_, err := h.Statement(ctx, p, tokens.StatementRequest{Audience: "wiki"}, corp.verified)
			return err
		},
	}
}

// The use cases that name no realm: what they answer is looked at below.
var withoutRealm = []string{
	"EndSession", "CheckSession", "Me", "SignOut", "StepUp", "StepUpKey", "SignInKey", // see session_test.go
	"Uninvite", "Batches", "ShowBatch", "Undo", "Clients", "Keys", "VerifyAudit", "CompareAudit", "CheckpointAudit", "CutAudit", "CheckStatement", "StatementKeys", "RotateStatementKey", "Realms",
	"Sinks", "Sink", "PutSink", "CompareSink", "DeleteSink", "TestSink",
	"Policies", "PutPolicies", "PolicyVersions", "RollBackPolicies", "CheckPolicies", "Simulate", "Replay", "ApplyingPolicies", "PolicySchema",
}

func TestEveryUseCaseIsTried(t *testing.T) {
	h := newHouse(t)
	tried := useCases(h, &corpDevices{})
	service := reflect.TypeFor[*tokens.Service]()
	principal := reflect.TypeFor[tokens.Principal]()
	for i := range service.NumMethod() {
		m := service.Method(i)
		takes := false
		for k := range m.Type.NumIn() {
			takes = takes || m.Type.In(k) == principal
		}
		if takes && tried[m.Name] == nil && !slices.Contains(withoutRealm, m.Name) {
			t.Errorf("%s takes a principal, and no test of the realms tries it", m.Name)
		}
	}
}

// corpDevices is carol's token C1, with the id of an API key as its Model, and what
// else carol has.
type corpDevices struct {
	*device
	owner int64
	key   *seckey
	soft  string // the serial of a software token that waits for its first code

	verified tokens.Verified // an accept of key
}

// corpHouse has a realm corp with user carol, tokens C1 (carol's) and C2, a FIDO
// key and a software token of carol's, the client nas and an API key.
func corpHouse(t *testing.T, edits ...func(*tokens.Config)) (*house, *corpDevices) {
	h := newHouse(t, edits...)
	c := &corpDevices{device: totp("C1"), key: newSeckey("carol")}
	h.ship("corp", c.device, totp("C2"))
	carol, err := h.AddUser(ctx, h.admin, "corp", "carol")
	if err != nil {
		t.Fatal(err)
	}
	c.owner = carol.ID
	h.must(h.EnrolKey(ctx, h.admin, tokens.NewFIDO{Realm: "corp", User: "carol", Credential: c.key.credential(c.owner), Spend: h.challenge()}))
	a := h.shows("carol", c.key)
	a.Realm = "corp"
	r, err := h.VerifyKey(ctx, h.admin, a)
	if err != nil || !r.Accept {
		t.Fatalf("%+v, %v", r, err)
	}
	c.verified = r.Verified()
	soft, uri, err := h.EnrolSoft(ctx, h.admin, tokens.NewSoft{Realm: "corp", User: "carol"})
	if err != nil {
		t.Fatal(err)
	}
	clear(uri)
	c.soft = soft.Serial
	h.must(h.Assign(ctx, h.admin, "corp", "C1", "carol"))
	h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: "nas", Prefix: netip.MustParsePrefix("192.0.2.7/32"), Realm: "corp", Secret: []byte("xyzzy5461")}, false))
	k, _, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "theirs", Realm: "corp", Scope: "verify"})
	if err != nil {
		t.Fatal(err)
	}
	c.Model = k.ID
	return h, c
}

// snapshot is all that a realm's people could see.
func (h *house) snapshot(realm string) string {
	h.Helper()
	users, _, err := h.mem.Users(ctx, tokens.UserQuery{Realm: realm, Limit: 1000})
	if err != nil {
		h.Fatal(err)
	}
	list, _, err := h.mem.Tokens(ctx, tokens.TokenQuery{Realm: realm, Limit: 1000})
	if err != nil {
		h.Fatal(err)
	}
	r, err := h.mem.Registry(ctx)
	if err != nil {
		h.Fatal(err)
	}
	for i := range r.Keys {
		r.Keys[i].LastUsed = time.Time{}
	}
	credentials := make([]tokens.Credential, len(list))
	for i := range list {
		if list[i].Credential != nil {
			credentials[i], list[i].Credential = *list[i].Credential, nil
		}
	}
	return fmt.Sprint(users, list, credentials, r.Clients, r.Keys, r.Grants)
}

func TestOneRealmsKeyNeitherSeesNorTouchesAnother(t *testing.T) {
	for name := range useCases(newHouse(t), &corpDevices{}) {
		t.Run(name, func(t *testing.T) {
			h, c := corpHouse(t)
			stranger := h.key("lab", "admin")
			h.must(h.AddUser(ctx, h.admin, "lab", "carol")) // a namesake
			before := h.snapshot("corp")
			do := useCases(h, c)[name]
			want, outcome, reason := tokens.ErrForbidden, "denied", string(tokens.ReasonForbidden)
			switch name {
			case "DeleteKey", "RotateKey", "DeleteClient", "TestClient": // which name no realm: there is no such thing in theirs
				want, outcome, reason = tokens.ErrNotFound, "refused", "not_found"
			}
			if err := do(stranger); !errors.Is(err, want) {
				t.Errorf("a key of realm lab: %v, want %v", err, want)
			}
			if r := h.last(); r.Outcome != outcome || r.Reason != reason || r.Realm == "corp" && outcome == "refused" || r.Actor != stranger.Actor() {
				t.Errorf("the refusal is audited as %+v", r)
			}
			if after := h.snapshot("corp"); after != before {
				t.Errorf("realm corp changed:\n%s\n%s", before, after)
			}
			if err := do(h.key("corp", "admin")); err != nil {
				t.Errorf("a key of realm corp: %v", err)
			}
			h.intact()
		})
	}
}

func TestEachScopeDoesWhatThePolicySays(t *testing.T) {
	actions := map[string]policy.Action{
		"Verify": policy.Verify, "Ask": policy.Verify, "ChangePIN": policy.UserPINChange, "ImportUsers": policy.UserImport, "ExportUsers": policy.UserExport, "ExportUsersCSV": policy.UserExport,
		"AddUser": policy.UserAdd, "CreateUser": policy.UserAdd, "EditUser": policy.UserEdit, "ShowUser": policy.UserShow, "Users": policy.UserList, "SetUserState": policy.UserDisable,
		"UnlockUser": policy.UserUnlock, "UnlockOwner": policy.UserUnlock, "SetPIN": policy.UserPIN, "Assign": policy.TokenAssign,
		"Unassign": policy.TokenUnassign, "Suspend": policy.TokenSuspend, "Resume": policy.TokenResume, "MarkLost": policy.TokenLost,
		"Revoke": policy.TokenRevoke, "Resync": policy.TokenResync, "ShowToken": policy.TokenShow, "Tokens": policy.TokenList, "Why": policy.UserWhy,
		"Drift": policy.TokenDrift, "TokenStory": policy.TokenStory, "UserStory": policy.UserStory,
		"Report": policy.ReportShow, "Summary": policy.ReportShow,
		"Records": policy.AuditList, "BeginImport": policy.ImportBegin, "MayImport": policy.ImportBegin, "RefuseImport": policy.ImportBegin, "OpenPGP": policy.ImportBegin, "PutClient": policy.ClientPut, "CompareClient": policy.ClientPut, "DeleteClient": policy.ClientDelete,
		"WatchClients": policy.ClientWatch, "MayWatch": policy.ClientWatch, "TestClient": policy.ClientTest,
		"AddKey": policy.KeyAdd, "DeleteKey": policy.KeyDelete, "RotateKey": policy.KeyRotate,
		"Grants": policy.RoleList, "GrantRole": policy.RoleGrant, "RevokeRole": policy.RoleRevoke, "Sessions": policy.SessionList, "SignIn": policy.SessionStart,
		"VerifyKey": policy.Verify, "RefuseLogin": policy.Verify, "LoginHolder": policy.Verify, "KeyHolder": policy.KeyEnrol,
		"EnrolKey": policy.KeyEnrol, "RefuseKey": policy.KeyEnrol, "KeyStock": policy.KeyStock, "StockKey": policy.KeyStock, "Enrolled": policy.KeyEnrol, "EnrolSoft": policy.TokenEnrol,
		"Activate": policy.TokenActivate, "SetExpiry": policy.TokenExpire, "Annotate": policy.TokenNote, "Replace": policy.TokenReplace, "Bulk": policy.TokenBulk,
		"Invite": policy.InviteAdd, "Invitations": policy.InviteList, "SetGroups": policy.UserGroups, "UserGroups": policy.UserShow,
		"PutSealed": policy.FIDORules, "Rules": policy.RealmShow, "SetRules": policy.RealmRules, "DropRules": policy.RealmRules,
		"PutDocument": policy.FIDORules, "May": policy.FIDORules, "Allow": policy.FIDOShow, "Statement": policy.Verify,
	}
	for _, scope := range []policy.Scope{policy.ScopeAdmin, policy.ScopeHelpdesk, policy.ScopeVerify, policy.ScopeRead} {
		for name, action := range actions {
			h, c := corpHouse(t)
			err := useCases(h, c)[name](h.key("", string(scope)))
			if want := policy.Builtin().Decide(&policy.Query{Principal: policy.Principal{Kind: policy.KindKey, ID: "k", Roles: scope.Roles()}, Action: action}).Allow; want != (err == nil) || !want && !errors.Is(err, tokens.ErrForbidden) {
				t.Errorf("%s with scope %s: %v; allowed: %v", name, scope, err, want)
			}
		}
	}
}

func TestAPrincipalThatWasMadeUpDoesNothing(t *testing.T) {
	h, c := corpHouse(t)
	real := h.key("corp", "helpdesk")
	other := real
	other.Scope = policy.ScopeAdmin
	wider := real
	wider.Realm = ""
	for name, do := range useCases(h, c) {
		for who, p := range map[string]tokens.Principal{
			"nobody":         {},
			"an unknown key": {Kind: tokens.KindKey, ID: "0011223344556677", Scope: policy.ScopeAdmin},
			"another scope":  other,
			"all realms":     wider,
			"no client":      {Kind: tokens.KindClient, ID: "gone", Realm: "corp", Scope: policy.ScopeAdmin},
			"no invitation":  {Kind: tokens.KindInvitation, ID: "0011223344556677", Realm: "corp", User: "carol", Scope: policy.ScopeInvite},
			"invited, admin": {Kind: tokens.KindInvitation, ID: "0011223344556677", Realm: "corp", User: "carol", Scope: policy.ScopeAdmin},
			"client, admin":  {Kind: tokens.KindClient, ID: "nas", Realm: "corp", Scope: policy.ScopeAdmin},
		} {
			if err := do(p); !errors.Is(err, tokens.ErrUnknownKey) && !errors.Is(err, tokens.ErrForbidden) {
				t.Errorf("%s as %s: %v", name, who, err)
			}
		}
	}
}

func TestListingsShowOneRealmToItsKeys(t *testing.T) {
	h, _ := corpHouse(t)
	d := totp("L1")
	h.ship("lab", d)
	h.must(h.AddUser(ctx, h.admin, "lab", "lena"))
	h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: "labnas", Prefix: netip.MustParsePrefix("198.51.100.0/24"), Realm: "lab", Secret: []byte("s3cret-s3cret")}, false))
	lab := h.key("lab", "admin")

	users, _, err := h.Users(ctx, lab, tokens.UserQuery{})
	if err != nil || len(users) != 1 || users[0].Name != "lena" {
		t.Errorf("users: %v, %v", users, err)
	}
	list, _, err := h.Tokens(ctx, lab, tokens.TokenQuery{})
	if err != nil || len(list) != 1 || list[0].Serial != "L1" {
		t.Errorf("tokens: %v, %v", list, err)
	}
	batches, err := h.Batches(ctx, lab, tokens.BatchQuery{})
	if err != nil || len(batches) != 1 || batches[0].Realm != "lab" {
		t.Errorf("batches: %v, %v", batches, err)
	}
	clients, err := h.Clients(ctx, lab)
	if err != nil || len(clients) != 1 || clients[0].Name != "labnas" || clients[0].Secret != nil {
		t.Errorf("clients: %v, %v", clients, err)
	}
	keys, err := h.Keys(ctx, lab)
	if err != nil || len(keys) != 1 || keys[0].ID != lab.ID {
		t.Errorf("keys: %v, %v", keys, err)
	}
	records, _, err := h.Records(ctx, lab, tokens.RecordQuery{})
	if err != nil || len(records) == 0 {
		t.Errorf("records: %v, %v", records, err)
	}
	for _, r := range records {
		if r.Realm != "lab" {
			t.Errorf("a record of realm %q is shown: %+v", r.Realm, r)
		}
	}
	report, err := h.VerifyAudit(ctx, lab)
	if err != nil || !report.Intact {
		t.Errorf("audit: %+v, %v", report, err)
	}
	all, _, err := h.Tokens(ctx, h.admin, tokens.TokenQuery{})
	if err != nil || len(all) != 5 {
		t.Errorf("an administrator of all realms sees %d tokens, %v", len(all), err)
	}
	for _, c := range []string{"corp", "CORP"} {
		if all, _, err := h.Tokens(ctx, h.admin, tokens.TokenQuery{Realm: c}); err != nil || len(all) != 4 {
			t.Errorf("realm %s: %d tokens, %v", c, len(all), err)
		}
	}
}

func TestSerialsAndNamesAreOnesOwnInEachRealm(t *testing.T) {
	h := newHouse(t)
	a, b := totp("T1"), totp("T1")
	h.give("alice", a)
	h.ship("corp", b)
	h.must(h.AddUser(ctx, h.admin, "corp", "alice"))
	h.must(h.Assign(ctx, h.admin, "corp", "T1", "alice"))
	corp := h.key("corp", "verify")
	for _, c := range []struct {
		p      tokens.Principal
		realm  string
		d      *device
		accept bool
	}{
		{h.vpn, "", b, false}, {corp, "", a, false}, {corp, "corp", b, true}, {h.vpn, "default", a, true},
	} {
		r, err := h.Verify(ctx, c.p, tokens.Attempt{Realm: c.realm, User: "alice", Code: c.d.code(h, 0)})
		if err != nil || r.Accept != c.accept {
			t.Errorf("%s in realm %q: %+v, %v, want accept %v", c.p.Actor(), c.realm, r, err, c.accept)
		}
	}
	if _, err := h.Verify(ctx, corp, tokens.Attempt{Realm: "default", User: "alice", Code: a.code(h, 1)}); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a key of realm corp in realm default: %v", err)
	}
}

func TestOneRealmsKeyCannotTakeAnothersClient(t *testing.T) {
	h, _ := corpHouse(t)
	lab := h.key("lab", "admin")
	before := h.snapshot("corp")
	for _, replace := range []bool{true, false} {
		_, err := h.PutClient(ctx, lab, tokens.NewClient{Name: "NAS", Prefix: netip.MustParsePrefix("192.0.2.7/32"), Secret: []byte("mine-mine"), RequireMA: true}, replace)
		if !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("realm lab takes corp's client (replace %v): %v", replace, err)
		}
	}
	if _, err := h.PutClient(ctx, lab, tokens.NewClient{Name: "labnas", Prefix: netip.MustParsePrefix("192.0.2.8/32"), Secret: []byte("mine-mine"), NameRule: tokens.NameRealm}, false); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("realm lab makes a client for the realms of its users' names: %v", err)
	}
	if after := h.snapshot("corp"); after != before {
		t.Errorf("changed:\n%s\n%s", before, after)
	}
}

func TestAClientWhoseNamesSayTheRealmVerifiesInIt(t *testing.T) {
	h, c := corpHouse(t)
	h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: "proxy", Prefix: netip.MustParsePrefix("203.0.113.5/32"), Secret: []byte("secret-secret"), NameRule: tokens.NameRealm}, false))
	proxy, ok := h.ClientFor(netip.MustParseAddr("203.0.113.5"))
	if !ok {
		t.Fatal("unknown")
	}
	d := totp("T1")
	h.give("alice", d)
	for _, typed := range []struct {
		name   string
		code   string
		accept bool
	}{
		{`CORP\carol`, c.code(h, 0), true}, {"carol@Corp", c.code(h, 1), true}, {"alice", d.code(h, 0), true}, {"carol", c.code(h, 0), false}, {"alice@corp", d.code(h, 1), false},
	} {
		realm, user := proxy.SplitName(typed.name)
		r, err := h.Verify(ctx, proxy.Principal(), tokens.Attempt{Realm: realm, User: user, Code: typed.code})
		if err != nil || r.Accept != typed.accept {
			t.Errorf("%s: %+v, %v, want accept %v", typed.name, r, err, typed.accept)
		}
	}
	plain := h.vpn
	if _, err := h.Verify(ctx, plain, tokens.Attempt{Realm: "corp", User: "carol", Code: c.code(h, 2)}); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a client of one realm in another: %v", err)
	}
}

func TestNamesAreSplitByTheClientsRule(t *testing.T) {
	for _, c := range []struct {
		rule              tokens.NameRule
		name, realm, user string
	}{
		{tokens.NamePlain, `CORP\alice`, "own", `CORP\alice`},
		{tokens.NamePlain, "alice@corp", "own", "alice@corp"},
		{tokens.NamePlain, "alice", "own", "alice"},
		{"", "alice@corp", "own", "alice@corp"},
		{tokens.NameStrip, `CORP\alice`, "own", "alice"},
		{tokens.NameStrip, "alice@corp", "own", "alice"},
		{tokens.NameStrip, "alice", "own", "alice"},
		{tokens.NameStrip, "a@b@c", "own", "a@b"},
		{tokens.NameRealm, `CORP\alice`, "CORP", "alice"},
		{tokens.NameRealm, "alice@corp", "corp", "alice"},
		{tokens.NameRealm, "alice", "own", "alice"},
		{tokens.NameRealm, `\alice`, "own", "alice"},
		{tokens.NameRealm, "alice@", "own", "alice"},
		{tokens.NameRealm, `CORP\alice@corp.example`, "CORP", "alice@corp.example"},
		{tokens.NameRealm, "@", "own", ""},
		{tokens.NameRealm, `\`, "own", ""},
		{tokens.NameRealm, "", "own", ""},
	} {
		client := tokens.RADIUSClient{Client: tokens.Client{Realm: "own", NameRule: c.rule}}
		if realm, user := client.SplitName(c.name); realm != c.realm || user != c.user {
			t.Errorf("%s, %q: %q, %q, want %q, %q", c.rule, c.name, realm, user, c.realm, c.user)
		}
	}
}

func TestTheMostSpecificClientWins(t *testing.T) {
	h := newHouse(t)
	for name, prefix := range map[string]string{
		"all4": "0.0.0.0/0", "ten": "10.0.0.0/8", "office": "10.1.0.0/16", "one": "10.1.2.3/32", "mapped": "::ffff:10.9.0.0/112",
		"six": "2001:db8::/32", "six64": "2001:db8:1:2::/64", "six1": "2001:db8:1:2::3/128", "host": "10.1.2.99/24",
	} {
		h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: name, Prefix: netip.MustParsePrefix(prefix), Secret: []byte("secret of " + name)}, false))
	}
	for addr, want := range map[string]string{
		"10.1.2.3": "one", "10.1.2.4": "host", "10.1.3.1": "office", "10.2.0.1": "ten", "192.0.2.1": "all4", "127.0.0.1": "localhost",
		"10.9.1.2": "mapped", "10.9.255.255": "mapped", "10.10.0.1": "ten",
		"::ffff:10.1.2.3": "one", "::ffff:10.2.0.1": "ten", "::ffff:192.0.2.1": "all4",
		"2001:db8:1:2::3": "six1", "2001:db8:1:2::4": "six64", "2001:db8:9::1": "six", "2001:db8:1:2::4%eth0": "six64", "2001:db9::1": "", "fe80::1%eth0": "", "::1": "",
	} {
		c, ok := h.ClientFor(netip.MustParseAddr(addr))
		if ok != (want != "") || ok && (c.Name != want || want != "localhost" && string(c.Plain) != "secret of "+want) {
			t.Errorf("%s: %v, %v, want %q", addr, c, ok, want)
		}
	}
	if _, ok := h.ClientFor(netip.Addr{}); ok {
		t.Error("no address is a client")
	}
	if _, err := h.PutClient(ctx, h.admin, tokens.NewClient{Name: "again", Prefix: netip.MustParsePrefix("10.3.3.3/8"), Secret: []byte("xxxxxxxx")}, false); !errors.Is(err, tokens.ErrExists) {
		t.Errorf("two clients with one prefix: %v", err)
	}
	if _, err := h.PutClient(ctx, h.admin, tokens.NewClient{Name: "TEN", Prefix: netip.MustParsePrefix("11.0.0.0/8"), Secret: []byte("xxxxxxxx")}, false); !errors.Is(err, tokens.ErrExists) {
		t.Errorf("two clients with one name: %v", err)
	}
	for what, bad := range map[string]tokens.NewClient{
		"no name":     {Prefix: netip.MustParsePrefix("11.0.0.0/8"), Secret: []byte("x")},
		"no prefix":   {Name: "x", Secret: []byte("x")},
		"no secret":   {Name: "x", Prefix: netip.MustParsePrefix("11.0.0.0/8")},
		"long secret": {Name: "x", Prefix: netip.MustParsePrefix("11.0.0.0/8"), Secret: []byte(strings.Repeat("x", 257))},
		"other rule":  {Name: "x", Prefix: netip.MustParsePrefix("11.0.0.0/8"), Secret: []byte("x"), NameRule: "suffix"},
	} {
		if _, err := h.PutClient(ctx, h.admin, bad, false); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	secret := []byte("wipe me, please")
	h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: "ten", Prefix: netip.MustParsePrefix("10.0.0.0/8"), Secret: secret}, true))
	if string(secret) != strings.Repeat("\x00", len(secret)) {
		t.Error("PutClient leaves the secret in the caller's memory")
	}
}

func TestAnEditedClientRowIsIgnored(t *testing.T) {
	for name, edit := range map[string]func(c *tokens.Client){
		"name":        func(c *tokens.Client) { c.Name = "other" },
		"prefix":      func(c *tokens.Client) { c.Prefix = netip.MustParsePrefix("0.0.0.0/0") },
		"realm":       func(c *tokens.Client) { c.Realm = "corp" },
		"require MA":  func(c *tokens.Client) { c.RequireMA = !c.RequireMA },
		"name rule":   func(c *tokens.Client) { c.NameRule = tokens.NameRealm },
		"secret":      func(c *tokens.Client) { c.Secret[len(c.Secret)-1] ^= 1 },
		"no secret":   func(c *tokens.Client) { c.Secret = nil },
		"name, shape": func(c *tokens.Client) { c.Name = `nas" "192.0.2.7/32` },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: "nas", Prefix: netip.MustParsePrefix("192.0.2.7/32"), Secret: []byte("xyzzy5461"), RequireMA: true}, false))
			h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: "second", Prefix: netip.MustParsePrefix("192.0.2.8/32"), Secret: []byte("xyzzy5462")}, false))
			h.db.edit(func(e *editor) {
				e.client = func(c *tokens.Client) {
					if c.Name == "nas" {
						c.Secret = slices.Clone(c.Secret)
						edit(c)
					}
				}
			})
			s := h.node(&firsts{})
			if c, ok := s.ClientFor(netip.MustParseAddr("192.0.2.7")); ok {
				t.Errorf("an edited row is used: %+v", c.Client)
			}
			if c, ok := s.ClientFor(netip.MustParseAddr("192.0.2.8")); !ok || string(c.Plain) != "xyzzy5462" {
				t.Error("an edited row stops the others")
			}
			if !strings.Contains(h.log.String(), "altered outside Watchword") {
				t.Error("nothing is logged")
			}
		})
	}
}

func TestAPIKeysOpenUntilTheyExpireOrAreDeleted(t *testing.T) {
	h := newHouse(t)
	key, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "portal", Scope: "verify", Expires: start.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Authenticate(ctx, text)
	if err != nil || p.ID != key.ID || p.Scope != policy.ScopeVerify || p.Realm != "" || p.Kind != tokens.KindKey {
		t.Fatalf("%+v, %v", p, err)
	}
	same := func(what, text string) {
		t.Helper()
		if p, err := h.Authenticate(ctx, text); err != tokens.ErrUnknownKey || !reflect.DeepEqual(p, tokens.Principal{}) {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
	flip := byte('A')
	if text[len(text)-2] == flip {
		flip = 'B'
	}
	same("no key", "")
	same("the prefix alone", "ww_")
	same("no secret", "ww_"+key.ID+"_")
	same("no id", "ww__"+text[len("ww_")+len(key.ID)+1:])
	same("another id", "ww_0000000000000000"+text[len("ww_")+len(key.ID):])
	same("another secret", text[:len(text)-2]+string(flip)+text[len(text)-1:])
	same("cut off", text[:len(text)-1])
	same("something behind", text+" ")
	same("without the prefix", text[3:])
	same("the prefix twice", "ww_"+text)
	same("in capitals", strings.ToUpper(text))

	h.clock.forward(time.Hour - time.Second)
	if _, err := h.Authenticate(ctx, text); err != nil {
		t.Errorf("a second before it expires: %v", err)
	}
	h.clock.forward(time.Second)
	same("expired", text)
	if _, err := h.Verify(ctx, p, tokens.Attempt{User: "alice", Code: "000000"}); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("who came in before it expired: %v", err)
	}

	key, text, err = h.AddKey(ctx, h.admin, tokens.NewKey{Name: "portal", Scope: "verify"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteKey(ctx, h.admin, key.ID); err != nil {
		t.Fatal(err)
	}
	same("deleted", text)
	if err := h.DeleteKey(ctx, h.admin, key.ID); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	if err := h.DeleteKey(ctx, h.admin, h.admin.ID); !errors.Is(err, tokens.ErrState) {
		t.Errorf("the last administrator's key: %v", err)
	}
	for what, bad := range map[string]tokens.NewKey{
		"no name": {Scope: "read"}, "no scope": {Name: "x"}, "system": {Name: "x", Scope: "system"}, "two scopes": {Name: "x", Scope: "read,verify"},
		"expired": {Name: "x", Scope: "read", Expires: start}, "a realm with NUL": {Name: "x", Scope: "read", Realm: "\x00"},
	} {
		if k, text, err := h.AddKey(ctx, h.admin, bad); !errors.Is(err, tokens.ErrInvalid) || text != "" || k.ID != "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNoKeySecretIsStoredOrShownTwice(t *testing.T) {
	h := newHouse(t)
	_, a, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "x", Scope: "read"})
	if err != nil {
		t.Fatal(err)
	}
	_, b, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "x", Scope: "read"})
	if err != nil || a == b {
		t.Fatal("two keys are one", err)
	}
	list, err := h.Keys(ctx, h.admin)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.SplitN(a, "_", 3)[2] // which may hold one more
	records, _, _ := h.mem.Records(ctx, tokens.RecordQuery{Limit: 1000})
	if all := fmt.Sprint(list, records, h.log); strings.Contains(all, secret) || strings.Contains(all, a) {
		t.Error("a key's secret shows up again")
	}
}
