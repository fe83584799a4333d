package seeds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

// shelf is a Core that keeps serials and accuses: of tokens that are added
// after the end, of a batch left open, of seeds that come wrong.
type shelf struct {
	t       testing.TB
	have    map[string]bool // published
	seed    []byte          // that every token must have, if set
	fail    error           // what Add answers from the second chunk on
	reject  string          // a serial that the core itself rejects
	open    int
	batches int
	why     string // reason of the last discard
	onAdd   func()
	seeds   [][]byte // the buffers that seeds came in
	added   int

	transports bool // there is a transport key
	in         tokens.NewImport
	got        []tokens.NewToken // whose seeds are transported, or who names a user
}

type shelfBatch struct {
	s      *shelf
	in     tokens.NewImport
	staged map[string]bool
	ended  bool
	adds   int
}

// RefuseImport answers why, as the core does for those who may import.
func (s *shelf) MayImport(_ context.Context, p tokens.Principal, _ tokens.NewImport) error {
	if p.Name == "nobody" {
		return tokens.ErrForbidden
	}
	return nil
}

func (s *shelf) RefuseImport(_ context.Context, _ tokens.Principal, _ tokens.NewImport, why error) error {
	return why
}

func (s *shelf) Transports() bool { return s.transports }

func (s *shelf) BeginImport(_ context.Context, p tokens.Principal, in tokens.NewImport) (Batch, error) {
	if p.Name == "nobody" {
		return nil, tokens.ErrForbidden
	}
	s.open++
	s.in = in
	return &shelfBatch{s: s, in: in, staged: map[string]bool{}}, nil
}

func (b *shelfBatch) Add(ctx context.Context, list []tokens.NewToken) ([]tokens.Added, error) {
	s := b.s
	if b.ended || len(list) == 0 || len(list) > 1000 {
		s.t.Errorf("Add of %d tokens, ended %v", len(list), b.ended)
	}
	if s.onAdd != nil {
		s.onAdd()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.adds++; b.adds > 1 && s.fail != nil {
		return nil, s.fail
	}
	out := make([]tokens.Added, len(list))
	for i, n := range list {
		if s.seed != nil && !bytes.Equal(n.Seed, s.seed) {
			s.t.Errorf("the seed of %s was changed on its way", n.Serial)
		}
		if n.Transported != nil || n.User != "" {
			s.got = append(s.got, n)
		}
		if len(s.seeds) < 5000 {
			s.seeds = append(s.seeds, n.Seed)
		}
		switch {
		case n.Serial == s.reject && n.Serial != "":
			out[i] = tokens.Added{Outcome: tokens.OutcomeRejected, Reason: "the core does not want it"}
		case s.have[n.Serial] || b.staged[n.Serial]:
			out[i] = tokens.Added{Outcome: tokens.OutcomeDuplicate, Reason: "the serial exists already"}
		default:
			if !b.in.DryRun && s.have != nil {
				b.staged[n.Serial] = true
			}
			s.added++
			out[i] = tokens.Added{Outcome: tokens.OutcomeCreated}
			if n.Transported != nil && !b.in.DryRun {
				out[i].Path = hsm.PathHSM
			}
		}
	}
	return out, nil
}

func (b *shelfBatch) Publish(_ context.Context, sum string, created, duplicate, rejected int) (tokens.Batch, error) {
	if b.ended || b.in.DryRun {
		b.s.t.Error("Publish of a batch that ended or of a dry run")
	}
	if len(sum) != 64 || created == 0 || b.s.have != nil && created != len(b.staged) {
		b.s.t.Errorf("published %q, %d created, %d staged", sum, created, len(b.staged))
	}
	b.ended = true
	b.s.open--
	b.s.batches++
	for serial := range b.staged {
		b.s.have[serial] = true
	}
	return tokens.Batch{ID: int64(b.s.batches), SHA256: sum, Tokens: created, Duplicate: duplicate, Rejected: rejected}, nil
}

func (b *shelfBatch) Discard(ctx context.Context, reason string) error {
	if ctx.Err() != nil {
		b.s.t.Error("Discard under a context that is over")
	}
	if !b.ended {
		b.ended = true
		b.s.open--
	}
	b.s.why = reason
	return nil
}

func newShelf(t testing.TB, have ...string) *shelf {
	s := &shelf{t: t, have: map[string]bool{}}
	for _, h := range have {
		s.have[h] = true
	}
	t.Cleanup(func() {
		if s.open != 0 {
			t.Errorf("%d batches were left open", s.open)
		}
		for _, seed := range s.seeds {
			if !bytes.Equal(seed, make([]byte, len(seed))) {
				t.Error("a chunk's seed was not wiped")
				break
			}
		}
	})
	return s
}

var admin = tokens.Principal{Kind: tokens.KindKey, ID: "1", Name: "admin"}

func importText(s *shelf, file string, o Options) (*Report, error) {
	return NewImporter(s).Import(context.Background(), admin, o, strings.NewReader(file))
}

func csvOf(serials ...string) string {
	var b strings.Builder
	for _, s := range serials {
		fmt.Fprintf(&b, "%s,%s\n", s, rfcSeed)
	}
	return b.String()
}

func outcomes(r *Report) string {
	var s []string
	for _, o := range r.Records {
		s = append(s, fmt.Sprintf("%d:%s:%s", o.Line, o.Serial, o.Outcome))
	}
	return fmt.Sprintf("created %d duplicate %d rejected %d [%s]", r.Created, r.Duplicate, r.Rejected, strings.Join(s, " "))
}

func TestFileIsImportedWhollyOrNotAtAll(t *testing.T) {
	three := csvOf("A1", "A2", "A3")
	bad := three + "A4,xyz\n" + csvOf("A5")
	for _, c := range []struct {
		name, file string
		have       []string
		reject     string
		o          Options
		want       string
		there      int // tokens afterwards
		published  bool
		message    string
	}{
		{"good", three, nil, "", Options{}, "created 3 duplicate 0 rejected 0 []", 3, true, "3 tokens imported."},
		{"good, all listed", three, nil, "", Options{All: true}, "created 3 duplicate 0 rejected 0 [1:A1:created 2:A2:created 3:A3:created]", 3, true, "3 tokens imported."},
		{"one bad", bad, nil, "", Options{}, "created 0 duplicate 0 rejected 5 [4:A4:rejected 1:A1:rejected 2:A2:rejected 3:A3:rejected 5:A5:rejected]", 0, false, "Nothing was imported: 1 of 5 records is bad. Correct the file, or import the rest of it with --partial."},
		{"one bad, partial", bad, nil, "", Options{Partial: true}, "created 4 duplicate 0 rejected 1 [4:A4:rejected]", 4, true, "4 tokens imported; 1 of 5 records is bad and left out."},
		{"duplicates", three, []string{"A2"}, "", Options{}, "created 2 duplicate 1 rejected 0 [2:A2:duplicate]", 3, true, "2 tokens imported; 1 serial existed already, and those tokens are not touched."},
		{"all duplicates", three, []string{"A1", "A2", "A3"}, "", Options{}, "created 0 duplicate 3 rejected 0 [1:A1:duplicate 2:A2:duplicate 3:A3:duplicate]", 3, false, "Nothing new: the 3 serials of this file exist already."},
		{"twice in the file", three + csvOf("A2"), nil, "", Options{}, "created 0 duplicate 0 rejected 4 [4:A2:rejected 1:A1:rejected 2:A2:rejected 3:A3:rejected]", 0, false, "Nothing was imported: 1 of 4 records is bad. Correct the file, or import the rest of it with --partial."},
		{"twice in the file, partial", three + csvOf("A2"), nil, "", Options{Partial: true}, "created 3 duplicate 0 rejected 1 [4:A2:rejected]", 3, true, "3 tokens imported; 1 of 4 records is bad and left out."},
		{"rejected by the core", three, nil, "A3", Options{}, "created 0 duplicate 0 rejected 3 [3:A3:rejected 1:A1:rejected 2:A2:rejected]", 0, false, "Nothing was imported: 1 of 3 records is bad. Correct the file, or import the rest of it with --partial."},
		{"rejected by the core, partial", three, nil, "A3", Options{Partial: true}, "created 2 duplicate 0 rejected 1 [3:A3:rejected]", 2, true, "2 tokens imported; 1 of 3 records is bad and left out."},
		{"nothing good, partial", "A1,xyz\n" + csvOf("A2"), []string{"A2"}, "", Options{Partial: true, Format: "oath-csv"}, "created 0 duplicate 1 rejected 1 [1:A1:rejected 2:A2:duplicate]", 1, false, "Nothing was imported: 1 of 2 records is bad, 1 serial exist already."},
		{"dry run", three, []string{"A2"}, "", Options{DryRun: true}, "created 2 duplicate 1 rejected 0 [2:A2:duplicate]", 1, false, "2 tokens would be imported (dry run); 1 serial existed already, and those tokens are not touched."},
		{"dry run, one bad", bad, nil, "", Options{DryRun: true}, "created 0 duplicate 0 rejected 5 [4:A4:rejected 1:A1:rejected 2:A2:rejected 3:A3:rejected 5:A5:rejected]", 0, false, "Nothing would be imported (dry run): 1 of 5 records is bad. Correct the file, or import the rest of it with --partial."},
		{"dry run, one bad, partial", bad, nil, "", Options{DryRun: true, Partial: true}, "created 4 duplicate 0 rejected 1 [4:A4:rejected]", 0, false, "4 tokens would be imported (dry run); 1 of 5 records is bad and left out."},
		{"dry run, twice in the file", three + csvOf("A2"), nil, "", Options{DryRun: true, Partial: true}, "created 3 duplicate 0 rejected 1 [4:A2:rejected]", 0, false, "3 tokens would be imported (dry run); 1 of 4 records is bad and left out."},
	} {
		s := newShelf(t, c.have...)
		s.reject = c.reject
		r, err := importText(s, c.file, c.o)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := outcomes(r); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if len(s.have) != c.there || r.Published != c.published || (r.Batch != 0) != c.published {
			t.Errorf("%s: %d tokens are there, published %v as batch %d", c.name, len(s.have), r.Published, r.Batch)
		}
		if r.Message != c.message {
			t.Errorf("%s: %s", c.name, r.Message)
		}
		if r.Format != "oath-csv" || r.Bytes != int64(len(c.file)) || len(r.SHA256) != 64 || r.DryRun != c.o.DryRun {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

func TestReportHasTheShapeOfTheContract(t *testing.T) {
	r, err := importText(newShelf(t), "A1,"+rfcSeed+"\nA2,zz\n", Options{Name: "shipment.csv"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"created":0,"duplicate":0,"rejected":2`, `"records":[{"line":2,"serial":"A2","outcome":"rejected","reason":"column 2 (hexseed): character 1 is not a hex digit`,
		`"format":"oath-csv","detected":"looks like OATH CSV: line 1 is a serial and a seed in hex","name":"shipment.csv"`, `"published":false`,
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the report has no %s:\n%s", part, text)
		}
	}
	// A list is a list also when it is empty.
	r, _ = importText(newShelf(t), csvOf("A1"), Options{})
	if text, _ := json.Marshal(r); !strings.Contains(string(text), `"records":[]`) {
		t.Errorf("%s", text)
	}
}

func TestImportingTheSameFileAgainIsHarmless(t *testing.T) {
	s := newShelf(t)
	file := csvOf("A1", "A2")
	for i, want := range []string{"created 2 duplicate 0 rejected 0", "created 0 duplicate 2 rejected 0"} {
		r, err := importText(s, file, Options{})
		if err != nil || !strings.HasPrefix(outcomes(r), want) {
			t.Errorf("time %d: %s, %v", i+1, outcomes(r), err)
		}
	}
	if s.batches != 1 {
		t.Errorf("%d batches", s.batches)
	}
}

func TestFailedImportLeavesNothingBehind(t *testing.T) {
	many := make([]string, 3*chunkSize)
	for i := range many {
		many[i] = fmt.Sprintf("A%d", i)
	}
	good := csvOf(many...)
	down := fmt.Errorf("%w: the HSM does not answer", tokens.ErrUnavailable)
	for _, c := range []struct {
		name string
		file io.Reader
		fail error
		o    Options
		max  int64
		is   error
		says string
	}{
		{"core fails", strings.NewReader(good), down, Options{}, 0, tokens.ErrUnavailable, "the HSM does not answer"},
		{"long line at the end", strings.NewReader(good + strings.Repeat("x", 1<<20)), nil, Options{Partial: true}, 0, tokens.ErrInvalid, "line 1501: longer than 4096 bytes"},
		{"file too large", strings.NewReader(good), nil, Options{}, 40_000, tokens.ErrInvalid, "the file is larger than"},
		{"source fails", io.MultiReader(strings.NewReader(good), failing{}), nil, Options{}, 0, io.ErrClosedPipe, "reading"},
		{"source fails at once", failing{}, nil, Options{}, 0, io.ErrClosedPipe, "reading the file"},
		{"empty", strings.NewReader(""), nil, Options{}, 0, tokens.ErrInvalid, "the file is empty"},
		{"empty, format named", strings.NewReader(""), nil, Options{Format: "oath-csv"}, 0, tokens.ErrInvalid, "there is no token in the file"},
		{"only a header", strings.NewReader("serial,hexseed\n"), nil, Options{}, 0, tokens.ErrInvalid, "there is no token in the file"},
		{"unknown format", strings.NewReader(good), nil, Options{Format: "sdtid"}, 0, tokens.ErrInvalid, "--format is one of auto, pskc, "},
		{"not told", strings.NewReader("hello\nworld\n"), nil, Options{}, 0, tokens.ErrInvalid, "the format cannot be told"},
		{"wrong format named", strings.NewReader(good), nil, Options{Format: "pskc"}, 0, tokens.ErrInvalid, "line 1: this is not XML"},
		{"bad key file", strings.NewReader(good), nil, Options{PSK: []byte("1234")}, 0, tokens.ErrInvalid, "--psk-file"},
		{"empty password file", strings.NewReader(good), nil, Options{Password: []byte("\n")}, 0, tokens.ErrInvalid, "--password-file"},
	} {
		s := newShelf(t, "old")
		s.fail = c.fail
		im := NewImporter(s)
		if c.max > 0 {
			im.maxBytes = c.max
		}
		r, err := im.Import(context.Background(), admin, c.o, c.file)
		if r != nil || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %s", c.name, err, c.says)
		}
		if len(s.have) != 1 || s.batches != 0 {
			t.Errorf("%s: left %d tokens behind", c.name, len(s.have)-1)
		}
		// The audit says why, as far as it lies in the file.
		if inFile := errors.Is(c.is, tokens.ErrInvalid); s.why != "" && (!strings.HasPrefix(s.why, "the import failed") || strings.Contains(s.why, c.says) != inFile) {
			t.Errorf("%s: audited as %q", c.name, s.why)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestImportNeedsPermissionBeforeAnythingIsParsed(t *testing.T) {
	file := strings.NewReader(csvOf("A1"))
	before := file.Len()
	_, err := NewImporter(newShelf(t)).Import(context.Background(), tokens.Principal{Name: "nobody"}, Options{}, file)
	if !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("%v", err)
	}
	if file.Len() != before {
		t.Errorf("%d bytes of the file were read", before-file.Len())
	}
}

func TestCancelledImportIsDiscarded(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := newShelf(t)
	adds := 0
	s.onAdd = func() {
		if adds++; adds == 3 {
			cancel()
		}
	}
	_, err := NewImporter(s).Import(ctx, admin, Options{}, &generator{n: 1_000_000})
	if !errors.Is(err, context.Canceled) || len(s.have) != 0 || s.why != "the import failed" {
		t.Errorf("%v; %d tokens, discarded as %q", err, len(s.have), s.why)
	}
}

func TestPanicOfAParserEndsTheImportOnly(t *testing.T) {
	formats = append(formats, &Format{
		Name: "explosive", Detect: func([]byte, bool) (bool, string) { return false, "" },
		Open: func(io.Reader, OpenOptions) Reader { return explosive{} },
	})
	defer func() { formats = formats[:len(formats)-1] }()
	_, err := importText(newShelf(t), csvOf("A1"), Options{Format: "explosive"})
	if err == nil || !strings.HasPrefix(err.Error(), "an internal error") || strings.Contains(err.Error(), rfcSeed) {
		t.Errorf("%v", err)
	}
}

type explosive struct{}

func (explosive) Next() (*Record, error) { panic("at " + rfcSeed) }
func (explosive) Close()                 {}

func TestReportListsTenThousandOfAKind(t *testing.T) {
	var file strings.Builder
	file.WriteString(csvOf("A0"))
	for i := range maxListed + 5 {
		fmt.Fprintf(&file, "B%d,zz\n", i)
	}
	for _, c := range []struct {
		o       Options
		listed  int
		omitted int
	}{{Options{Partial: true}, maxListed, 5}, {Options{}, maxListed + 1, 5}} {
		r, err := importText(newShelf(t), file.String(), c.o)
		if err != nil || len(r.Records) != c.listed || r.Omitted != c.omitted {
			t.Errorf("listed %d, omitted %d, %v", len(r.Records), r.Omitted, err)
		}
	}
	var many []string
	for i := range maxListed + 7 {
		many = append(many, fmt.Sprint("A", i))
	}
	r, err := importText(newShelf(t), csvOf(many...), Options{All: true})
	if err != nil || len(r.Records) != maxListed || r.Omitted != 7 {
		t.Errorf("listed %d, omitted %d, %v", len(r.Records), r.Omitted, err)
	}
}

func TestProgressGrowsToTheEnd(t *testing.T) {
	var bytes int64
	var records int
	file := &generator{n: 2000}
	r, err := NewImporter(newShelf(t)).Import(context.Background(), admin, Options{Progress: func(b int64, n int) {
		if b < bytes || n < records {
			t.Errorf("from %d bytes, %d records back to %d, %d", bytes, records, b, n)
		}
		bytes, records = b, n
	}}, file)
	if err != nil || bytes != r.Bytes || records != 2000 || file.sent != r.Bytes {
		t.Errorf("%d of %d bytes, %d records, %v", bytes, file.sent, records, err)
	}
}

// generator is an OATH CSV file of n tokens that is never in memory.
type generator struct {
	n, i int
	sent int64
	left []byte
	line [128]byte
}

func (g *generator) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(g.left) == 0 {
			if g.i == g.n {
				return n, io.EOF
			}
			g.left = fmt.Appendf(g.line[:0], "VENDOR%08d,%s,totp,6,30,sha1\n", g.i, rfcSeed)
			g.i++
		}
		k := copy(p[n:], g.left)
		g.left = g.left[k:]
		n += k
		g.sent += int64(k)
	}
	return n, nil
}

func TestImportStreamsAMillionTokensInLittleMemory(t *testing.T) {
	s := newShelf(t)
	s.have = nil // keep nothing: what is measured is the importer
	s.seed, _ = hex.DecodeString(rfcSeed)
	var most, before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	calls := 0
	began := time.Now()
	r, err := NewImporter(s).Import(context.Background(), admin, Options{Progress: func(int64, int) {
		if calls++; calls%100 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if m.HeapAlloc > most.HeapAlloc {
				most = m
			}
		}
	}}, &generator{n: shipment})
	took := time.Since(began)
	if err != nil || r.Created != shipment {
		t.Fatalf("%+v, %v", r, err)
	}
	t.Logf("%d tokens in %v (%.0f/s), heap grew by %d MB", shipment, took, shipment/took.Seconds(), (most.HeapAlloc-before.HeapAlloc)>>20)
	if grown := int64(most.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
}

func BenchmarkOATHCSV(b *testing.B) {
	r := oathLayout.reader(&generator{n: b.N}, Choices{})
	b.ReportAllocs()
	for range b.N {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAHashForgetsTheEndOfTheFile(t *testing.T) {
	for size := range 200 {
		s := &source{ctx: t.Context(), r: strings.NewReader(strings.Repeat("s", size)), hash: sha256.New(), max: 1 << 20}
		if n, err := io.Copy(io.Discard, struct{ io.Reader }{s}); err != nil || n != int64(size) {
			t.Fatal(n, err)
		}
		s.wipe()
		// %v shows all of the block, not only what waits to be hashed.
		if strings.Contains(fmt.Sprintf("%v", s.hash), "115 115") {
			t.Errorf("after a file of %d bytes the hash still holds some", size)
		}
	}
}
