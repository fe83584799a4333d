package pkcs11

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// Mechanism numbers that miekg/pkcs11 does not name.
const (
	ckmAESKeyWrapKWP = 0x210B // CKM_AES_KEY_WRAP_KWP: RFC 5649 by its definition (PKCS#11 v3.0)
)

// mechanismKWP is how AES Key Wrap with Padding (RFC 5649) is called in
// hsm.Wrapped, whatever number the module has for it.
const mechanismKWP = "aes-kwp"

// A profile says by which mechanisms a token does what is needed.
type profile struct {
	wrap     uint   // the mechanism that wraps and unwraps seeds
	wrapName string // its name in hsm.Wrapped.Mechanism

	oaep  bool // it has CKM_RSA_PKCS_OAEP
	pkcs1 bool // it has CKM_RSA_PKCS
	ecb   bool // it has CKM_AES_ECB
}

// macMechanism is the module's HMAC for a digest.
func macMechanism(h hsm.Hash) uint {
	switch h {
	case hsm.SHA1:
		return pkcs11.CKM_SHA_1_HMAC
	case hsm.SHA256:
		return pkcs11.CKM_SHA256_HMAC
	case hsm.SHA512:
		return pkcs11.CKM_SHA512_HMAC
	}
	return 0
}

// findProfile reads the token's list of mechanisms and proves by known answer
// what the wrapping mechanism does: the number 0x210A is RFC 5649 in SoftHSM and
// something else elsewhere.
func findProfile(c conn, slot uint, wanted string, log *slog.Logger) (*profile, error) {
	p, has, err := findWrapping(c, slot, wanted, log)
	if err != nil {
		return nil, err
	}
	p.oaep, p.pkcs1, p.ecb = has[pkcs11.CKM_RSA_PKCS_OAEP], has[pkcs11.CKM_RSA_PKCS], has[pkcs11.CKM_AES_ECB]
	return p, nil
}

// findWrapping answers a profile that says how to wrap, and what the token has.
func findWrapping(c conn, slot uint, wanted string, log *slog.Logger) (_ *profile, has map[uint]bool, _ error) {
	list, err := c.m.p11.GetMechanismList(slot)
	if err != nil {
		return nil, nil, opError("C_GetMechanismList", err)
	}
	has = map[uint]bool{}
	for _, m := range list {
		has[m.Mechanism] = true
	}
	for _, need := range []struct {
		number uint
		name   string
	}{
		{pkcs11.CKM_SHA_1_HMAC, "CKM_SHA_1_HMAC"},
		{pkcs11.CKM_SHA256_HMAC, "CKM_SHA256_HMAC"},
		{pkcs11.CKM_SHA512_HMAC, "CKM_SHA512_HMAC"},
		{pkcs11.CKM_AES_GCM, "CKM_AES_GCM"},
		{pkcs11.CKM_ECDSA, "CKM_ECDSA"},
	} {
		if !has[need.number] {
			return nil, nil, fmt.Errorf("%w: token in slot %d has no %s (%#x)", hsm.ErrUnsupported, slot, need.name, need.number)
		}
	}

	switch wanted {
	case "", "auto":
		var failed error
		for _, number := range []uint{ckmAESKeyWrapKWP, pkcs11.CKM_AES_KEY_WRAP_PAD} {
			if !has[number] {
				continue
			}
			ok, err := knownAnswer(c, number)
			switch {
			case ok:
				return &profile{wrap: number, wrapName: mechanismKWP}, has, nil
			case err == nil:
				failed = fmt.Errorf("mechanism %#x is not RFC 5649", number)
			case isLost(err) && !isOtherKey(err):
				return nil, nil, err
			case number == ckmAESKeyWrapKWP:
				// HSMs in FIPS mode take no AES key from outside, so there is
				// no known answer; this number is defined to be RFC 5649.
				log.Warn("hsm: mechanism 0x210B could not be proven by known answer", "cause", err)
				return &profile{wrap: number, wrapName: mechanismKWP}, has, nil
			default:
				failed = fmt.Errorf("mechanism %#x could not be proven to be RFC 5649: %w", number, err)
			}
		}
		if failed == nil {
			failed = fmt.Errorf("slot %d has neither 0x210B (CKM_AES_KEY_WRAP_KWP) nor 0x210A (CKM_AES_KEY_WRAP_PAD)", slot)
		}
		return nil, nil, fmt.Errorf("%w: AES key wrap with padding: %w; configure the vendor's mechanism number", hsm.ErrUnsupported, failed)
	case mechanismKWP:
		if !has[ckmAESKeyWrapKWP] {
			return nil, nil, fmt.Errorf("%w: token in slot %d has no CKM_AES_KEY_WRAP_KWP (0x210b)", hsm.ErrUnsupported, slot)
		}
		if ok, err := knownAnswer(c, ckmAESKeyWrapKWP); !ok && err == nil {
			return nil, nil, fmt.Errorf("%w: mechanism 0x210b is not RFC 5649", hsm.ErrUnsupported)
		}
		return &profile{wrap: ckmAESKeyWrapKWP, wrapName: mechanismKWP}, has, nil
	}

	n, err := strconv.ParseUint(wanted, 0, 32)
	if err != nil {
		return nil, nil, fmt.Errorf(`wrapping mechanism %q is neither "auto", "aes-kwp" nor a number such as 0x8000016f`, wanted)
	}
	number := uint(n)
	if !has[number] {
		return nil, nil, fmt.Errorf("%w: token in slot %d has no mechanism %#x; it has %s", hsm.ErrUnsupported, slot, number, numbers(list))
	}
	ok, err := knownAnswer(c, number)
	if ok {
		return &profile{wrap: number, wrapName: mechanismKWP}, has, nil
	}
	// The self-test proves that it wraps and unwraps; only other software will
	// not understand the blobs, so they get a name of their own.
	log.Warn("hsm: the configured wrapping mechanism is not RFC 5649", "mechanism", wanted, "cause", err)
	return &profile{wrap: number, wrapName: vendorName(number)}, has, nil
}

// unwrapMechanism is the mechanism that a stored seed was wrapped by.
func (p *profile) unwrapMechanism(name string) (uint, bool) {
	return p.wrap, name == p.wrapName
}

func vendorName(number uint) string { return fmt.Sprintf("pkcs11-%#x", number) }

func numbers(list []*pkcs11.Mechanism) string {
	var s []string
	for _, m := range list {
		s = append(s, fmt.Sprintf("%#x", m.Mechanism))
	}
	return strings.Join(s, " ")
}

// knownAnswer says whether the mechanism is RFC 5649 for keys whose length is a
// multiple of eight, which are the only ones that Wrap wraps. The answers were
// computed by OpenSSL, under the KEK of the examples in RFC 5649, section 6; the
// examples themselves are of 20 and 7 bytes, and SoftHSM 2.6 fills such keys up
// with zeros and wraps the longer one. An error says that the token could not
// be asked.
func knownAnswer(c conn, mechanism uint) (bool, error) {
	kek, err := c.m.p11.CreateObject(c.h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, true),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, unhex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")),
	})
	if err != nil {
		return false, opError("C_CreateObject of an AES key", err)
	}
	defer c.destroy(handle(kek))
	for _, v := range []struct{ key, wrapped string }{
		{"c37b7e6492584340bed12207808941155068f73800000000", "cf1e485360e1a8126f524d01771677f9400edb4d074f14116988d71e1588e367"},
		{"0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f40", "8750730545a125760a695fd5200b93b26be09a679dc64c303ccdf55db287e65c14ede0f217a8b738416517500269856ecdbd7982a50c1d4d4109c2ff308778ed15f7e870d690e937"},
	} {
		out := make([]byte, 128)
		got, err := c.wrap(mechanism, handle(kek), unhex(v.key), out)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(got, unhex(v.wrapped)) {
			return false, nil
		}
	}
	return true, nil
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
