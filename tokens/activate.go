package tokens

import (
	"context"
	"fmt"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Activate turns a token on that is pending: a software token, or one that was
// assigned where the rules ask for it. Its owner shows two consecutive codes, found
// as Resync finds them (of a YubicoOTP token: two OTPs, one after the other). Both are
// consumed, and the drift comes from the second. Codes that do not match count as one
// failure of the owner's, and the error wraps ErrWrongCode. Temporary passcodes of the
// owner end. For an invited principal it uses up the invitation. Asking again with the
// same codes changes nothing.
func (s *Service) Activate(ctx context.Context, p Principal, realm, serial, code1, code2 string) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	d, err := s.perform(ctx, p, act{
		action: policy.TokenActivate,
		// Whoever was invited acts on their own tokens: on others there are none.
		event: audit.Event{Realm: realm, User: p.User, Serial: serial},
		refs:  []Ref{{Realm: realm, Serial: serial}},
		decide: func(ctx context.Context, d *deed) error {
			return s.activate(ctx, d, serial, code1, code2)
		},
	})
	if err != nil {
		return Token{}, spentAs(err, "the token was activated before")
	}
	return d.token, nil
}

func (s *Service) activate(ctx context.Context, d *deed, serial, code1, code2 string) error {
	p := d.principal
	sub, t, err := tokenOf(d.found[0], serial)
	if err == nil && p.Kind == KindInvitation && (sub.User == nil || sub.User.Key != p.User) {
		err = errNoToken
	}
	if err != nil {
		return err
	}
	if sub.User != nil {
		d.event.User = sub.User.Key
	}
	now := s.cfg.Now()
	switch {
	case t.Valid() != nil: // no arithmetic is possible with it
		return fmt.Errorf("%w: token %s", ErrTampered, serial)
	case t.State == Active && sub.User != nil && t.showsCodes():
		again, err := s.repeated(ctx, t, sub.User.PINMAC, code1, code2)
		if err != nil {
			return err
		}
		if again {
			d.unchanged(t)
			return nil
		}
		return saying(sayWorks, fmt.Errorf("%w: token %s is active already, and waits for no codes", ErrState, serial))
	case t.State != Pending || sub.User == nil || !t.showsCodes():
		return fmt.Errorf("%w: token %s is %s, and waits for no codes", ErrState, serial, t.State)
	case sub.User.State != UserEnabled:
		return saying(sayDisabled, fmt.Errorf("%w: user %s is disabled", ErrState, sub.User.Name))
	case t.expired(now):
		return fmt.Errorf("%w: token %s expired on %s", ErrState, serial, t.Expires.Format("2006-01-02"))
	case sub.Locked:
		return saying(sayLocked, fmt.Errorf("%w: %s is locked; unlock the user first", ErrState, sub.User.Name))
	case s.cfg.Throttle.throttled(&sub.Standing, p.client(), now):
		d.event.Reason = string(ReasonThrottled)
		return saying(sayThrottled, fmt.Errorf("%w: too many failures; wait, or unlock the user", ErrState))
	case t.Type == TOTP && s.skewed.Load():
		return fmt.Errorf("%w: the clocks of server and database differ", ErrUnavailable)
	}
	find := s.pair
	if t.Type == YubicoOTP {
		find = s.pairOTP
	}
	factor, right, err := find(ctx, t, sub.User.PINMAC, code1, code2, now)
	if err != nil {
		return err
	}
	w := sub.touch()
	if !right {
		before := w.Next
		w.Next = s.cfg.Throttle.fail(before, p.client(), now)
		locking(d.event, &before, &w.Next)
		d.change.Standings = []StandingWrite{w}
		return fmt.Errorf("%w: no two consecutive codes of token %s; wait for the next code and enter two in a row", ErrWrongCode, serial)
	}
	next := *t
	next.State, next.Motion = Active, t.consume(factor, now)
	if err := s.rebind(ctx, t, sub.User.PINMAC, &next, sub.User.PINMAC); err != nil {
		return err
	}
	d.change.Standings = []StandingWrite{w}
	d.change.Tokens = []TokenWrite{{Token: next, Expect: t.Version}}
	d.change.Motions = []MotionWrite{{TokenID: t.ID, UserID: t.OwnerID, Last: next.Last, Drift: next.Drift, UsedAt: next.UsedAt}}
	d.change.Invites = p.useUp(serial, now)
	d.moves(t.State, next.State)
	d.note(audit.Field{Name: "factor", Value: itoa(int64(factor))}, audit.Field{Name: "drift", Value: itoa(int64(next.Drift))})
	d.token = next
	return s.endTemporary(ctx, sub, d, "token "+serial+" was activated")
}

// showsCodes says whether a token shows or types codes that a seed makes.
func (t *Token) showsCodes() bool { return t.Type == TOTP || t.Type == HOTP || t.Type == YubicoOTP }

// repeated says whether two codes are the last ones that were consumed: those of an
// activation whose answer did not arrive.
func (s *Service) repeated(ctx context.Context, t *Token, pinMAC []byte, code1, code2 string) (bool, error) {
	last := t.Last - 1 // the factor consumed last
	if t.Type == TOTP {
		last = t.Last
	}
	if last < 1 {
		return false, nil
	}
	if t.Type == YubicoOTP {
		_, factor, right, err := s.twoOTPs(ctx, t, pinMAC, code1, code2)
		return right && int64(factor) == last, err
	}
	first, second := parseCode(code1, t.Digits), parseCode(code2, t.Digits)
	macs, err := s.macs(ctx, t, pinMAC, []uint64{uint64(last) - 1, uint64(last)})
	if err != nil || first == noCode || second == noCode {
		return false, err
	}
	_, found := findPair(macs, t.Digits, first, second, 0)
	return found, nil
}

// pairOTP is pair for a YubicoOTP token, whose OTPs say themselves which they are:
// both are the token's, neither was used, and the second was typed after the first.
func (s *Service) pairOTP(ctx context.Context, t *Token, pinMAC []byte, code1, code2 string, _ time.Time) (factor uint64, found bool, err error) {
	first, second, right, err := s.twoOTPs(ctx, t, pinMAC, code1, code2)
	return second, right && t.fresh(first), err
}

// twoOTPs decrypts two OTPs of a YubicoOTP token and answers their factors. right says
// that both are the token's, with nothing typed before them, and that the second is the
// later one.
func (s *Service) twoOTPs(ctx context.Context, t *Token, pinMAC []byte, code1, code2 string) (first, second uint64, right bool, err error) {
	var list [2]candidate
	var blocks blockBatch
	bare := true
	for i, typed := range []string{code1, code2} {
		pin, o := splitOTP(typed, t.PublicID)
		bare = bare && pin == ""
		list[i] = candidate{token: t, otp: o}
		blocks.add(&list[i], pinMAC)
	}
	blocks.run(ctx, s.custody)
	for i := range list {
		switch err := list[i].err; {
		case isTampered(err):
			return 0, 0, false, fmt.Errorf("%w: token %s", ErrTampered, t.Serial)
		case err != nil:
			return 0, 0, false, err
		}
	}
	first, second = list[0].otp.factor, list[1].otp.factor
	return first, second, bare && list[0].otp.right && list[1].otp.right && first < second, nil
}
