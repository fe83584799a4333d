package tokens

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"strings"

	"watchword/hsm"
)

// A Yubico OTP is what a YubiKey types, in modhex:
//
//	public id, 0 to 16 bytes, always the same    one block of AES-128, different each time
//	vvhvcccccccd                                 dtgkbbgjutcktugfgvcrfkdlkbdiinvh
//
//	the block, decrypted:
//	+------------+---------+-----------+-----+--------+-----+
//	| private id | session | timestamp | use | random | CRC |
//	|     6      |    2    |     3     |  1  |   2    |  2  |   numbers low byte first
//	+------------+---------+-----------+-----+--------+-----+
//
// The session counter rises when the key is plugged in, and the use counter with
// each OTP within a session; both together, session<<8|use, are the token's moving
// factor. It says itself what it is: there is no window, and nothing to
// resynchronise. The timestamp is not judged: it says nothing across sessions.
const (
	otpBytes = 16           // of the block
	otpChars = 2 * otpBytes // of the block in modhex

	maxPublicID  = 32 // characters
	privateBytes = 6

	// The session counter has 15 bits; the highest one says that the OTP was set
	// off by the caps lock key, which YubiKeys of the first generation could do.
	// Were it counted, one such OTP would make all later ones replays.
	sessionMask = 0x7fff
	maxOTP      = sessionMask<<8 | 0xff
)

// modhex are the digits 0 to 15 as keys that lie in the same place on nearly all
// keyboards. Capital letters, and what other keyboards make of these keys, are not
// taken for them.
const modhex = "cbdefghijklnrtuv"

// modhexValue is the value of a digit, 0xff for what is none.
var modhexValue = func() (values [256]byte) {
	for i := range values {
		values[i] = 0xff
	}
	for i, c := range modhex {
		values[c] = byte(i)
	}
	return values
}()

// ValidPublicID says what is wrong with the public id of a YubiKey, or nil: it is
// up to 16 bytes, as modhex in small letters.
func ValidPublicID(id string) error {
	switch {
	case len(id) > maxPublicID:
		return fmt.Errorf("%w: a public id of more than %d characters", ErrInvalid, maxPublicID)
	case len(id)%2 != 0:
		return fmt.Errorf("%w: a public id of an odd number of characters", ErrInvalid)
	case strings.Trim(id, modhex) != "" || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune(modhex, r) }):
		return fmt.Errorf("%w: the public id is not modhex in small letters", ErrInvalid)
	}
	return nil
}

// modhexText is data in modhex.
func modhexText(data []byte) string {
	b := make([]byte, 0, 2*len(data))
	for _, x := range data {
		b = append(b, modhex[x>>4], modhex[x&0xf])
	}
	return string(b)
}

// validOTP is Valid for a YubicoOTP token.
func (t *Token) validOTP() error {
	switch {
	case t.Algorithm != hsm.AES128:
		return fmt.Errorf("%w: a Yubico OTP token whose key is not of aes128", ErrInvalid)
	case t.Digits != 0 || t.Period != 0 || t.Drift != 0:
		return fmt.Errorf("%w: a Yubico OTP token has neither digits nor time steps", ErrInvalid)
	case t.Last < 0 || t.Last > maxOTP+1:
		return fmt.Errorf("%w: the counters of a Yubico OTP token are out of range", ErrInvalid)
	}
	return ValidPublicID(t.PublicID)
}

// validOTP says what is wrong with a YubicoOTP token's secrets and counters, or nil.
func (n *NewToken) validOTP() error {
	switch {
	case n.Transported != nil:
		return fmt.Errorf("%w: the AES key of a YubiKey is encrypted to a public key, which is not taken over", ErrInvalid)
	case len(n.Seed) != otpBytes:
		return fmt.Errorf("%w: an AES key of %d bytes; it has %d", ErrInvalid, len(n.Seed), otpBytes)
	case len(n.PrivateID) != privateBytes:
		return fmt.Errorf("%w: a private id of %d bytes; it has %d", ErrInvalid, len(n.PrivateID), privateBytes)
	case n.Counter > maxOTP+1:
		return fmt.Errorf("%w: the counters are out of range", ErrInvalid)
	}
	return nil
}

// otp is what was typed, held against one YubicoOTP token.
type otp struct {
	block [otpBytes]byte // as typed; zeros if it was not sound
	sound bool           // it is modhex, and begins with the token's public id

	factor  uint64 // what the decrypted block says
	private [privateBytes]byte
	whole   bool // the CRC is right
	right   bool // it is the token's: sound, whole, and with its private id
}

// splitOTP takes what was typed apart: a PIN, then an OTP of the token with this
// public id. What is no OTP goes the same way as a wrong one.
func splitOTP(typed, publicID string) (pin string, o *otp) {
	o = &otp{}
	at := len(typed) - len(publicID) - otpChars
	if at < 0 {
		return "", o
	}
	text := typed[len(typed)-otpChars:]
	bad := byte(0)
	for i := range o.block {
		high, low := modhexValue[text[2*i]], modhexValue[text[2*i+1]]
		bad |= high | low
		o.block[i] = high<<4 | low&0xf
	}
	same := subtle.ConstantTimeCompare([]byte(typed[at:len(typed)-otpChars]), []byte(publicID))
	if o.sound = bad < 16 && same == 1; !o.sound {
		o.block = [otpBytes]byte{}
	}
	return typed[:at], o
}

// looksOTP says whether what was typed ends like a Yubico OTP.
func looksOTP(typed string) bool {
	return len(typed) >= otpChars && strings.Trim(typed[len(typed)-otpChars:], modhex) == ""
}

// read takes a decrypted block apart.
func (o *otp) read(plain *[otpBytes]byte) {
	copy(o.private[:], plain[:])
	session := binary.LittleEndian.Uint16(plain[6:]) & sessionMask
	o.factor = uint64(session)<<8 | uint64(plain[11])
	o.whole = crc16(plain[:]) == crcResidue
}

// crcResidue is the CRC of a block that ends with its right CRC.
const crcResidue = 0xf0b8

// crc16 is the CRC of ISO/IEC 13239 without its last inversion.
func crc16(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, x := range b {
		crc ^= uint16(x)
		for range 8 {
			crc = crc>>1 ^ -(crc&1)&0x8408
		}
	}
	return crc
}

// privateMessage is what the MAC of a token's private id is computed over, under
// KeyPIN. Watchword keeps the MAC instead of the private id: nobody needs it back,
// since each OTP brings it along; six bytes are soon searched, but not under a key
// that stays in the HSM; and a MAC cannot be moved, because it is over the token's
// name and is bound in its row like everything else that decides. Sealed by
// KeySecrets it would have to be opened, in the server's memory, for each attempt.
func privateMessage(t *Token, id []byte) []byte {
	m := make([]byte, 0, 40+len(t.Realm)+len(t.Serial)+len(id))
	m = append(m, "watchword-yubico-1\x00"...)
	for _, s := range []string{t.Realm, t.Serial} {
		m = binary.BigEndian.AppendUint32(m, uint32(len(s)))
		m = append(m, s...)
	}
	return append(m, id...)
}

// privateIDs computes the MACs of private ids, many at once.
type privateIDs struct {
	messages [][]byte
	index    []int // the caller's, of each
}

func (b *privateIDs) add(t *Token, id []byte, index int) {
	b.messages = append(b.messages, privateMessage(t, id))
	b.index = append(b.index, index)
}

// wipe forgets the private ids.
func (b *privateIDs) wipe() {
	for _, m := range b.messages {
		clear(m)
	}
}

// run calls f with the MAC of each, or fails. It wipes the private ids.
func (b *privateIDs) run(ctx context.Context, custody hsm.Keystore, f func(index int, mac []byte)) error {
	defer b.wipe()
	if len(b.messages) == 0 {
		return nil
	}
	macs, err := custody.MAC(ctx, hsm.KeyPIN, b.messages...)
	if err != nil {
		return translate(err)
	}
	for i, mac := range macs {
		f(b.index[i], mac)
	}
	return nil
}

// blockBatch decrypts what was typed as OTPs in a batch.
type blockBatch struct {
	jobs   []*hsm.DecryptJob
	owners []*candidate
}

func (b *blockBatch) add(c *candidate, pinMAC []byte) {
	b.jobs = append(b.jobs, &hsm.DecryptJob{Key: c.token.Sealed(pinMAC), Block: c.otp.block})
	b.owners = append(b.owners, c)
}

// run decrypts all blocks and judges them. Each costs one decryption and one MAC,
// whatever was typed.
func (b *blockBatch) run(ctx context.Context, custody Custody) {
	if len(b.jobs) == 0 {
		return
	}
	err := custody.Decrypt(ctx, b.jobs)
	var ids privateIDs
	for i, c := range b.owners {
		switch j := b.jobs[i]; {
		case j.Err != nil:
			c.err = translate(j.Err)
		case err != nil:
			c.err = translate(err)
		default:
			c.otp.read(&j.Plain)
			ids.add(c.token, c.otp.private[:], i)
			clear(j.Plain[:])
			clear(c.otp.private[:])
		}
	}
	err = ids.run(ctx, custody, func(i int, mac []byte) {
		c := b.owners[i]
		same := subtle.ConstantTimeCompare(mac, c.token.PrivateMAC) == 1
		c.otp.right = c.otp.sound && c.otp.whole && same
	})
	if err == nil {
		return
	}
	for _, i := range ids.index {
		b.owners[i].err = err
	}
}
