package tokens

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// NewImport begins an import.
type NewImport struct {
	Realm  string
	Name   string // the file's name, for people
	Format string
	DryRun bool // nothing is wrapped or stored

	Assign bool // hand each token to the user that its record names, if any
	Create bool // make those users whom there are not; only with Assign

	AllowHost  bool // see hsm.TransportOptions
	AllowPKCS1 bool // see hsm.TransportOptions
}

// NewToken is a token as a vendor's file has it, seed and all.
type NewToken struct {
	Serial    string
	Type      Type
	Algorithm hsm.Hash
	Digits    int
	Period    int    // TOTP: seconds
	Counter   uint64 // HOTP: the next one expected; YubicoOTP: the next session<<8|use
	Drift     int    // TOTP: steps that the token's clock is ahead
	Model     string
	Expires   time.Time // from then on the token is refused; zero: never
	PublicID  string    // YubicoOTP: modhex
	PrivateID []byte    // YubicoOTP: 6 bytes; wiped by Add
	Seed      []byte    // wiped by Add

	// Transported is the seed as its vendor encrypted it to TransportKey (nil: to
	// the newest transport key), instead of Seed.
	Transported  *hsm.Transported
	TransportKey *rsa.PublicKey

	// User is whom the file names as the owner, and UserRealm where; either may be
	// empty. It is a hint, unless the import assigns.
	User, UserRealm string
}

// Outcome is what became of one record of an import.
type Outcome string

// The outcomes.
const (
	OutcomeCreated   Outcome = "created"
	OutcomeDuplicate Outcome = "duplicate" // the realm has the serial; the existing token was not touched
	OutcomeRejected  Outcome = "rejected"
)

// Added is the outcome of one NewToken.
type Added struct {
	Outcome Outcome
	Reason  string
	Path    hsm.TransportPath // how a Transported that was created travelled
}

// Import is an import under way. Its tokens are seen by nobody until Publish.
// It belongs to one goroutine at a time.
type Import struct {
	s      *Service
	p      Principal
	in     NewImport
	batch  Batch
	ended  bool
	broken bool // an Add failed: nobody knows what was staged
	seed   maphash.Seed
	seen   map[uint64]struct{} // dry run: hashes of the serials of this file

	policy  string             // what let it begin, as in audit.Event
	assigns string             // and hand tokens out
	creates string             // and make users
	people  map[string]*person // whom the records name, by key
	named   int                // entries that got an owner
	hands   []hand             // what Publish hands out
	travels map[hsm.TransportPath]int64
}

// Seeds shorter than this are refused: 80 bits is the shortest that vendors
// ship (RFC 4226, section 4, asks for 128). A token's clock may be ahead or
// behind by so many steps, which is more than any is, also of those that count
// from another year than 1970.
const (
	minSeed  = 10
	maxSeed  = 128
	maxDrift = 1_000_000_000
)

// BeginImport begins an import. Nothing is visible before Publish; an import
// that is neither published nor discarded is removed later by itself.
func (s *Service) BeginImport(ctx context.Context, p Principal, in NewImport) (*Import, error) {
	realm, err := p.realm(in.Realm)
	if err != nil {
		return nil, err
	}
	in.Realm = realm
	in.Name = fileName(in.Name)
	e := audit.Event{Realm: realm, Detail: []audit.Field{{Name: "file", Value: in.Name}, {Name: "format", Value: in.Format}}}
	if in.Create && !in.Assign {
		return nil, fmt.Errorf("%w: users are made only where tokens are assigned to them (--create-users needs --assign)", ErrInvalid)
	}
	if err := s.authorise(ctx, p, policy.ImportBegin, &e); err != nil {
		return nil, err
	}
	i := &Import{s: s, p: p, in: in, policy: e.Policy, people: map[string]*person{}, travels: map[hsm.TransportPath]int64{}}
	if err := i.mayAssign(ctx); err != nil {
		return nil, err
	}
	i.batch = Batch{Realm: realm, Name: in.Name, Format: in.Format, Actor: p.Actor(), Created: s.cfg.Now().UTC()}
	if in.DryRun {
		i.seed, i.seen = maphash.MakeSeed(), map[uint64]struct{}{}
		return i, nil
	}
	if i.batch.ID, err = s.db.Begin(ctx, i.batch); err != nil {
		return nil, unavailable(err)
	}
	return i, nil
}

// fileName is a file's name as it is kept: not longer than 255 bytes, and text
// that every database takes.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, name)
	if len(name) > 255 {
		name = strings.ToValidUTF8(name[:255], "")
	}
	return name
}

// MayImport says whether p may import what n says, before anything of the file is
// read. It leaves nothing behind but the audit record of a refusal.
func (s *Service) MayImport(ctx context.Context, p Principal, in NewImport) error {
	realm, err := p.realm(in.Realm)
	if err != nil {
		return err
	}
	e := audit.Event{Realm: realm, Detail: []audit.Field{{Name: "file", Value: fileName(in.Name)}}}
	return s.authorise(ctx, p, policy.ImportBegin, &e)
}

// RefuseImport authorises and audits an import whose file cannot be read at
// all. It answers why, or that p may not import.
func (s *Service) RefuseImport(ctx context.Context, p Principal, in NewImport, why error) error {
	realm, err := p.realm(in.Realm)
	if err != nil {
		return err
	}
	e := audit.Event{Realm: realm, Outcome: "refused", Detail: []audit.Field{{Name: "file", Value: fileName(in.Name)}, {Name: "why", Value: why.Error()}}}
	if err := s.authorise(ctx, p, policy.ImportBegin, &e); err != nil {
		return err
	}
	if err := s.record(ctx, p, policy.ImportBegin, e); err != nil {
		return err
	}
	return why
}

// Add wraps, binds and stages up to 1,000 tokens and answers the outcome of
// each. It wipes their seeds, whatever happens. After an error the import can
// only be discarded.
func (i *Import) Add(ctx context.Context, list []NewToken) ([]Added, error) {
	defer func() {
		for k := range list {
			clear(list[k].Seed)
			clear(list[k].PrivateID)
		}
	}()
	if i.ended || i.broken {
		return nil, fmt.Errorf("%w: the import has ended, or failed", ErrState)
	}
	if len(list) > 1000 {
		return nil, fmt.Errorf("%w: %d tokens at once; 1000 are possible", ErrInvalid, len(list))
	}
	out := make([]Added, len(list))
	good := make([]*entry, 0, len(list))
	now := i.s.cfg.Now().UTC()
	for k := range list {
		t, err := list[k].token(i.in.Realm, i.batch.ID, now)
		if err == nil && t.Type == YubicoOTP && i.s.decoy2 == nil {
			err = errNoOTP
		}
		if err != nil {
			out[k] = Added{Outcome: OutcomeRejected, Reason: reasonOf(err)}
			continue
		}
		if !i.in.Assign {
			t.Hint = hintOf(list[k].User, list[k].UserRealm)
		}
		good = append(good, &entry{token: t, from: &list[k], added: &out[k]})
	}
	if err := i.take(hsm.Bulk(ctx), good); err != nil {
		i.broken = true
		return nil, err
	}
	return out, nil
}

// entry is one record on its way into the staging batch.
type entry struct {
	token Token
	from  *NewToken
	added *Added  // its outcome; none yet if that is empty
	owner *person // nil: nobody's
}

func (e *entry) reject(format string, args ...any) {
	*e.added = Added{Outcome: OutcomeRejected, Reason: fmt.Sprintf(format, args...)}
}

const duplicate = "the serial exists already in this realm, or twice in this file; the token was not touched"

// undecided are the entries that have no outcome yet.
func undecided(list []*entry) []*entry {
	rest := make([]*entry, 0, len(list))
	for _, e := range list {
		if e.added.Outcome == "" {
			rest = append(rest, e)
		}
	}
	return rest
}

// take gives each entry its outcome.
func (i *Import) take(ctx context.Context, list []*entry) error {
	if i.in.DryRun || i.in.Assign {
		// A serial that exists is a duplicate, whoever its record names.
		if err := i.present(ctx, list); err != nil {
			return err
		}
		list = undecided(list)
	}
	if i.in.Assign {
		if err := i.owners(ctx, list); err != nil {
			return err
		}
		list = undecided(list)
	}
	if i.in.DryRun {
		for _, e := range list {
			if e.from.Transported != nil {
				if err := i.s.knowsTransport(e.from.TransportKey); err != nil {
					return err
				}
			}
			*e.added = Added{Outcome: OutcomeCreated}
		}
		return nil
	}
	if err := i.wrap(ctx, list); err != nil {
		return err
	}
	return i.stage(ctx, undecided(list))
}

// present finds the serials that the realm has, and in a dry run those that
// stood in the file before.
func (i *Import) present(ctx context.Context, list []*entry) error {
	there, err := i.there(ctx, list)
	if err != nil {
		return err
	}
	for k, e := range list {
		if i.in.DryRun {
			h := maphash.String(i.seed, e.token.Serial)
			_, twice := i.seen[h]
			i.seen[h] = struct{}{}
			there[k] = there[k] || twice
		}
		if there[k] {
			*e.added = Added{Outcome: OutcomeDuplicate, Reason: duplicate}
		}
	}
	return nil
}

// An import waits for so long for another one that has a serial of its own: as a
// rule that is the one before, whose client has left.
const (
	patience = 2 * time.Second
	peek     = 50 * time.Millisecond
)

// there says which serials the realm has. It fails if another import under way
// has one, and keeps it: that may yet be discarded, and nobody would have the
// token.
func (i *Import) there(ctx context.Context, list []*entry) ([]bool, error) {
	serials := make([]string, len(list))
	for k, e := range list {
		serials[k] = e.token.Serial
	}
	for until := time.Now().Add(patience); ; {
		present, err := i.s.db.Present(ctx, i.in.Realm, serials)
		if err != nil {
			return nil, unavailable(err)
		}
		there, held := make([]bool, len(list)), ""
		for k, p := range present {
			if there[k] = p.There; p.Staging != 0 && p.Staging != i.batch.ID {
				held = serials[k]
			}
		}
		if held == "" {
			return there, nil
		}
		if time.Now().After(until) {
			return nil, elsewhere(held)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: interrupted: %w", ErrUnavailable, context.Cause(ctx))
		case <-time.After(peek):
		}
	}
}

func elsewhere(serial string) error {
	return fmt.Errorf("%w: another import that is under way has the serial %s; wait until it has ended, and import the file again (one that was cut off is removed within ten minutes)", ErrState, serial)
}

// wrap wraps the seeds, in whichever way they come.
func (i *Import) wrap(ctx context.Context, list []*entry) error {
	var plain, transported []*entry
	for _, e := range list {
		if e.from.Transported != nil {
			transported = append(transported, e)
		} else {
			plain = append(plain, e)
		}
	}
	if len(transported) > 0 {
		if err := i.rewrap(ctx, transported); err != nil {
			return err
		}
	}
	if len(plain) == 0 {
		return nil
	}
	seeds := make([]hsm.Seed, len(plain))
	for k, e := range plain {
		seeds[k] = hsm.Seed{Hash: e.token.Algorithm, Bytes: e.from.Seed}
	}
	wrapped, err := i.s.custody.Wrap(ctx, seeds)
	if err != nil {
		return translate(err)
	}
	for k, e := range plain {
		e.token.Wrapped = wrapped[k]
	}
	return nil
}

// stage binds and stores tokens that are wrapped.
func (i *Import) stage(ctx context.Context, list []*entry) error {
	if len(list) == 0 {
		return nil
	}
	var ids privateIDs
	for k, e := range list {
		if e.token.Type == YubicoOTP {
			ids.add(&e.token, e.from.PrivateID, k)
		}
	}
	if err := ids.run(ctx, i.s.custody, func(k int, mac []byte) { list[k].token.PrivateMAC = mac }); err != nil {
		return err
	}
	bound := make([]*Token, len(list))
	for k, e := range list {
		bound[k] = &e.token
	}
	if err := i.s.bind(ctx, bound, nil); err != nil {
		return err
	}
	staged := make([]Token, len(list))
	for k, e := range list {
		staged[k] = e.token
	}
	return i.store(ctx, list, staged)
}

// store stages tokens that are wrapped and bound. Some of the serials may be those
// of an import that is just being removed: then it tries again.
func (i *Import) store(ctx context.Context, list []*entry, staged []Token) error {
	for {
		created, err := i.s.db.Stage(ctx, i.batch.ID, staged)
		if errors.Is(err, ErrState) {
			return errIdle
		}
		if err != nil {
			return unavailable(err)
		}
		var taken []*entry
		for k, e := range list {
			if !created[k] {
				taken = append(taken, e)
				continue
			}
			e.added.Outcome = OutcomeCreated
			if e.added.Path != "" {
				i.travels[e.added.Path]++
			}
			if e.owner != nil {
				i.hands = append(i.hands, hand{token: e.token, owner: e.owner})
			}
		}
		if len(taken) == 0 {
			return nil
		}
		there, err := i.there(ctx, taken)
		if err != nil {
			return err
		}
		list, staged = list[:0:0], staged[:0]
		for k, e := range taken {
			if there[k] {
				*e.added = Added{Outcome: OutcomeDuplicate, Reason: duplicate}
				continue
			}
			list, staged = append(list, e), append(staged, e.token)
		}
		if len(list) == 0 {
			return nil
		}
	}
}

var errIdle = fmt.Errorf("%w: the import was idle for too long and was removed; start it again", ErrState)

func (n *NewToken) token(realm string, batch int64, now time.Time) (Token, error) {
	t := Token{
		Realm: realm, Serial: n.Serial, Type: n.Type, Algorithm: n.Algorithm, Digits: n.Digits, Period: n.Period,
		State: Imported, Model: n.Model, Batch: batch, Created: now, Motion: Motion{Version: 1, Last: -1, Drift: n.Drift},
	}
	var err error
	if t.Expires, err = expiry(n.Expires); err != nil {
		return t, err
	}
	if n.Type == HOTP {
		if n.Counter > maxFactor {
			return t, fmt.Errorf("%w: the counter is out of range", ErrInvalid)
		}
		t.Last, t.Drift, t.Period = int64(n.Counter), 0, 0
	}
	if n.Type == YubicoOTP {
		if err := n.validOTP(); err != nil {
			return t, err
		}
		t.Last, t.PublicID = int64(n.Counter), n.PublicID
	}
	if t.Drift < -maxDrift || t.Drift > maxDrift {
		return t, fmt.Errorf("%w: a drift of %d steps; up to %d are possible", ErrInvalid, t.Drift, maxDrift)
	}
	if len(n.Model) > 255 {
		return t, fmt.Errorf("%w: the model is longer than 255 bytes", ErrInvalid)
	}
	if !utf8.ValidString(n.Model) || strings.ContainsFunc(n.Model, unicode.IsControl) {
		return t, fmt.Errorf("%w: the model is not valid UTF-8, or holds a control character", ErrInvalid)
	}
	if n.Transported == nil {
		if err := seedLength(len(n.Seed)); err != nil {
			return t, err
		}
	} else if len(n.Seed) > 0 || n.Transported.Hash != n.Algorithm {
		return t, fmt.Errorf("%w: a seed that comes in two ways, or is for another hash than its token", ErrInvalid)
	}
	return t, t.Valid()
}

func seedLength(n int) error {
	if n < minSeed || n > maxSeed {
		return fmt.Errorf("%w: a seed of %d bytes; %d to %d are possible", ErrInvalid, n, minSeed, maxSeed)
	}
	return nil
}

// reasonOf is an error's text without the words of its kind.
func reasonOf(err error) string {
	const kind = "invalid input: "
	if s := err.Error(); len(s) > len(kind) && s[:len(kind)] == kind {
		return s[len(kind):]
	}
	return err.Error()
}

// Publish makes the tokens visible, all at once and with the owners that they
// get, with an audit record for the file and one for each assignment and each user
// that was made. If somebody named was disabled or got a token meanwhile, it fails
// with ErrState. A dry run has nothing to publish.
func (i *Import) Publish(ctx context.Context, sha256hex string, created, duplicate, rejected int) (Batch, error) {
	if i.ended || i.broken || i.in.DryRun {
		return Batch{}, fmt.Errorf("%w: the import has ended or failed, or was a dry run", ErrState)
	}
	e := audit.Event{Realm: i.in.Realm}
	if err := i.s.authorise(ctx, i.p, policy.ImportPublish, &e); err != nil {
		return Batch{}, err
	}
	b := i.batch
	b.SHA256, b.Tokens, b.Duplicate, b.Rejected = sha256hex, created, duplicate, rejected
	b.Published = i.s.cfg.Now().UTC()
	e.Detail = []audit.Field{
		{Name: "batch", Value: itoa(b.ID)}, {Name: "file", Value: b.Name}, {Name: "format", Value: b.Format}, {Name: "sha256", Value: b.SHA256},
		{Name: "created", Value: itoa(int64(created))}, {Name: "duplicate", Value: itoa(int64(duplicate))}, {Name: "rejected", Value: itoa(int64(rejected))},
	}
	for _, path := range []hsm.TransportPath{hsm.PathHSM, hsm.PathHost} {
		if n := i.travels[path]; n > 0 {
			e.Detail = append(e.Detail, audit.Field{Name: "through_" + string(path), Value: itoa(n)})
		}
	}
	if err := i.mayAssign(ctx); err != nil {
		return Batch{}, err
	}
	if err := i.commit(ctx, b, e); err != nil {
		return Batch{}, i.s.refuse(ctx, i.p, policy.ImportPublish, e, err)
	}
	i.ended = true
	return b, nil
}

// Discard ends the import and removes what it staged. It may be called again,
// and after Publish it does nothing.
func (i *Import) Discard(ctx context.Context, reason string) error {
	if i.ended {
		return nil
	}
	i.ended = true
	if i.in.DryRun {
		return i.s.record(ctx, i.p, policy.ImportBegin, audit.Event{Realm: i.in.Realm, Reason: "dry_run", Policy: i.policy, Detail: []audit.Field{{Name: "file", Value: i.in.Name}}})
	}
	ctx = context.WithoutCancel(ctx)
	err := unavailable(i.s.db.Discard(ctx, i.batch.ID))
	e := audit.Event{Realm: i.in.Realm, Outcome: "refused", Policy: i.policy, Detail: []audit.Field{
		{Name: "batch", Value: itoa(i.batch.ID)}, {Name: "file", Value: i.in.Name}, {Name: "why", Value: reason},
	}}
	return errors.Join(err, i.s.record(ctx, i.p, policy.ImportDiscard, e))
}

// Batches lists the imports that were published, newest first.
func (s *Service) Batches(ctx context.Context, p Principal, q BatchQuery) ([]Batch, error) {
	realm, err := p.listed(q.Realm)
	if err != nil {
		return nil, err
	}
	e := audit.Event{Realm: realm}
	if err := s.authorise(ctx, p, policy.ImportList, &e); err != nil {
		return nil, err
	}
	q.Realm, q.Limit = realm, limit(q.Limit)
	list, err := s.db.Batches(ctx, q)
	if err != nil {
		return nil, unavailable(err)
	}
	return list, s.record(ctx, p, policy.ImportList, e)
}
