package tokens

import (
	"context"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// NewSoft is a software token to enrol, such as an authenticator app's.
type NewSoft struct {
	Realm, User string
	Issuer      string // as the app shows it; may be empty
}

// What all apps know: TOTP with SHA-1, 6 digits and 30 seconds, and a seed as long
// as the digest (RFC 4226, section 4).
const (
	softSeed   = 20
	softDigits = 6
	softPeriod = 30
)

// softPrefix begins the serial of a software token; 16 hex digits follow.
const softPrefix = "S-"

// soft says whether a token was enrolled by EnrolSoft: it came with no import.
func (t *Token) soft() bool { return t.Batch == 0 && t.Type == TOTP }

// EnrolSoft makes a software token for a user, which is of no use before
// ConfirmSoft. It answers the key URI that the app reads, as a QR code mostly: the
// seed is in it, and nowhere else, so the caller wipes it. A user has one token
// that waits for its first code: this one gets a new seed, if there is one already.
func (s *Service) EnrolSoft(ctx context.Context, p Principal, n NewSoft) (_ Token, uri []byte, err error) {
	realm, key, err := p.names(n.Realm, n.User)
	if err != nil {
		return Token{}, nil, err
	}
	if err := askable(n.Issuer); err != nil {
		return Token{}, nil, fmt.Errorf("%w: the issuer is not text, or longer than 255 bytes", ErrInvalid)
	}
	seed := make([]byte, softSeed)
	defer clear(seed)
	var wrapped *hsm.Wrapped
	var out *Token
	var name string
	err = s.change(ctx, p, policy.TokenEnrol, audit.Event{Realm: realm, User: key}, []Ref{{Realm: realm, User: key}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			sub := found[0]
			if sub == nil {
				return noUser(realm, n.User)
			}
			var waiting *Token
			for i := range sub.Tokens {
				if t := &sub.Tokens[i]; t.soft() && t.State == Pending {
					waiting = t
				}
			}
			if err := s.mayEnrol(ctx, sub); err != nil && (waiting == nil || sub.User.State != UserEnabled) {
				return err
			}
			if wrapped == nil { // the seed is made once, also where the user is changed meanwhile
				w, err := s.softWrapped(ctx, seed)
				if err != nil {
					return err
				}
				wrapped = w
			}
			name = sub.User.Name
			if waiting != nil {
				e.Serial, e.Detail = waiting.Serial, []audit.Field{{Name: "seed", Value: "replaced"}}
				next := *waiting
				next.Wrapped = *wrapped
				if err := s.rebind(ctx, waiting, sub.User.PINMAC, &next, sub.User.PINMAC); err != nil {
					return err
				}
				c.Tokens = []TokenWrite{{Token: next, Expect: waiting.Version}}
				c.Standings = []StandingWrite{sub.touch()}
				out = &next
				return nil
			}
			id := make([]byte, 8)
			if _, err := io.ReadFull(s.cfg.Rand, id); err != nil {
				return fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
			}
			t := &Token{
				Realm: realm, Serial: softPrefix + hex.EncodeToString(id), Type: TOTP, Algorithm: hsm.SHA1,
				Digits: softDigits, Period: softPeriod, State: Pending, OwnerID: sub.User.ID, Owner: sub.User.Key,
				Model: "software token", Created: s.cfg.Now().UTC(), Wrapped: *wrapped, Motion: Motion{Version: 1, Last: -1},
			}
			e.Serial = t.Serial
			if err := s.bind(ctx, []*Token{t}, sub.User.PINMAC); err != nil {
				return err
			}
			c.NewTokens = []*Token{t}
			c.Standings = []StandingWrite{sub.touch()}
			out = t
			return nil
		})
	if err != nil {
		return Token{}, nil, err
	}
	return *out, keyURI(n.Issuer, name, seed), nil
}

// softWrapped fills in a new seed and wraps it.
func (s *Service) softWrapped(ctx context.Context, seed []byte) (*hsm.Wrapped, error) {
	if _, err := io.ReadFull(s.cfg.Rand, seed); err != nil {
		return nil, fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	wrapped, err := s.custody.Wrap(ctx, []hsm.Seed{{Hash: hsm.SHA1, Bytes: seed}})
	if err != nil {
		return nil, translate(err)
	}
	return &wrapped[0], nil
}

// keyURI is what authenticator apps read: otpauth://totp/ISSUER:USER?secret=...
// The buffer is made as long as it gets, so that no other one holds the seed.
func keyURI(issuer, user string, seed []byte) []byte {
	// Apps do not take a plus for a space.
	escape := func(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }
	label, rest := escape(user), ""
	if issuer != "" {
		label = escape(issuer) + ":" + label
		rest = "&issuer=" + escape(issuer)
	}
	head := "otpauth://totp/" + label + "?secret="
	rest += fmt.Sprintf("&algorithm=SHA1&digits=%d&period=%d", softDigits, softPeriod)
	secret := base32.StdEncoding.WithPadding(base32.NoPadding)
	uri := make([]byte, len(head)+secret.EncodedLen(len(seed))+len(rest))
	n := copy(uri, head)
	secret.Encode(uri[n:], seed)
	copy(uri[n+secret.EncodedLen(len(seed)):], rest)
	return uri
}

// ConfirmSoft turns a software token on by its first code, which is consumed. A
// wrong one counts as a failure of its owner's, and the error wraps ErrWrongCode.
// For an invited principal it uses up the invitation.
func (s *Service) ConfirmSoft(ctx context.Context, p Principal, realm, serial, code string) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	// Whoever was invited acts on their own tokens: on others there are none.
	e := audit.Event{Realm: realm, User: p.User, Serial: serial}
	var out Token
	err = s.change(ctx, p, policy.TokenConfirm, e, []Ref{{Realm: realm, Serial: serial}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			sub, t, err := tokenOf(found[0], serial)
			if err == nil && p.Kind == KindInvitation && (sub.User == nil || sub.User.Key != p.User) {
				err = errNoToken
			}
			if err != nil {
				return err
			}
			if sub.User != nil {
				e.User = sub.User.Key
			}
			now := s.cfg.Now()
			switch {
			case t.Valid() != nil: // no arithmetic is possible with it
				return fmt.Errorf("%w: token %s", ErrTampered, serial)
			case t.Type != TOTP || t.State != Pending || sub.User == nil:
				return fmt.Errorf("%w: token %s is %s, and waits for no code", ErrState, serial, t.State)
			case sub.User.State != UserEnabled:
				return fmt.Errorf("%w: user %s is disabled", ErrState, sub.User.Name)
			case sub.Locked:
				return fmt.Errorf("%w: %s is locked; unlock the user first", ErrState, sub.User.Name)
			case s.cfg.Throttle.throttled(&sub.Standing, p.client(), now):
				e.Reason = string(ReasonThrottled)
				return fmt.Errorf("%w: too many failures; wait, or unlock the user", ErrState)
			case s.skewed.Load():
				return fmt.Errorf("%w: the clocks of server and database differ", ErrUnavailable)
			}
			factor, right, err := s.shows(ctx, t, sub.User.PINMAC, code, now)
			if err != nil {
				return err
			}
			w := sub.touch()
			if !right {
				w.Next = s.cfg.Throttle.fail(w.Next, p.client(), now)
				c.Standings = []StandingWrite{w}
				return fmt.Errorf("%w: it is not the code of token %s now; look at the app's clock, and enter the next one", ErrWrongCode, serial)
			}
			next := *t
			next.State, next.Motion = Active, t.consume(factor, now)
			if err := s.bind(ctx, []*Token{&next}, sub.User.PINMAC); err != nil {
				return err
			}
			c.Standings = []StandingWrite{w}
			c.Tokens = []TokenWrite{{Token: next, Expect: t.Version}}
			c.Motions = []MotionWrite{{TokenID: t.ID, UserID: t.OwnerID, Last: next.Last, Drift: next.Drift, UsedAt: next.UsedAt}}
			c.Invites = p.useUp(serial, now)
			e.Detail = []audit.Field{
				{Name: "from", Value: string(t.State)}, {Name: "to", Value: string(next.State)},
				{Name: "factor", Value: itoa(int64(factor))},
			}
			out = next
			return nil
		})
	if err != nil {
		return Token{}, spentAs(err, "the token was confirmed before")
	}
	return out, nil
}

// shows says whether a token shows a code now, and for which factor.
func (s *Service) shows(ctx context.Context, t *Token, pinMAC []byte, code string, now time.Time) (factor uint64, right bool, err error) {
	c := candidate{token: t, code: parseCode(code, t.Digits), factors: s.cfg.Windows.factors(nil, t, now)}
	if c.macs, err = s.macs(ctx, t, pinMAC, c.factors); err != nil {
		return 0, false, err
	}
	factor, right, _ = c.hit()
	return factor, right, nil
}
