package tokens_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

// people imports users into the default realm.
func (h *house) people(in tokens.UserImport, file string) tokens.UserReport {
	h.Helper()
	r, err := h.ImportUsers(ctx, h.admin, in, strings.NewReader(file))
	if err != nil {
		h.Fatal(err)
	}
	return r
}

// exported are the users of the default realm, as a file.
func (h *house) exported() string {
	h.Helper()
	var b bytes.Buffer
	if err := h.ExportUsersCSV(ctx, h.admin, "", &b); err != nil {
		h.Fatal(err)
	}
	return b.String()
}

func TestUsersAreImportedAndExported(t *testing.T) {
	h := newHouse(t)
	const file = "name,display,mail,external_id,groups,attr:site\n" +
		"alice,Alice,alice@example.com,1,admins;staff,Berlin\n" +
		"Bob,'=Bob,,,,\n"
	r := h.people(tokens.UserImport{}, file)
	if !reflect.DeepEqual(r, tokens.UserReport{Created: 2}) {
		t.Errorf("%+v", r)
	}
	last := h.last()
	if last.Action != "user.import" || last.Outcome != "ok" || last.User != "" || len(last.Detail) != 6 || last.Detail[1].Value != "2" || last.Detail[5].Value != "2-3" {
		t.Errorf("audited as %+v", last)
	}
	if got := h.exported(); got != file {
		t.Errorf("exported %q, want %q", got, file)
	}
	if last := h.last(); last.Action != "user.export" || last.Outcome != "ok" || last.Detail[0].Value != "2" {
		t.Errorf("audited as %+v", last)
	}
	u, _, err := h.ShowUser(ctx, h.admin, "", "bob")
	if err != nil || u.Name != "Bob" || u.Profile.Display != "=Bob" || u.State != tokens.UserEnabled {
		t.Errorf("%+v, %v", u, err)
	}

	// Again: who is there is left alone, unless it is asked for.
	const other = "name,groups,attr:site,display\nALICE,Staff;board,,Alice\ncarol,,,\nbob,,,'=Bob\n"
	r = h.people(tokens.UserImport{}, other)
	if want := (tokens.UserReport{Created: 1, Unchanged: 2, Records: []tokens.UserOutcome{{2, "ALICE", "exists", ""}, {4, "bob", "exists", ""}}}); !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, want %+v", r, want)
	}
	bob := h.standing("bob").Version
	r = h.people(tokens.UserImport{Update: true}, other)
	if want := (tokens.UserReport{Updated: 1, Unchanged: 2, Records: []tokens.UserOutcome{{2, "ALICE", "updated", ""}}}); !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, want %+v", r, want)
	}
	if h.standing("bob").Version != bob {
		t.Error("bob's version moved although nothing changed")
	}
	// What the file has no column for stayed.
	const now = "name,display,mail,external_id,groups\nalice,Alice,alice@example.com,1,board;staff\nBob,'=Bob,,,\ncarol,,,,\n"
	if got := h.exported(); got != now {
		t.Errorf("exported %q, want %q", got, now)
	}
	// What was exported changes nothing, whatever it is asked to do.
	if r := h.people(tokens.UserImport{Update: true}, h.exported()); r.Unchanged != 3 || r.Updated+r.Created+r.Rejected != 0 {
		t.Errorf("%+v", r)
	}
	var keys []string
	if err := h.ExportUsers(ctx, h.admin, "", func(u tokens.UserEntry) error {
		keys = append(keys, fmt.Sprint(u.Key, u.Groups))
		return nil
	}); err != nil || fmt.Sprint(keys) != "[alice[board staff] bob[] carol[]]" {
		t.Errorf("%q, %v", keys, err)
	}
	if r := h.people(tokens.UserImport{}, "name\n"); !reflect.DeepEqual(r, tokens.UserReport{}) {
		t.Errorf("%+v", r)
	}
	h.intact()
}

func TestOneBadRecordKeepsTheWholeFileOut(t *testing.T) {
	h := newHouse(t)
	h.must(h.CreateUser(ctx, h.admin, tokens.NewUserRequest{Name: "old", Profile: tokens.Profile{External: "7"}}))
	for i := range 32 {
		h.must(h.EditUser(ctx, h.admin, "", "old", tokens.ProfileEdit{Attributes: map[string]*string{fmt.Sprint("a", i): some("x")}}))
	}
	before := h.exported()
	for row, say := range map[string]string{
		"x,nobody,,": "column 3 (mail): mail is no address",
		"ALICE,,,":   "the name is that of line 2",
		"x,,1,":      "the external_id is that of line 2",
		"x,,7,":      "the external_id is that of user old",
		"Old,,,one":  "33 attributes",
		"x\x00,,,":   "column 1 (name)",
		"x,,":        "it has 3 cells",
	} {
		records := len(h.records("user.import", "refused"))
		r := h.people(tokens.UserImport{Update: true}, "name,mail,external_id,attr:more\nalice,,1,\n"+row+"\nbob,,,\n")
		if r.Rejected != 1 || r.Created+r.Updated+r.Unchanged != 0 || len(r.Records) != 1 || r.Records[0].Line != 3 || r.Records[0].Outcome != "rejected" || !strings.Contains(r.Records[0].Reason, say) {
			t.Errorf("%q: %+v, want %q", row, r, say)
		}
		if got := h.exported(); got != before {
			t.Errorf("%q: exported %q", row, got)
		}
		if n := len(h.records("user.import", "refused")); n != records+1 {
			t.Errorf("%q: %d refusals in the audit", row, n-records)
		}
	}
	_, err := h.ImportUsers(ctx, h.admin, tokens.UserImport{}, strings.NewReader("name\nalice\n\"bob\n"))
	if !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("no CSV: %v", err)
	}
	if got := h.exported(); got != before {
		t.Errorf("exported %q", got)
	}
	h.intact()
}

func TestADryRunOfAnImportSaysWhatItWouldDo(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	before := h.exported()
	const file = "name,display\nalice,Alice\nbob,Bob\n"
	r := h.people(tokens.UserImport{DryRun: true, Update: true}, file)
	if want := (tokens.UserReport{Created: 1, Updated: 1, Records: []tokens.UserOutcome{{2, "alice", "updated", ""}}}); !reflect.DeepEqual(r, want) {
		t.Errorf("%+v, want %+v", r, want)
	}
	if last := h.last(); last.Action != "user.import" || last.Reason != "dry_run" {
		t.Errorf("audited as %+v", last)
	}
	if got := h.exported(); got != before {
		t.Errorf("exported %q", got)
	}
	if again := h.people(tokens.UserImport{Update: true}, file); !reflect.DeepEqual(again, r) {
		t.Errorf("%+v, and it was to be %+v", again, r)
	}
}

// many is a file of n users, each with an external id and in two groups.
func many(n int) string {
	var b strings.Builder
	b.WriteString("name,external_id,groups\n")
	for i := range n {
		fmt.Fprintf(&b, "user%05d,%d,all;g%d\n", i, i, i%7)
	}
	return b.String()
}

// The power goes in the middle, and the file is imported again.
func TestAnImportOfUsersThatWasCutOffGoesOn(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.FailedButPersisted} {
		h := newHouse(t)
		h.mem.Inject(storetest.None, storetest.None, fault)
		file := many(1100)
		r, err := h.ImportUsers(ctx, h.admin, tokens.UserImport{}, strings.NewReader(file))
		if !errors.Is(err, tokens.ErrUnavailable) || r.Created != 500 {
			t.Errorf("%+v, %v", r, err)
		}
		r = h.people(tokens.UserImport{}, file)
		if want := map[storetest.Fault]int{storetest.Failed: 600, storetest.FailedButPersisted: 350}[fault]; r.Created != want || r.Unchanged != 1100-want {
			t.Errorf("again: %d created, %d there; want %d", r.Created, r.Unchanged, want)
		}
		if n := strings.Count(h.exported(), "\n"); n != 1101 {
			t.Errorf("exported %d lines", n)
		}
		for _, r := range h.records("user.import", "ok") {
			if len(r.Detail) != 6 || r.Detail[0].Name != "sha256" {
				t.Errorf("audited as %+v", r)
			}
		}
		h.intact()
	}
}

// Two administrators import the same people on two nodes, while others edit them.
func TestTwoImportsOfTheSameUsersMakeEachOnce(t *testing.T) {
	h := newHouse(t)
	nodes := []*tokens.Service{h.Service, h.node(&firsts{})}
	file := many(600)
	var all sync.WaitGroup
	reports := make([]tokens.UserReport, 2)
	for i := range reports {
		all.Go(func() {
			var err error
			if reports[i], err = nodes[i].ImportUsers(ctx, h.admin, tokens.UserImport{Update: true}, strings.NewReader(file)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if reports[0].Created+reports[1].Created != 600 || reports[0].Unchanged+reports[1].Unchanged != 600 {
		t.Errorf("%+v and %+v", reports[0], reports[1])
	}
	const edited = "name,display\nuser00000,Zero\nuser00001,One\n"
	all.Go(func() {
		if _, err := nodes[0].ImportUsers(ctx, h.admin, tokens.UserImport{Update: true}, strings.NewReader(edited)); err != nil {
			t.Error(err)
		}
	})
	for i := range 10 {
		all.Go(func() {
			if _, err := nodes[1].EditUser(ctx, h.admin, "", "user00001", tokens.ProfileEdit{Attributes: map[string]*string{fmt.Sprint("a", i): some("x")}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	u, _, err := h.ShowUser(ctx, h.admin, "", "user00001")
	if err != nil || u.Profile.Display != "One" || u.Profile.External != "1" || len(u.Profile.Attributes) != 10 || fmt.Sprint(u.Groups) != "[all g1]" {
		t.Errorf("%+v, %v", u, err)
	}
	h.intact()
}

// A key that is deleted in the middle imports no more.
func TestAnImportOfUsersEndsWithItsKey(t *testing.T) {
	h := newHouse(t)
	k, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "importer", Scope: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Authenticate(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	other := h.node(&firsts{})
	reader := &pausing{Reader: strings.NewReader(many(600)), at: func() { h.must(nil, other.DeleteKey(ctx, h.admin, k.ID)) }}
	if _, err := h.ImportUsers(ctx, p, tokens.UserImport{}, reader); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("%v", err)
	}
	if got := h.exported(); strings.Contains(got, "user0") {
		t.Error("users were made")
	}
}

// pausing does something when it is read.
type pausing struct {
	*strings.Reader
	at func()
}

func (p *pausing) Read(b []byte) (int, error) {
	if p.at != nil {
		p.at()
		p.at = nil
	}
	return p.Reader.Read(b)
}

func TestAnExportStopsWithWhoReadsIt(t *testing.T) {
	h := newHouse(t)
	h.people(tokens.UserImport{}, many(10))
	gone := errors.New("the client is gone")
	n := 0
	err := h.ExportUsers(ctx, h.admin, "", func(tokens.UserEntry) error {
		if n++; n == 3 {
			return gone
		}
		return nil
	})
	if err != gone || n != 3 {
		t.Errorf("%v after %d", err, n)
	}
	if last := h.last(); last.Action != "user.export" || last.Outcome != "refused" || last.Detail[0].Value != "3" {
		t.Errorf("audited as %+v", last)
	}
	var b bytes.Buffer
	if err := h.ExportUsersCSV(ctx, h.key("", "helpdesk"), "", &b); !errors.Is(err, tokens.ErrForbidden) || b.Len() > 0 {
		t.Errorf("for the helpdesk: %v, %d bytes", err, b.Len())
	}
}
