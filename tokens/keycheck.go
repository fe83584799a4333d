package tokens

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// keyAnswer is a key's answer while its batch is being decided.
type keyAnswer struct {
	token   *Token // the credential's; a decoy if the user has none such
	known   bool   // it is no decoy
	expired bool   // the challenge
	ended   bool   // the token has expired
	replay  bool

	// What follows is set unless the answer is expired or a replay.
	intact  bool // the token's row is as Watchword left it
	handle  bool // the user handle is the owner's, or there is none
	said    Assertion
	refused *CheckError
	suspend *Token // the token's next form, if it was cloned
	turnOn  *Token // the token's next form, if it waited for this answer
	err     error
}

// decideKey gives the verdict on a key's answer. Like decide, it is a pure
// function. None of its rejections is counted: an answer cannot be guessed.
func decideKey(owner *User, bar Reason, k *keyAnswer) verdict {
	if k.err != nil {
		return verdict{reason: ReasonUnavailable, err: k.err}
	}
	if !k.known {
		if bar == "" {
			bar = ReasonUnknownCredential
		}
		return verdict{reason: bar}
	}
	t, c := k.token, k.token.Credential
	v := verdict{token: t}
	switch {
	case bar != "":
		v.reason = bar
	case k.expired:
		v.reason = ReasonExpired
	case k.replay:
		v.reason = ReasonReplay
	case !k.intact || t.Valid() != nil || c.UserID != owner.ID && !c.stock():
		v.reason = ReasonTampered
	case k.refused != nil:
		v.reason, v.why = k.refused.Reason, k.refused.Why
	case !k.handle:
		v.reason, v.why = ReasonUnknownCredential, "the answer names another user than the key's"
	case t.State == Suspended:
		v.reason = ReasonSuspendedUsed
	case t.State == Lost:
		v.reason = ReasonLostUsed
	case t.State != Active && !t.waits():
		v.reason = ReasonUnknownCredential
	case k.ended:
		v.reason = ReasonExpiredUsed
	case k.said.Synced != c.Synced:
		v.reason = ReasonBackupChanged
	case cloned(t.Last, k.said.SignCount):
		v.reason, v.suspend = ReasonCloned, k.suspend
		v.why = fmt.Sprintf("the signature counter is %d, after %d", k.said.SignCount, t.Last)
	default:
		v.accept, v.reason = true, ReasonAccepted
		v.factor, v.verified = uint64(k.said.SignCount), k.said.UserVerified
		if t.State == Pending {
			v.turnOn = k.turnOn
		}
	}
	return v
}

// cloned says whether a signature counter shows that there are two of a key (Web
// Authentication, section 6.1.1): it does not rise, and is not always zero.
func cloned(last int64, now uint32) bool {
	return (last != 0 || now != 0) && int64(now) <= last
}

// spends says whether the answer's challenge is used up. A copy's is, too: an
// answer that is sent again, because nobody heard what became of it, looks like a
// copy's by its counter, and shows only as spent that it is none.
func (v *verdict) spends() bool { return v.accept || v.suspend != nil }

// keyBatch proves the answers of keys, many at once.
type keyBatch struct {
	all  []*trial
	work []*trial // those that are neither expired nor a replay, nor failed
}

// add finds the token that a key's answer is for.
func (b *keyBatch) add(s *Service, t *trial, now time.Time) {
	a := t.key
	k := &keyAnswer{replay: t.spent || s.spent.has(a.Spend.Hash), expired: s.stale(Spend{Expires: a.Expires}, now)}
	t.answer = k
	b.all = append(b.all, t)
	if t.subject != nil {
		for i := range t.subject.Tokens {
			x := &t.subject.Tokens[i]
			if c := x.Credential; x.Type == FIDO && c != nil && c.RPID == a.RPID && bytes.Equal(c.ID, a.Credential) {
				k.token, k.known = x, true
			}
		}
	}
	if k.token == nil {
		decoy, c := s.decoy3, *s.decoy3.Credential
		c.ID, c.RPID = a.Credential, a.RPID
		decoy.Credential = &c
		k.token = &decoy
	}
	k.ended = k.token.expired(now)
	switch {
	case s.skewed.Load(): // it might have expired, and be forgotten as spent
		k.err = fmt.Errorf("%w: the clocks of server and database differ", ErrUnavailable)
	case !k.expired && !k.replay:
		b.work = append(b.work, t)
	}
}

// check begins to check all signatures, on all processors, and answers what waits
// for the end.
func (b *keyBatch) check(log *slog.Logger) (wait func()) {
	var all sync.WaitGroup
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(b.work)) {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(b.work) {
					return
				}
				b.work[i].check(log)
			}
		})
	}
	return all.Wait
}

// check asks for the proof of one answer. The answer is whatever somebody sent:
// should reading it panic, that must not be the end of the server.
func (t *trial) check(log *slog.Logger) {
	k := t.answer
	fault := fmt.Errorf("%w: the answer could not be checked", ErrUnavailable)
	defer func() {
		if r := recover(); r != nil {
			log.Error("checking the answer of a key panicked", "panic", r, "stack", string(debug.Stack()))
			k.said, k.refused, k.err = Assertion{}, nil, fault
		}
	}()
	said, err := t.key.Check(k.token.Credential, t.user)
	var refused *CheckError
	switch {
	case err == nil:
		k.said = said
	case errors.As(err, &refused):
		k.refused = &CheckError{Reason: refused.Reason, Why: refused.Why}
		if k.refused.Reason == "" {
			k.refused.Reason = ReasonBadSignature
		}
	case k.known:
		k.err = unavailable(err)
	}
}

// rowProof is something that the HSM is to prove.
type rowProof struct {
	of    *trial
	is    *bool // what of it
	mac   []byte
	known rowProofKey
}

// prove says of each answer whether the token's row is as Watchword left it, and
// whether the user handle is the owner's. Most of it was proven before. The decoy's
// row always was: it costs what a key's does that is in use.
func (b *keyBatch) prove(ctx context.Context, s *Service) {
	var messages [][]byte
	var proofs []rowProof
	ask := func(t *trial, is *bool, message, mac []byte) {
		known := rowProofOf(message, mac)
		if *is = s.rowProofs.has(known); !*is {
			messages, proofs = append(messages, message), append(proofs, rowProof{t, is, mac, known})
		}
	}
	for _, t := range b.work {
		k := t.answer
		if k.known {
			ask(t, &k.intact, k.token.Sealed(t.user.PINMAC).Message(), k.token.Binding)
		} else {
			ask(t, &k.intact, s.decoy3.Sealed(nil).Message(), s.decoy3.Binding)
		}
		if k.handle = len(t.key.Handle) == 0; k.handle {
			continue
		}
		if c := k.token.Credential; k.known && c.stock() {
			k.handle = hmac.Equal(c.Handle, t.key.Handle)
		} else {
			ask(t, &k.handle, handleMessage(t.user.ID), t.key.Handle)
		}
	}
	if len(b.work) == 0 {
		return
	}
	if len(messages) == 0 { // nobody is let in while the HSM is away, whatever is remembered
		messages = append(messages, []byte(ping))
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, messages...)
	if err != nil {
		for _, t := range b.work {
			// The signature's check may still be under way, and have an error, too.
			t.unproven = translate(err)
		}
		return
	}
	for i, x := range proofs {
		if *x.is = hmac.Equal(macs[i], x.mac); *x.is {
			s.rowProofs.add(x.known)
		}
	}
}

// idle says whether an answer is none of a user's keys, for all that is proven, and
// comes from the sign-in page: anybody can send such ones, for whichever user they
// know, as fast as the network carries them.
func (t *trial) idle() bool {
	k := t.answer
	return k != nil && t.principal.anybody() && (!k.known || k.expired || k.replay || k.refused != nil)
}

// next binds the next form of those tokens that were cloned, and of those that waited
// for their first answer. It is called once all checks have ended.
func (b *keyBatch) next(ctx context.Context, s *Service) {
	for _, t := range b.work {
		k := t.answer
		if t.unproven != nil && k.err == nil {
			k.err = t.unproven
		}
		next, v := *k.token, decideKey(t.user, t.bar, k)
		switch {
		case v.reason == ReasonCloned:
			next.State = Suspended
			k.suspend = &next
		case v.accept && next.State == Pending:
			next.State = Active
			k.turnOn = &next
		default:
			continue
		}
		if err := s.bind(ctx, []*Token{&next}, t.user.PINMAC); err != nil {
			k.err = err
		}
	}
}

// movedBy is the audit's record of a token that a verification suspended, or turned on.
func (s *Service) movedBy(t *trial, v *verdict, action policy.Action, next *Token, now time.Time) *audit.Event {
	return &audit.Event{
		Time: now, Action: string(action), Outcome: "ok", Realm: t.subject.User.Realm, User: t.subject.User.Key,
		Serial: v.token.Serial, Actor: string(KindSystem), Client: t.client, Source: t.principal.Source, Reason: string(v.reason), Policy: t.policy,
		Detail: []audit.Field{{Name: "from", Value: string(v.token.State)}, {Name: "to", Value: string(next.State)}},
	}
}
