package tokens

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"watchword/hsm"
)

// decoyUser owns the decoys. It has no PIN.
var decoyUser = User{State: UserEnabled, PINSalt: make([]byte, 16)}

// decoyFor is what an attempt is held against for a user who has no token, or
// whom there is not. It goes by what was typed: a Yubico OTP costs one decryption
// and one MAC, as for most who type one; everything else the HMACs of a TOTP
// token's window. What still differs is what differs between users who are known:
// an HOTP token costs more HMACs than a TOTP one, two tokens more than one, and
// digits typed for a user with a YubiKey cost a decryption and not three HMACs.
// What ends like a passcode is held against decoyPass beside.
func (s *Service) decoyFor(typed string) Token {
	if s.decoy2 != nil && looksOTP(typed) {
		return *s.decoy2
	}
	return s.decoy
}

// makeDecoys wraps random seeds that no token has, so that an attempt for an
// unknown user costs what one for a known user does.
func (s *Service) makeDecoys(ctx context.Context) error {
	random := make([]byte, 20+16+6+6)
	defer clear(random)
	if _, err := io.ReadFull(s.cfg.Rand, random); err != nil {
		return fmt.Errorf("random bytes: %w", err)
	}
	seed, key, private, public := random[:20], random[20:36], random[36:42], random[42:]
	wrapped, err := s.custody.Wrap(ctx, []hsm.Seed{{Hash: hsm.SHA1, Bytes: seed}, {Hash: hsm.AES128, Bytes: key}})
	if err != nil {
		return fmt.Errorf("wrap the decoy seeds: %w", err)
	}
	totp := Token{
		Realm: DefaultRealm, Serial: "decoy", Type: TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30,
		State: Active, Owner: "decoy", Wrapped: wrapped[0],
		// Used at the end of time, so that its window never widens: most tokens
		// are in use, and have the narrowest.
		Motion: Motion{Last: -1, UsedAt: 1 << 40},
	}
	yubico := Token{
		Realm: DefaultRealm, Serial: "decoy", Type: YubicoOTP, Algorithm: hsm.AES128,
		State: Active, Owner: "decoy", Wrapped: wrapped[1], PublicID: modhexText(public),
	}
	var ids privateIDs
	ids.add(&yubico, private, 0)
	if err := ids.run(ctx, s.custody, func(_ int, mac []byte) { yubico.PrivateMAC = mac }); err != nil {
		return fmt.Errorf("the decoy's private id: %w", err)
	}
	if s.decoy3, err = decoyKey(); err != nil {
		return fmt.Errorf("the decoy's key: %w", err)
	}
	s.decoyPass = decoyPasscodes()
	if err := s.bind(ctx, []*Token{&totp, &yubico, &s.decoy3, &s.decoyPass[0], &s.decoyPass[1]}, nil); err != nil {
		return fmt.Errorf("bind the decoys: %w", err)
	}
	s.rowProofs.add(rowProofOf(s.decoy3.Sealed(nil).Message(), s.decoy3.Binding))
	s.decoy = totp
	job := &hsm.DecryptJob{Key: yubico.Sealed(nil)}
	err = s.custody.Decrypt(ctx, []*hsm.DecryptJob{job})
	if job.Err != nil {
		err = job.Err
	}
	clear(job.Plain[:])
	switch {
	case err == nil:
		s.decoy2 = &yubico
	case errors.Is(err, hsm.ErrUnsupported):
		s.log.Warn("the HSM cannot decrypt by AES-ECB: tokens that make Yubico OTPs cannot be imported or verified", "error", err)
	default:
		return fmt.Errorf("decrypt with the decoy: %w", translate(err))
	}
	return nil
}

// errNoOTP refuses tokens of which no OTP could ever be checked.
var errNoOTP = fmt.Errorf("%w: the HSM cannot decrypt by AES-ECB, so Yubico OTPs cannot be verified with it", ErrInvalid)

// decoyKey is a FIDO token whose private key nobody has. Most keys sign by ECDSA
// on P-256; what others cost still differs.
func decoyKey() (Token, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Token{}, err
	}
	point, err := private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return Token{}, err
	}
	// COSE_Key (RFC 9052, section 7): {1: 2 (EC2), 3: -7 (ES256), -1: 1 (P-256), -2: x, -3: y}.
	public := append([]byte("\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20"), point[1:33]...)
	public = append(append(public, "\x22\x58\x20"...), point[33:]...)
	return Token{
		Realm: DefaultRealm, Serial: "decoy", Type: FIDO, State: Active, Owner: "decoy",
		Credential: &Credential{PublicKey: public, Format: "packed", Attestation: "basic", Transports: []string{"nfc", "usb"}, UserVerified: true},
	}, nil
}

// decoyPasscodes are a recovery sheet and a temporary passcode of which nobody has
// any code: of the usual size, and with serials as long as real ones.
func decoyPasscodes() (decoys [2]Token) {
	rules := DefaultRules()
	macs := make([]byte, macSize*(rules.Recovery.Codes+1))
	rand.Read(macs) // it never fails
	list := slices.Collect(slices.Chunk(macs, macSize))
	none := strings.Repeat("0", 16)
	decoys[0] = Token{
		Realm: DefaultRealm, Serial: recoveryPrefix + none, Type: Recovery, State: Active, Owner: "decoy", Passcodes: list[1:],
	}
	decoys[1] = Token{
		Realm: DefaultRealm, Serial: temporaryPrefix + none, Type: Temporary, State: Active, Owner: "decoy", Passcodes: list[:1],
		Uses: rules.Temporary.Uses, Expires: time.Unix(1<<40, 0), // an expiry, as all have, that never comes
	}
	return decoys
}
