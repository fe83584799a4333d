package radius

import (
	"encoding/binary"
	"iter"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
)

// Sizes on the wire, in bytes (RFC 2865, section 3).
const (
	headerSize    = 20
	maxPacketSize = layeh.MaxPacketLength // 4096
	authSize      = 16                    // of an authenticator, and of a Message-Authenticator's value
)

// The codes that are read and written.
const (
	codeAccessRequest = byte(layeh.CodeAccessRequest)
	codeAccessAccept  = byte(layeh.CodeAccessAccept)
	codeAccessReject  = byte(layeh.CodeAccessReject)
	codeChallenge     = byte(layeh.CodeAccessChallenge)
	codeStatusServer  = byte(layeh.CodeStatusServer)
)

// The attributes that are looked at.
const (
	attrUserName             = byte(rfc2865.UserName_Type)
	attrUserPassword         = byte(rfc2865.UserPassword_Type)
	attrCHAPPassword         = byte(rfc2865.CHAPPassword_Type)
	attrCHAPChallenge        = byte(rfc2865.CHAPChallenge_Type)
	attrNASIPAddress         = byte(rfc2865.NASIPAddress_Type)
	attrReplyMessage         = byte(rfc2865.ReplyMessage_Type)
	attrState                = byte(rfc2865.State_Type)
	attrCallingStationID     = byte(rfc2865.CallingStationID_Type)
	attrNASIdentifier        = byte(rfc2865.NASIdentifier_Type)
	attrVendorSpecific       = byte(rfc2865.VendorSpecific_Type)
	attrProxyState           = byte(rfc2865.ProxyState_Type)
	attrPrompt               = byte(rfc2869.Prompt_Type)
	attrEAPMessage           = byte(rfc2869.EAPMessage_Type)
	attrMessageAuthenticator = byte(rfc2869.MessageAuthenticator_Type)

	vendorMicrosoft = 311 // and its attributes, RFC 2548
	msCHAPResponse  = 1
	msCHAPChallenge = 11
	msCHAP2Response = 25
)

// packet is a view of one RADIUS packet: nothing is copied out of wire. A nil
// slice stands for an attribute that the packet does not have; the value of
// one that is present but empty is not nil.
type packet struct {
	wire []byte // as many bytes as the length field says; the rest of the datagram is padding

	userName      []byte
	userPassword  []byte // hidden, see unhidePassword
	chapPassword  []byte
	chapChallenge []byte
	msResponse    []byte // of MS-CHAP-Response or MS-CHAP2-Response
	msVersion     int    // 1 or 2; 0: neither is there
	msChallenge   []byte
	nasIdentifier []byte
	nasAddress    []byte // 4 bytes
	calling       []byte // Calling-Station-Id
	state         []byte // of the Access-Challenge that the request answers
	eap           bool   // EAP-Message is there
	proxyState    int    // bytes of all Proxy-State attributes, with their headers
	ma            int    // where the value of Message-Authenticator begins in wire; 0: there is none
}

func (p *packet) code() byte            { return p.wire[0] }
func (p *packet) identifier() byte      { return p.wire[1] }
func (p *packet) authenticator() []byte { return p.wire[4:headerSize] }

// parse checks a datagram and makes p a view of it. It answers the cause to
// drop it, or none. What it refuses is never answered (RFC 2865, section 3).
func (p *packet) parse(datagram []byte) cause {
	*p = packet{}
	if len(datagram) < headerSize {
		return malformed
	}
	// "If the packet is shorter than the Length field indicates, it MUST be
	// silently discarded"; "octets outside the range of the Length field MUST
	// be treated as padding and ignored".
	n := int(binary.BigEndian.Uint16(datagram[2:4]))
	if n < headerSize || n > maxPacketSize || n > len(datagram) {
		return malformed
	}
	p.wire = datagram[:n:n]

	credentials := 0
	for at := headerSize; at < n; {
		if n-at < 2 {
			return malformed
		}
		size := int(p.wire[at+1])
		if size < 2 || size > n-at {
			return malformed
		}
		value := p.wire[at+2 : at+size : at+size]
		switch p.wire[at] {
		case attrUserName:
			if p.userName != nil {
				return malformed // 0-1 (RFC 2865, section 5.44)
			}
			p.userName = value
		case attrUserPassword:
			if p.userPassword != nil {
				return malformed // 0-1
			}
			p.userPassword = value
			credentials++
		case attrCHAPPassword:
			if p.chapPassword != nil {
				return malformed // 0-1
			}
			p.chapPassword = value
			credentials++
		case attrCHAPChallenge:
			if p.chapChallenge != nil {
				return malformed // 0-1
			}
			p.chapChallenge = value
		case attrNASIdentifier:
			p.nasIdentifier = value
		case attrNASIPAddress:
			if len(value) == 4 {
				p.nasAddress = value
			}
		case attrCallingStationID:
			p.calling = value
		case attrState:
			if p.state != nil || size == 2 {
				return malformed // 0-1 (RFC 2865, section 5.44), of a byte at least (5.24)
			}
			p.state = value
		case attrEAPMessage:
			if !p.eap { // one EAP packet may fill several
				p.eap = true
				credentials++
			}
		case attrVendorSpecific:
			n, ok := p.microsoft(value)
			if !ok {
				return malformed
			}
			credentials += n
		case attrProxyState:
			p.proxyState += size
		case attrMessageAuthenticator:
			if p.ma != 0 {
				return duplicateMA
			}
			if size != 2+authSize {
				return malformed
			}
			p.ma = at + 2
		}
		at += size
	}
	// An Access-Request proves a user in one way: User-Password and
	// CHAP-Password exclude each other (RFC 2865, section 4.1), and an
	// EAP-Message excludes both (RFC 3579, section 3.3, note 1). Of two we could
	// only guess which one counts.
	if credentials > 1 {
		return malformed
	}
	return 0
}

// answerable says whether a reply with extra bytes of attributes, beside those that each
// has, is one packet: each Proxy-State must come back, and what would not fit is
// refused before any code is spent on it.
func (p *packet) answerable(extra int) bool {
	if p.msVersion != 0 {
		extra += maxExtra
	}
	return headerSize+2+authSize+p.proxyState+extra <= maxPacketSize
}

// microsoft takes what there is of MS-CHAP in a Vendor-Specific attribute (RFC 2548,
// sections 2.1 and 2.3), which may hold several attributes of the vendor's, and
// answers how many proofs it holds; false if one of those that are looked at comes a
// second time.
func (p *packet) microsoft(value []byte) (proofs int, ok bool) {
	if len(value) < 6 || binary.BigEndian.Uint32(value) != vendorMicrosoft {
		return 0, true
	}
	for rest := value[4:]; len(rest) >= 2; {
		size := int(rest[1])
		if size < 2 || size > len(rest) {
			return proofs, true // not in the form that RFC 2865 suggests: nothing for us
		}
		held := rest[2:size:size]
		switch rest[0] {
		case msCHAPResponse, msCHAP2Response:
			if p.msVersion != 0 {
				return 0, false
			}
			p.msResponse, p.msVersion = held, 1
			if rest[0] == msCHAP2Response {
				p.msVersion = 2
			}
			proofs++
		case msCHAPChallenge:
			if p.msChallenge != nil {
				return 0, false
			}
			p.msChallenge = held
		}
		rest = rest[size:]
	}
	return proofs, true
}

// attributes walks over type and value of each attribute, in order, of a
// packet that parse found well formed.
func (p *packet) attributes() iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for rest := p.wire[headerSize:]; len(rest) > 0; rest = rest[rest[1]:] {
			if !yield(rest[0], rest[2:rest[1]]) {
				return
			}
		}
	}
}
