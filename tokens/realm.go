package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// AnyRealm is asked for in the place of a realm for the rules that count wherever
// there are no others. No realm has that name for Rules, SetRules and DropRules.
const AnyRealm = "*"

// RealmRules are the rules that count in a realm.
type RealmRules struct {
	Realm   string // folded; or AnyRealm
	Version int64  // of its own rules; zero if it has none
	Own     bool   // else they are those of AnyRealm, or if nobody made any, DefaultRules
	Rules   Rules
}

// rulesPrefix precedes a realm in the name of the document that holds its rules;
// nothing follows where they are those of AnyRealm.
const rulesPrefix = "rules/"

// rulesDocument is what the document holds. It says its version, so that what it
// said before counts for nothing beside the version of now. Rules that were dropped
// leave it, so that those who make others go on with the versions, and nobody takes
// new rules for those that they have seen.
//
// Whoever can write to the database can still put the whole row back, or take it
// away: then what counted before counts again, or what counts without. The audit says
// which version is the last.
type rulesDocument struct {
	Version int64 `json:"version"`
	Dropped bool  `json:"dropped,omitempty"`
	Rules   Rules `json:"rules"`
}

// rulesRealm folds what names a realm here, and says where its rules are. The
// realm that an act on them is in is empty for those of AnyRealm: they concern
// all.
func (p Principal) rulesRealm(asked string) (realm, in, document string, err error) {
	if asked == AnyRealm {
		return AnyRealm, "", rulesPrefix, nil
	}
	realm, err = p.realm(asked)
	return realm, realm, rulesPrefix + realm, err
}

// readRules answers the rules that a document holds, with its version; ErrNotFound,
// with a version where they were dropped. An altered one is ErrTampered, with the
// version that it has all the same.
func (s *Service) readRules(ctx context.Context, document string) (Rules, int64, error) {
	d, err := s.SealedDocument(ctx, document)
	if err != nil {
		return Rules{}, d.Version, err
	}
	held := rulesDocument{Rules: DefaultRules()} // for what a later version adds
	err = json.Unmarshal(d.Data, &held)
	switch {
	case err != nil || held.Version != d.Version || held.Rules.check() != nil:
		return Rules{}, d.Version, fmt.Errorf("%w (document %s)", ErrTampered, document)
	case held.Dropped:
		return Rules{}, d.Version, fmt.Errorf("%w: the rules were dropped", ErrNotFound)
	}
	return held.Rules, d.Version, nil
}

// ruling are the rules that count in a realm.
func (s *Service) ruling(ctx context.Context, realm, document string) (RealmRules, error) {
	r, version, err := s.readRules(ctx, document)
	if err == nil {
		return RealmRules{Realm: realm, Version: version, Own: true, Rules: r}, nil
	}
	if errors.Is(err, ErrNotFound) && document != rulesPrefix {
		r, _, err = s.readRules(ctx, rulesPrefix)
	}
	if errors.Is(err, ErrNotFound) {
		return RealmRules{Realm: realm, Rules: DefaultRules()}, nil
	}
	if isTampered(err) {
		err = fmt.Errorf("%w: the rules of realm %s; who may set rules can set them anew", err, realm)
	}
	return RealmRules{Realm: realm, Rules: r}, err
}

// rulesOf answers the rules that count in a realm, which is folded. Where they
// were altered outside Watchword it fails with ErrTampered: what needs them is
// refused, and verifying, which does not, goes on.
func (s *Service) rulesOf(ctx context.Context, realm string) (Rules, error) {
	r, err := s.ruling(ctx, realm, rulesPrefix+realm)
	return r.Rules, err
}

// Rules answers the rules that count in a realm; for AnyRealm, those that count
// where there are no others.
func (s *Service) Rules(ctx context.Context, p Principal, realm string) (RealmRules, error) {
	realm, in, document, err := p.rulesRealm(realm)
	if err != nil {
		return RealmRules{}, err
	}
	e := audit.Event{Realm: in}
	if err := s.authorise(ctx, p, policy.RealmShow, &e); err != nil {
		return RealmRules{}, err
	}
	r, err := s.ruling(ctx, realm, document)
	if err != nil {
		return RealmRules{}, s.refuse(ctx, p, policy.RealmShow, e, err)
	}
	return r, s.record(ctx, p, policy.RealmShow, e)
}

// SetRules gives a realm rules of its own, if the version of those that it has is
// still expect: zero for none; -1: whatever there is. ErrState says that it is not.
// With AnyRealm they count in each realm that has none of its own. The next act on
// any node follows them; what was done before stays as it is.
func (s *Service) SetRules(ctx context.Context, p Principal, realm string, expect int64, r Rules) (RealmRules, error) {
	if err := r.check(); err != nil {
		return RealmRules{}, err
	}
	return s.putRules(ctx, p, realm, expect, &r)
}

// DropRules takes a realm's own rules away, so that those of AnyRealm count there,
// and answers these; of AnyRealm itself, so that DefaultRules do.
func (s *Service) DropRules(ctx context.Context, p Principal, realm string) (RealmRules, error) {
	return s.putRules(ctx, p, realm, -1, nil)
}

// putRules sets a realm's own rules, or drops them if r is nil.
func (s *Service) putRules(ctx context.Context, p Principal, realm string, expect int64, r *Rules) (RealmRules, error) {
	realm, in, document, err := p.rulesRealm(realm)
	if err != nil {
		return RealmRules{}, err
	}
	e := audit.Event{Realm: in}
	if err := s.authorise(ctx, p, policy.RealmRules, &e); err != nil {
		return RealmRules{}, err
	}
	for range conflicts {
		version, err := s.tryRules(ctx, p, document, expect, r, e)
		switch {
		case errors.Is(err, ErrConflict): // another node was first
			if err := s.reloadRegistry(ctx); err != nil {
				return RealmRules{}, err
			}
			continue
		case err != nil:
			return RealmRules{}, s.refuse(ctx, p, policy.RealmRules, e, err)
		case r == nil:
			return s.ruling(ctx, realm, document)
		}
		return RealmRules{Realm: realm, Version: version, Own: true, Rules: *r}, nil
	}
	return RealmRules{}, fmt.Errorf("%w: the rules are changed elsewhere all the time", ErrUnavailable)
}

// tryRules is one attempt to set or drop rules, and answers the version that they
// then have. Those that were altered can be replaced.
func (s *Service) tryRules(ctx context.Context, p Principal, document string, expect int64, r *Rules, e audit.Event) (int64, error) {
	was, stored, err := s.readRules(ctx, document)
	altered, none := isTampered(err), errors.Is(err, ErrNotFound)
	if err != nil && !altered && !none {
		return 0, err
	}
	version := stored // as everybody sees it
	if none {
		version = 0
	}
	if expect >= 0 && expect != version {
		return 0, fmt.Errorf("%w: the rules have version %d, not %d: someone else changed them meanwhile; read them again, and change that", ErrState, version, expect)
	}
	e.Detail = []audit.Field{{Name: "document", Value: document}, {Name: "version", Value: strconv.FormatInt(version, 10)}}
	if r == nil && none || r != nil && err == nil && *r == was {
		e.Reason = string(ReasonUnchanged)
		return version, s.record(ctx, p, policy.RealmRules, e)
	}
	next := rulesDocument{Version: stored + 1, Dropped: r == nil, Rules: DefaultRules()}
	if r == nil {
		e.Detail = append(e.Detail, audit.Field{Name: "rules", Value: "dropped"})
	} else {
		next.Rules = *r
		if none || altered { // what is told is how they differ from what counts without any
			was = DefaultRules()
			e.Detail = append(e.Detail, audit.Field{Name: "rules", Value: "new"})
		}
		e.Detail = append(e.Detail, was.changes(r)...)
	}
	plain, err := json.Marshal(next)
	if err != nil {
		return 0, err
	}
	w := DocumentWrite{Name: document, Expect: stored, Updated: s.cfg.Now().UTC()}
	if w.Data, err = s.sealed(ctx, document, plain); err != nil {
		return 0, err
	}
	if altered {
		e.Detail = append(e.Detail, audit.Field{Name: "before", Value: "altered outside Watchword"})
	}
	if err := s.ledger.commit(ctx, &Change{Documents: []DocumentWrite{w}}, []audit.Event{s.event(p, policy.RealmRules, e)}); err != nil {
		return 0, err
	}
	s.takeUp(ctx)
	return next.Version, nil
}

// Realms lists the realms in which there is anything, or which have rules of their own,
// in order of name, with what they hold. A principal of one realm sees that one.
func (s *Service) Realms(ctx context.Context, p Principal) ([]RealmEntry, error) {
	e := audit.Event{Realm: p.Realm}
	if err := s.authorise(ctx, p, policy.RealmList, &e); err != nil {
		return nil, err
	}
	all, err := s.db.Realms(ctx, p.Realm)
	if err != nil {
		return nil, unavailable(err)
	}
	list := make([]RealmEntry, 0, len(all))
	for _, r := range all {
		if r.Users+r.Tokens+r.Clients+r.Keys == 0 { // its rules may have been dropped
			switch _, _, err := s.readRules(ctx, rulesPrefix+r.Name); {
			case errors.Is(err, ErrNotFound):
				continue
			case err != nil && !isTampered(err):
				return nil, err
			}
		}
		list = append(list, r)
	}
	return list, s.record(ctx, p, policy.RealmList, e)
}
