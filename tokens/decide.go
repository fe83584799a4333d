package tokens

import (
	"errors"
	"time"

	"watchword/hsm"
)

// Reason is why an attempt ended as it did: for the audit and the helpdesk,
// never for whoever made the attempt.
type Reason string

// The reasons.
const (
	ReasonAccepted      Reason = "accepted"
	ReasonWrongCode     Reason = "wrong_code"
	ReasonWrongPIN      Reason = "wrong_pin"
	ReasonNoPIN         Reason = "pin_missing"
	ReasonPINMethod     Reason = "pin_with_method" // the code was right, and the method cannot show the PIN: CHAP, MS-CHAP
	ReasonReplay        Reason = "replay"
	ReasonThrottled     Reason = "throttled"
	ReasonLocked        Reason = "locked"
	ReasonDisabled      Reason = "user_disabled"
	ReasonSuspended     Reason = "token_suspended" // the user has no active token
	ReasonLost          Reason = "token_lost"
	ReasonExpiredToken  Reason = "token_expired"
	ReasonSuspendedUsed Reason = "suspended_token_used" // the code was that token's
	ReasonLostUsed      Reason = "lost_token_used"
	ReasonExpiredUsed   Reason = "expired_token_used"
	ReasonUsedUp        Reason = "passcode_used_up" // a temporary passcode, after its last use
	ReasonPINDue        Reason = "pin_change_due"   // all was right, but the PIN must be changed first
	ReasonNoToken       Reason = "no_token"
	ReasonUnknownUser   Reason = "unknown_user"
	ReasonTampered      Reason = "tampered"
	ReasonUnavailable   Reason = "unavailable"
	ReasonMalformed     Reason = "malformed"
	ReasonForbidden     Reason = "forbidden"
	ReasonRule          Reason = "rule" // of an act: the realm's rules do not allow it
	ReasonUnchanged     Reason = "unchanged"

	// Of FIDO keys.
	ReasonCloned            Reason = "cloned"             // the signature counter did not rise: the token was suspended
	ReasonBadSignature      Reason = "bad_signature"      // or the answer is not what was asked for
	ReasonUnknownCredential Reason = "unknown_credential" // none of the user's; of anybody's, if no user was named
	ReasonExpired           Reason = "expired"            // the challenge
	ReasonNotVerified       Reason = "not_verified"       // the authenticator did not verify its user
	ReasonBackupChanged     Reason = "backup_changed"     // it says otherwise than when it was enrolled whether it can be backed up
	ReasonWrongOrigin       Reason = "wrong_origin"       // the page that asked is none of the relying party's
)

// candidate is one token of the user held against what was typed.
type candidate struct {
	token   *Token
	factors []uint64
	macs    [][]byte  // of the first len(macs) factors
	otp     *otp      // of a YubicoOTP token, in the place of macs and code
	pass    *passcode // of a Recovery or Temporary token, likewise
	err     error
	code    uint32
	proof   Proof  // in the place of code
	asked   uint64 // of the first 64 MACs, which were held against proof
	proven  uint64 // and which of them it proves
	pinOK   bool   // what was typed before the code is the user's PIN, or nothing if there is none
	bare    bool   // nothing was typed before the code
	expired bool   // the token is, by now
	decoy   bool   // it is no token of the user's, and costs what one does
}

// hit is the first fresh factor whose code was typed; replay says that none
// is, but a consumed one.
func (c *candidate) hit() (factor uint64, fresh, replay bool) {
	if c.otp != nil {
		fresh = c.token.fresh(c.otp.factor)
		return c.otp.factor, c.otp.right && fresh, c.otp.right && !fresh
	}
	if c.pass != nil {
		fresh = c.token.fresh(c.pass.factor)
		return c.pass.factor, c.pass.right && fresh, c.pass.right && !fresh
	}
	for i, mac := range c.macs {
		if !c.shows(i, mac) {
			continue
		}
		if c.token.fresh(c.factors[i]) {
			return c.factors[i], true, false
		}
		replay = true
	}
	return 0, false, replay
}

// shows says whether the code of the MAC at place i is what was typed. A proof is asked
// once.
func (c *candidate) shows(i int, mac []byte) bool {
	if c.proof == nil {
		return matches(mac, c.token.Digits, c.code)
	}
	bit := uint64(1) << i // none beyond the 64th
	if c.asked&bit != 0 {
		return c.proven&bit != 0
	}
	right := c.proof.Proves(appendCode(make([]byte, 0, 8), truncate(mac, c.token.Digits), c.token.Digits))
	c.asked |= bit
	if right {
		c.proven |= bit
	}
	return right
}

// verdict is what decide answers.
type verdict struct {
	accept  bool
	counted bool // not accepted, and counts as a failure of the user's
	reason  Reason
	token   *Token // the one that matched, or that explains the reason; may be nil
	factor  uint64 // on accept
	err     error  // no verdict can be given: ErrUnavailable

	// Of a key:
	verified bool   // on accept: its user, by the authenticator
	suspend  *Token // the token's next form, where it was cloned
	turnOn   *Token // the token's next form, where it waited for this accept
	why      string // for the audit

	rekeyed *rekeyed // of an attempt that is to change the PIN: what becomes of that; nil where it is rejected

	// Of a dialogue:
	asks      *question  // what is asked in the place of a reject; nil for most
	challenge *Challenge // the same, as it is told
	first     Reason     // why what was typed before the question was not accepted; may be empty
	answered  Dialogue   // the dialogue that the answer belongs to
	joined    Dialogue   // the dialogue whose answers were typed at once
	opens     bool       // not accepted, but the code is used up by the question
	still     bool       // accepted, and the code was used up by a question before

	spend  *Spend   // what is used up with it; nil for most
	groups []string // the user's, on accept, where they were asked for
}

// consumes says whether the token's code is used up.
func (v *verdict) consumes() bool { return v.accept && !v.still || v.opens }

// barred is the reason for which a user is turned away whatever was typed, or
// "". An attempt that is barred is not counted.
func barred(user *User, s *Standing, t *Throttle, client string, now time.Time) Reason {
	switch {
	case user.State != UserEnabled:
		return ReasonDisabled
	case s.Locked:
		return ReasonLocked
	case t.throttled(s, client, now):
		return ReasonThrottled
	}
	return ""
}

// decide gives the verdict on one attempt. It is a pure function: bar is what
// barred answered, candidates are the user's tokens with their MACs. A fault
// never becomes an accept: a candidate with an error cannot match, and where
// that might have hidden a match there is no verdict.
//
// A rejection counts as a failure if what was typed was held against an active
// token and was not a replay, whether or not there is a verdict. It does not where
// nothing but the age of the user's PIN was wrong: the code is not used up then. A
// token that has expired is as good as a suspended one. To an active
// token the code of a lost one is a guess like any other, and whoever found the
// lost one has another in each time step.
func decide(user *User, bar Reason, candidates []candidate) verdict {
	v := verdict{reason: ReasonNoToken}
	var fault error
	guess, replayed := false, false
	rank := func(r Reason, t *Token) { // the more telling reason stays
		if order[r] > order[v.reason] {
			v.reason, v.token = r, t
		}
	}
	for i := range candidates {
		c := &candidates[i]
		switch {
		case c.decoy && (c.err == nil || errors.Is(c.err, hsm.ErrTampered)):
			if c.proof != nil && c.err == nil {
				c.hit() // which is work that the others cost too
			}
			continue
		case errors.Is(c.err, hsm.ErrTampered):
			rank(ReasonTampered, c.token)
			continue
		case c.err != nil:
			fault = c.err
			continue
		}
		factor, fresh, replay := c.hit()
		if used, idle := c.useless(); used != "" {
			if (fresh || replay) && c.pinOK {
				rank(used, c.token)
			} else {
				rank(idle, c.token)
			}
			continue
		}
		if c.token.State != Active {
			continue
		}
		guess = true
		switch {
		case fresh && c.pinOK && bar == "" && user.mustChangePIN():
			return verdict{reason: ReasonPINDue, token: c.token, factor: factor}
		case fresh && c.pinOK && bar == "":
			return verdict{accept: true, reason: ReasonAccepted, token: c.token, factor: factor}
		case fresh && c.pinOK: // right, but barred: known to the audit alone
		case replay && c.pinOK:
			replayed = true
			if c.token.Type == Temporary {
				rank(ReasonUsedUp, c.token)
			} else {
				rank(ReasonReplay, c.token)
			}
		case (fresh || replay) && user.HasPIN() && c.proof != nil:
			rank(ReasonPINMethod, c.token)
		case (fresh || replay) && user.HasPIN() && c.bare:
			rank(ReasonNoPIN, c.token)
		case (fresh || replay) && user.HasPIN():
			rank(ReasonWrongPIN, c.token)
		default:
			rank(ReasonWrongCode, nil)
		}
	}
	if fault != nil {
		// Whoever asked hears no verdict, and yet learnt that it was no code of
		// the tokens that could be looked at.
		return verdict{reason: ReasonUnavailable, err: fault, counted: guess && !replayed && bar == ""}
	}
	if bar != "" {
		v.reason = bar
		return v
	}
	v.counted = guess && !replayed
	return v
}

// useless are the reasons for which nothing of a token is accepted: the one if its
// code was typed, the other if not. They are empty where there are none, and of a
// token that is not handed out.
func (c *candidate) useless() (used, idle Reason) {
	switch {
	case c.token.State == Lost:
		return ReasonLostUsed, ReasonLost
	case c.token.State == Suspended:
		return ReasonSuspendedUsed, ReasonSuspended
	case c.token.State == Active && c.expired:
		return ReasonExpiredUsed, ReasonExpiredToken
	}
	return "", ""
}

// order ranks the reasons of several tokens of one user: the highest is told.
var order = map[Reason]int{
	ReasonNoToken:       0,
	ReasonLost:          1,
	ReasonSuspended:     2,
	ReasonExpiredToken:  3,
	ReasonWrongCode:     4,
	ReasonTampered:      5,
	ReasonExpiredUsed:   6,
	ReasonSuspendedUsed: 7,
	ReasonLostUsed:      8,
	ReasonWrongPIN:      9,
	ReasonNoPIN:         9,
	ReasonPINMethod:     9,
	ReasonUsedUp:        10,
	ReasonReplay:        10,
}
