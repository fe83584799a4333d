package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// ReplayReport says what a draft would have changed.
type ReplayReport struct {
	Read     int            // audit records
	Compared int            // decisions among them that could be asked again
	Changed  int            // of these, whose answer is another one
	Allowed  int            // of those, what is allowed now
	Denied   int            // and what is denied now
	Changes  []ReplayChange // the first hundred, newest first
	Left     []ReplayLeft   // decisions that could not be asked again, by reason
}

// ReplayChange is a decision that a draft would have taken otherwise.
type ReplayChange struct {
	Record                   int64
	Time                     time.Time
	Actor, Action            string
	Realm, User, Serial      string
	Was, Now                 bool
	WasPolicies, NowPolicies []string
	Reason                   string // why not now
}

// ReplayLeft are records that could not be asked again.
type ReplayLeft struct {
	Why     string
	Count   int
	Records []int64 // the first hundred, newest first
}

// The bounds of a replay.
const (
	maxReplay    = 100_000
	maxChanges   = 100
	replayCached = 20_000
)

// Replay asks a draft about the decisions in the last audit records, up to 100,000,
// and answers what would have been otherwise. A decision is asked again with the roles,
// groups and tokens of now, at its time, from its address; how old a person's proof
// was is not in the audit: it is taken for young, unless just that was refused. Where
// the live policies do not decide now as was decided then, more than the draft is
// other, and the record is left out.
func (s *Service) Replay(ctx context.Context, p Principal, draft policy.Source, last int) (ReplayReport, error) {
	e := audit.Event{Detail: []audit.Field{{Name: "for", Value: "replay"}, {Name: "last", Value: strconv.Itoa(last)}}}
	if err := s.authorise(ctx, p, policy.PolicySimulate, &e); err != nil {
		return ReplayReport{}, err
	}
	r, err := s.replay(ctx, draft, last)
	if err != nil {
		return ReplayReport{}, s.refuse(ctx, p, policy.PolicySimulate, e, err)
	}
	e.Detail = append(e.Detail, audit.Field{Name: "compared", Value: strconv.Itoa(r.Compared)}, audit.Field{Name: "changed", Value: strconv.Itoa(r.Changed)})
	return r.ReplayReport, s.record(ctx, p, policy.PolicySimulate, e)
}

// replay is one Replay.
type replay struct {
	ReplayReport
	s           *Service
	live, draft *policy.Set
	left        map[string]int // by reason, the place in Left
	subjects    map[Ref]*Subject
	groups      map[int64][]string
}

func (s *Service) replay(ctx context.Context, draft policy.Source, last int) (*replay, error) {
	if last < 1 || last > maxReplay {
		return nil, fmt.Errorf("%w: the last %d records; 1 to %d can be read", ErrInvalid, last, maxReplay)
	}
	r := &replay{s: s, left: map[string]int{}}
	r.forget()
	var err error
	if r.draft, err = s.draftOr(&draft); err != nil {
		return nil, err
	}
	if r.live, err = s.draftOr(nil); err != nil {
		return nil, err
	}
	q := RecordQuery{Limit: 1000}
	for r.Read < last {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		q.Limit = min(1000, last-r.Read)
		page, next, err := s.db.Records(ctx, q)
		if err != nil {
			return nil, unavailable(err)
		}
		r.Read += len(page)
		if err := r.page(ctx, page); err != nil {
			return nil, err
		}
		if next == 0 {
			break
		}
		q.Before = next
	}
	return r, nil
}

func (r *replay) forget() {
	r.subjects, r.groups = map[Ref]*Subject{}, map[int64][]string{}
}

// page asks about the decisions among some records.
func (r *replay) page(ctx context.Context, page []audit.Record) error {
	if len(r.subjects) > replayCached {
		r.forget()
	}
	var refs []Ref
	for i := range page {
		for _, ref := range about(&page[i].Event) {
			if _, known := r.subjects[ref]; !known {
				r.subjects[ref] = nil
				refs = append(refs, ref)
			}
		}
	}
	for from := 0; from < len(refs); from += loadPage {
		some := refs[from:min(from+loadPage, len(refs))]
		view, err := r.s.db.Load(ctx, some)
		if err != nil {
			return unavailable(err)
		}
		for i, ref := range some {
			r.subjects[ref] = view.Subjects[i]
		}
	}
	for i := range page {
		if err := r.one(ctx, &page[i]); err != nil {
			return err
		}
	}
	return nil
}

// decidedAs are the actions that were decided by another name than they are told.
var decidedAs = map[policy.Action]policy.Action{
	policy.StatementGive: policy.Verify, policy.ImportDiscard: policy.ImportBegin,
	policy.ImportTransport: policy.ImportBegin, policy.ImportPGP: policy.ImportBegin,
}

// one asks about one record.
func (r *replay) one(ctx context.Context, rec *audit.Record) error {
	if rec.Actor == string(KindSystem) || rec.Actor == "" {
		return nil // nobody was asked
	}
	by, many, first := "", false, ""
	for _, f := range rec.Detail {
		switch f.Name {
		case audit.FieldPolicy:
			by = f.Value
		case "attempts":
			many = true
		case fieldFirst:
			first = f.Value
		}
	}
	forbidden := string(ReasonForbidden)
	was := rec.Outcome != "denied" && (rec.Action != string(policy.Verify) || rec.Reason != forbidden && first != forbidden)
	switch {
	case many:
		r.leave(rec, "it stands for several attempts")
		return nil
	case rec.Outcome == "error" || rec.Reason == string(ReasonMalformed):
		r.leave(rec, "it ended before it was decided")
		return nil
	}
	who, err := r.s.principalNamed(rec.Actor, rec.Realm)
	switch {
	case errors.Is(err, ErrNotFound):
		r.leave(rec, "who asked is not there any more")
		return nil
	case err != nil:
		r.leave(rec, "who asked cannot be told")
		return nil
	}
	q := policy.Query{Principal: who, Action: policy.Action(rec.Action)}
	if as, ok := decidedAs[q.Action]; ok {
		q.Action = as
	}
	var found []*Subject
	for _, ref := range about(&rec.Event) {
		found = append(found, r.subjects[ref])
	}
	var user int64
	if q.Resource, user = resource(&rec.Event, found, rec.Time); rec.User != "" && q.Resource.User != rec.User { // it was somebody else's then
		q.Resource.User, user = rec.User, 0
		for _, sub := range found {
			if sub != nil && sub.User != nil && sub.User.Key == rec.User {
				user = sub.User.ID
			}
		}
	}
	if r.draft.Groups() || r.live.Groups() {
		if q.Resource.Groups, err = r.groupsOf(ctx, &q.Resource, user); err != nil {
			return err
		}
	}
	asked := Principal{Source: rec.Source}
	q.Context = r.s.context(asked, rec.Time)
	for _, f := range rec.Detail {
		if f.Name == "transport" && f.Value != "" {
			q.Context.Path = strings.TrimSuffix(f.Value, trialTransport)
		}
	}
	if who.Kind == policy.KindAdmin && !slices.Contains(splitPolicies(by), "builtin.mfa") {
		q.Context.MFA = true
	}
	if now := r.live.Decide(&q); now.Allow != was {
		r.leave(rec, "the policies that count now decide it otherwise than was decided then")
		return nil
	}
	r.Compared++
	now := r.draft.Decide(&q)
	if now.Allow == was {
		return nil
	}
	r.Changed++
	if now.Allow {
		r.Allowed++
	} else {
		r.Denied++
	}
	if len(r.Changes) < maxChanges {
		c := ReplayChange{
			Record: rec.ID, Time: rec.Time, Actor: rec.Actor, Action: rec.Action, Realm: rec.Realm, User: rec.User, Serial: rec.Serial,
			Was: was, Now: now.Allow, NowPolicies: now.Policies, Reason: now.Reason,
		}
		if by != "" {
			c.WasPolicies = splitPolicies(by)
		}
		r.Changes = append(r.Changes, c)
	}
	return nil
}

func (r *replay) groupsOf(ctx context.Context, of *policy.Resource, user int64) ([]string, error) {
	if user == 0 {
		return nil, nil
	}
	if list, ok := r.groups[user]; ok {
		return list, nil
	}
	list, err := r.s.groupsFor(ctx, of, user)
	if err == nil {
		r.groups[user] = list
	}
	return list, err
}

// leave notes a record that is not compared.
func (r *replay) leave(rec *audit.Record, why string) {
	i, ok := r.left[why]
	if !ok {
		i = len(r.Left)
		r.left[why] = i
		r.Left = append(r.Left, ReplayLeft{Why: why})
	}
	l := &r.Left[i]
	l.Count++
	if len(l.Records) < maxChanges {
		l.Records = append(l.Records, rec.ID)
	}
}
