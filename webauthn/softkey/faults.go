package softkey

import "crypto/x509"

// Faults are what a Key, and the browser it is used with, do wrong. The zero
// value changes nothing. What is signed is signed after it was changed, so that
// the signature is good and only the fault itself can be found, unless a field
// says otherwise.
type Faults struct {
	// Type, Origin and Challenge take the place of those in clientDataJSON.
	Type      string
	Origin    string
	Challenge []byte
	// CrossOrigin and TopOrigin say that another site framed the page.
	CrossOrigin bool
	TopOrigin   string
	// ClientData changes clientDataJSON as a whole.
	ClientData func([]byte) []byte

	// RPID is the relying party whose hash the authenticator data holds.
	RPID string
	// Absent leaves out UP; Unverified leaves out UV.
	Absent     bool
	Unverified bool
	// AuthData changes the authenticator data as a whole.
	AuthData func([]byte) []byte
	// UserHandle is answered in an assertion in place of the credential's.
	UserHandle []byte

	// Leaf changes the attestation certificate before it is issued: what it
	// certifies (ExtraExtensions), from when to when, to whom.
	Leaf func(*x509.Certificate)
	// PubArea and CertInfo change a TPM's structures before they are hashed and
	// signed.
	PubArea  func([]byte) []byte
	CertInfo func([]byte) []byte
	// Statement changes the attestation statement and its format after it was
	// signed.
	Statement func(format string, statement map[string]any) (string, map[string]any)
	// Signature changes an assertion's signature.
	Signature func([]byte) []byte
}

// Misbehave has the key do wrong from now on; nil has it behave again.
func (k *Key) Misbehave(f *Faults) { k.faults.Store(f) }

var noFaults Faults

func (k *Key) wrong() *Faults {
	if f := k.faults.Load(); f != nil {
		return f
	}
	return &noFaults
}
