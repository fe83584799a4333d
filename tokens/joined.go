package tokens

import (
	"context"
	"crypto/subtle"
	"slices"
)

// maxSpellings bounds in how many ways a new PIN is looked for in what was typed.
const maxSpellings = 4

// spelling is a way to take what was typed apart, other than into a PIN and a code:
//
//	[PIN] code next-code
//	PIN code new-PIN new-PIN
type spelling struct {
	c      *candidate
	code   uint32
	next   uint32 // the code that follows; noCode: a new PIN does
	newPIN string
	pinOK  bool
	err    error
}

// join says whether the answers of a dialogue may be typed one after another.
func (k *talk) join(d Dialogue) bool { return slices.Contains(k.joined, d) }

// maxJoined bounds what may be typed where answers are joined.
func (k *talk) maxJoined() int {
	n := maxCode
	if k.join(DialogueNextCode) {
		n += 8
	}
	if k.join(DialogueNewPIN) {
		n += 2 * maxPINBytes
	}
	return n
}

// spell adds the other ways in which what was typed can be taken apart for a candidate
// that shows codes. How many there are depends on what was typed and on the length of
// the codes alone.
func (t *trial) spell(c *candidate, pins *pinBatch) {
	add := func(x spelling, pin string) {
		x.c = c
		x.pinOK = pin == "" && (!t.user.HasPIN() || t.turn.carriesPIN(t.user))
		held := &x
		t.turn.spelt = append(t.turn.spelt, held)
		if pin != "" {
			pins.add(t.user, pin, &held.pinOK, &held.err)
		}
	}
	digits := c.token.Digits
	if t.talk.join(DialogueNextCode) {
		head, next := split(t.code, digits)
		if pin, code := split(head, digits); next != noCode && code != noCode {
			add(spelling{code: code, next: next}, pin)
		}
	}
	if !t.talk.join(DialogueNewPIN) {
		return
	}
	found := 0
	for n := minPIN; n <= min(maxPINBytes, len(t.code)/2) && found < maxSpellings; n++ {
		head, one, two := t.code[:len(t.code)-2*n], t.code[len(t.code)-2*n:len(t.code)-n], t.code[len(t.code)-n:]
		if one != two || plausiblePIN(two) != nil {
			continue
		}
		if pin, code := split(head, digits); code != noCode && pin != "" {
			add(spelling{code: code, next: noCode, newPIN: two}, pin)
			found++
		}
	}
}

// joined judges what was typed in the other ways, where it is wrong as a PIN and a code.
func (e *engine) joined(ctx context.Context, t *trial) {
	v := &t.v
	if t.turn == nil || len(t.turn.spelt) == 0 || t.turn.bad != "" || v.accept || v.err != nil || !v.counted || t.bar != "" || t.subject == nil {
		return
	}
	for _, x := range t.turn.spelt {
		if c := x.c; c.err != nil || c.decoy || c.expired || c.token.State != Active {
			continue
		}
		if x.err != nil { // the PIN's MAC could not be computed, and might have been right
			*v = verdict{reason: ReasonUnavailable, err: unavailable(x.err), counted: true}
			return
		}
		if !x.pinOK {
			continue
		}
		done := false
		if x.next == noCode {
			done = e.joinedPIN(ctx, t, x)
		} else {
			done = e.joinedCode(ctx, t, x)
		}
		if done {
			return
		}
	}
}

// joinedPIN judges a PIN and a code that a new PIN follows, twice.
func (e *engine) joinedPIN(ctx context.Context, t *trial, x *spelling) bool {
	c, v := x.c, &t.v
	at, found := 0, false
	for i, mac := range c.macs {
		if matches(mac, c.token.Digits, x.code) && c.token.fresh(c.factors[i]) && !found {
			at, found = i, true
		}
	}
	if !found {
		return false
	}
	accept := verdict{accept: true, reason: ReasonAccepted, token: c.token, factor: c.factors[at]}
	bad, err := e.s.badPIN(ctx, t.user, x.newPIN)
	switch {
	case err != nil:
		*v = verdict{reason: ReasonUnavailable, err: unavailable(err)}
	case bad != "":
		*v = verdict{reason: bad, token: c.token}
	default:
		if e.letsChange(ctx, t, &accept); accept.accept {
			e.s.changePIN(ctx, t, &accept, x.newPIN)
		}
		*v = accept
	}
	v.joined = DialogueNewPIN
	return true
}

// joinedCode judges two codes of a token that follow one another: in its window, or as
// far ahead of it as the next code would be asked for.
func (e *engine) joinedCode(ctx context.Context, t *trial, x *spelling) bool {
	c, v := x.c, &t.v
	macs := make(map[uint64][]byte, 64)
	for i, mac := range c.macs {
		macs[c.factors[i]] = mac
	}
	for k := range t.turn.ahead {
		if a := &t.turn.ahead[k]; a.c == c {
			for i, mac := range a.job.MACs {
				macs[a.factors[i]] = mac
			}
		}
	}
	var factor uint64
	found, fresh := false, false
	for f, first := range macs {
		second, ok := macs[f+1]
		if !ok {
			continue
		}
		right := subtle.ConstantTimeEq(int32(truncate(first, c.token.Digits)), int32(x.code)) &
			subtle.ConstantTimeEq(int32(truncate(second, c.token.Digits)), int32(x.next))
		// Of two such places the lower: it leaves more codes that are good.
		if right == 1 && (!found || c.token.fresh(f) && (!fresh || f < factor)) {
			factor, found, fresh = f, true, c.token.fresh(f)
		}
	}
	switch {
	case !found:
		return false
	case !fresh:
		*v = verdict{reason: ReasonReplay, token: c.token}
	case t.user.mustChangePIN():
		*v = verdict{reason: ReasonPINDue, token: c.token, factor: factor + 1}
	default:
		*v = verdict{accept: true, reason: ReasonAccepted, token: c.token, factor: factor + 1}
		e.gate(ctx, t, v)
	}
	v.joined = DialogueNextCode
	return true
}
