package eap

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The flags of a tunnel's packets, which stand before everything else (RFC 5281,
// section 9.1). The lowest bits are a version, which is always 0.
const (
	flagLength  = 0x80 // four bytes of length of the whole message follow
	flagMore    = 0x40 // there is another fragment
	flagStart   = 0x20
	versionMask = 0x07
)

const (
	minFragment = 64
	maxFragment = 4000
	// maxMessage is how many bytes one message of the peer has: a chain of
	// certificates is the largest that there is.
	maxMessage = 16 << 10
)

var (
	errVersion = errors.New("the EAP peer speaks another version of TTLS or PEAP than 0")
	errMessage = fmt.Errorf("the EAP peer's TLS message is longer than %d bytes", maxMessage)
	errLength  = errors.New("the EAP peer's TLS fragments are not of the length that it named")
	errAck     = errors.New("the EAP peer sent data when a fragment was to be acknowledged")
)

// acknowledgement is a packet without data. It asks for the next fragment, or says
// that there is nothing to say.
var acknowledgement = []byte{0}

// fragments cuts messages of TLS into packets, and puts them together.
type fragments struct {
	size int // of a packet of EAP

	in   []byte
	want int // of in, if the peer named it
	out  []byte
	cut  bool // some of out has been sent
}

// take takes what a packet of the peer has behind the type. whole says that message is
// complete; if not, the peer waits for an acknowledgement. It is valid until the next
// take.
func (f *fragments) take(data []byte) (message []byte, whole bool, err error) {
	if len(data) == 0 || data[0]&flagStart != 0 {
		return nil, false, errForm
	}
	flags, data := data[0], data[1:]
	if flags&versionMask != 0 {
		return nil, false, errVersion
	}
	if flags&flagLength != 0 {
		if len(data) < 4 {
			return nil, false, errForm
		}
		n := binary.BigEndian.Uint32(data)
		data = data[4:]
		switch {
		case n > maxMessage:
			return nil, false, errMessage
		case len(f.in) > 0 && int(n) != f.want:
			return nil, false, errLength // the peer has named none, or another
		}
		f.want = int(n)
	}
	if len(f.in)+len(data) > maxMessage {
		return nil, false, errMessage
	}
	f.in = append(f.in, data...)
	if flags&flagMore != 0 {
		if len(data) == 0 {
			return nil, false, errForm
		}
		return nil, false, nil
	}
	if f.want > 0 && f.want != len(f.in) {
		return nil, false, errLength
	}
	message, f.in, f.want = f.in, f.in[:0], 0
	return message, true, nil
}

// waiting says that a message has not been sent whole.
func (f *fragments) waiting() bool { return len(f.out) > 0 }

// send begins with a message and answers its first packet, without the type; no
// message is an acknowledgement.
func (f *fragments) send(message []byte) []byte {
	f.out, f.cut = message, false
	return f.next()
}

// next is the next packet of the message.
func (f *fragments) next() []byte {
	room := f.size - dataAt - 1
	if len(f.out) <= room {
		b := append([]byte{0}, f.out...)
		f.out = nil
		return b
	}
	b := []byte{flagMore}
	if !f.cut {
		b[0] |= flagLength
		b = binary.BigEndian.AppendUint32(b, uint32(len(f.out)))
		room -= 4
	}
	b = append(b, f.out[:room]...)
	f.out, f.cut = f.out[room:], true
	return b
}
