package tokens

import (
	"context"
	"fmt"
	"strings"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Explanation is one attempt or act in words that the helpdesk can say on the
// telephone.
type Explanation struct {
	Record audit.Record
	Words  string // what happened
	Advice string // what to do about it; empty if nothing
}

// whyPages are how many pages of a user's audit records, a thousand each, Why
// looks through for attempts and acts.
const whyPages = 10

// Why answers what last happened to a user, newest first, each with its reason
// and what to do about it.
func (s *Service) Why(ctx context.Context, p Principal, realm, name string, n int) ([]Explanation, error) {
	realm, key, err := p.names(realm, name)
	if err != nil {
		return nil, err
	}
	e := audit.Event{Realm: realm, User: key}
	if err := s.authorise(ctx, p, policy.UserWhy, &e); err != nil {
		return nil, err
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, User: key}})
	if err != nil {
		return nil, unavailable(err)
	}
	out := make([]Explanation, 0, limit(n))
	q := RecordQuery{Realm: realm, User: key, Limit: 1000}
	for range whyPages { // a portal that shows the user all day must not hide the attempts
		list, next, err := s.db.Records(ctx, q)
		if err != nil {
			return nil, unavailable(err)
		}
		q.Before = next
		for _, r := range list {
			switch policy.Action(r.Action) {
			case policy.UserShow, policy.UserWhy, policy.TokenShow:
				continue // someone looked; it explains nothing
			}
			if len(out) < limit(n) {
				out = append(out, explain(r))
			}
		}
		if len(out) == limit(n) || next == 0 {
			break
		}
	}
	if len(out) == 0 && view.Subjects[0] == nil {
		return nil, s.refuse(ctx, p, policy.UserWhy, e, noUser(realm, name))
	}
	return out, s.record(ctx, p, policy.UserWhy, e)
}

var explanations = map[Reason]struct{ words, advice string }{
	ReasonAccepted:      {"The code was right.", ""},
	ReasonWrongCode:     {"The code was wrong, or lay outside the window.", "Ask for a new code. If codes of the right token stay wrong, resynchronise it: watchword token resync SERIAL CODE1 CODE2."},
	ReasonWrongPIN:      {"The code was right, the PIN before it was wrong.", "Ask for the PIN again; if it is forgotten, set a new one: watchword user pin NAME."},
	ReasonNoPIN:         {"The code was right, but the PIN before it was missing.", "The PIN goes first and the code right behind it, without a space."},
	ReasonPINMethod:     {"The code was right, but the gateway's method (CHAP or MS-CHAP) cannot show the user's PIN.", "Set the gateway to PAP, or remove the PIN: watchword user pin NAME --remove."},
	ReasonReplay:        {"This code was used before.", "Wait for the next code, or take the sheet's next. If somebody else used it, mark the token lost."},
	ReasonThrottled:     {"Too many failures: attempts are turned away for a while, right or wrong.", "Wait (15 minutes at most), or unlock: watchword user unlock NAME."},
	ReasonLocked:        {"The user is locked after too many failures in a row.", "Find out who has been guessing, then unlock: watchword user unlock NAME."},
	ReasonDisabled:      {"The user is disabled.", "Enable, if that is right: watchword user enable NAME."},
	ReasonSuspended:     {"The user has no active token: it is suspended.", "Resume it, if that is right: watchword token resume SERIAL."},
	ReasonLost:          {"The user has no active token: it was marked lost.", "Assign another one, or, if it was found: watchword token resume SERIAL --reason TEXT."},
	ReasonExpiredToken:  {"The user has no active token: it has expired.", "Assign another one, or, if it should be good for longer, give it a later date: watchword token expire SERIAL."},
	ReasonSuspendedUsed: {"The code was that of a suspended token.", "Resume it, if that is right: watchword token resume SERIAL."},
	ReasonLostUsed:      {"The code was that of a token marked lost.", "Somebody has it. If it is not its owner, revoke it: watchword token revoke SERIAL."},
	ReasonExpiredUsed:   {"The code was that of a token that has expired.", "Assign another one, or, if it should be good for longer, give it a later date: watchword token expire SERIAL."},
	ReasonUsedUp:        {"The temporary passcode was right, but it was used as often as it may be.", "Make another one, if the user still has no token: watchword user temporary NAME."},
	ReasonPINDue:        {"PIN and code were right, but the PIN must be changed before it is good for anything.", "The user changes it where you offer that (POST /v1/pin), with a code; or set another one: watchword user pin NAME."},
	ReasonNoToken:       {"The user has no token that shows codes.", "Assign one: watchword token assign SERIAL NAME. If the user has a security key, it is no use where codes are asked for."},
	ReasonPINSame:       {"PIN and code were right, but the new PIN is the one that was to be changed.", "Choose another PIN."},
	ReasonUnknownUser:   {"There is no such user.", "Check the name and the realm; add the user: watchword user add NAME."},
	ReasonTampered:      {"The token's row in the database was altered outside Watchword.", "Tell security. Restore the row from a backup, or revoke the token and assign another one."},
	ReasonUnavailable:   {"The HSM or the database did not answer; nothing was decided.", "Look at /readyz and the server's log."},
	ReasonMalformed:     {"The request named no user, or held no code that could be read.", "Look at the gateway's settings: the code goes in the password, as PAP."},
	ReasonForbidden:     {"The request was not allowed.", "Use a key with another scope or realm."},
	ReasonUnchanged:     {"It was so already; nothing changed.", ""},
	ReasonRule:          {"The rules of the realm do not allow it.", "Look at them: watchword realm rules show. Who administers the realm can change them."},

	ReasonPINFirst:        {"The code was asked for, as this client has it: the PIN first, then the code.", ""},
	ReasonNextCode:        {"The code was far ahead of the window, so the next one was asked for.", "If no answer followed, ask for two codes in a row: watchword token resync SERIAL CODE1 CODE2."},
	ReasonDialogueExpired: {"The answer came too late: what was asked was too long ago.", "Log in again, and answer at once. If it stays so, compare the clocks of the servers."},
	ReasonDialogueInvalid: {"The answer was to no question that was asked of this user through this client, or the client asks it no more.", "Log in again. If it stays so, look at the client's dialogues, and at whether the gateway returns State as it was sent."},
	ReasonPINDiffers:      {"The new PIN was typed twice, and not the same; the old one is still to be changed.", "Log in again, and choose a new PIN."},
	ReasonDialogueSpent:   {"The question had been answered before, or something else was done to the user since it was asked.", "Log in again. If the user answered once only, find out who else did."},

	ReasonCloned:            {"The key's signature counter did not rise as it must: there may be a copy of the key. The token was suspended.", "Find out who else has it. If it may have been copied, revoke it and enrol another one: watchword token revoke SERIAL."},
	ReasonBadSignature:      {"The key's answer was not what was asked for, or its signature was wrong.", "Try again. If it stays so, tell security: somebody may be altering answers, or making them up."},
	ReasonUnknownCredential: {"The key is none of the user's: it was never enrolled, or was revoked.", "Enrol it by an invitation: watchword user invite NAME. If the user did not just sign in, somebody else tried."},
	ReasonExpired:           {"The answer came too late: what was asked was too long ago.", "Sign in again, and touch the key when it is asked for. If it stays so, compare the clocks of the servers."},
	ReasonNotVerified:       {"The key did not ask for its PIN or fingerprint, which is required.", "Set a PIN on the key, and sign in again."},
	ReasonBackupChanged:     {"The key says otherwise than when it was enrolled whether it can be copied to other devices. No key changes that.", "Tell security. Revoke it and enrol another one: watchword token revoke SERIAL."},
	ReasonWrongOrigin:       {"The page that asked for the key is none of this installation's.", "The user may have followed a link to a page that imitates yours: tell security. If the page is yours, add its origin to the settings."},
}

// keyExplanations are those that read otherwise where a FIDO key was used.
var keyExplanations = map[Reason]struct{ words, advice string }{
	ReasonAccepted:      {"The key was right.", ""},
	ReasonReplay:        {"This answer of the key was used before.", "Sign in again. If somebody else used it, mark the token lost."},
	ReasonSuspendedUsed: {"The key is suspended.", "Resume it, if that is right: watchword token resume SERIAL."},
	ReasonLostUsed:      {"The key was marked lost.", "Somebody has it. If it is not its owner, revoke it: watchword token revoke SERIAL."},
	ReasonExpiredUsed:   {"The key has expired.", "Enrol another one by an invitation (watchword user invite NAME), or, if it should be good for longer, give it a later date: watchword token expire SERIAL."},
}

func explain(r audit.Record) Explanation {
	x := Explanation{Record: r}
	known, ok := explanations[Reason(r.Reason)]
	why := ""
	if words, is := dialogueWords(&r); is {
		known.words = words
	}
	for _, f := range r.Detail {
		switch f.Name {
		case fieldWhy:
			why = f.Value
		case fieldChallenge:
			if of, is := keyExplanations[Reason(r.Reason)]; is {
				known, ok = of, true
			}
		case fieldRule:
			known.words = ruleWords(f.Value)
		case fieldNumber:
			if Reason(r.Reason) == ReasonAccepted {
				known.words = passcodeWords(r.Serial, f.Value)
			}
		}
	}
	if ok {
		x.Words, x.Advice = known.words, known.advice
	}
	if r.Action == string(policy.Verify) {
		if x.Words == "" && why != "" {
			x.Words = fmt.Sprintf("The key's answer was refused: %s.", why)
		}
		return x
	}
	words := fmt.Sprintf("%s by %s: %s.", r.Action, r.Actor, r.Outcome)
	if x.Words != "" {
		words += " " + x.Words
	} else if r.Reason != "" {
		words += " (" + r.Reason + ")"
	}
	if why != "" {
		words += " It says: " + why + "."
	}
	x.Words = words
	return x
}

// dialogueWords is what is said of an attempt that was part of a dialogue, where it is
// something else than of any attempt.
func dialogueWords(r *audit.Record) (words string, ok bool) {
	if r.Action != string(policy.Verify) {
		return "", false
	}
	of := max(detail(r, fieldDialogue), detail(r, fieldJoined)) // one of the two
	switch Reason(r.Reason) {
	case ReasonAccepted:
		switch Dialogue(of) {
		case DialogueNextCode:
			return "Two codes in a row were right: the token was found by them and resynchronised.", true
		case DialogueNewPIN:
			return "All was right, and the user has chosen another PIN.", true
		}
	case ReasonPINFirst:
		if first, is := explanations[Reason(detail(r, fieldFirst))]; is {
			return explanations[ReasonPINFirst].words + " Of what was typed before: " + first.words, true
		}
	case ReasonPINDue:
		if detail(r, fieldQuestion) != "" {
			return "PIN and code were right, but the PIN must be changed: the user was asked for a new one.", true
		}
	case ReasonRule:
		return "PIN and code were right, but the rules of the realm forbid the new PIN.", true
	}
	return "", false
}

// ruleWords is what is said of an act that a rule of the realm refused.
func ruleWords(rule string) string {
	return fmt.Sprintf("The realm's rule %s does not allow it.", rule)
}

// passcodeWords is what is said of a passcode that was accepted.
func passcodeWords(serial, number string) string {
	if strings.HasPrefix(serial, temporaryPrefix) {
		return fmt.Sprintf("The temporary passcode was right; it was use %s of it.", number)
	}
	return fmt.Sprintf("The recovery code was right; it was number %s of the sheet.", number)
}

// ShowToken answers one token.
func (s *Service) ShowToken(ctx context.Context, p Principal, realm, serial string) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	e := audit.Event{Realm: realm, Serial: serial}
	if err := s.authorise(ctx, p, policy.TokenShow, &e); err != nil {
		return Token{}, err
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, Serial: serial}})
	if err != nil {
		return Token{}, unavailable(err)
	}
	sub, t, err := tokenOf(view.Subjects[0], serial)
	if err != nil {
		return Token{}, s.refuse(ctx, p, policy.TokenShow, e, err)
	}
	if sub.User != nil {
		e.User = sub.User.Key
	}
	listed, _, err := s.db.Tokens(ctx, TokenQuery{Realm: realm, Serial: serial, Limit: 1})
	if err != nil {
		return Token{}, unavailable(err)
	}
	if len(listed) > 0 {
		t.listed(&listed[0])
	}
	return *t, s.record(ctx, p, policy.TokenShow, e)
}

// Tokens lists tokens. next is q.After of the next page, zero where there is none;
// a page may be short though there is another.
func (s *Service) Tokens(ctx context.Context, p Principal, q TokenQuery) (page []Token, next int64, err error) {
	realm, err := p.listed(q.Realm)
	if err != nil {
		return nil, 0, err
	}
	if q.Owner != "" {
		if q.Owner, err = FoldName(q.Owner); err != nil {
			return nil, 0, err
		}
	}
	for _, check := range []func(...string) error{askable, searchable} {
		if err := check(q.Serial, string(q.State), string(q.Type), q.Q, q.Tag); err != nil {
			return nil, 0, err
		}
	}
	q.Realm, q.Limit = realm, limit(q.Limit)
	e := audit.Event{Realm: realm}
	if err := s.authorise(ctx, p, policy.TokenList, &e); err != nil {
		return nil, 0, err
	}
	page, next, err = s.db.Tokens(ctx, q)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	return page, next, s.record(ctx, p, policy.TokenList, e)
}
