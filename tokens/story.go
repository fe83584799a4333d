package tokens

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// StoryItem is one thing that happened to a user or a token, or several logins that
// are told as one.
type StoryItem struct {
	Time    time.Time
	Action  string
	Outcome string // of several logins: accept, if one of them was accepted
	Actor   string // who did it, as the audit has it; empty for what was told from the token itself
	User    string
	Serial  string    // of several logins: empty if not all were with the same token
	Text    string    // a sentence, or a few
	Count   int       // records that it tells
	Until   time.Time // of the last of them
}

// storyRecords is how many audit records one page of a story is told from, at most.
const storyRecords = 5000

// TokenStory tells what happened to a token: the page of items before a place (zero:
// the newest), oldest first within it. next is the place before which the page before
// ends; zero if this one begins with the beginning. A page may be short, or empty,
// though there is another.
func (s *Service) TokenStory(ctx context.Context, p Principal, realm, serial string, before int64, most int) ([]StoryItem, int64, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return nil, 0, err
	}
	e := audit.Event{Realm: realm, Serial: serial}
	if err := s.authorise(ctx, p, policy.TokenStory, &e); err != nil {
		return nil, 0, err
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, Serial: serial}})
	if err != nil {
		return nil, 0, unavailable(err)
	}
	sub, t, err := tokenOf(view.Subjects[0], serial)
	if err != nil {
		return nil, 0, s.refuse(ctx, p, policy.TokenStory, e, err)
	}
	if sub.User != nil {
		e.User = sub.User.Key
	}
	items, next, err := s.tell(ctx, RecordQuery{Realm: realm, Serial: serial, Before: before}, most)
	if err != nil {
		return nil, 0, err
	}
	if next == 0 && t.Batch != 0 {
		came, err := s.arrival(ctx, t)
		if err != nil {
			return nil, 0, err
		}
		items = slices.Insert(items, 0, came)
	}
	return items, next, s.record(ctx, p, policy.TokenStory, e)
}

// UserStory tells what happened to a user and with all tokens that the user ever
// had. Pages are as those of TokenStory.
func (s *Service) UserStory(ctx context.Context, p Principal, realm, user string, before int64, most int) ([]StoryItem, int64, error) {
	realm, key, err := p.names(realm, user)
	if err != nil {
		return nil, 0, err
	}
	e := audit.Event{Realm: realm, User: key}
	if err := s.authorise(ctx, p, policy.UserStory, &e); err != nil {
		return nil, 0, err
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, User: key}})
	if err != nil {
		return nil, 0, unavailable(err)
	}
	if view.Subjects[0] == nil {
		return nil, 0, s.refuse(ctx, p, policy.UserStory, e, noUser(realm, user))
	}
	items, next, err := s.tell(ctx, RecordQuery{Realm: realm, User: key, Before: before}, most)
	if err != nil {
		return nil, 0, err
	}
	return items, next, s.record(ctx, p, policy.UserStory, e)
}

// arrival tells how an imported token came.
func (s *Service) arrival(ctx context.Context, t *Token) (StoryItem, error) {
	list, err := s.db.Batches(ctx, BatchQuery{ID: t.Batch, Limit: 1})
	if err != nil {
		return StoryItem{}, unavailable(err)
	}
	it := StoryItem{
		Time: t.Created, Until: t.Created, Action: string(policy.ImportPublish), Outcome: "ok", Serial: t.Serial, Count: 1,
		Text: fmt.Sprintf("Token %s came with import %d.", t.Serial, t.Batch),
	}
	if len(list) > 0 {
		it.Actor = list[0].Actor
		it.Text = fmt.Sprintf("Token %s came with import %d (%s), by %s.", t.Serial, t.Batch, quoted(list[0].Name), s.who(list[0].Actor))
	}
	return it, nil
}

// tell reads what q selects and makes a page of it.
func (s *Service) tell(ctx context.Context, q RecordQuery, most int) (items []StoryItem, next int64, err error) {
	most = limit(most)
	var records []audit.Record // newest first
	for looked := 0; looked < storyRecords; {
		q.Limit = 1000
		list, more, err := s.db.Records(ctx, q)
		if err != nil {
			return nil, 0, unavailable(err)
		}
		for _, r := range list {
			if !looksOnly(&r) {
				records = append(records, r)
			}
		}
		looked += max(len(list), 100) // a page that found nothing looked at much
		if next, q.Before = more, more; more == 0 || len(fold(records)) > most {
			break
		}
	}
	groups := fold(records)
	if len(groups) > most {
		groups = groups[:most]
		oldest := groups[most-1]
		next = oldest[len(oldest)-1].ID
	}
	for _, g := range slices.Backward(groups) {
		items = append(items, s.item(g))
	}
	return items, next, nil
}

// looksOnly says whether a record is of somebody who looked, which is no part of
// the story.
func looksOnly(r *audit.Record) bool {
	switch policy.Action(r.Action) {
	case policy.UserShow, policy.UserWhy, policy.TokenShow, policy.TokenDrift, policy.TokenStory, policy.UserStory,
		policy.UserExport, policy.InviteList, policy.StatementGive, policy.StatementCheck:
		return r.Outcome != "denied"
	}
	return false
}

// streak is how many refused logins in a row are told by themselves.
const streak = 3

// fold puts records, newest first, into groups that are told as one: logins in a row,
// with the few refused ones among them; refused ones of which there were several in
// a row; and anything else alone.
func fold(records []audit.Record) [][]audit.Record {
	var groups [][]audit.Record
	add := func(from, to int) {
		if from < to {
			groups = append(groups, records[from:to:to])
		}
	}
	for i := 0; i < len(records); {
		if !everyday(&records[i]) {
			add(i, i+1)
			i++
			continue
		}
		run := i
		for run < len(records) && everyday(&records[run]) {
			run++
		}
		from := i
		for i < run {
			refused := i
			asked := 0
			for refused < run && records[refused].Outcome != "accept" {
				if records[refused].Outcome == "challenge" {
					asked++
				}
				refused++
			}
			switch {
			case refused-i-asked >= streak:
				add(from, i)
				add(i, refused)
				from, i = refused, refused
			case refused > i:
				i = refused
			default:
				i++
			}
		}
		add(from, run)
	}
	return groups
}

// everyday says whether a record is of a login that needs not be told by itself.
func everyday(r *audit.Record) bool {
	if r.Action != string(policy.Verify) {
		return false
	}
	switch r.Outcome {
	case "accept":
		return detail(r, fieldNumber) == "" && !twoCodes(r) // the use of a passcode is told, and that a token was found again
	case "challenge":
		return Reason(r.Reason) == ReasonPINFirst
	case "reject":
	default:
		return false
	}
	switch Reason(r.Reason) {
	case ReasonWrongCode, ReasonWrongPIN, ReasonNoPIN, ReasonPINMethod, ReasonReplay, ReasonThrottled, ReasonNoToken, ReasonSuspended, ReasonLost,
		ReasonExpiredToken, ReasonDisabled, ReasonUnknownUser, ReasonExpired, ReasonNotVerified, ReasonMalformed, ReasonPINDue,
		ReasonDialogueExpired, ReasonDialogueInvalid, ReasonDialogueSpent:
		return true
	}
	return false
}

// item tells a group of records, newest first.
func (s *Service) item(group []audit.Record) StoryItem {
	first, last := &group[len(group)-1], &group[0]
	it := StoryItem{
		Time: first.Time, Until: last.Time, Action: first.Action, Outcome: first.Outcome,
		Actor: first.Actor, User: first.User, Serial: first.Serial, Count: len(group),
	}
	if len(group) == 1 {
		it.Text = s.sentence(first)
		return it
	}
	accepted, asked := 0, 0
	why := map[Reason]int{}
	for i := range group {
		r := &group[i]
		if r.Outcome == "accept" {
			accepted++
			it.Outcome = "accept"
		} else if r.Outcome == "challenge" {
			asked++ // what came of it is another record
		} else {
			why[Reason(r.Reason)]++
		}
		if r.Actor != it.Actor {
			it.Actor = ""
		}
		if r.Serial != it.Serial && (r.Serial != "" || r.Outcome == "accept") {
			it.Serial = several
		}
	}
	if it.Serial == several {
		it.Serial = ""
	}
	if asked == len(group) {
		it.Text = sayTimes(count(asked, "question")+" for a code that nobody answered", first.Time, last.Time)
		return it
	}
	it.Count -= asked
	it.Text = sayLogins(accepted, why, it.Serial, first.Time, last.Time)
	return it
}

// several stands for more than one serial; no serial has a space.
const several = "several tokens"

func sayLogins(accepted int, why map[Reason]int, serial string, from, to time.Time) string {
	var b strings.Builder
	refused := 0
	for _, n := range why {
		refused += n
	}
	switch {
	case accepted == 0:
		b.WriteString(count(refused, "refused login"))
	default:
		b.WriteString(count(accepted, "login"))
		if serial != "" {
			b.WriteString(" with token " + serial)
		}
		if refused > 0 {
			fmt.Fprintf(&b, ", and %d refused", refused)
		}
	}
	if refused > 0 {
		reasons := make([]Reason, 0, len(why))
		for r := range why {
			reasons = append(reasons, r)
		}
		slices.SortFunc(reasons, func(a, b Reason) int {
			if why[a] != why[b] {
				return why[b] - why[a]
			}
			return strings.Compare(string(a), string(b))
		})
		for i, r := range reasons {
			open := ", "
			if i == 0 {
				open = " ("
			}
			fmt.Fprintf(&b, "%s%d %s", open, why[r], shortly(r))
		}
		b.WriteString(")")
	}
	return sayTimes(b.String(), from, to)
}

// sayTimes says when something was, which is a sentence then.
func sayTimes(what string, from, to time.Time) string {
	a, z := sayTime(from), sayTime(to)
	if a == z {
		return what + " on " + a + "."
	}
	return what + " between " + a + " and " + z + "."
}

// shortly names a reason in a list.
func shortly(r Reason) string {
	switch r {
	case ReasonWrongCode:
		return "with a wrong code"
	case ReasonWrongPIN:
		return "with a wrong PIN"
	case ReasonPINMethod:
		return "without the PIN, which CHAP and MS-CHAP cannot show"
	case ReasonNoPIN:
		return "without the PIN"
	case ReasonReplay:
		return "with a code that was used before"
	case ReasonThrottled:
		return "after too many failures"
	case ReasonNoToken:
		return "without a token"
	case ReasonSuspended:
		return "while the token was suspended"
	case ReasonLost:
		return "while the token was lost"
	case ReasonExpiredToken:
		return "after the token had expired"
	case ReasonDisabled:
		return "while the user was disabled"
	case ReasonPINDue:
		return "while the PIN was to be changed"
	case ReasonUnknownUser:
		return "before there was such a user"
	case ReasonExpired:
		return "too late"
	case ReasonNotVerified:
		return "without the key's PIN"
	}
	return strings.ReplaceAll(string(r), "_", " ")
}
