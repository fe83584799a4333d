package radius

import (
	"bytes"
	"crypto/md5"
	"crypto/subtle"
	"errors"
	"hash"
)

// digester computes the MD5 constructions of RADIUS without allocating. One
// goroutine uses it at a time. That MD5 is broken for collisions matters to
// the Response Authenticator, which is why Message-Authenticator, a keyed
// HMAC, is required and leads every reply (CVE-2024-3596).
type digester struct {
	md5  hash.Hash
	pad  [md5.BlockSize]byte
	sum  [md5.Size]byte
	text [maxPasswordSize]byte
}

// maxPasswordSize is the longest password in bytes (RFC 2865, section 5.2).
const maxPasswordSize = 128

func newDigester() *digester { return &digester{md5: md5.New()} }

var zeros [authSize]byte

// messageAuthenticator is HMAC-MD5 (RFC 2104) under secret over the packet in
// wire, with the 16 bytes at ma taken as zero (RFC 3579, section 3.2). For a
// reply the authenticator in wire must still be that of the request. The
// result is valid until the digester is used again.
func (d *digester) messageAuthenticator(secret, wire []byte, ma int) []byte {
	d.padKey(secret, 0x36)
	d.md5.Reset()
	d.md5.Write(d.pad[:])
	d.md5.Write(wire[:ma])
	d.md5.Write(zeros[:])
	d.md5.Write(wire[ma+authSize:])
	var inner [md5.Size]byte
	copy(inner[:], d.md5.Sum(d.sum[:0]))

	d.padKey(secret, 0x5c)
	copy(d.text[:], inner[:])
	d.md5.Reset()
	d.md5.Write(d.pad[:])
	d.md5.Write(d.text[:md5.Size])
	return d.md5.Sum(d.sum[:0])
}

// padKey fills pad with the key, shortened if it is longer than a block, and
// flips each byte by with.
func (d *digester) padKey(key []byte, with byte) {
	if len(key) > md5.BlockSize {
		d.md5.Reset()
		d.md5.Write(key)
		key = d.md5.Sum(d.sum[:0])
	}
	n := copy(d.pad[:], key)
	clear(d.pad[n:])
	for i := range d.pad {
		d.pad[i] ^= with
	}
}

// authentic says whether the packet's Message-Authenticator is right, taking
// the same time wherever it differs. The packet must have one.
func (d *digester) authentic(secret []byte, p *packet) bool {
	want := d.messageAuthenticator(secret, p.wire, p.ma)
	return subtle.ConstantTimeCompare(want, p.wire[p.ma:p.ma+authSize]) == 1
}

// sign completes a reply whose authenticator is still that of the request and
// whose first attribute is a Message-Authenticator: it fills that in and then
// puts the Response Authenticator (RFC 2865, section 3).
func (d *digester) sign(secret, reply []byte) {
	const ma = headerSize + 2
	copy(reply[ma:], d.messageAuthenticator(secret, reply, ma))
	d.md5.Reset()
	d.md5.Write(reply)
	d.md5.Write(secret)
	d.md5.Sum(reply[4:4])
}

var errPasswordLength = errors.New("User-Password is not 16 to 128 bytes in blocks of 16")

// unhidePassword answers the password in a User-Password attribute (RFC 2865,
// section 5.2), without its padding, valid until the digester is used again.
// Under a wrong secret it answers noise. The hiding has no integrity of its
// own: only a Message-Authenticator proves it unaltered.
func (d *digester) unhidePassword(secret, hidden, authenticator []byte) ([]byte, error) {
	if len(hidden) < md5.Size || len(hidden) > maxPasswordSize || len(hidden)%md5.Size != 0 {
		return nil, errPasswordLength
	}
	previous := authenticator
	for at := 0; at < len(hidden); at += md5.Size {
		d.md5.Reset()
		d.md5.Write(secret)
		d.md5.Write(previous)
		previous = hidden[at : at+md5.Size]
		subtle.XORBytes(d.text[at:], d.md5.Sum(d.sum[:0]), previous)
	}
	return bytes.TrimRight(d.text[:len(hidden)], "\x00"), nil
}
