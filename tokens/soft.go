package tokens

import (
	"cmp"
	"context"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"strings"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// NewSoft is a software token to enrol, such as an authenticator app's: TOTP, and what
// all apps know unless something else is said. Not every app knows that.
type NewSoft struct {
	Realm, User string
	Issuer      string   // as the app shows it; may be empty
	Algorithm   hsm.Hash // zero: SHA-1
	Digits      int      // 6 to 8; zero: 6
	Period      int      // seconds of a time step, 30 or 60; zero: 30
}

// valid fills in what was left out, or says what is wrong.
func (n NewSoft) valid() (NewSoft, error) {
	if err := askable(n.Issuer); err != nil {
		return n, fmt.Errorf("%w: the issuer is not text, or longer than 255 bytes", ErrInvalid)
	}
	n.Algorithm, n.Digits, n.Period = cmp.Or(n.Algorithm, hsm.SHA1), cmp.Or(n.Digits, 6), cmp.Or(n.Period, 30)
	switch {
	case n.Algorithm != hsm.SHA1 && n.Algorithm != hsm.SHA256 && n.Algorithm != hsm.SHA512:
		return n, fmt.Errorf("%w: unknown hash; it is sha1, sha256 or sha512", ErrInvalid)
	case n.Digits < 6 || n.Digits > 8:
		return n, fmt.Errorf("%w: %d digits; 6, 7 or 8 are possible", ErrInvalid, n.Digits)
	case n.Period != 30 && n.Period != 60:
		return n, fmt.Errorf("%w: a time step of %d s; 30 or 60 are possible", ErrInvalid, n.Period)
	}
	return n, nil
}

// softPrefix begins the serial of a software token; 16 hex digits follow.
const softPrefix = "S-"

// soft says whether a token was enrolled by EnrolSoft: it came with no import.
func (t *Token) soft() bool { return t.Batch == 0 && t.Type == TOTP }

// EnrolSoft makes a software token for a user, which is of no use before Activate.
// The seed is made in the HSM. It answers the key URI that the app reads, as a QR code
// mostly: the seed is in it, and nowhere else, so the caller wipes it; no other call
// answers it again. A user has one software token that waits for its codes: asking
// again gives that one a new seed, or another one takes its place if it is to make
// other codes.
func (s *Service) EnrolSoft(ctx context.Context, p Principal, n NewSoft) (_ Token, uri []byte, err error) {
	realm, key, err := p.names(n.Realm, n.User)
	if err != nil {
		return Token{}, nil, err
	}
	if n, err = n.valid(); err != nil {
		return Token{}, nil, err
	}
	var seed []byte
	defer func() { clear(seed) }()
	var wrapped hsm.Wrapped
	var name string
	var made *Token
	d, err := s.perform(ctx, p, act{
		action: policy.TokenEnrol,
		event:  audit.Event{Realm: realm, User: key},
		refs:   []Ref{{Realm: realm, User: key}},
		decide: func(ctx context.Context, d *deed) error {
			sub := d.found[0]
			if sub == nil {
				return noUser(realm, n.User)
			}
			waiting := sub.waiting()
			if err := s.mayEnrol(ctx, sub); err != nil && (waiting == nil || sub.User.State != UserEnabled) {
				return err
			}
			if seed == nil { // it is made once, also where the user is changed meanwhile
				w, b, err := s.custody.Generate(ctx, n.Algorithm)
				if err != nil {
					return translate(err)
				}
				wrapped, seed = w, b
			}
			name = sub.User.Name
			made, err = s.enrolSoft(ctx, d, sub, waiting, &n, wrapped)
			return err
		},
	})
	if err != nil {
		return Token{}, nil, err
	}
	if made != nil { // the commit gave it its ID
		d.token.ID = made.ID
	}
	return d.token, n.uri(name, seed), nil
}

// waiting is the software token of a user that waits for its codes, or nil.
func (s *Subject) waiting() *Token {
	for i := range s.Tokens {
		if t := &s.Tokens[i]; t.soft() && t.State == Pending {
			return t
		}
	}
	return nil
}

// enrolSoft gives the waiting token another seed, or makes a new one, which it answers.
func (s *Service) enrolSoft(ctx context.Context, d *deed, sub *Subject, waiting *Token, n *NewSoft, wrapped hsm.Wrapped) (*Token, error) {
	d.change.Standings = []StandingWrite{sub.touch()}
	if waiting != nil && waiting.Algorithm == n.Algorithm && waiting.Digits == n.Digits && waiting.Period == n.Period {
		d.event.Serial = waiting.Serial
		d.note(audit.Field{Name: "seed", Value: "replaced"})
		next := *waiting
		next.Wrapped = wrapped
		if err := s.rebind(ctx, waiting, sub.User.PINMAC, &next, sub.User.PINMAC); err != nil {
			return nil, err
		}
		d.change.Tokens = []TokenWrite{{Token: next, Expect: waiting.Version}}
		d.token = next
		return nil, nil
	}
	if waiting != nil {
		if err := s.revokeBeside(ctx, sub, waiting, d, "another one was asked for before it was activated"); err != nil {
			return nil, err
		}
	}
	id := make([]byte, 8)
	if _, err := io.ReadFull(s.cfg.Rand, id); err != nil {
		return nil, fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	t := &Token{
		Realm: sub.User.Realm, Serial: softPrefix + hex.EncodeToString(id), Type: TOTP, Algorithm: n.Algorithm,
		Digits: n.Digits, Period: n.Period, State: Pending, OwnerID: sub.User.ID, Owner: sub.User.Key,
		Model: "software token", Created: s.cfg.Now().UTC(), Wrapped: wrapped, Motion: Motion{Version: 1, Last: -1},
	}
	d.event.Serial = t.Serial
	if err := s.bind(ctx, []*Token{t}, sub.User.PINMAC); err != nil {
		return nil, err
	}
	d.change.NewTokens = []*Token{t}
	d.token = *t
	d.token.Assigned = t.Created
	return t, nil
}

// uri is what authenticator apps read: otpauth://totp/ISSUER:USER?secret=...
// The buffer is made as long as it gets, so that no other one holds the seed.
func (n *NewSoft) uri(user string, seed []byte) []byte {
	// Apps do not take a plus for a space.
	escape := func(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }
	label, rest := escape(user), ""
	if n.Issuer != "" {
		label = escape(n.Issuer) + ":" + label
		rest = "&issuer=" + escape(n.Issuer)
	}
	head := "otpauth://totp/" + label + "?secret="
	rest += fmt.Sprintf("&algorithm=%s&digits=%d&period=%d", strings.ToUpper(n.Algorithm.String()), n.Digits, n.Period)
	secret := base32.StdEncoding.WithPadding(base32.NoPadding)
	uri := make([]byte, len(head)+secret.EncodedLen(len(seed))+len(rest))
	at := copy(uri, head)
	secret.Encode(uri[at:], seed)
	copy(uri[at+secret.EncodedLen(len(seed)):], rest)
	return uri
}
