package seeds_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
	"watchword/seeds"
	"watchword/tokens"
	"watchword/tokens/policy"
	"watchword/tokens/store"
)

// firsts keeps the first administrator's key.
type firsts struct{ key string }

func (f *firsts) Save(adminKey, _ string) error {
	f.key = adminKey
	return nil
}

// newCore is the real core on SQLite and SoftHSM, and its administrator.
func newCore(t *testing.T, edits ...func(*tokens.Config)) (*tokens.Service, tokens.Principal) {
	t.Helper()
	ctx := context.Background()
	db, err := store.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "watchword.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	keys, err := pkcs11.Open(ctx, hsmtest.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	var first firsts
	cfg := tokens.Config{Database: db, Custody: keys, Exclusive: true}
	for _, edit := range edits {
		edit(&cfg)
	}
	core, err := tokens.Open(ctx, cfg, keys, &first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { core.Close(ctx) })
	admin, err := core.Authenticate(ctx, first.key)
	if err != nil {
		t.Fatal(err)
	}
	return core, admin
}

// output runs a program of Debian's.
func output(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

// Files of both formats go in, and the tokens' codes are those that oathtool
// makes of the same seeds.
func TestCodesOfImportedTokensAreOathtools(t *testing.T) {
	core, root := newCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	ctx := context.Background()
	const ten, twenty = "00112233445566778899", "3132333435363738393031323334353637383930"
	long := strings.Repeat("5a", 64)
	csv := "serial,hexseed,type,digits,period|counter,hash\n" +
		"C1," + twenty + "\nC2," + ten + ",totp,8,60\nC3," + long + ",totp,7,30,sha512\nC4," + twenty + ",hotp,6,41\nC5," + long + ",totp,8,45,sha256\n"
	pskc := output(t, "serial,secret,algorithm,response_length,counter,time_interval,algorithm_suite\n"+
		"P1,"+twenty+",urn:ietf:params:xml:ns:keyprov:pskc:totp,6,,30,\n"+
		"P2,"+ten+",urn:ietf:params:xml:ns:keyprov:pskc:hotp,8,100,,\n"+
		"P3,"+long+",urn:ietf:params:xml:ns:keyprov:pskc:totp,8,,60,HMAC-SHA256\n", "csv2pskc", "-e", "hex", "-p", "swordfish")
	for _, f := range []struct {
		file string
		o    seeds.Options
		want int
	}{{csv, seeds.Options{Name: "a.csv"}, 5}, {pskc, seeds.Options{Name: "b.pskc", Password: []byte("swordfish")}, 3}} {
		dry := f.o
		dry.DryRun = true
		for _, o := range []seeds.Options{dry, f.o} {
			r, err := im.Import(ctx, root, o, strings.NewReader(f.file))
			if err != nil || r.Created != f.want || r.Published == o.DryRun {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		r, err := im.Import(ctx, root, f.o, strings.NewReader(f.file))
		if err != nil || r.Created != 0 || r.Duplicate != f.want || r.Published {
			t.Fatalf("the same file again: %+v, %v", r, err)
		}
	}
	batches, err := core.Batches(ctx, root, tokens.BatchQuery{Limit: 10})
	if err != nil || len(batches) != 2 || batches[1].Tokens != 5 || batches[1].Name != "a.csv" || len(batches[1].SHA256) != 64 {
		t.Errorf("%+v, %v", batches, err)
	}
	for serial, args := range map[string][]string{
		"C1": {"--totp", twenty}, "C2": {"--totp", "-d8", "-s60", ten}, "C3": {"--totp=sha512", "-d7", long}, "C4": {"-c41", twenty}, "C5": {"--totp=sha256", "-d8", "-s45", long},
		"P1": {"--totp", twenty}, "P2": {"-d8", "-c100", ten}, "P3": {"--totp=sha256", "-d8", "-s60", long},
	} {
		user := "user-" + serial
		if _, err := core.AddUser(ctx, root, "", user); err != nil {
			t.Fatal(err)
		}
		if _, err := core.Assign(ctx, root, "", serial, user); err != nil {
			t.Fatal(err)
		}
		code := strings.TrimSpace(output(t, "", "oathtool", args...))
		r, err := core.Verify(ctx, root, tokens.Attempt{User: user, Code: code, Transport: "http"})
		if err != nil || !r.Accept || r.Serial != serial {
			t.Errorf("%s: oathtool's code is answered %+v, %v", serial, r, err)
		}
	}
}

// A file with a bad record, or one that breaks off, leaves no token behind, and
// its serials are free for the corrected file.
func TestRefusedFileLeavesNoTokenInTheDatabase(t *testing.T) {
	core, root := newCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	ctx := context.Background()
	var good strings.Builder
	for i := range 1200 {
		fmt.Fprintf(&good, "A%04d,3132333435363738393031323334353637383930\n", i)
	}
	count := func() int {
		list, _, err := core.Tokens(ctx, root, tokens.TokenQuery{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	r, err := im.Import(ctx, root, seeds.Options{}, strings.NewReader(good.String()+"A1200,xyz\n"))
	if err != nil || r.Published || r.Rejected != 1201 || len(r.Records) != 1201 || r.Records[0].Line != 1201 || count() != 0 {
		t.Errorf("%d tokens; %+v, %v", count(), r.Message, err)
	}
	_, err = im.Import(ctx, root, seeds.Options{Partial: true}, strings.NewReader(good.String()+strings.Repeat("x", 1<<20)))
	if !errors.Is(err, tokens.ErrInvalid) || count() != 0 {
		t.Errorf("%d tokens, %v", count(), err)
	}
	_, key, err := core.AddKey(ctx, root, tokens.NewKey{Name: "desk", Scope: string(policy.ScopeHelpdesk)})
	if err != nil {
		t.Fatal(err)
	}
	desk, err := core.Authenticate(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.Import(ctx, desk, seeds.Options{}, strings.NewReader(good.String())); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("the helpdesk imports: %v", err)
	}
	r, err = im.Import(ctx, root, seeds.Options{}, strings.NewReader(good.String()))
	if err != nil || !r.Published || r.Created != 1200 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Whoever may not import hears nothing about the file, and the attempt is in
// the audit; for whoever may, the refusal of an unreadable file is.
func TestUnreadableFileIsAuditedAndTellsTheUnauthorisedNothing(t *testing.T) {
	core, admin := newCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	ctx := context.Background()
	_, text, err := core.AddKey(ctx, admin, tokens.NewKey{Name: "eyes", Scope: "read"})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := core.Authenticate(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	const nonsense = "\x00\x01\x02 no seed file"
	if _, err := im.Import(ctx, reader, seeds.Options{Name: "x"}, strings.NewReader(nonsense)); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a key that may only read got %v", err)
	}
	var refused *seeds.FileError
	if _, err := im.Import(ctx, admin, seeds.Options{Name: "y"}, strings.NewReader(nonsense)); !errors.As(err, &refused) {
		t.Errorf("an administrator got %v", err)
	}
	for _, outcome := range []string{"denied", "refused"} {
		list, _, err := core.Records(ctx, admin, tokens.RecordQuery{Action: string(policy.ImportBegin), Outcome: outcome})
		if err != nil || len(list) != 1 {
			t.Errorf("%d audit records %q, %v", len(list), outcome, err)
		}
	}
}
