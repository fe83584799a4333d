package softkey_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/go-webauthn/webauthn/protocol"

	"watchword/webauthn/softkey"
)

// TestEachFaultIsFoundByGoWebauthn shows that a fault does what it says, and no
// more: the message is what the library says of exactly that fault.
func TestEachFaultIsFoundByGoWebauthn(t *testing.T) {
	flip := func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b }
	for name, c := range map[string]struct {
		fault  softkey.Faults
		format softkey.Format
		says   string
	}{
		"origin":          {softkey.Faults{Origin: "https://evil.example"}, softkey.Packed, "origin"},
		"challenge":       {softkey.Faults{Challenge: []byte("another challenge")}, softkey.Packed, "challenge"},
		"type":            {softkey.Faults{Type: "webauthn.get"}, softkey.Packed, "ceremony type"},
		"cross-origin":    {softkey.Faults{CrossOrigin: true}, softkey.Packed, "cross"},
		"relying party":   {softkey.Faults{RPID: "evil.example"}, softkey.Packed, "RP Hash"},
		"u2f party":       {softkey.Faults{RPID: "evil.example"}, softkey.U2F, "RP Hash"},
		"absent":          {softkey.Faults{Absent: true}, softkey.Packed, "presence"},
		"wrong model":     {softkey.Faults{Leaf: func(c *x509.Certificate) { c.ExtraExtensions[0].Value = flip(c.ExtraExtensions[0].Value) }}, softkey.Packed, "AAGUID does not match"},
		"leaf is a CA":    {softkey.Faults{Leaf: func(c *x509.Certificate) { c.IsCA = true }}, softkey.Packed, "marked as CA"},
		"expired leaf":    {softkey.Faults{Leaf: func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(2021, 0, 0) }}, softkey.Packed, ""},
		"tpm extra data":  {softkey.Faults{CertInfo: func(b []byte) []byte { b[6+36+2] ^= 1; return b }}, softkey.TPM, "ExtraData"},
		"tpm magic":       {softkey.Faults{CertInfo: func(b []byte) []byte { b[0] ^= 1; return b }}, softkey.TPM, "Magic"},
		"tpm public area": {softkey.Faults{PubArea: flip}, softkey.TPM, "Mismatch"},
		"signature": {softkey.Faults{Statement: func(f string, s map[string]any) (string, map[string]any) {
			s["sig"] = flip(s["sig"].([]byte))
			return f, s
		}}, softkey.Packed, "Signature validation"},
		"unknown format": {softkey.Faults{Statement: func(_ string, s map[string]any) (string, map[string]any) { return "wax-seal", s }}, softkey.Packed, "unsupported"},
		"auth data":      {softkey.Faults{AuthData: func(b []byte) []byte { return b[:40] }}, softkey.Packed, ""},
		"client data":    {softkey.Faults{ClientData: func(b []byte) []byte { return b[:len(b)-1] }}, softkey.Packed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKey(t, softkey.Options{Format: c.format})
			challenge := newChallenge()
			k.Misbehave(&c.fault)
			response, err := k.Register(creation(challenge, `,"attestation":"direct"`), origin)
			if err != nil {
				t.Fatal(err)
			}
			_, err = verifyRegistration(response, challenge, false)
			var known *protocol.Error
			switch {
			case err == nil:
				t.Fatal("nobody noticed")
			case errors.As(err, &known) && !strings.Contains(known.Details+known.DevInfo, c.says):
				t.Errorf("found as %q %q, want %q", known.Details, known.DevInfo, c.says)
			}
			k.Misbehave(nil)
			register(t, k, `,"attestation":"direct"`)
		})
	}

	k := newKey(t, softkey.Options{UserVerification: true})
	p := register(t, k, "")
	for name, f := range map[string]softkey.Faults{
		"origin":     {Origin: "https://evil.example"},
		"challenge":  {Challenge: []byte("another challenge")},
		"party":      {RPID: "evil.example"},
		"unverified": {Unverified: true},
		"signature":  {Signature: flip},
	} {
		k.Misbehave(&f)
		challenge := newChallenge()
		response, err := k.Assert(request(challenge, allow(p.RawID)), origin)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verifyAssertion(response, challenge, true, publicKey(p)); err == nil {
			t.Errorf("assertion, %s: nobody noticed", name)
		}
	}
	k.Misbehave(&softkey.Faults{UserHandle: []byte("mallory")})
	if a := assert(t, k, allow(p.RawID), publicKey(p)); string(a.Response.UserHandle) != "mallory" {
		t.Errorf("the user handle is %q", a.Response.UserHandle)
	}
}
