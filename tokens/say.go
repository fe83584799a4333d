package tokens

import (
	"errors"
	"fmt"
	"time"

	"watchword/tokens/policy"
)

// Say is what the helpdesk may say to the person on the telephone after an act: one or
// two sentences in plain words, or "" where there is nothing to tell. t is the token as
// the act left it (of a replacement the new one), u the user; either may be nil (what is
// said is then true of users with and without a PIN), and err is what the act failed with. It names no other person, and gives nothing away
// that helps a caller who is not who they say: neither why a code was refused nor that
// a row was altered.
func Say(action policy.Action, t *Token, u *UserEntry, err error) string {
	if err != nil {
		return sayFailure(action, err)
	}
	switch action {
	case policy.UserUnlock:
		return "Your account is unlocked. Wait for a new code and try again."
	case policy.UserEnable:
		return "Your account works again. Sign in as usual."
	case policy.UserDisable:
		return "Your account is turned off. Nobody can sign in with it."
	case policy.UserPIN, policy.UserPINChange:
		return sayPIN(u)
	case policy.InviteAdd:
		return "You get a link from us. Open it on your own computer, and it shows you what to do."
	}
	if t == nil {
		return ""
	}
	now := time.Now()
	if len(t.Ended) > 0 {
		whole := *t
		whole.Ended = nil
		return Say(action, &whole, u, nil) + " Your temporary passcode no longer works."
	}
	switch action {
	case policy.TokenAssign, policy.KeyEnrol:
		return sayReady("The "+t.thing()+" is yours.", t, u, now)
	case policy.TokenReplace:
		return sayReady("Your old token no longer works; the new "+t.thing()+" takes its place.", t, u, now)
	case policy.TokenActivate:
		return sayReady("Your "+t.thing()+" is ready.", t, u, now)
	case policy.TokenResume:
		return sayReady("Your "+t.thing()+works(t)+" again.", t, u, now)
	case policy.TokenResync:
		return sayReady("Your "+t.thing()+" is in step again.", t, u, now)
	case policy.TokenEnrol:
		return "Scan the picture with your app. Then read me two codes that it shows, one right after the other."
	case policy.TokenUnassign:
		return "The " + t.thing() + " is no longer yours. Please send it back to us."
	case policy.TokenSuspend:
		return "Your " + t.thing() + is(t) + " turned off for now. Nobody can use " + it(t) + " until we turn " + it(t) + " on again."
	case policy.TokenLost:
		return "Your " + t.thing() + is(t) + " blocked: nobody can use " + it(t) + " any more. If you find " + it(t) + ", call us first."
	case policy.TokenRevoke:
		return "The " + t.thing() + is(t) + " turned off for good. Please destroy " + it(t) + ", or send " + it(t) + " back to us."
	case policy.TokenExpire:
		switch {
		case t.Expires.IsZero():
			return "Your " + t.thing() + works(t) + " without an end."
		case t.expired(now):
			return "Your " + t.thing() + is(t) + " no longer good: you need another one."
		}
		return fmt.Sprintf("Your %s%s until %s.", t.thing(), works(t), t.Expires.UTC().Format("2 January 2006, 15:04 MST"))
	case policy.RecoveryAdd:
		return "These are your recovery codes. Each of them works once; keep them where nobody else finds them. Older ones no longer work."
	case policy.TemporaryAdd:
		return sayTemporary(t)
	}
	return ""
}

// sayReady says what comes next with a token that was turned on, or is to be.
func sayReady(begin string, t *Token, u *UserEntry, now time.Time) string {
	switch {
	case t.waits() && !t.expired(now):
		return begin + " Sign in with it once, and touch it when you are asked for it: that turns it on."
	case t.State == Pending:
		return begin + " Before you can use it, read me two codes that it shows, one right after the other."
	case t.expired(now):
		return "Your " + t.thing() + is(t) + " no longer good: you need another one."
	case t.State == Suspended:
		return begin + " But it is still turned off."
	case t.Type == FIDO:
		return begin + " Touch it when you are asked for it."
	case t.passcode():
		return begin
	}
	next := " Wait for the next code"
	switch t.Type {
	case HOTP:
		next = " Press for a new code"
	case YubicoOTP:
		next = " Touch it when you are asked for a code"
	}
	switch {
	case u == nil:
		return begin + next + "; if you have a PIN, type that first and the code right behind it."
	case u.HasPIN():
		return begin + next + "; type your PIN first and the code right behind it."
	case t.Type == YubicoOTP:
		return begin + next + "."
	}
	return begin + next + " and use that."
}

func sayPIN(u *UserEntry) string {
	switch {
	case u != nil && !u.HasPIN():
		return "You have no PIN any more: type the code alone."
	case u != nil && u.PINDue:
		return "You have a new PIN. You must change it to one of your own before you can sign in."
	}
	return "Your PIN is set. Type it first, and the code right behind it."
}

func sayTemporary(t *Token) string {
	often := "once"
	if t.Uses > 1 {
		often = fmt.Sprintf("%d times", t.Uses)
	}
	const where = " Type it in the place of the code, behind your PIN if you have one."
	if t.Expires.IsZero() {
		return "Write this passcode down: it works " + often + "." + where
	}
	return fmt.Sprintf("Write this passcode down: it works %s, until %s.", often, t.Expires.UTC().Format("2 January 2006, 15:04 MST")) + where
}

// sayFailure says what to do after an act that failed.
func sayFailure(action policy.Action, err error) string {
	var p *plain
	if errors.As(err, &p) {
		return p.say
	}
	codes := action == policy.TokenResync || action == policy.TokenActivate
	pin := action == policy.UserPIN || action == policy.UserPINChange
	user := map[policy.Action]bool{
		policy.UserUnlock: true, policy.UserEnable: true, policy.UserDisable: true, policy.UserPIN: true, policy.UserPINChange: true,
		policy.TokenEnrol: true, policy.KeyEnrol: true, policy.InviteAdd: true, policy.RecoveryAdd: true, policy.TemporaryAdd: true,
	}[action]
	switch {
	case action == policy.TokenNote:
		return "" // it is none of the caller's business
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrOverloaded):
		return "Our system does not answer just now. Please call again in a few minutes."
	case errors.Is(err, ErrForbidden), errors.Is(err, ErrUnknownKey):
		return "That is not for me to do. I pass it on to somebody who may."
	case errors.Is(err, ErrTampered):
		return "I cannot do that from here. I pass it on, and you hear from us."
	case errors.Is(err, ErrWrongCode):
		return "These two codes do not fit. Wait until the code changes, then read me two of them, one right after the other."
	case errors.Is(err, ErrNotFound) && user:
		return sayWho
	case errors.Is(err, ErrNotFound):
		return sayWhich
	case errors.Is(err, ErrInvalid) && codes:
		return "Please read me both codes once more, figure by figure."
	case errors.Is(err, ErrInvalid) && pin:
		return "This PIN is too easy to guess, or too short or too long. Please choose another one."
	case errors.Is(err, ErrInvalid):
		return "I have entered something wrong. One moment, please."
	case errors.Is(err, ErrState) && user:
		return "That is not possible with your account as it is. I find out why and call you back."
	case errors.Is(err, ErrState):
		return sayOther
	}
	return "That did not work. I try it once more."
}

// plain is an error with what may be said of it on the telephone, where that is more
// than its kind tells.
type plain struct {
	error
	say string
}

func (e *plain) Unwrap() error { return e.error }

// saying adds to an error what may be said of it.
func saying(say string, err error) error { return &plain{err, say} }

// What may be said of the refusals that happen every day.
const (
	sayThrottled = "There were too many wrong codes in a row. Wait a quarter of an hour and try again."
	sayLocked    = "Your account is locked. I have to look into that first."
	sayDisabled  = "Your account is turned off. I have to look into that first."
	sayFull      = "You have as many tokens as you can have. Which one do you no longer use?"
	sayTaken     = "I cannot give you this one. Please read me the serial number once more."
	sayEnded     = "This one was turned off for good, and cannot be turned on again. You need another one."
	sayCodes     = "It waits for you: read me two codes that it shows, one right after the other."
	saySignIn    = "It waits for you: sign in with it once, and touch it when you are asked for it."
	sayHow       = "Please tell me how you got it back."
	sayAlone     = "Nobody else can ever use that one. I can only turn it off for good."
	sayWho       = "I cannot find your account under this name. How is it spelt?"
	sayWhich     = "I cannot find that. Please read me the serial number once more, and tell me your user name."
	sayOther     = "That is not possible with this token. Please read me the serial number once more."
	sayWorks     = "It is turned on already. Wait for the next code and use that."
	sayNoRelief  = "I cannot give you a passcode for the time in between."
	sayBlockOnly = "I cannot give you a passcode for the time in between. I block your token now."
	sayNoSheet   = "We do not hand out recovery codes. I see what else I can do."
)

// thing is how people call a token.
func (t *Token) thing() string {
	switch {
	case t.Type == FIDO:
		return "security key"
	case t.Type == YubicoOTP:
		return "YubiKey"
	case t.Type == Recovery:
		return "recovery codes"
	case t.Type == Temporary:
		return "temporary passcode"
	case t.soft():
		return "app"
	}
	return "token"
}

// of one thing or, for recovery codes, of many.
func (t *Token) says(one, many string) string {
	if t.Type == Recovery {
		return many
	}
	return one
}

func is(t *Token) string    { return t.says(" is", " are") }
func it(t *Token) string    { return t.says("it", "them") }
func works(t *Token) string { return t.says(" works", " work") }
