package tokens

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// trial is one attempt while its batch is being decided.
type trial struct {
	*pending
	subject  *Subject // nil for an unknown user
	user     *User    // the subject's, or the decoy's
	bar      Reason
	cands    []candidate
	answer   *keyAnswer // of a key, in the place of cands
	turn     *exchange  // its part in a dialogue; mostly nil
	v        verdict
	unproven error // why its row could not be looked at
}

// decide loads, computes and judges a batch. Attempts on the same user are judged
// one after another, each on the state that the one before left. It answers nil
// if no attempt is left to commit.
func (e *engine) decide(ctx context.Context, batch []*pending) *decided {
	s := e.s
	view, err := s.load(ctx, batch)
	if err != nil {
		s.counts.failed(batch)
		for _, x := range batch {
			x.fail(err)
		}
		return nil
	}
	subjects, now := view.Subjects, s.cfg.Now()
	d := &decided{
		list: make([]judged, 0, len(batch)), writes: make([]*write, 0, len(batch)),
		recalled: view.Recalled, read: view.Read, generation: view.Generation,
		from: now.Add(-s.cfg.ClockSkew), until: now.Add(s.cfg.ClockSkew),
	}
	rest := make([]int, 0, len(batch))
	spends := map[[sha256.Size]byte]bool{} // in this batch
	for i, x := range batch {
		if x.key != nil && subjects[i] != nil {
			if subjects[i].User == nil { // a key that was taken back is nobody's
				subjects[i] = nil
			} else if x.ref.Credential != "" {
				x.also = &Ref{Realm: x.ref.Realm, User: subjects[i].User.Key}
			}
		}
		if !s.live(x.principal) {
			x.fail(fmt.Errorf("%w: it was deleted", ErrUnknownKey))
			continue
		}
		if _, err := s.policies(x.principal, policy.Verify); err != nil {
			x.fail(err)
			continue
		}
		rest = append(rest, i)
	}
	// The time is the whole batch's: with an HSM that hangs, each further
	// attempt on the same user would have others wait that long again.
	ctx, cancel := context.WithTimeout(ctx, computeTimeout)
	defer cancel()
	turns := s.turns(ctx, batch, subjects, now)
	writes := make(map[*Subject]*write, len(batch))
	for len(rest) > 0 {
		var round []int
		round, rest = s.round(batch, subjects, turns, rest, now)
		trials := make([]trial, len(round))
		for j, i := range round {
			trials[j] = trial{pending: batch[i], subject: subjects[i]}
			if turns != nil {
				trials[j].take(turns[i], writes)
			}
		}
		s.compute(ctx, trials, now)
		for j := range trials {
			t := &trials[j]
			if t.answer != nil {
				t.answer.replay = t.answer.replay || spends[t.key.Spend.Hash]
			}
			t.v = t.judge()
			if t.turn != nil {
				t.said(&t.v, spends)
			}
			e.gate(ctx, t, &t.v)
			if x, ok := t.uses(); ok {
				spends[x.Hash] = true
			}
		}
		if turns != nil {
			e.converse(ctx, trials, now)
		}
		for j := range trials {
			t := &trials[j]
			e.nameGroups(ctx, t)
			if t.pin != nil && t.v.accept {
				s.changePIN(ctx, t, &t.v, t.pin.pin)
			}
			t.spend()
			s.apply(d, writes, t, &t.v, now)
		}
		rest = e.putOff(batch, subjects, trials, rest)
	}
	if len(d.list) == 0 {
		return nil
	}
	return d
}

// round takes from rest what can be computed together: of each user one attempt
// that may change the user's state, after any number that cannot, so that who
// floods a user who is barred anyway has nobody else wait.
func (s *Service) round(batch []*pending, subjects []*Subject, turns []*exchange, rest []int, now time.Time) (round, later []int) {
	met := make(map[*Subject]bool, len(rest))
	for _, i := range rest {
		subject := subjects[i]
		var said *exchange
		if turns != nil {
			said = turns[i]
		}
		switch {
		case subject == nil:
		case met[subject]:
			later = append(later, i)
			continue
		case subject.User == nil || s.barOf(batch[i], said, subject, now) == "":
			met[subject] = true
		}
		round = append(round, i)
	}
	return round, later
}

// judge gives the verdict on the trial.
func (t *trial) judge() verdict {
	if t.answer != nil {
		v := decideKey(t.user, t.bar, t.answer)
		if t.subject == nil && t.ref.Credential == "" && v.err == nil {
			v.reason = ReasonUnknownUser
		}
		return v
	}
	var v verdict
	switch {
	case t.pin != nil:
		v = t.judgePIN()
	case t.choosesPIN():
		v.reason = ReasonPINDue // choosePIN judges it
	default:
		v = decide(t.user, t.bar, t.cands)
	}
	if t.subject == nil && v.err == nil {
		v.reason = ReasonUnknownUser
		if t.signing != nil && t.signing.user != "" {
			v.reason = ReasonNoRole
		}
	}
	return v
}

// load reads the subjects of a batch, in one round trip, and what the node
// caches if it is no longer right.
func (s *Service) load(ctx context.Context, batch []*pending) (View, error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	refs := make([]Ref, len(batch))
	for i, x := range batch {
		refs[i] = x.ref
	}
	before := s.cfg.Now()
	read := s.db.Recall
	if s.skewed.Load() { // whether it still is shows in the clock that was read
		read = s.db.Load
	}
	view, err := read(ctx, refs)
	s.noteDatabase(err)
	if err != nil {
		return View{}, unavailable(err)
	}
	s.noteClock(view.Clock, before)
	if view.Generation != s.reg.Load().generation {
		if err := s.reloadRegistry(ctx); err != nil {
			return View{}, unavailable(err)
		}
	}
	return view, nil
}

// computeTimeout bounds the HMACs and decryptions of one batch: an HSM that hangs is a fault.
const computeTimeout = 5 * time.Second

// compute fills in what decide needs: who is barred, and of codes and keys what
// computeCodes and keyBatch say. The signatures of keys are checked beside, so that
// the codes of the batch need not wait long.
func (s *Service) compute(ctx context.Context, trials []trial, now time.Time) {
	var keys keyBatch
	for i := range trials {
		t := &trials[i]
		t.user = &decoyUser
		if t.subject != nil {
			t.user = t.subject.User
			t.bar = s.barOf(t.pending, t.turn, t.subject, now)
		}
		if t.key != nil {
			keys.add(s, t, now)
		}
	}
	wait := keys.check(s.log)
	if len(keys.all) < len(trials) {
		s.computeCodes(ctx, trials, now)
	}
	keys.prove(ctx, s)
	wait()
	keys.next(ctx, s)
}

// computeCodes fills in what decide needs of codes: the MAC of each PIN that
// was typed, the HMACs of each token's window, what a Yubico OTP decrypts to, and,
// where what was typed ends like a passcode, the MACs of that.
// An attempt that cannot be accepted anyway, or that is for an unknown user, costs
// as much as a wrong code does: its windows are computed whole, its OTP is
// decrypted.
func (s *Service) computeCodes(ctx context.Context, trials []trial, now time.Time) {
	jobs := make([]hsm.Job, 0, len(trials))
	owners := make([]*candidate, 0, len(trials))
	var pins pinBatch
	var passes passBatch
	for i := range trials {
		t := &trials[i]
		if t.key != nil || t.choosesPIN() {
			continue
		}
		switch next := t.turn != nil && t.turn.kind == stateNextCode; {
		case next:
			t.cands = t.nextCandidates()
		case t.subject != nil:
			t.cands = shown(t.subject.Tokens)
		}
		if len(t.cands) == 0 {
			decoy := s.decoyFor(t.code)
			t.cands = []candidate{{token: &decoy, decoy: true}}
		}
		if t.turn == nil || t.turn.kind != stateNextCode {
			s.asPasscode(t)
		}
		if t.first() && t.code != "" {
			pins.add(t.user, t.code, &t.turn.exact, &t.turn.err)
		}
		for k := range t.cands {
			c := &t.cands[k]
			if c.token.Digits < 0 { // an altered row; compute goes no further with it
				continue
			}
			c.expired = c.token.expired(now)
			var pin string
			switch {
			case c.pass != nil:
				var p passText
				pin, p, _ = splitPasscode(t.code)
				passes.add(c, t.user.ID, &p, t.boundTo(c))
				clear(p[:])
			case c.token.Type == YubicoOTP:
				pin, c.otp = splitOTP(t.code, c.token.PublicID)
			case t.proof != nil:
				c.code, c.proof = noCode, t.proof
			default:
				pin, c.code = split(t.code, c.token.Digits)
				if t.turn != nil && t.turn.kind != stateNextCode {
					t.spell(c, &pins)
				}
			}
			c.bare = pin == ""
			c.pinOK = c.bare && (!t.user.HasPIN() || t.turn.carriesPIN(t.user))
			if !c.bare {
				pins.add(t.user, pin, &c.pinOK, &c.err)
			}
			if t.turn != nil && t.turn.said.typed && !c.pinOK { // something went before it
				c.bare = false
			}
		}
	}
	pins.run(ctx, s.custody)
	passes.run(ctx, s.custody)
	var blocks blockBatch
	for i := range trials {
		t := &trials[i]
		for k := range t.cands {
			c := &t.cands[k]
			if c.err != nil {
				continue
			}
			if c.token.Valid() != nil { // no arithmetic is possible with it
				c.err = hsm.ErrTampered
				continue
			}
			if (c.token.Type == TOTP || !c.token.Expires.IsZero()) && s.skewed.Load() {
				c.err = fmt.Errorf("%w: the clocks of server and database differ", ErrUnavailable)
				continue
			}
			if c.pass != nil {
				continue
			}
			if c.otp != nil {
				blocks.add(c, t.boundTo(c))
				continue
			}
			if c.factors == nil {
				c.factors = s.cfg.Windows.factors(make([]uint64, 0, 12), c.token, now)
			}
			job := hsm.Job{Key: c.token.Sealed(t.boundTo(c)), Factors: c.factors}
			if t.mayAccept() && c.pinOK && c.token.State == Active && !c.expired {
				job.Stop = func(i int, mac []byte) bool {
					return c.shows(i, mac) && c.token.fresh(c.factors[i])
				}
			}
			jobs = append(jobs, job)
			owners = append(owners, c)
		}
	}
	blocks.run(ctx, s.custody)
	if len(jobs) == 0 {
		return
	}
	list := make([]*hsm.Job, len(jobs))
	for i := range jobs {
		list[i] = &jobs[i]
	}
	err := s.custody.HMAC(ctx, list)
	for i, c := range owners {
		switch {
		case jobs[i].Err != nil:
			c.err = translate(jobs[i].Err)
		case err != nil:
			c.err = translate(err)
		default:
			c.macs = jobs[i].MACs
		}
	}
}

// mayAccept says whether a right code is accepted: only then may it cost less than a
// wrong one.
func (t *trial) mayAccept() bool {
	return t.subject != nil && t.bar == "" && !t.user.mustChangePIN() && (t.pin == nil || t.user.HasPIN()) && (t.turn == nil || t.turn.bad == "")
}

// boundTo is the PIN MAC that the row of a candidate's token is bound to.
func (t *trial) boundTo(c *candidate) []byte {
	if c.decoy {
		return decoyUser.PINMAC
	}
	return t.user.PINMAC
}

// shown are those of a user's tokens that codes can be held against: not keys, nor
// what has not shown yet that it works, nor passcodes, which asPasscode adds.
func shown(held []Token) []candidate {
	list := make([]candidate, 0, len(held))
	for k := range held {
		if held[k].Type != FIDO && held[k].State != Pending && !held[k].passcode() {
			list = append(list, candidate{token: &held[k]})
		}
	}
	return list
}

// translate keeps the HSM's words and gives callers the core's error: what was
// tampered with stays known as such, everything else is a fault.
func translate(err error) error {
	if err == nil || errors.Is(err, hsm.ErrTampered) {
		return err
	}
	return unavailable(err)
}

// apply notes a verdict in the batch and in the state that the next attempt on
// the same user is judged on.
func (s *Service) apply(d *decided, writes map[*Subject]*write, t *trial, v *verdict, now time.Time) {
	d.list = append(d.list, judged{pending: t.pending, verdict: *v, subject: t.subject})
	this := &d.list[len(d.list)-1]
	event := &this.event
	t.event(event, now, v)
	this.outcome = event.Outcome
	if event.User == "" && t.subject != nil {
		event.User = t.subject.User.Key // a passkey's
	}
	if t.subject == nil || v.err != nil && !v.counted || t.idle() || t.idleTalk() && !v.counted {
		if t.impossible && (t.signing == nil || t.signing.user == "") {
			event.User = ""
		}
		if !s.crowd.admit(event, now) {
			*event = audit.Event{}
		}
	}
	if !v.accept && !v.counted && v.suspend == nil && !v.consumes() || t.subject == nil {
		return
	}
	w := writes[t.subject]
	if w == nil {
		w = &write{subject: t.subject, expect: t.subject.Version}
		writes[t.subject] = w
		d.writes = append(d.writes, w)
	}
	switch {
	case v.accept || v.consumes():
		if v.consumes() {
			v.token.Motion = v.token.consume(v.factor, now)
			if !slices.Contains(w.moved, v.token) {
				w.moved = append(w.moved, v.token)
			}
		}
		if !v.accept {
			break
		}
		t.subject.Standing = t.subject.clear()
		if v.rekeyed != nil {
			s.rebound(w, this, t, v, now)
		}
		if v.turnOn != nil {
			w.put(TokenWrite{Token: *v.turnOn, Expect: v.token.Version})
			this.beside = s.movedBy(t, v, policy.TokenActivate, v.turnOn, now)
			v.token.State, v.token.Binding = v.turnOn.State, v.turnOn.Binding
		}
		if t.key != nil {
			this.result = accepted(v, t.user, now)
			this.result.proof.policy = t.policy
		}
		if t.signing != nil {
			this.proof = proofOf(v.token, t.user, nil, now)
			this.proof.policy = t.policy
		}
	case v.suspend != nil:
		w.put(TokenWrite{Token: *v.suspend, Expect: v.token.Version})
		this.beside = s.movedBy(t, v, policy.TokenSuspend, v.suspend, now)
		v.token.State, v.token.Binding = v.suspend.State, v.suspend.Binding
	default:
		before := t.subject.Standing
		t.subject.Standing = s.cfg.Throttle.fail(before, t.client, now)
		locking(event, &before, &t.subject.Standing)
	}
	w.standing = t.subject.Standing
	w.standing.Version = w.expect + 1
}

// pinBatch computes the MACs of the PINs typed in a batch, each once.
type pinBatch struct {
	messages [][]byte
	asked    []pinAsked
}

// pinAsked is a PIN that was typed.
type pinAsked struct {
	wanted []byte // the user's PIN MAC; empty if there is none
	right  *bool
	err    *error
}

func (b *pinBatch) add(u *User, pin string, right *bool, err *error) {
	b.messages = append(b.messages, pinMessage(u, pin))
	b.asked = append(b.asked, pinAsked{u.PINMAC, right, err})
}

// pinMessage is what a PIN's MAC is computed over.
func pinMessage(u *User, pin string) []byte {
	m := make([]byte, 0, 64+len(pin))
	m = append(m, "watchword-pin-1\x00"...)
	m = binary.BigEndian.AppendUint64(m, uint64(u.ID))
	m = append(m, u.PINSalt...)
	return append(m, pin...)
}

func (b *pinBatch) run(ctx context.Context, custody Custody) {
	if len(b.messages) == 0 {
		return
	}
	macs, err := custody.MAC(ctx, hsm.KeyPIN, b.messages...)
	for i, m := range b.messages {
		clear(m)
		a := &b.asked[i]
		if err != nil {
			*a.err = translate(err)
			continue
		}
		*a.right = len(a.wanted) > 0 && subtle.ConstantTimeCompare(macs[i], a.wanted) == 1
	}
}
