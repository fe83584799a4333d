package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Attempt is one try at being let in.
type Attempt struct {
	Realm     string // empty: the principal's, or the default one
	User      string // as typed
	Code      string // the PIN, if there is one, followed by the OTP; or
	Proof     Proof  // what was computed from the OTP, without a PIN
	Method    string // how Proof was computed, for the audit: chap, mschap, mschapv2
	Transport string // radius, http
	Origin    Origin

	State     []byte     // of the Challenge that Code answers; none: the attempt begins here
	Dialogues []Dialogue // that may begin, or go on
	Joined    []Dialogue // whose answers Code may hold one after another
	Groups    bool       // an accept is to name the user's groups
}

// Proof is what a method shows that does not send the code (CHAP, MS-CHAP): it was
// computed from it, and is held against each code that would be right. A user with a
// PIN cannot be proven so, as nobody has the PIN back. Nor can a code that is no
// number of a window: a Yubico OTP or a passcode.
type Proof interface {
	// Proves says whether it was computed from a code, in digits. One goroutine at a
	// time calls it, for some codes more than once. It may remember the code that it
	// proves, for the answer to an accept.
	Proves(code []byte) bool
}

// oneAtATime keeps the promise of Proof where the sessions of an HSM share the work on
// a user's tokens.
type oneAtATime struct {
	mu sync.Mutex
	Proof
}

func (p *oneAtATime) Proves(code []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Proof.Proves(code)
}

// Result is the answer to an attempt. A reject does not say why: the audit
// does.
type Result struct {
	Accept    bool
	Serial    string     // of the token that matched, on accept only
	Groups    []string   // the user's, sorted, on accept only and where they were asked for
	Challenge *Challenge // if there is one, the attempt has not ended yet
}

// maxCode bounds what may be typed: one more byte than the longest PIN (96) and the
// longest code (a Yubico OTP with a public id, 64) have, so that nothing that was cut
// off can be right.
const maxCode = 96 + maxPublicID + otpChars + 1

// Verify checks a code, or the answer to a Challenge. It answers when the outcome is
// durable: an accept is given at most once for a code, and one answer to a Challenge is
// looked at, whatever happens. Errors wrap ErrInvalid,
// ErrForbidden, ErrUnknownKey, ErrUnavailable or ErrOverloaded; everything
// else is a Result.
func (s *Service) Verify(ctx context.Context, p Principal, a Attempt) (Result, error) {
	realm, err := p.realm(a.Realm)
	if a.User == "" || !a.typed() || err != nil {
		return Result{}, s.malformed(ctx, p, realm, a.User, a.Transport, "a user and a code are needed", err)
	}
	e := audit.Event{Realm: realm}
	if err := s.allow(ctx, p, policy.Verify, &e, nil); err != nil {
		if errors.Is(err, ErrForbidden) {
			s.counts.refused(&p, "denied", ReasonForbidden)
		}
		return Result{}, err
	}
	x := s.attempt(p, realm, a)
	x.talks(&a)
	x.policy = e.Policy
	got, err := s.await(ctx, x)
	return got.result, err
}

// Ask is Verify for who has no goroutine to wait: it calls done once, with what
// Verify answers, and as a rule not before it has returned itself. The core's
// goroutines call it, which done must not keep. An end of ctx is not waited for
// here: the answer comes all the same.
func (s *Service) Ask(ctx context.Context, p Principal, a Attempt, done func(Result, error)) {
	e := audit.Event{}
	var err error
	ready := p.Kind == KindClient && a.User != "" && a.typed()
	if ready {
		e.Realm, err = p.realm(a.Realm)
		ready = err == nil
	}
	if ready {
		d, err := s.decide(ctx, p, policy.Verify, &e, nil) // reads nothing: e names nobody
		e.Policy = determining(&d)
		ready = err == nil && d.Allow && s.guarded(p, policy.Verify, nil) == ""
	}
	if !ready {
		go func() { done(s.Verify(ctx, p, a)) }() // others take longer, and a refusal is audited first
		return
	}
	x := s.attempt(p, e.Realm, a)
	x.talks(&a)
	x.policy, x.done = e.Policy, done
	if err := s.engine.submit(x); err != nil {
		x.fail(err)
	}
}

// attempt is an attempt with a code for the engine.
func (s *Service) attempt(p Principal, realm string, a Attempt) *pending {
	x := &pending{principal: p, client: p.client(), code: a.Code, transport: a.Transport}
	if a.Proof != nil {
		x.code, x.proof, x.method = "", &oneAtATime{Proof: a.Proof}, a.Method
	}
	x.origin(a.Origin)
	x.ref.Realm = realm
	// What is longer than any PIN and code is wrong, also when it is cut off.
	x.code = x.code[:min(len(x.code), maxCode)]
	if key, err := FoldName(a.User); err == nil {
		x.ref.User = key
	} else { // no such user can be: it is held against the decoy like any unknown one
		x.impossible = true
	}
	return x
}

// await gives an attempt to the engine and waits for its answer.
func (s *Service) await(ctx context.Context, x *pending) (answer, error) {
	x.answer = make(chan answer, 1)
	if err := s.engine.submit(x); err != nil {
		return answer{}, err
	}
	select {
	case got := <-x.answer:
		return got, got.err
	case <-ctx.Done():
		// The attempt goes its way and is audited; nobody hears of it.
		return answer{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// malformed audits an attempt that cannot be one and answers the error for the
// caller: err, which says that there is no such realm, or else what is needed.
func (s *Service) malformed(ctx context.Context, p Principal, realm, user, transport, needed string, err error) error {
	e := s.event(p, policy.Verify, audit.Event{Realm: realm, Outcome: "reject", Reason: string(ReasonMalformed),
		Detail: []audit.Field{{Name: "transport", Value: transport}}})
	if key, bad := FoldName(user); bad == nil {
		e.User = key
	}
	if s.crowd.admit(&e, e.Time) {
		if err := s.ledger.commit(ctx, &Change{}, []audit.Event{e}); err != nil {
			return err
		}
	}
	s.counts.refused(&p, e.Outcome, ReasonMalformed)
	if err == nil {
		err = fmt.Errorf("%w: %s", ErrInvalid, needed)
	}
	return err
}

// client is the name under which failures are counted for a principal.
func (p Principal) client() string {
	if p.Kind == KindClient {
		return p.ID
	}
	return p.Actor()
}

// pending is an attempt on its way through the engine.
type pending struct {
	principal  Principal
	client     string
	ref        Ref
	also       *Ref // the user, once a passkey's is known
	code       string
	proof      Proof       // in the place of code
	method     string      // of proof
	key        *KeyAttempt // in the place of code
	pin        *pinChange  // what is done if it is accepted; mostly nil
	signing    *signing    // the session that it is for; mostly nil
	talk       *talk       // what it may do in dialogues; mostly nil
	groups     bool        // an accept is to name the user's groups
	spent      bool        // the database says that the key's challenge, or the State, was answered before
	transport  string
	policy     string              // what let it in, as in audit.Event
	nas        string              // see Origin
	caller     netip.Addr          // see Origin
	impossible bool                // the name can be no user's
	tries      int                 // how often it met a conflict
	answer     chan answer         // of who waits
	done       func(Result, error) // of who does not
	told       atomic.Bool
}

type answer struct {
	result Result
	key    *KeyResult // of a key that was accepted
	proof  *proof     // of a code that was accepted, for a session
	err    error
}

func (x *pending) fail(err error) { x.tell(answer{err: err}) }

// tell gives whoever asked the answer. There is one.
func (x *pending) tell(got answer) {
	switch {
	case x.told.Swap(true):
	case x.done != nil:
		x.done(got.result, got.err)
	default:
		x.answer <- got
	}
}

// event fills in the audit's record of the attempt.
func (x *pending) event(e *audit.Event, now time.Time, v *verdict) {
	*e = audit.Event{
		Time: now, Action: string(policy.Verify), Outcome: "reject",
		Realm: x.ref.Realm, User: x.ref.User,
		Actor: x.principal.Actor(), Client: x.client, Source: x.principal.Source, Reason: string(v.reason),
	}
	switch {
	case v.accept:
		e.Outcome = "accept"
	case v.err != nil:
		e.Outcome = "error"
	case v.challenge != nil:
		e.Outcome = "challenge"
	}
	if v.token != nil {
		e.Serial = v.token.Serial
	}
	e.Detail = make([]audit.Field, 1, 3)
	e.Detail[0] = audit.Field{Name: "transport", Value: x.transport}
	if x.proof != nil {
		e.Detail = append(e.Detail, audit.Field{Name: "method", Value: x.method})
	}
	if x.pin != nil {
		e.Detail = append(e.Detail, audit.Field{Name: "for", Value: string(policy.UserPINChange)})
	}
	if x.signing != nil {
		e.Detail = append(e.Detail, audit.Field{Name: "for", Value: string(x.signing.action)})
		e.User = max(e.User, x.signing.user) // which of the two there is
	}
	if x.key != nil {
		e.Detail = append(e.Detail, x.key.detail(v)...)
	} else if v.consumes() && v.token.passcode() {
		e.Detail = append(e.Detail, audit.Field{Name: fieldNumber, Value: itoa(int64(v.factor) + 1)})
	} else if v.consumes() {
		e.Detail = append(e.Detail, audit.Field{Name: "factor", Value: itoa(int64(v.factor))})
	}
	if x.talk != nil {
		e.Detail = x.talk.detail(e.Detail, v)
	}
	if x.policy != "" { // and not as Policy, which would have the others copied
		e.Detail = append(e.Detail, audit.Field{Name: audit.FieldPolicy, Value: x.policy})
	}
}
