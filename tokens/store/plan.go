package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"watchword/tokens"
)

// plan is a change that was looked at and put in the order in which rows are
// locked.
type plan struct {
	*tokens.Change
	standings []tokens.StandingWrite // by user
	owned     []tokens.MotionWrite   // of owned tokens, by token
	unowned   []tokens.MotionWrite   // of others, by token
	tokens    []tokens.TokenWrite    // by token
	links     []link                 // by chain
	notes     []tokens.NoteWrite     // by token
	spends    []tokens.Spend         // by hash

	userIDs, tokenIDs []int64 // of what was inserted
}

// link is what a change adds to one audit chain.
type link struct {
	chain, first, last int64
	hash               [32]byte
}

// hot says whether the change holds nothing but what a batch of attempts does.
func (p *plan) hot() bool {
	return len(p.NewUsers)+len(p.NewTokens)+len(p.Users)+len(p.Tokens)+len(p.Clients)+len(p.Keys)+len(p.Documents)+
		len(p.Groups)+len(p.Profiles)+len(p.Notes)+len(p.Invites)+len(p.Grants)+len(p.Sessions)+len(p.Publish)+len(p.unowned) == 0
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: refused to commit: "+format, append([]any{tokens.ErrInvalid}, args...)...)
}

// makePlan refuses a change that contradicts itself.
func makePlan(c *tokens.Change) (*plan, error) {
	p := &plan{Change: c, standings: c.Standings, tokens: c.Tokens}
	if len(c.Records) == 0 {
		return nil, refused("a change without an audit record")
	}

	byUser := func(a, b tokens.StandingWrite) int { return cmp.Compare(a.UserID, b.UserID) }
	if !slices.IsSortedFunc(p.standings, byUser) {
		p.standings = slices.SortedStableFunc(slices.Values(p.standings), byUser)
	}
	for i, w := range p.standings {
		switch {
		case w.Expect < 1 || w.Next.Version != w.Expect+1:
			return nil, refused("the standing of user %d goes from version %d to %d", w.UserID, w.Expect, w.Next.Version)
		case i > 0 && w.UserID == p.standings[i-1].UserID:
			return nil, refused("the standing of user %d is written twice", w.UserID)
		}
	}
	for i, u := range c.Users {
		if !p.moves(u.ID) {
			return nil, refused("user %d changes without a standing", u.ID)
		}
		if slices.ContainsFunc(c.Users[:i], func(v tokens.User) bool { return v.ID == u.ID }) {
			return nil, refused("user %d is written twice", u.ID)
		}
	}
	for i, n := range c.NewUsers {
		if n.User == nil || n.User.ID != 0 {
			return nil, refused("new user %d is nil or has an ID already", i)
		}
		if err := text(n.User.Realm, n.User.Key, n.User.Name); err != nil {
			return nil, err
		}
		if err := checkProfile(&n.User.Profile); err != nil {
			return nil, err
		}
		if err := checkGroups(n.Groups); err != nil {
			return nil, err
		}
	}

	byToken := func(a, b tokens.TokenWrite) int { return cmp.Compare(a.Token.ID, b.Token.ID) }
	if !slices.IsSortedFunc(p.tokens, byToken) {
		p.tokens = slices.SortedStableFunc(slices.Values(p.tokens), byToken)
	}
	for i, w := range p.tokens {
		switch {
		case w.Expect < 1:
			return nil, refused("token %d is written without a version", w.Token.ID)
		case i > 0 && w.Token.ID == p.tokens[i-1].Token.ID:
			return nil, refused("token %d is written twice", w.Token.ID)
		}
		if err := checkPasscodes(&w.Token); err != nil {
			return nil, err
		}
	}
	for _, check := range []func() error{p.splitMotions, p.checkNewTokens, p.checkProfiles, p.sortNotes, p.sortSpends, p.checkCabinet, p.checkGrants, p.checkSessions} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return p, p.linkRecords()
}

// moves says whether the change moves the user's standing.
func (p *plan) moves(user int64) bool {
	_, found := slices.BinarySearchFunc(p.standings, user, func(w tokens.StandingWrite, id int64) int {
		return cmp.Compare(w.UserID, id)
	})
	return found
}

// guarded says whether the change is conditional on the token's own version.
func (p *plan) guarded(token int64) bool {
	_, found := slices.BinarySearchFunc(p.tokens, token, func(w tokens.TokenWrite, id int64) int {
		return cmp.Compare(w.Token.ID, id)
	})
	return found
}

func (p *plan) splitMotions() error {
	byToken := func(a, b tokens.MotionWrite) int { return cmp.Compare(a.TokenID, b.TokenID) }
	motions := p.Motions
	if !slices.IsSortedFunc(motions, byToken) {
		motions = slices.SortedStableFunc(slices.Values(motions), byToken)
	}
	p.owned = make([]tokens.MotionWrite, 0, len(motions))
	for i, w := range motions {
		switch {
		case i > 0 && w.TokenID == motions[i-1].TokenID:
			return refused("token %d moves twice", w.TokenID)
		case w.UserID != 0 && !p.moves(w.UserID):
			return refused("token %d moves without a standing of its owner", w.TokenID)
		case w.UserID == 0 && w.Expect < 1 && !p.guarded(w.TokenID):
			return refused("token %d, which has no owner, moves without a version", w.TokenID)
		case w.UserID == 0:
			p.unowned = append(p.unowned, w)
		default:
			p.owned = append(p.owned, w)
		}
	}
	return nil
}

// linkRecords finds what the records add to each chain. A gap among them is
// as good as one in the database.
func (p *plan) linkRecords() error {
	for i := range p.Records {
		r := &p.Records[i]
		if err := text(r.Action, r.Outcome, r.Realm, r.User, r.Serial, r.Actor, r.Client, r.Source, r.Reason); err != nil {
			return err
		}
		for _, f := range r.Detail {
			if err := text(f.Name, f.Value); err != nil {
				return err
			}
		}
		j := slices.IndexFunc(p.links, func(l link) bool { return l.chain == r.Chain })
		if j < 0 {
			p.links = append(p.links, link{chain: r.Chain, first: r.Seq, last: r.Seq - 1})
			j = len(p.links) - 1
		}
		l := &p.links[j]
		if r.Seq != l.last+1 || r.Seq < 1 {
			return moved(r.Chain)
		}
		l.last, l.hash = r.Seq, r.Hash
	}
	slices.SortFunc(p.links, func(a, b link) int { return cmp.Compare(a.chain, b.chain) })
	return nil
}

// moved says that a chain has another head.
func moved(chain int64) error {
	return fmt.Errorf("%w: chain %d", tokens.ErrChainMoved, chain)
}

// text refuses what not every database can keep as text.
func text(values ...string) error {
	for _, s := range values {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return refused("a text that is not UTF-8, or holds a NUL")
		}
	}
	return nil
}
