package eap

import (
	"encoding/binary"
	"iter"
)

// AVPs of TTLS that matter here (RFC 5281, section 10): those of RADIUS, and
// Microsoft's.
const (
	avpUserName     = 1
	avpUserPassword = 2
	avpEAPMessage   = 79

	vendorMicrosoft  = 311
	avpMSChallenge   = 11
	avpMSCHAP2Answer = 25
	avpMSCHAP2Proof  = 26
)

const (
	avpVendor    = 0x80 // a vendor's number follows
	avpMandatory = 0x40
)

// avp is one of them. vendor is 0 for RADIUS's own.
type avp struct {
	vendor, code uint32
	mandatory    bool
	value        []byte // within what was parsed
}

// avps are those in b, in their order, up to the first that is malformed, which comes
// with an error.
func avps(b []byte) iter.Seq2[avp, error] {
	return func(yield func(avp, error) bool) {
		for len(b) > 0 {
			a, n, err := parseAVP(b)
			if !yield(a, err) || err != nil {
				return
			}
			b = b[n:]
		}
	}
}

// parseAVP answers the first one, and its length with padding.
func parseAVP(b []byte) (a avp, n int, err error) {
	if len(b) < 8 {
		return a, 0, errForm
	}
	a.code = binary.BigEndian.Uint32(b)
	a.mandatory = b[4]&avpMandatory != 0
	length, header := int(binary.BigEndian.Uint32(b[4:])&0xffffff), 8
	if b[4]&avpVendor != 0 {
		header = 12
	}
	if length < header || length > len(b) {
		return a, 0, errForm
	}
	if header == 12 {
		a.vendor = binary.BigEndian.Uint32(b[8:])
	}
	a.value = b[header:length]
	// The padding may be missing from the last one.
	return a, min((length+3)&^3, len(b)), nil
}

// append adds the AVP to b, with its padding.
func (a avp) append(b []byte) []byte {
	flags, header := uint32(0), 8
	if a.mandatory {
		flags |= avpMandatory
	}
	if a.vendor != 0 {
		flags, header = flags|avpVendor, 12
	}
	b = binary.BigEndian.AppendUint32(b, a.code)
	b = binary.BigEndian.AppendUint32(b, flags<<24|uint32(header+len(a.value)))
	if a.vendor != 0 {
		b = binary.BigEndian.AppendUint32(b, a.vendor)
	}
	b = append(b, a.value...)
	return append(b, make([]byte, -len(a.value)&3)...)
}
