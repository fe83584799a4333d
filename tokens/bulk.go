package tokens

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// BulkRequest is one act to do to many tokens: to those that Serials names, or to
// those that Select selects, which needs at least one condition. Realm, After and Limit
// of Select do not count.
type BulkRequest struct {
	Act     string // suspend, resume, lost, revoke, unassign, expire, tag, untag or note
	Realm   string // of all of them
	Serials []string
	Select  TokenQuery
	DryRun  bool // say what would happen, and do nothing

	Reason  string    // of suspend, resume, lost, revoke and unassign
	Note    string    // of note; empty takes the note away
	Tags    []string  // of tag and untag
	Expires time.Time // of expire; zero: never
}

// The outcomes of a BulkItem.
const (
	BulkDone      = "done"
	BulkWould     = "would"     // dry run: it would be done
	BulkUnchanged = "unchanged" // it is so already
	BulkRefused   = "refused"   // Reason says why; the others go on
)

// BulkItem is what became of one token.
type BulkItem struct {
	Serial  string
	User    string // who held it before the act, folded; empty: nobody
	Outcome string
	Reason  string // of a refusal, in words; else empty
}

// BulkReport counts the items. In a dry run Done is how many would be done.
type BulkReport struct {
	Matched, Done, Unchanged, Refused int
}

const (
	maxBulk  = 10_000 // serials named one by one
	bulkPage = 100    // tokens of a selection read at once
)

// bulkActs are what can be done in bulk.
var bulkActs = map[string]policy.Action{
	"suspend": policy.TokenSuspend, "resume": policy.TokenResume, "lost": policy.TokenLost, "revoke": policy.TokenRevoke,
	"unassign": policy.TokenUnassign, "expire": policy.TokenExpire, "tag": policy.TokenNote, "untag": policy.TokenNote, "note": policy.TokenNote,
}

// Bulk does one act to many tokens and calls f for each as soon as it is done. Each
// goes through the act's own use case, in a commit and with a record of its own; one
// that is refused stops no other. The bulk has two records besides, at its beginning
// and at its end, and the id in them is in those of the tokens. In a dry run each act
// is decided in the same way, nothing is written but one record, and what it says
// holds as long as nobody changes anything.
//
// A selection is read in pages, in order of the tokens' ids, so that what an act takes
// out of it neither hides a token nor shows one twice; what comes into it meanwhile may
// or may not be met. A token that somebody else gave another state or owner since it
// was read is refused.
//
// Bulk stops at a fault, at f's first error and when ctx is over, writes the record of
// its end and answers what was done until then with the error. What was done stays
// done; asking again goes on with the rest.
func (s *Service) Bulk(ctx context.Context, p Principal, r BulkRequest, f func(BulkItem) error) (BulkReport, error) {
	b, err := s.newBulk(p, r)
	if err != nil {
		return BulkReport{}, err
	}
	e := audit.Event{Realm: b.realm, Detail: b.detail}
	if err := s.authorise(ctx, p, policy.TokenBulk, &e); err != nil {
		return BulkReport{}, err
	}
	if err := s.authorise(ctx, p, bulkActs[r.Act], &e); err != nil {
		return BulkReport{}, err
	}
	if !r.DryRun {
		begin := e
		begin.Detail = b.told(audit.Field{Name: "phase", Value: "begin"})
		if err := s.record(ctx, p, policy.TokenBulk, begin); err != nil {
			return BulkReport{}, err
		}
	}
	if len(r.Serials) > 0 {
		err = b.named(ctx, r.Serials, f)
	} else {
		err = b.selected(ctx, f)
	}
	end := e
	end.Detail = b.told(audit.Field{Name: "phase", Value: "end"},
		audit.Field{Name: "matched", Value: strconv.Itoa(b.report.Matched)}, audit.Field{Name: "done", Value: strconv.Itoa(b.report.Done)},
		audit.Field{Name: "unchanged", Value: strconv.Itoa(b.report.Unchanged)}, audit.Field{Name: "refused", Value: strconv.Itoa(b.report.Refused)})
	if err != nil {
		end.Outcome, end.Reason = "error", "interrupted"
	}
	// A commit is not cut off when the caller goes away.
	return b.report, errors.Join(err, s.record(ctx, p, policy.TokenBulk, end))
}

// bulk is a BulkRequest that was checked, under way.
type bulk struct {
	s      *Service
	p      Principal
	r      BulkRequest
	realm  string
	query  TokenQuery
	note   NoteEdit
	id     string
	detail []audit.Field
	report BulkReport
}

func (s *Service) newBulk(p Principal, r BulkRequest) (*bulk, error) {
	realm, err := p.realm(r.Realm)
	if err != nil {
		return nil, err
	}
	b := &bulk{s: s, p: p, r: r, realm: realm}
	if _, ok := bulkActs[r.Act]; !ok {
		return nil, fmt.Errorf("%w: no act %q; there are suspend, resume, lost, revoke, unassign, expire, tag, untag and note", ErrInvalid, clip(r.Act, 32))
	}
	if err := b.parameters(); err != nil {
		return nil, err
	}
	selection, err := b.selection()
	if err != nil {
		return nil, err
	}
	id := make([]byte, 8)
	if _, err := io.ReadFull(s.cfg.Rand, id); err != nil {
		return nil, fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	b.id = hex.EncodeToString(id)
	b.detail = append([]audit.Field{{Name: "bulk", Value: b.id}, {Name: "act", Value: r.Act}}, selection...)
	if r.Reason != "" {
		b.detail = append(b.detail, audit.Field{Name: "reason", Value: r.Reason})
	}
	if r.DryRun {
		b.detail = append(b.detail, audit.Field{Name: "dry_run", Value: "true"})
	}
	return b, nil
}

// parameters looks at what the act is told, once for all tokens.
func (b *bulk) parameters() (err error) {
	if err := validReason(b.r.Reason); err != nil {
		return err
	}
	switch b.r.Act {
	case "expire":
		b.r.Expires, err = expiry(b.r.Expires)
		return err
	case "tag":
		b.note, err = NoteEdit{Add: b.r.Tags}.valid()
		return err
	case "untag":
		b.note, err = NoteEdit{Drop: b.r.Tags}.valid()
		return err
	case "note":
		b.note, err = NoteEdit{Note: &b.r.Note}.valid()
		return err
	}
	return nil
}

// selection looks at what is selected and says it as the audit does.
func (b *bulk) selection() ([]audit.Field, error) {
	q := b.r.Select
	q.Realm, q.After, q.Limit = b.realm, 0, bulkPage
	if q.Owner != "" {
		key, err := FoldName(q.Owner)
		if err != nil {
			return nil, err
		}
		q.Owner = key
	}
	q.Tag = strings.ToLower(q.Tag)
	texts := []string{q.Serial, string(q.State), string(q.Type), q.Q, q.Tag}
	if err := askable(texts...); err != nil {
		return nil, err
	}
	b.query = q
	var list []audit.Field
	for _, c := range []struct{ name, value string }{
		{"serial", q.Serial}, {"user", q.Owner}, {"state", string(q.State)}, {"type", string(q.Type)}, {"q", q.Q}, {"tag", q.Tag},
	} {
		if c.value != "" {
			list = append(list, audit.Field{Name: c.name, Value: c.value})
		}
	}
	if q.Batch != 0 {
		list = append(list, audit.Field{Name: "batch", Value: itoa(q.Batch)})
	}
	n := len(b.r.Serials)
	switch {
	case n > maxBulk:
		return nil, fmt.Errorf("%w: %d serials; %d are possible at once", ErrInvalid, n, maxBulk)
	case n > 0 && len(list) > 0:
		return nil, fmt.Errorf("%w: either serials or a selection, not both", ErrInvalid)
	case n > 0:
		return []audit.Field{{Name: "serials", Value: strconv.Itoa(n)}}, nil
	case len(list) == 0:
		return nil, fmt.Errorf("%w: which tokens? name their serials, or select them by at least one condition", ErrInvalid)
	}
	return list, nil
}

// told is the bulk's detail with more.
func (b *bulk) told(more ...audit.Field) []audit.Field {
	return append(slices.Clone(b.detail), more...)
}

// named goes through serials, each once.
func (b *bulk) named(ctx context.Context, serials []string, f func(BulkItem) error) error {
	met := make(map[string]bool, len(serials))
	for _, serial := range serials {
		if met[serial] {
			continue
		}
		met[serial] = true
		if err := b.one(ctx, serial, nil, f); err != nil {
			return err
		}
	}
	return nil
}

// selected goes through the selection.
func (b *bulk) selected(ctx context.Context, f func(BulkItem) error) error {
	q := b.query
	for {
		list, next, err := b.s.db.Tokens(ctx, q)
		if err != nil {
			return unavailable(err)
		}
		for i := range list {
			if err := b.one(ctx, list[i].Serial, &list[i], f); err != nil {
				return err
			}
		}
		if next == 0 {
			return nil
		}
		q.After = next
	}
}

// one does the act to one token, or says what it would do. The error ends the bulk.
func (b *bulk) one(ctx context.Context, serial string, as *Token, f func(BulkItem) error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: interrupted: %w", ErrUnavailable, context.Cause(ctx))
	}
	item := BulkItem{Serial: serial}
	var d deed
	err := errNoToken
	if ValidSerial(serial) == nil {
		a := b.act(serial, as, &item.User)
		if b.r.DryRun {
			d, err = b.s.rehearse(ctx, b.p, a)
		} else {
			d, err = b.s.enact(ctx, b.p, a)
		}
	}
	switch {
	case err == nil && d.same():
		item.Outcome = BulkUnchanged
		b.report.Unchanged++
	case err == nil && b.r.DryRun:
		item.Outcome = BulkWould
		b.report.Done++
	case err == nil:
		item.Outcome = BulkDone
		b.report.Done++
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrMFARequired), errors.Is(err, ErrUnknownKey):
		return err
	default:
		item.Outcome, item.Reason = BulkRefused, sentence(err)
		b.report.Refused++
	}
	b.report.Matched++
	return f(item)
}

// act is the bulk's act on one token. as is how the token was read in a selection; nil
// where it was named. owner is set to whoever holds it before.
func (b *bulk) act(serial string, as *Token, owner *string) act {
	var a act
	switch b.r.Act {
	case "suspend":
		a = b.s.moving(policy.TokenSuspend, b.realm, serial, b.r.Reason, suspend)
	case "resume":
		a = b.s.moving(policy.TokenResume, b.realm, serial, b.r.Reason, resume)
	case "lost":
		a = b.s.moving(policy.TokenLost, b.realm, serial, b.r.Reason, lose)
	case "revoke":
		a = b.s.moving(policy.TokenRevoke, b.realm, serial, b.r.Reason, revoke)
	case "unassign":
		a = b.s.moving(policy.TokenUnassign, b.realm, serial, b.r.Reason, takeBack)
	case "expire":
		a = b.s.expiring(b.realm, serial, b.r.Expires)
	default:
		a = b.s.annotating(b.realm, serial, b.note)
	}
	a.event.Detail = append(a.event.Detail, audit.Field{Name: "bulk", Value: b.id})
	decide := a.decide
	a.decide = func(ctx context.Context, d *deed) error {
		*owner = ""
		if sub, t, err := tokenOf(d.found[0], serial); err == nil {
			if sub.User != nil {
				*owner = sub.User.Key
			}
			if as != nil && (t.ID != as.ID || t.State != as.State || t.OwnerID != as.OwnerID) {
				d.event.User = *owner
				return fmt.Errorf("%w: token %s was changed by somebody else since it was selected", ErrState, serial)
			}
		}
		return decide(ctx, d)
	}
	return a
}

// sentence is an error's text without the words of its kind.
func sentence(err error) string {
	text := err.Error()
	for _, kind := range []error{ErrInvalid, ErrNotFound, ErrState, ErrExists, ErrForbidden} {
		if errors.Is(err, kind) {
			return strings.TrimPrefix(text, kind.Error()+": ")
		}
	}
	return text
}
