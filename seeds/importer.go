package seeds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"watchword/tokens"
)

// The bounds of one import.
const (
	MaxBytes   = 1 << 30 // size of a file
	MaxRecords = 2_000_000
	chunkSize  = 500 // tokens that are handed to the core at once
)

// Batch is an import under way in the core: what was added shows nowhere until
// it is published. *tokens.Import is one.
type Batch interface {
	// Add wraps and stages up to 1000 tokens, wipes their seeds, and answers in
	// their order. After an error the batch can only be discarded.
	Add(ctx context.Context, list []tokens.NewToken) ([]tokens.Added, error)
	Publish(ctx context.Context, sha256hex string, created, duplicate, rejected int) (tokens.Batch, error)
	Discard(ctx context.Context, reason string) error
}

// Core is what an Importer hands tokens to. Service makes one of the real core.
type Core interface {
	// MayImport says whether p may import. Nothing of a file is read before: to
	// open a container can be made costly by whoever made it.
	MayImport(ctx context.Context, p tokens.Principal, n tokens.NewImport) error
	BeginImport(ctx context.Context, p tokens.Principal, n tokens.NewImport) (Batch, error)
	// RefuseImport authorises and audits an import whose file cannot be read
	// at all. It answers why, or that p may not import.
	RefuseImport(ctx context.Context, p tokens.Principal, n tokens.NewImport, why error) error
	// Transports says whether seeds that are encrypted to a transport key can be
	// taken over.
	Transports() bool
}

// Service is the core that s is.
func Service(s *tokens.Service) Core { return service{s} }

type service struct{ *tokens.Service }

func (s service) BeginImport(ctx context.Context, p tokens.Principal, n tokens.NewImport) (Batch, error) {
	b, err := s.Service.BeginImport(ctx, p, n)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Importer imports seed files. It is safe for concurrent use.
type Importer struct {
	core     Core
	maxBytes int64
	now      func() time.Time
}

// NewImporter makes an Importer that hands what it reads to core.
func NewImporter(core Core) *Importer {
	return &Importer{core: core, maxBytes: MaxBytes, now: time.Now}
}

// Options say how to import a file.
type Options struct {
	Realm    string // that the tokens go into; empty: the principal's, or the default one
	Name     string // of the file, for the batch and the audit
	Format   string // a format's name; empty or Auto: told from the content
	PSK      []byte // content of the key file, see ParseKeyFile; nil if there is none
	Password []byte // content of the password file, see ParsePasswordFile; nil if there is none

	PGPKey    []byte // content of a private OpenPGP key's file, see OpenOptions; nil if there is none
	PGPSigner []byte // content of a file of public OpenPGP keys, see OpenOptions; nil if there is none

	Signer  []byte // certificate whose signature the file must carry, see ParseSignerFile; nil if it need not be checked
	Partial bool   // import the good records of a file that has bad ones, and keys whose validity period is over
	DryRun  bool   // change nothing; report what would happen
	All     bool   // list the created tokens too
	Choices Choices

	// AllowRSA15 lets seeds be read that are encrypted by RSAES-PKCS1-v1_5. Every
	// answer about one, if only that it failed, helps to decrypt others.
	AllowRSA15 bool

	// AllowHost lets seeds that are encrypted to the transport key, and that the
	// HSM cannot pad inside, travel through this process's memory.
	AllowHost bool

	// Assign hands each token to the user whom its record names, in the realm of
	// the import: a record whose user cannot get a token is bad. Create makes those
	// users whom there are not, and needs Assign. Without them a user is a hint.
	Assign, Create bool

	// Progress, if not nil, is called now and then with the bytes and records
	// that were worked off, from the goroutine that called Import.
	Progress func(bytes int64, records int)
}

// Import reads a seed file from r to its end and imports it wholly, or not at
// all where it has bad records; with Partial its good records. A serial that
// the realm has already is no bad record: it is reported as a duplicate, the
// token that exists is not touched, and the others are imported, so importing a
// file again after a reply was lost is harmless. A serial that occurs twice in
// the file is bad from the second time on.
//
// A file that is refused for its bad records is no error: the report says so
// (Published is false). The error is a *FileError, which wraps
// tokens.ErrInvalid, if the file as a whole cannot be read, or what the core or
// r failed with; then nothing of the file was imported either.
func (im *Importer) Import(ctx context.Context, p tokens.Principal, o Options, r io.Reader) (*Report, error) {
	intent := tokens.NewImport{Realm: o.Realm, Name: o.Name, Format: o.Format, DryRun: o.DryRun}
	if err := im.core.MayImport(ctx, p, intent); err != nil {
		return nil, err
	}
	defer beThrifty()()
	open := OpenOptions{Now: im.now(), PGPKey: o.PGPKey, PGPSigner: o.PGPSigner, Choices: o.Choices, AllowExpired: o.Partial, AllowRSA15: o.AllowRSA15, Transported: im.core.Transports()}
	defer func() { clear(open.Key); clear(open.Password) }()
	open.vault = im.vault(ctx, p, o.Realm)
	src := &source{ctx: ctx, r: r, hash: sha256.New(), max: im.maxBytes}
	defer src.wipe()
	file, format, reason, err := open.prepare(&o, src)
	var failed *vaultError
	if errors.As(err, &failed) {
		return nil, failed.error
	}
	if err != nil {
		return nil, im.core.RefuseImport(ctx, p, intent, err)
	}
	defer file.Close()
	batch, err := im.core.BeginImport(ctx, p, tokens.NewImport{
		Realm: o.Realm, Name: o.Name, Format: format.Name, DryRun: o.DryRun,
		Assign: o.Assign, Create: o.Create, AllowHost: o.AllowHost, AllowPKCS1: o.AllowRSA15,
	})
	if err != nil {
		return nil, err
	}
	run := &run{
		batch: batch, options: &o, src: src, file: file, tally: tally{all: o.All},
		report: &Report{Format: format.Name, Detected: reason, Name: o.Name, DryRun: o.DryRun, Partial: o.Partial},
	}
	if err := run.do(ctx, format.Open(file, open)); err != nil {
		if left := run.discard(ctx, failedImport(err)); left != nil {
			err = errors.Join(err, left)
		}
		return nil, err
	}
	return run.report, nil
}

// failedImport is what the audit says of an import that failed: why, if that lies in the
// file or in what else is imported; of faults there are logs.
func failedImport(err error) string {
	const failed = "the import failed"
	if errors.Is(err, tokens.ErrInvalid) || errors.Is(err, tokens.ErrState) {
		return failed + ": " + strings.TrimPrefix(err.Error(), tokens.ErrInvalid.Error()+": ")
	}
	return failed
}

// prepare parses the secrets, opens the containers around the file, and tells
// its format.
func (open *OpenOptions) prepare(o *Options, src *source) (*content, *Format, string, error) {
	var err error
	if o.PSK != nil {
		if open.Key, err = ParseKeyFile(o.PSK); err != nil {
			return nil, nil, "", err
		}
	}
	if o.Password != nil {
		if open.Password, err = ParsePasswordFile(o.Password); err != nil {
			return nil, nil, "", err
		}
	}
	if o.Signer != nil {
		if open.Signer, err = ParseSignerFile(o.Signer); err != nil {
			return nil, nil, "", err
		}
	}
	return openContent(src, o.Format, open)
}

// exists is why a duplicate was not created.
const exists = "a token with this serial exists already; it is not touched"

// run is one import under way.
type run struct {
	batch     Batch
	options   *Options
	src       *source
	file      *content
	tally     tally
	report    *Report
	records   int
	discarded bool

	transported bool // seeds came encrypted to the transport key
}

// do works the file off: one goroutine reads and parses while this one adds.
func (u *run) do(ctx context.Context, reader Reader) error {
	parsing, cancel := context.WithCancel(ctx)
	free, full := make(chan *chunk, 3), make(chan *chunk, 3)
	for range cap(free) {
		free <- newChunk()
	}
	go func() {
		defer close(full)
		defer reader.Close()
		parse(parsing, reader, u.src, free, full)
	}()
	// The parser has let go of the file before anything is returned.
	defer func() {
		cancel()
		for c := range full {
			c.wipe()
		}
	}()
	for c := range full {
		if c.err != nil && c.err != io.EOF {
			c.wipe()
			return c.err
		}
		err := u.work(ctx, c)
		c.wipe()
		if err != nil {
			return err
		}
		if c.err == io.EOF {
			// A container is certain to be intact only at its end.
			if err := u.file.drain(); err != nil {
				return err
			}
			u.report.Notes = u.file.Notes()
			if n, ok := reader.(interface{ Notes() []string }); ok {
				u.report.Notes = append(u.report.Notes, n.Notes()...)
			}
			return u.finish(ctx)
		}
		free <- c
	}
	return context.Cause(ctx) // the parser stops without a word only then
}

// work adds a chunk's tokens to the batch and counts what became of each.
func (u *run) work(ctx context.Context, c *chunk) error {
	var added []tokens.Added
	u.transported = u.transported || c.transported
	if len(c.tokens) > 0 && !u.discarded {
		var err error
		if added, err = u.batch.Add(ctx, c.tokens); err != nil {
			return err
		}
		if len(added) != len(c.tokens) {
			return fmt.Errorf("the core answered for %d of %d tokens", len(added), len(c.tokens))
		}
	}
	for _, it := range c.items {
		o := Outcome{Line: it.line, Key: it.key, Serial: it.serial, User: it.user, Outcome: tokens.OutcomeRejected, Reason: it.reason}
		if it.token >= 0 {
			o.Outcome, o.Reason = tokens.OutcomeCreated, ""
			if added != nil {
				o.Outcome, o.Reason, o.Path = added[it.token].Outcome, added[it.token].Reason, added[it.token].Path
				if o.Outcome == tokens.OutcomeDuplicate {
					o.Reason = exists // never of this file: the parser sees to that
				}
			}
		}
		u.tally.add(o)
	}
	u.records += len(c.items)
	if u.tally.bad > 0 && !u.options.Partial && !u.options.DryRun {
		// The rest is read for the report only.
		if err := u.discard(ctx, "the file has bad records"); err != nil {
			return err
		}
	}
	if u.options.Progress != nil {
		u.options.Progress(c.bytes, u.records)
	}
	return nil
}

// finish publishes the batch if anything of it is to stay.
func (u *run) finish(ctx context.Context) error {
	if u.records == 0 {
		return &FileError{Reason: "there is no token in the file"}
	}
	r := u.report
	r.SHA256, r.Bytes = u.src.sum(), u.src.n
	refused := u.tally.bad > 0 && !u.options.Partial
	switch {
	case refused:
		if err := u.discard(ctx, "the file has bad records"); err != nil {
			return err
		}
	case r.DryRun:
		if err := u.discard(ctx, "dry run"); err != nil {
			return err
		}
	case u.tally.created == 0:
		if err := u.discard(ctx, "there is nothing new in the file"); err != nil {
			return err
		}
	default:
		b, err := u.batch.Publish(ctx, r.SHA256, u.tally.created, u.tally.dup, u.tally.bad)
		if err != nil {
			return err
		}
		u.discarded = true // nothing is left to discard
		r.Batch, r.Published = b.ID, true
	}
	if r.DryRun && u.transported {
		r.Notes = append(r.Notes, "Seeds are encrypted to the transport key; whether the HSM can take each of them over shows only when they are imported.")
	}
	u.tally.fill(r, refused)
	return nil
}

// discard gives the batch up, also where ctx is over already.
func (u *run) discard(ctx context.Context, reason string) error {
	if u.discarded {
		return nil
	}
	u.discarded = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := u.batch.Discard(ctx, reason); err != nil {
		return fmt.Errorf("discarding what was staged: %w", err)
	}
	return nil
}

// source is the file as it comes in: hashed, counted, bounded and cancellable.
type source struct {
	ctx    context.Context
	r      io.Reader
	err    error // that r ended with
	hash   hash.Hash
	n, max int64
}

func (s *source) Read(p []byte) (n int, err error) {
	if err := context.Cause(s.ctx); err != nil {
		return 0, err
	}
	if s.err != nil {
		return 0, s.err
	}
	if n, err = s.r.Read(p); err != nil {
		s.err = err
	}
	s.hash.Write(p[:n])
	if s.n += int64(n); s.n > s.max {
		s.err = &FileError{Reason: fmt.Sprintf("the file is larger than %d MB; split it", s.max>>20)}
		return 0, s.err
	}
	return n, err
}

func (s *source) sum() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// wipe makes the hash forget the file's last bytes.
func (s *source) wipe() { wipeHash(s.hash) }
