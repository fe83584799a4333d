package seeds

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// pgpMessage is an OpenPGP message (RFC 9580), armoured or binary: encrypted to
// keys or by passwords, signed, compressed, or any of these within each other.
//
// The library reads keys, session keys and signatures; the message itself is
// read here, because the library would keep what it decrypts in buffers that
// nobody can wipe.
var pgpMessage = wrapper{title: "PGP message", is: isPGP, open: openPGP}

// The packets of a message (RFC 9580, section 5).
const (
	pgpPublicKeyESK = 1
	pgpSignature    = 2
	pgpPasswordESK  = 3
	pgpOnePass      = 4
	pgpPublicKey    = 6
	pgpCompressed   = 8
	pgpUnprotected  = 9
	pgpMarker       = 10
	pgpLiteral      = 11
	pgpEncrypted    = 18
	pgpAEADOld      = 20 // GnuPG's, which the RFC has not taken over
	pgpPadding      = 21
)

// The bounds of a message.
const (
	maxPGPSmall  = 16 << 10 // bytes of a packet other than data
	maxPGPKeys   = 64       // recipients and passwords
	maxPGPSigs   = 8
	maxPGPLevels = 4   // data packets within each other
	maxPGPOthers = 100 // packets of a level besides data
)

var (
	errPGPKey     = errors.New("what it was encrypted with is not the key or password given, or it was altered or damaged")
	errPGPAltered = errors.New("it was altered or damaged after it was encrypted, or cut off")
	errPGPOrder   = errors.New("its parts are not in the order that a message has")
)

// isPGP tells messages from other files, and names what else PGP writes.
func isPGP(prefix []byte) (bool, string) {
	text := bytes.TrimLeft(bytes.TrimPrefix(prefix, bom), " \t\r\n")
	if block, ok := bytes.CutPrefix(text, []byte("-----BEGIN PGP ")); ok {
		switch {
		case bytes.HasPrefix(block, []byte("MESSAGE-----")):
			return true, ""
		case bytes.HasPrefix(block, []byte("SIGNED MESSAGE-----")):
			return false, "this is text with a PGP signature around it; sign the file as a message (gpg --sign), or cut the text out and import that"
		case bytes.HasPrefix(block, []byte("SIGNATURE-----")):
			return false, "this is a PGP signature without the file that it belongs to"
		}
		return false, "this is a PGP key, and no message"
	}
	return isPGPBinary(prefix), ""
}

// isPGPBinary says whether a file begins with a packet that begins a message.
func isPGPBinary(prefix []byte) bool {
	p := &pgpPackets{r: bytes.NewReader(prefix)}
	tag, body, err := p.next()
	if err != nil {
		return false
	}
	first, err := body.ReadByte()
	if err != nil {
		return false
	}
	switch tag {
	case pgpPublicKeyESK, pgpSignature, pgpOnePass:
		return first == 3 || first == 4 || first == 6
	case pgpPasswordESK:
		return first >= 4 && first <= 6
	case pgpCompressed:
		return first <= 3
	case pgpLiteral:
		return first == 'b' || first == 't' || first == 'u'
	case pgpMarker:
		return first == 'P'
	case pgpEncrypted:
		return first == 1 || first == 2
	}
	return false
}

// pgpContent is the file in a message.
type pgpContent struct {
	now     time.Time
	keys    *pgpKeys
	armour  *armourReader // nil for a binary message
	windows []*window
	levels  []*pgpPackets // from the outside
	crypt   interface{ wipe() }
	inflate []*inflater
	signing *pgpSigning
	body    io.Reader // what the literal packet holds
	size    int64
	err     error
}

func openPGP(r io.Reader, o *OpenOptions) (wrapped, error) {
	p := &pgpContent{now: o.Now}
	var err error
	if p.keys, err = readPGPKeys(o); err == nil {
		p.signing = &pgpSigning{signers: p.keys.signers, now: o.Now}
		if file, ok := r.(*peek); !ok || !isPGPBinary(file.prefix) {
			p.armour = newArmourReader(r)
			r = p.armour
		}
		err = p.open(p.window(r), maxPGPLevels)
	}
	if err == nil && p.keys.signers != nil && !p.signing.signed() {
		err = errors.New("it is not signed, and --pgp-signer-file asks for a signature")
	}
	if err != nil {
		p.Close()
		return nil, p.explain(err)
	}
	return p, nil
}

// window reads a source through a buffer that Close wipes.
func (p *pgpContent) window(r io.Reader) *window {
	w := newWindow(r)
	p.windows = append(p.windows, w)
	return w
}

// open reads packets up to the data, and on inside that, up to the file.
func (p *pgpContent) open(r byteReader, depth int) error {
	packets := &pgpPackets{r: r}
	p.levels = append(p.levels, packets)
	var sessions pgpSessions
	for n := 0; ; n++ {
		tag, body, err := packets.next()
		switch {
		case err == io.EOF:
			return errors.New("there is no file in it")
		case err != nil:
			return err
		case n == maxPGPOthers || depth == 0:
			return errPGPOrder
		}
		packets.open = body
		encrypted := len(sessions.public)+len(sessions.password) > 0
		switch tag {
		case pgpMarker, pgpPadding:
			if err := body.drop(); err != nil {
				return err
			}
		case pgpPublicKeyESK, pgpPasswordESK:
			if p.crypt != nil || p.signing.signed() {
				return errPGPOrder
			}
			if err := sessions.add(tag, body); err != nil {
				return err
			}
		case pgpOnePass, pgpSignature:
			if encrypted {
				return errPGPOrder
			}
			if err := p.signing.begin(tag, body); err != nil {
				return err
			}
		case pgpEncrypted, pgpAEADOld:
			if p.crypt != nil || p.signing.signed() {
				return errPGPOrder
			}
			plain, err := sessions.open(tag, body, p.keys)
			if err != nil {
				return err
			}
			p.crypt = plain
			return p.open(p.window(plain), depth-1)
		case pgpUnprotected:
			return errors.New("it is encrypted without protection from alterations (no MDC), which is refused; have it encrypted by a program of this century")
		case pgpCompressed:
			if encrypted || p.signing.signed() {
				return errPGPOrder
			}
			inner, err := p.decompress(body)
			if err != nil {
				return err
			}
			return p.open(inner, depth-1)
		case pgpLiteral:
			if encrypted {
				return errPGPOrder
			}
			return p.literal(body)
		default:
			return fmt.Errorf("it has a part of a kind (%d) that is not known", tag)
		}
	}
}

// decompress reads on inside a compressed packet (RFC 9580, section 5.6).
func (p *pgpContent) decompress(body *pgpBody) (byteReader, error) {
	algorithm, err := body.ReadByte()
	if err != nil {
		return nil, err
	}
	switch algorithm {
	case 0:
		return body, nil
	case 2:
		// ZLIB (RFC 1950): two bytes before, a checksum behind.
		var head [2]byte
		if _, err := io.ReadFull(body, head[:]); err != nil {
			return nil, err
		}
		if head[0]&0xf != 8 || head[1]&0x20 != 0 || (uint(head[0])<<8|uint(head[1]))%31 != 0 {
			return nil, errBroken
		}
		body.trailer = 4
	case 3:
		return nil, errors.New("it is compressed with BZIP2, which is not read; have it made with ZLIB or ZIP (gpg --compress-algo zlib)")
	default:
		if algorithm != 1 {
			return nil, fmt.Errorf("it is compressed in a way (%d) that is not known", algorithm)
		}
	}
	i := newInflater(body)
	p.inflate = append(p.inflate, i)
	return p.window(i), nil
}

// literal reads up to the file in a literal packet (section 5.9).
func (p *pgpContent) literal(body *pgpBody) error {
	var head [2]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return err
	}
	if strings.IndexByte("btu1l", head[0]) < 0 {
		return errPGPOrder
	}
	for range int(head[1]) + 4 { // name and date
		if _, err := body.ReadByte(); err != nil {
			return err
		}
	}
	p.body = body
	return nil
}

func (p *pgpContent) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.body.Read(b)
	p.signing.write(b[:n])
	if p.size += int64(n); p.size > MaxBytes {
		err = errBomb
	}
	if err == io.EOF {
		err = p.end()
	}
	if p.err = err; err != nil && err != io.EOF {
		p.err = p.explain(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, p.err
}

// end reads what follows the file in each of the packets around it, from the
// inside, and checks it. It answers io.EOF if all is well.
func (p *pgpContent) end() error {
	for i := len(p.levels) - 1; i >= 0; i-- {
		packets := p.levels[i]
		if err := packets.open.finish(); err != nil {
			return err
		}
		for n := 0; ; n++ {
			// Behind the last packet of a level stands what protects it.
			tag, body, err := packets.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			switch {
			case n == maxPGPOthers:
				return errPGPOrder
			case tag == pgpMarker || tag == pgpPadding:
				err = body.drop()
			case tag == pgpSignature && i == len(p.levels)-1:
				err = p.signing.end(body)
			default:
				err = errors.New("something follows the file in it")
			}
			if err != nil {
				return err
			}
		}
	}
	if err := p.signing.verify(); err != nil {
		return err
	}
	return io.EOF
}

// Notes says what else the message shows.
func (p *pgpContent) Notes() []string {
	var notes []string
	if p.crypt == nil {
		notes = append(notes, "The PGP message is not encrypted.")
	}
	if p.keys.vault.used() {
		notes = append(notes, "The PGP message was encrypted to a key in the HSM: "+p.keys.vault.opened+".")
	}
	return append(notes, p.signing.notes()...)
}

// explain makes an error one for people.
func (p *pgpContent) explain(err error) error {
	var bad *FileError
	var failed *vaultError
	if len(p.windows) > 0 {
		if failed := p.windows[0].failed(); failed != nil && failed != errArmour && failed != io.ErrUnexpectedEOF {
			return failed
		}
	}
	switch {
	case errors.As(err, &failed):
		return failed
	case errors.As(err, &bad):
		return bad
	case errors.Is(err, io.ErrUnexpectedEOF) && p.crypt == nil || err == io.EOF:
		return &FileError{Reason: "the PGP message breaks off before its end; it was cut off"}
	case p.crypt != nil && (errors.Is(err, io.ErrUnexpectedEOF) || err == errBroken || err == errPGPOrder):
		err = errPGPAltered
	}
	return &FileError{Reason: "this is a PGP message, but " + err.Error()}
}

func (p *pgpContent) Close() {
	for _, i := range p.inflate {
		i.wipe()
	}
	if p.crypt != nil {
		p.crypt.wipe()
	}
	for _, w := range p.windows {
		w.wipe()
	}
	if p.signing != nil {
		p.signing.wipe()
	}
	if p.armour != nil {
		p.armour.wipe()
	}
}
