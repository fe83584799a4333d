package tokens

import (
	"context"
	"fmt"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Resync finds a token that has drifted too far, by two consecutive codes. Both
// are consumed; the drift comes from the second. It resets the owner's
// failures; when the codes do not match, that counts as one, and the error
// wraps ErrWrongCode.
func (s *Service) Resync(ctx context.Context, p Principal, realm, serial, code1, code2 string) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	var out Token
	err = s.change(ctx, p, policy.TokenResync, audit.Event{Realm: realm, Serial: serial}, []Ref{{Realm: realm, Serial: serial}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			sub, t, err := tokenOf(found[0], serial)
			if err != nil {
				return err
			}
			if t.Valid() != nil { // no arithmetic is possible with it
				return fmt.Errorf("%w: token %s", ErrTampered, serial)
			}
			now := s.cfg.Now()
			var pin []byte
			if sub.User != nil {
				e.User, pin = sub.User.Key, sub.User.PINMAC
			}
			if t.Type == YubicoOTP {
				return fmt.Errorf("%w: token %s makes Yubico OTPs, which say their counters themselves: it needs no resynchronisation, the next code will do", ErrState, serial)
			}
			if t.passcode() {
				return fmt.Errorf("%w: token %s is a passcode, which has neither a clock nor a counter: there is nothing to resynchronise", ErrState, serial)
			}
			if t.Type == FIDO {
				return fmt.Errorf("%w: token %s is a FIDO key, which shows no codes: there is nothing to resynchronise", ErrState, serial)
			}
			switch {
			case t.State == Pending:
				return saying(sayCodes, fmt.Errorf("%w: token %s waits for two codes: activate it with them", ErrState, serial))
			case t.State == Lost || t.State == Revoked:
				return fmt.Errorf("%w: token %s is %s", ErrState, serial, t.State)
			case sub.User != nil && sub.Locked:
				return saying(sayLocked, fmt.Errorf("%w: %s is locked; unlock the user first", ErrState, sub.User.Name))
			case sub.User != nil && s.cfg.Throttle.throttled(&sub.Standing, p.client(), now):
				e.Reason = string(ReasonThrottled)
				return saying(sayThrottled, fmt.Errorf("%w: too many failures; wait, or unlock the user", ErrState))
			case t.Type == TOTP && s.skewed.Load():
				return fmt.Errorf("%w: the clocks of server and database differ", ErrUnavailable)
			}
			factor, ok, err := s.pair(ctx, t, pin, code1, code2, now)
			if err != nil {
				return err
			}
			if !ok {
				if sub.User != nil {
					w := sub.touch()
					before := w.Next
					w.Next = s.cfg.Throttle.fail(before, p.client(), now)
					locking(e, &before, &w.Next)
					c.Standings = []StandingWrite{w}
				}
				return fmt.Errorf("%w: no two consecutive codes of token %s; wait for the next code and enter two in a row", ErrWrongCode, serial)
			}
			next := *t
			next.Motion = t.consume(factor, now)
			c.Motions = []MotionWrite{{TokenID: t.ID, UserID: t.OwnerID, Last: next.Last, Drift: next.Drift, UsedAt: next.UsedAt}}
			if sub.User != nil {
				w := sub.touch()
				w.Next = w.Next.clear()
				c.Standings = []StandingWrite{w}
			} else {
				c.Tokens = []TokenWrite{{Token: next, Expect: t.Version}}
			}
			e.Detail = append(e.Detail[:len(e.Detail):len(e.Detail)],
				audit.Field{Name: "factor", Value: itoa(int64(factor))}, audit.Field{Name: "drift", Value: itoa(int64(next.Drift))})
			out = next
			return nil
		})
	return out, err
}

// pair looks for two consecutive codes of a token that shows codes, in the windows of
// a resynchronisation, and answers the moving factor of the second.
func (s *Service) pair(ctx context.Context, t *Token, pinMAC []byte, code1, code2 string, now time.Time) (factor uint64, found bool, err error) {
	first, second := parseCode(code1, t.Digits), parseCode(code2, t.Digits)
	if first == noCode || second == noCode {
		return 0, false, fmt.Errorf("%w: token %s shows codes of %d digits", ErrInvalid, t.Serial, t.Digits)
	}
	factors := s.cfg.Windows.resyncFactors(t, now)
	macs, err := s.macs(ctx, t, pinMAC, factors)
	if err != nil {
		return 0, false, err
	}
	near := 0
	if t.Type == TOTP && len(factors) > 0 {
		near = int(step(now, t.Period) + int64(t.Drift) - int64(factors[0]))
	}
	at, found := findPair(macs, t.Digits, first, second, near)
	if !found {
		return 0, false, nil
	}
	return factors[at+1], true, nil
}

// macs are the HMACs of a token's moving factors, computed in the HSM.
func (s *Service) macs(ctx context.Context, t *Token, pinMAC []byte, factors []uint64) ([][]byte, error) {
	if len(factors) == 0 {
		return nil, nil
	}
	job := hsm.Job{Key: t.Sealed(pinMAC), Factors: factors}
	if err := s.custody.HMAC(ctx, []*hsm.Job{&job}); err != nil && job.Err == nil {
		job.Err = err
	}
	switch {
	case isTampered(job.Err):
		return nil, fmt.Errorf("%w: token %s", ErrTampered, t.Serial)
	case job.Err != nil:
		return nil, translate(job.Err)
	}
	return job.MACs, nil
}
