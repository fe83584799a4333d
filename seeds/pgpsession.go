package seeds

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// maxArgon2 is the most memory that a password may ask for before it opens a
// message, as a power of two of KB, and maxStretched how many packets may ask for
// it: each takes up to seconds, and cannot be interrupted.
const (
	maxArgon2    = 18
	maxStretched = 4
)

// pgpSessions are the packets that a message's session key is in.
type pgpSessions struct {
	public   []*packet.EncryptedKey
	password []*packet.SymmetricKeyEncrypted
	unknown  int // of a kind that is not known
	argon2   int // of the passwords
}

// pgpSession is a session key; cipher is zero where the message itself names it.
type pgpSession struct {
	cipher packet.CipherFunction
	key    []byte
}

// add reads a packet with a session key.
func (s *pgpSessions) add(tag int, body *pgpBody) error {
	text, err := body.all()
	if err != nil {
		return err
	}
	if len(s.public)+len(s.password)+s.unknown >= maxPGPKeys {
		return fmt.Errorf("it is encrypted to more than %d keys", maxPGPKeys)
	}
	if tag == pgpPasswordESK && costly(text) {
		return errors.New("opening it by its password would take more than 256 MB of memory (Argon2); have it made with less")
	}
	if tag == pgpPasswordESK && stretched(text) != nil {
		if s.argon2++; s.argon2 > maxStretched {
			return fmt.Errorf("it is encrypted by more than %d passwords that are made costly to try (Argon2)", maxStretched)
		}
	}
	switch p := libraryPacket(tag, text).(type) {
	case *packet.EncryptedKey:
		s.public = append(s.public, p)
	case *packet.SymmetricKeyEncrypted:
		s.password = append(s.password, p)
	default:
		s.unknown++ // for somebody with a newer program
	}
	return nil
}

// libraryPacket lets the library parse a packet; nil if it cannot.
func libraryPacket(tag int, body []byte) packet.Packet {
	head := binary.BigEndian.AppendUint32([]byte{0xc0 | byte(tag), 0xff}, uint32(len(body)))
	p, err := packet.Read(io.MultiReader(bytes.NewReader(head), bytes.NewReader(body)))
	if err != nil {
		return nil
	}
	return p
}

// costly says whether a packet of a password asks for too much memory or time
// (RFC 9580, sections 3.7.1.4 and 5.3).
func costly(b []byte) bool {
	s2k := stretched(b)
	return s2k != nil && (s2k[19] > maxArgon2 || s2k[17] > 16)
}

// stretched is what a packet of a password says of Argon2; nil if it has another
// function, or none that is whole.
func stretched(b []byte) []byte {
	at := map[byte]int{4: 2, 5: 3, 6: 5}
	if len(b) == 0 || at[b[0]] == 0 || len(b) < at[b[0]]+20 || b[at[b[0]]] != 4 {
		return nil
	}
	return b[at[b[0]]:]
}

// open finds the session key of a packet of encrypted data, and begins to
// decrypt it.
func (s *pgpSessions) open(tag int, body *pgpBody, keys *pgpKeys) (pgpPlain, error) {
	if len(s.public)+len(s.password)+s.unknown == 0 {
		return nil, errors.New("there is no session key before its data")
	}
	found, err := s.sessions(keys)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range found {
			clear(f.key)
		}
	}()
	version, err := body.ReadByte()
	if err != nil {
		return nil, unexpected(err)
	}
	switch {
	case tag == pgpEncrypted && version == 1:
		return newPGPMDC(body, found)
	case tag == pgpEncrypted && version == 2, tag == pgpAEADOld && version == 1:
		return newPGPAEAD(tag, body, found)
	}
	return nil, fmt.Errorf("it is encrypted in a way (version %d) that is not known", version)
}

// sessions decrypts the session keys that it can with the keys and the password
// given. Its error says what is missing.
func (s *pgpSessions) sessions(keys *pgpKeys) ([]pgpSession, error) {
	var found []pgpSession
	fits := 0
	for _, e := range s.public {
		for _, k := range keys.private {
			if e.KeyId != 0 && e.KeyId != k.KeyId || e.Algo != k.PubKeyAlgo {
				continue
			}
			if err := keys.unlock(k); err != nil {
				return nil, err
			}
			fits++
			if e.Decrypt(k, nil) == nil {
				found = append(found, pgpSession{e.CipherFunc, e.Key})
			}
		}
	}
	if len(keys.password) > 0 {
		for _, p := range s.password {
			if key, function, err := p.Decrypt(keys.password); err == nil {
				found = append(found, pgpSession{function, key})
			}
		}
	}
	if len(found) == 0 && keys.vault != nil {
		session, fit, err := keys.vault.open(s.public)
		if err != nil {
			return nil, err
		}
		if fit {
			fits++
		}
		if session != nil {
			found = append(found, *session)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case fits > 0, len(s.password) > 0 && len(keys.password) > 0:
		return nil, errPGPKey
	case len(s.password) > 0 && len(s.public) == 0:
		return nil, errors.New("it is encrypted by a password; give it with --password-file")
	case len(keys.private) == 0 && len(s.password) > 0:
		return nil, errors.New("it is encrypted to " + recipients(s.public) + keys.vault.none(s.public) + " and by a password; give the private key with --pgp-key-file, or the password with --password-file")
	case len(keys.private) == 0:
		return nil, errors.New("it is encrypted to " + recipients(s.public) + keys.vault.none(s.public) + "; give the private key with --pgp-key-file")
	}
	return nil, errors.New("it is encrypted to " + recipients(s.public) + keys.vault.none(s.public) + ", and none of these is in the file given with --pgp-key-file")
}

// recipients names the keys that a message is encrypted to.
func recipients(list []*packet.EncryptedKey) string {
	var ids []string
	for i, e := range list {
		switch {
		case i == 5:
			ids = append(ids, fmt.Sprintf("%d more", len(list)-i))
		case i > 5:
		case e.KeyId == 0:
			ids = append(ids, "a key that it does not name")
		default:
			ids = append(ids, fmt.Sprintf("key %016X", e.KeyId))
		}
	}
	if len(ids) == 0 {
		return "keys of a kind that is not known"
	}
	return strings.Join(ids, ", ")
}
