package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/seeds"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

const testKey = "ww_test_c2VjcmV0"

var testTime = time.Date(2025, 11, 3, 9, 10, 2, 482913000, time.UTC)

// scripted is a core that answers what a test wants: err for every method, or
// something of everything. It remembers how it was asked last.
type scripted struct {
	mu  sync.Mutex
	err error

	principal tokens.Principal
	realm     string
	arg       any
	user      string
	rows      int // how many rows listings answer; default 1

	secrets [][]byte // what was answered for the caller to wipe

	bulk      func(f func(tokens.BulkItem) error) error  // what Bulk does, if it is not nil
	report    func(f func(tokens.ReportRow) error) error // what Report does, if it is not nil
	stating   error                                      // what Statement answers, if it is not nil
	importing func(ctx context.Context, o seeds.Options, r io.Reader) (*seeds.Report, error)
	verifying func(ctx context.Context, a tokens.Attempt) (tokens.Result, error)
	watching  func(w tokens.Watching) error // what MayWatch answers, if it is not nil
}

func (s *scripted) asked(p tokens.Principal, realm, user string, arg any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.principal, s.realm, s.user, s.arg = p, realm, user, arg
	return s.err
}

func (s *scripted) count(limit int) int {
	if s.rows == 0 {
		return 1
	}
	return min(s.rows, limit)
}

// next is where a listing goes on.
func (s *scripted) next(limit int, at int64) int64 {
	if s.rows <= limit {
		return 0
	}
	return at
}

func (s *scripted) Admit(_ context.Context, key, source string) (tokens.Principal, error) {
	if key != testKey {
		return tokens.Principal{}, tokens.ErrUnknownKey
	}
	return tokens.Principal{Kind: tokens.KindKey, ID: "test", Scope: policy.ScopeAdmin}.From(source), nil
}

func (s *scripted) Verify(ctx context.Context, p tokens.Principal, a tokens.Attempt) (tokens.Result, error) {
	if s.verifying != nil {
		return s.verifying(ctx, a)
	}
	if err := s.asked(p, a.Realm, a.User, a); err != nil {
		return tokens.Result{}, err
	}
	return tokens.Result{Accept: a.Code == "755224", Serial: "24680017"}, nil
}

func userEntry(id int64, name string) tokens.UserEntry {
	return tokens.UserEntry{
		User:   tokens.User{ID: id, Realm: "default", Name: name, Key: name, State: tokens.UserEnabled, PINMAC: []byte{1}, Created: testTime},
		Tokens: 1,
	}
}

func token(id int64, serial string, kind tokens.Type) tokens.Token {
	t := tokens.Token{
		ID: id, Realm: "default", Serial: serial, Type: kind, Algorithm: 1, Digits: 6, State: tokens.Active,
		OwnerID: 1, Owner: "alice", Batch: 1, Created: testTime,
	}
	t.Wrapped.Blob = []byte("wrapped-seed")
	if kind == tokens.TOTP {
		t.Period, t.UsedAt = 30, testTime.Unix()
	}
	return t
}

func (s *scripted) ShowUser(_ context.Context, p tokens.Principal, realm, name string) (tokens.UserEntry, []tokens.Token, error) {
	return userEntry(1, name), []tokens.Token{token(1, "A1", tokens.TOTP), token(2, "A2", tokens.HOTP)}, s.asked(p, realm, name, nil)
}

func (s *scripted) Users(_ context.Context, p tokens.Principal, q tokens.UserQuery) ([]tokens.UserEntry, int64, error) {
	var list []tokens.UserEntry
	for i := range s.count(q.Limit) {
		list = append(list, userEntry(q.After+int64(i)+1, "alice"))
	}
	return list, s.next(q.Limit, q.After+int64(q.Limit)), s.asked(p, q.Realm, "", q)
}

func (s *scripted) SetUserState(_ context.Context, p tokens.Principal, realm, name string, st tokens.UserState) (tokens.UserEntry, error) {
	return userEntry(1, name), s.asked(p, realm, name, st)
}

func (s *scripted) SetPIN(_ context.Context, p tokens.Principal, realm, name, pin string, due bool) (tokens.UserEntry, error) {
	u := userEntry(1, name)
	u.PINDue = due
	return u, s.asked(p, realm, name, pin)
}

func (s *scripted) UnlockUser(_ context.Context, p tokens.Principal, realm, name string) (tokens.UserEntry, error) {
	return userEntry(1, name), s.asked(p, realm, name, nil)
}

func (s *scripted) UnlockOwner(_ context.Context, p tokens.Principal, realm, serial string) (tokens.UserEntry, error) {
	return userEntry(1, "alice"), s.asked(p, realm, "", serial)
}

func (s *scripted) Why(_ context.Context, p tokens.Principal, realm, name string, limit int) ([]tokens.Explanation, error) {
	return []tokens.Explanation{{Record: record(1), Words: "The code was wrong.", Advice: "Ask for a new one."}}, s.asked(p, realm, name, limit)
}

func (s *scripted) ShowToken(_ context.Context, p tokens.Principal, realm, serial string) (tokens.Token, error) {
	return token(1, serial, tokens.TOTP), s.asked(p, realm, "", serial)
}

func (s *scripted) Tokens(_ context.Context, p tokens.Principal, q tokens.TokenQuery) ([]tokens.Token, int64, error) {
	var list []tokens.Token
	for i := range s.count(q.Limit) {
		list = append(list, token(q.After+int64(i)+1, "24680017", tokens.HOTP))
	}
	return list, s.next(q.Limit, q.After+int64(q.Limit)), s.asked(p, q.Realm, q.Owner, q)
}

func (s *scripted) Assign(_ context.Context, p tokens.Principal, realm, serial, user string) (tokens.Token, error) {
	return token(1, serial, tokens.TOTP), s.asked(p, realm, user, serial)
}

// act is what the acts with a reason have in common: arg becomes ACT SERIAL REASON.
func (s *scripted) act(name string, p tokens.Principal, realm, serial, reason string) (tokens.Token, error) {
	return token(1, serial, tokens.TOTP), s.asked(p, realm, "", name+" "+serial+" "+reason)
}

func (s *scripted) Unassign(_ context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error) {
	return s.act("unassign", p, realm, serial, reason)
}

func (s *scripted) Suspend(_ context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error) {
	return s.act("suspend", p, realm, serial, reason)
}

func (s *scripted) Resume(_ context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error) {
	return s.act("resume", p, realm, serial, reason)
}

func (s *scripted) Revoke(_ context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error) {
	return s.act("revoke", p, realm, serial, reason)
}

func (s *scripted) Resync(_ context.Context, p tokens.Principal, realm, serial, code1, code2 string) (tokens.Token, error) {
	return token(1, serial, tokens.TOTP), s.asked(p, realm, "", "resync "+serial+" "+code1+" "+code2)
}

func radiusClient(name string) tokens.Client {
	return tokens.Client{
		Name: name, Prefix: netip.MustParsePrefix("192.0.2.10/32"), Realm: "default", Secret: []byte("sealed-secret"),
		RequireMA: true, NameRule: tokens.NamePlain, Created: testTime, SecretSize: 32,
	}
}

func (s *scripted) Clients(_ context.Context, p tokens.Principal) ([]tokens.Client, error) {
	return []tokens.Client{radiusClient("vpn")}, s.asked(p, "", "", nil)
}

func (s *scripted) PutClient(_ context.Context, p tokens.Principal, c tokens.NewClient, replace bool) (tokens.Client, error) {
	c.Secret = append([]byte(nil), c.Secret...)
	return radiusClient(c.Name), s.asked(p, c.Realm, "", c)
}

func (s *scripted) CompareClient(_ context.Context, p tokens.Principal, c tokens.NewClient) (tokens.Client, []string, error) {
	c.Secret = append([]byte(nil), c.Secret...)
	return radiusClient(c.Name), []string{"prefix", "secret"}, s.asked(p, c.Realm, "", c)
}

func (s *scripted) DeleteClient(_ context.Context, p tokens.Principal, name string) error {
	return s.asked(p, "", "", name)
}

func (s *scripted) Keys(_ context.Context, p tokens.Principal) ([]tokens.APIKey, error) {
	return []tokens.APIKey{
		{ID: "k1", Name: "first", Scope: "admin", Created: testTime},
		{ID: "k2", Name: "desk", Realm: "default", Scope: "helpdesk", Created: testTime, Expires: testTime, LastUsed: testTime},
	}, s.asked(p, "", "", nil)
}

func (s *scripted) AddKey(_ context.Context, p tokens.Principal, k tokens.NewKey) (tokens.APIKey, string, error) {
	made := tokens.APIKey{ID: "k3", Name: k.Name, Realm: k.Realm, Scope: k.Scope, Created: testTime, Expires: k.Expires}
	return made, "ww_k3_shown-once", s.asked(p, k.Realm, "", k)
}

func (s *scripted) DeleteKey(_ context.Context, p tokens.Principal, id string) error {
	return s.asked(p, "", "", id)
}

func record(id int64) audit.Record {
	return audit.Record{ID: id, Chain: 3, Seq: id, Event: audit.Event{
		Time: testTime, Action: "verify", Outcome: "accept", Realm: "default", User: "alice", Serial: "24680017",
		Actor: "key:test", Client: "test", Source: "192.0.2.10", Reason: "accepted", Detail: []audit.Field{{Name: "step", Value: "7"}},
	}}
}

func (s *scripted) Records(_ context.Context, p tokens.Principal, q tokens.RecordQuery) ([]audit.Record, int64, error) {
	var list []audit.Record
	for i := range s.count(q.Limit) {
		list = append(list, record(100-int64(i)))
	}
	return list, s.next(q.Limit, 101-int64(q.Limit)), s.asked(p, q.Realm, q.User, q)
}

func (s *scripted) VerifyAudit(_ context.Context, p tokens.Principal) (tokens.AuditReport, error) {
	return tokens.AuditReport{Intact: true, Records: 7, Chains: 1, Checkpoints: 2}, s.asked(p, "", "", nil)
}

func (s *scripted) ExportAudit(_ context.Context, p tokens.Principal, q tokens.RecordQuery, f func(*audit.Record) error) error {
	if err := s.asked(p, q.Realm, q.User, q); err != nil {
		return err
	}
	r := record(7)
	r.User = "=alice"
	return f(&r)
}

func (s *scripted) CompareAudit(_ context.Context, p tokens.Principal, next func() (*audit.Record, error)) (tokens.AgainstReport, error) {
	report := tokens.AgainstReport{AuditReport: tokens.AuditReport{Intact: true, Records: 7, Chains: 1, Checkpoints: 2}}
	for {
		r, err := next()
		if err != nil {
			return report, err
		}
		if r == nil {
			return report, s.asked(p, "", "", report.Compared)
		}
		report.Compared++
	}
}

func (s *scripted) CheckpointAudit(_ context.Context, p tokens.Principal) (tokens.SignedHeads, error) {
	return tokens.SignedHeads{Record: record(9), Heads: []audit.Head{{Chain: 3, Seq: 8}}, Signature: make([]byte, 64), Key: []byte{1}}, s.asked(p, "", "", nil)
}

func (s *scripted) CutAudit(_ context.Context, p tokens.Principal, before time.Time, dryRun bool) (tokens.CutReport, error) {
	r := record(9)
	report := tokens.CutReport{DryRun: dryRun, Records: 5, Heads: []audit.Head{{Chain: 3, Seq: 5}}, Oldest: testTime, Removed: 5, Cut: &r}
	if dryRun {
		report.Removed, report.Cut = 0, nil
	}
	return report, s.asked(p, "", "", before)
}

func (s *scripted) Batches(_ context.Context, p tokens.Principal, q tokens.BatchQuery) ([]tokens.Batch, error) {
	var list []tokens.Batch
	for i := range s.count(q.Limit) {
		list = append(list, tokens.Batch{
			ID: 100 - int64(i), Realm: "default", Name: "shipment.csv", Format: "oath-csv", SHA256: strings.Repeat("a", 64),
			Actor: "key:test", Created: testTime, Published: testTime, Tokens: 100,
		})
	}
	return list, s.asked(p, "", "", q)
}

func (s *scripted) ShowBatch(_ context.Context, p tokens.Principal, id int64) (tokens.Batch, tokens.Tally, error) {
	b := tokens.Batch{
		ID: id, Realm: "default", Name: "shipment.csv", Format: "oath-csv", SHA256: strings.Repeat("a", 64),
		Actor: "key:test", Created: testTime, Published: testTime, Tokens: 100,
	}
	tally := tokens.Tally{
		States: map[tokens.State]int{tokens.Imported: 98, tokens.Active: 2}, Fresh: 97,
		Models: []tokens.ModelCount{{Model: "C200", Tokens: 99}, {Tokens: 1}},
	}
	return b, tally, s.asked(p, "", "", id)
}

func (s *scripted) Undo(ctx context.Context, p tokens.Principal, id int64) (tokens.Batch, tokens.Tally, error) {
	b, tally, err := s.ShowBatch(ctx, p, id)
	b.Undone, b.Removed, tally.Fresh, tally.Models = testTime, 97, 0, nil
	tally.States[tokens.Imported] = 1
	return b, tally, err
}

// Import makes scripted an Importer, too: it reads the file to its end and
// reports one token.
func (s *scripted) Import(ctx context.Context, p tokens.Principal, o seeds.Options, r io.Reader) (*seeds.Report, error) {
	for _, secret := range []*[]byte{&o.PSK, &o.Password, &o.PGPKey} {
		*secret = append([]byte(nil), *secret...) // wiped soon
	}
	if err := s.asked(p, o.Realm, "", o); err != nil {
		return nil, err
	}
	if s.importing != nil {
		return s.importing(ctx, o, r)
	}
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		return nil, err
	}
	return &seeds.Report{
		Published: true, Batch: 1, Format: "oath-csv", Name: o.Name, Bytes: n, Created: 1, DryRun: o.DryRun, Partial: o.Partial,
		Records: []seeds.Outcome{{Line: 2, Key: 2, Serial: "A2", Outcome: tokens.OutcomeDuplicate, Reason: "it exists", User: "alice"}, {Line: 3, Serial: "A3", Outcome: tokens.OutcomeCreated, Path: "hsm"}},
		Notes:   []string{"a note"},
	}, nil
}

// newServer makes a server over a scripted core.
func newServer(t testing.TB, core *scripted, change ...func(*Config)) *Server {
	t.Helper()
	cfg := Config{Core: core, Importer: core, FIDO: core.fido(), RADIUS: core.radius()}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// do sends one request through the handler, with the test's key and as JSON.
func do(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(method, path, nil)
	} else {
		r = httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+testKey)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			r.Header.Del(header[i])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
