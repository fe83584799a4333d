package radius

import (
	"encoding/binary"
	"slices"
)

// maxExtra is how many bytes of attributes a reply may have beside those that each
// has.
const maxExtra = 1024

// reply makes the signed answer to the request: Message-Authenticator first,
// so that no prefix of the packet can be chosen by someone who means to find an
// MD5 collision (CVE-2024-3596), then what is the method's, then each Proxy-State as it came, in order
// (RFC 2865, section 5.33). parse made sure that it fits. It is valid until the
// request is used again.
func (r *request) reply(code byte) []byte {
	p := &r.packet
	n := headerSize + 2 + authSize + len(r.extra) + p.proxyState
	b := slices.Grow(r.out[:0], n)
	b = append(b, code, p.identifier())
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, p.authenticator()...)
	b = append(b, attrMessageAuthenticator, 2+authSize)
	b = append(b, zeros[:]...)
	b = append(b, r.extra...)
	if p.proxyState > 0 {
		for kind, value := range p.attributes() {
			if kind == attrProxyState {
				b = append(b, kind, byte(2+len(value)))
				b = append(b, value...)
			}
		}
	}
	r.out = b
	r.digest.sign(r.client.Plain, b)
	return b
}
