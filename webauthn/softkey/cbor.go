package softkey

import (
	"encoding/binary"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Major types of CBOR (RFC 8949 §3.1).
const (
	majorUint   = 0 << 5
	majorNegint = 1 << 5
	majorBytes  = 2 << 5
	majorText   = 3 << 5
	majorMap    = 5 << 5
)

// appendHead appends a data item's head in its shortest form.
func appendHead(out []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(out, major|byte(n))
	case n < 1<<8:
		return append(out, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(out, major|27), n)
}

func appendInt(out []byte, n int) []byte {
	if n < 0 {
		return appendHead(out, majorNegint, uint64(-1-n))
	}
	return appendHead(out, majorUint, uint64(n))
}

func appendBytes(out, b []byte) []byte {
	return append(appendHead(out, majorBytes, uint64(len(b))), b...)
}

func appendText(out []byte, s string) []byte {
	return append(appendHead(out, majorText, uint64(len(s))), s...)
}

// encoding writes CTAP2's canonical form: shortest heads, keys sorted by type,
// length and bytes (CTAP 2.1 §8).
var encoding = func() cbor.EncMode {
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// mostElements bounds an array that a client sends.
const mostElements = 256

// decoding reads what a client sends: bounded in depth and in the size of
// maps and arrays, without duplicate keys, indefinite lengths or tags.
var decoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  4 + 4, // CTAP2 has at most four; the decoder asks for a little more
		MaxArrayElements: mostElements,
		MaxMapPairs:      64,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

func encode(v any) ([]byte, error) {
	out, err := encoding.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("softkey: write CBOR: %w", err)
	}
	return out, nil
}
