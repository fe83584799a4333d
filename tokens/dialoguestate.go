package tokens

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"watchword/hsm"
)

// A State is what a question gives its answer along, so that no node has to keep
// anything of it:
//
//	24 random bytes | 124 bytes under AES-256-GCM | tag of 16 bytes
//
// The key is made for this one State: it is the HMAC of the random bytes, under the
// HSM's binding key. So one call to the HSM makes the keys of a whole batch, and no
// nonce comes twice under a key however many States there ever are; under one key
// for all of them it might after 2^32 (NIST SP 800-38D, section 8.3), and anybody can
// have a gateway ask. Bound with it are the realm, the user and the client: elsewhere
// it does not open. Whatever a State says, it is as long. It travels in base64url,
// since ocserv 1.1.6 for one takes it for a C string, and cuts it at the first zero.
//
// These hold of each, and the tests look for ways around them:
//
//   - It leaves the server when all it says is durable, and never if that failed.
//   - One answer to it is judged. What it spends is written with what comes of the
//     answer, in one transaction, and no two nodes can write that.
//   - What it says of the PIN counts while the user has that very PIN.
//   - A next code is good while the user's version is the one that asking left: any
//     act, failure or accept of the user's ends it.
//   - Nothing that a rejection depends on is in how long it is, or what making or
//     opening it costs.
const (
	stateRandom = 24
	statePlain  = 4 + 3*8 + sha256.Size + 64
	stateTag    = 16
	stateSize   = stateRandom + statePlain + stateTag
)

// stateKey and stateBound precede what the key of a State is made of, and what it is
// bound to; stateSpent what is spent by its answer. No other message under KeyBinding
// begins like the first.
const (
	stateKey   = "watchword-dialogue-key-1\x00"
	stateBound = "watchword-dialogue-1\x00"
	stateSpent = "watchword-dialogue-spent-1\x00"
)

// stateForm is the version of what is in a State.
const stateForm = 1

// stateKind says what answers a State.
type stateKind uint8

const (
	stateCode     stateKind = iota + 1 // a code, after the PIN
	stateNextCode                      // the code after one far ahead
	stateNewPIN                        // a new PIN
	stateAgain                         // that once more
)

// dialogue is the one that a State belongs to; empty for none that is known.
func (k stateKind) dialogue() Dialogue {
	switch k {
	case stateCode:
		return DialoguePIN
	case stateNextCode:
		return DialogueNextCode
	case stateNewPIN, stateAgain:
		return DialogueNewPIN
	}
	return ""
}

// maxPairs bounds how many codes far ahead a question remembers.
const maxPairs = 4

// pair is a token and the factor of a code of it.
type pair struct {
	token  int64
	factor uint64
}

// dialogueState is what a State says.
type dialogueState struct {
	kind    stateKind
	typed   bool  // something was typed before the question
	pinOK   bool  // and it began with the user's PIN, or was it
	tries   uint8 // stateNewPIN, stateAgain: how many new PINs were no good
	expires time.Time
	user    int64             // the user's ID; zero if there is no such user
	version int64             // stateNextCode: the user's, after the question
	pin     [sha256.Size]byte // pinDigest of the user

	pairs []pair // stateNextCode

	token int64             // stateNewPIN, stateAgain: whose code was consumed
	salt  [16]byte          // stateAgain: of the new PIN
	mac   [sha256.Size]byte // stateAgain: its MAC with that salt
}

// pinDigest tells a user's PIN from every other one, without being of any use.
func pinDigest(u *User) [sha256.Size]byte {
	if !u.HasPIN() {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(u.PINMAC)
}

const (
	flagTyped = 1 << iota
	flagPIN
)

// encode is what is encrypted.
func (d *dialogueState) encode() []byte {
	var flags byte
	if d.typed {
		flags |= flagTyped
	}
	if d.pinOK {
		flags |= flagPIN
	}
	b := make([]byte, 0, statePlain)
	b = append(b, stateForm, byte(d.kind), flags, d.tries)
	b = binary.BigEndian.AppendUint64(b, uint64(d.expires.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(d.user))
	b = binary.BigEndian.AppendUint64(b, uint64(d.version))
	b = append(b, d.pin[:]...)
	switch d.kind {
	case stateNextCode:
		for _, p := range d.pairs[:min(len(d.pairs), maxPairs)] {
			b = binary.BigEndian.AppendUint64(b, uint64(p.token))
			b = binary.BigEndian.AppendUint64(b, p.factor)
		}
	case stateNewPIN, stateAgain:
		b = binary.BigEndian.AppendUint64(b, uint64(d.token))
		b = append(b, d.salt[:]...)
		b = append(b, d.mac[:]...)
	}
	return b[:statePlain] // the rest is zeros
}

// decode reads what was encrypted. It is ours, so it is whole.
func (d *dialogueState) decode(b []byte) bool {
	if len(b) != statePlain || b[0] != stateForm || stateKind(b[1]).dialogue() == "" {
		return false
	}
	*d = dialogueState{kind: stateKind(b[1]), typed: b[2]&flagTyped != 0, pinOK: b[2]&flagPIN != 0, tries: b[3]}
	b = b[4:]
	next := func() uint64 {
		v := binary.BigEndian.Uint64(b)
		b = b[8:]
		return v
	}
	d.expires, d.user, d.version = time.Unix(0, int64(next())), int64(next()), int64(next())
	b = b[copy(d.pin[:], b):]
	switch d.kind {
	case stateNextCode:
		for range maxPairs {
			if p := (pair{int64(next()), next()}); p.token != 0 {
				d.pairs = append(d.pairs, p)
			}
		}
	case stateNewPIN, stateAgain:
		d.token = int64(next())
		b = b[copy(d.salt[:], b):]
		copy(d.mac[:], b)
	}
	return true
}

// boundState is what a State of an attempt is bound to.
func (x *pending) boundState() []byte {
	b := make([]byte, 0, 160)
	b = append(b, stateBound...)
	for _, s := range []string{x.ref.Realm, x.ref.User, x.client} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

// stateMaker makes one State.
type stateMaker struct {
	random [stateRandom]byte
	key    []byte // AES-256; wiped once it was used
}

// cipher is the AEAD of the key, which it wipes. The nonce is of zeros: the key is for
// one message.
func (m *stateMaker) cipher() (cipher.AEAD, error) {
	block, err := aes.NewCipher(m.key)
	clear(m.key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

var stateNonce [12]byte

// seal makes the State.
func (m *stateMaker) seal(d *dialogueState, bound []byte) ([]byte, error) {
	aead, err := m.cipher()
	if err != nil {
		return nil, fmt.Errorf("%w: a question could not be sealed: %w", ErrUnavailable, err)
	}
	plain := d.encode()
	defer clear(plain)
	out := append(make([]byte, 0, stateSize), m.random[:]...)
	out = aead.Seal(out, stateNonce[:], plain, bound)
	return stateText.AppendEncode(make([]byte, 0, stateText.EncodedLen(stateSize)), out), nil
}

// open reads a State that was made with this key.
func (m *stateMaker) open(d *dialogueState, state, bound []byte) bool {
	aead, err := m.cipher()
	state = stateBytes(state)
	if err != nil || state == nil {
		return false
	}
	plain, err := aead.Open(nil, stateNonce[:], state[stateRandom:], bound)
	defer clear(plain)
	return err == nil && d.decode(plain)
}

// spends is what the answer to the State uses up.
func (m *stateMaker) spends(expires time.Time) Spend {
	return Spend{Hash: sha256.Sum256(append([]byte(stateSpent), m.random[:]...)), Expires: expires}
}

// makeKeys gives each of the makers its key, in one call to the HSM.
func (s *Service) makeKeys(ctx context.Context, list []*stateMaker) error {
	messages := make([][]byte, len(list))
	for i, m := range list {
		messages[i] = append([]byte(stateKey), m.random[:]...)
	}
	keys, err := s.custody.MAC(ctx, hsm.KeyBinding, messages...)
	if err != nil {
		return translate(err)
	}
	for i, m := range list {
		m.key = keys[i]
	}
	return nil
}

// newState is a maker with other random bytes than any before.
func (s *Service) newState() (m stateMaker, err error) {
	if _, err = io.ReadFull(s.cfg.Rand, m.random[:]); err != nil {
		return m, fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	return m, nil
}

// madeBefore is the maker of a State that somebody sent; of one that is none of ours,
// of nothing.
func madeBefore(state []byte) (m stateMaker) {
	copy(m.random[:], stateBytes(state))
	return m
}

// stateText is how a State travels. Strict, so that there is one text of each.
var stateText = base64.RawURLEncoding.Strict()

// stateBytes are those of a State that somebody sent; nil if it is none of ours.
func stateBytes(text []byte) []byte {
	if len(text) != stateText.EncodedLen(stateSize) {
		return nil
	}
	b, err := stateText.AppendDecode(make([]byte, 0, stateSize), text)
	if err != nil || len(b) != stateSize {
		return nil
	}
	return b
}
