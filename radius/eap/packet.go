package eap

import (
	"encoding/binary"
	"errors"
)

// The codes of packets (RFC 3748, section 4).
const (
	codeRequest  = 1
	codeResponse = 2
	codeSuccess  = 3
	codeFailure  = 4
)

// The types of requests and responses (RFC 3748, section 5), those of methods
// included.
const (
	typeIdentity   = 1
	typeNak        = 3
	typeGTC        = 6
	typeTTLS       = 21
	typePEAP       = 25
	typeMSCHAPv2   = 26
	typeExtensions = 33 // of PEAP
)

const (
	headerSize = 4              // code, identifier, length
	typeAt     = headerSize     // of a request or response
	dataAt     = headerSize + 1 // of a request or response
	maxPacket  = 4096           // that RADIUS carries
	maxName    = 253            // of a user: what User-Name holds
	maxCode    = 253            // of what a user types: what it takes for PIN, code and some questions
)

// errPacket says that what came is no response.
var errPacket = errors.New("not an EAP-Response")

// parse answers the identifier, type and type data of a response. Octets behind its
// length are padding of the layer below (RFC 3748, section 4).
func parse(packet []byte) (id, kind byte, data []byte, err error) {
	if len(packet) < dataAt || packet[0] != codeResponse {
		return 0, 0, nil, errPacket
	}
	n := int(binary.BigEndian.Uint16(packet[2:]))
	if n < dataAt || n > len(packet) || n > maxPacket {
		return 0, 0, nil, errPacket
	}
	return packet[1], packet[typeAt], packet[dataAt:n], nil
}

// request makes a request.
func request(id, kind byte, data []byte) []byte {
	b := make([]byte, 0, dataAt+len(data))
	b = append(b, codeRequest, id)
	b = binary.BigEndian.AppendUint16(b, uint16(dataAt+len(data)))
	return append(append(b, kind), data...)
}

// result makes a Success or a Failure.
func result(id byte, accept bool) []byte {
	if accept {
		return []byte{codeSuccess, id, 0, headerSize}
	}
	return []byte{codeFailure, id, 0, headerSize}
}
