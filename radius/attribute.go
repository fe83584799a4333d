package radius

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"watchword/tokens"
)

// kind is how an attribute's value is written and sent.
type kind string

const (
	kindString     kind = "string"
	kindOctets     kind = "octets" // 0x and hexadecimal digits, or a text as it stands
	kindInteger    kind = "integer"
	kindInteger64  kind = "integer64"
	kindShort      kind = "short"
	kindByte       kind = "byte"
	kindSigned     kind = "signed"
	kindDate       kind = "date" // RFC 3339, or seconds since 1970
	kindIPAddr     kind = "ipaddr"
	kindIPv4Prefix kind = "ipv4prefix" // RFC 6572
	kindIPv6Addr   kind = "ipv6addr"
	kindIPv6Prefix kind = "ipv6prefix" // RFC 3162, section 2.3
	kindIFID       kind = "ifid"       // 0:0:0:1
	kindEther      kind = "ether"
)

// widths are the bytes of the kinds that are numbers.
var widths = map[kind]int{kindByte: 1, kindShort: 2, kindInteger: 4, kindSigned: 4, kindDate: 4, kindInteger64: 8}

func (k kind) known() bool {
	switch k {
	case kindString, kindOctets, kindIPAddr, kindIPv4Prefix, kindIPv6Addr, kindIPv6Prefix, kindIFID, kindEther:
		return true
	}
	return widths[k] > 0
}

// maxTag is the highest tag (RFC 2868, section 3).
const maxTag = 0x1f

// find looks an attribute up by its name, which a tag may follow.
func (d *Dictionary) find(name string) (a *attribute, tag byte, err error) {
	base, text, tagged := strings.Cut(name, ":")
	a = d.names[strings.ToLower(base)]
	switch {
	case a == nil:
		return nil, 0, fmt.Errorf("there is no attribute %s in the dictionary; 'watchword client attributes' lists them", base)
	case tagged:
		n, err := strconv.ParseUint(text, 10, 8)
		if !a.tagged || err != nil || n < 1 || n > maxTag {
			return nil, 0, fmt.Errorf("attribute %s has no tag %q; those with tags have 1 to %d", a.name, text, maxTag)
		}
		tag = byte(n)
	}
	switch a.barred {
	case ofRequests:
		return nil, 0, fmt.Errorf("attribute %s does not belong into an Access-Accept", a.name)
	case ofServer:
		if a.vendor == nil && a.number == uint32(attrReplyMessage) {
			return nil, 0, errors.New("the text of Reply-Message is not an attribute, but the client's message accept")
		}
		return nil, 0, fmt.Errorf("attribute %s is Watchword's to make", a.name)
	case hidden:
		return nil, 0, fmt.Errorf("attribute %s is sent hidden under the shared secret; here it would lie in clear", a.name)
	}
	if !a.kind.known() {
		return nil, 0, fmt.Errorf("attribute %s is of the kind %s, which cannot be sent", a.name, a.kind)
	}
	return a, tag, nil
}

// encode makes an attribute as it is sent.
func (d *Dictionary) encode(r tokens.ReplyAttribute) ([]byte, *attribute, error) {
	a, tag, err := d.find(r.Name)
	if err != nil {
		return nil, nil, err
	}
	value, err := a.value(r.Value)
	if err != nil {
		return nil, nil, fmt.Errorf("attribute %s: %w", a.name, err)
	}
	if len(value) == 0 { // a tag alone would be sent otherwise
		return nil, nil, fmt.Errorf("attribute %s: the value is empty", a.name)
	}
	if value, err = a.withTag(tag, value); err != nil {
		return nil, nil, fmt.Errorf("attribute %s: %w", a.name, err)
	}
	b, err := a.frame(value)
	if err != nil {
		return nil, nil, fmt.Errorf("attribute %s: %w", a.name, err)
	}
	return b, a, nil
}

// value reads a value as the kind is written.
func (a *attribute) value(text string) ([]byte, error) {
	if n := widths[a.kind]; n > 0 {
		return a.numeric(text, n)
	}
	switch a.kind {
	case kindOctets:
		b := []byte(text)
		if digits, ok := strings.CutPrefix(text, "0x"); ok {
			var err error
			if b, err = hex.DecodeString(digits); err != nil {
				return nil, errors.New("what follows 0x are not pairs of hexadecimal digits")
			}
		}
		if a.size > 0 && len(b) != a.size {
			return nil, fmt.Errorf("the value has %d bytes; it must have %d", len(b), a.size)
		}
		return b, nil
	case kindIPAddr, kindIPv6Addr:
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" || addr.Is4() != (a.kind == kindIPAddr) {
			return nil, fmt.Errorf("%q is not an address of IPv%c", text, map[kind]rune{kindIPAddr: '4', kindIPv6Addr: '6'}[a.kind])
		}
		return addr.AsSlice(), nil
	case kindIPv4Prefix, kindIPv6Prefix:
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4() != (a.kind == kindIPv4Prefix) || p != p.Masked() {
			return nil, fmt.Errorf("%q is not a prefix of IPv%c, or has bits behind its length", text, map[kind]rune{kindIPv4Prefix: '4', kindIPv6Prefix: '6'}[a.kind])
		}
		return append([]byte{0, byte(p.Bits())}, p.Addr().AsSlice()...), nil
	case kindIFID:
		parts := strings.Split(text, ":")
		var b []byte
		for _, part := range parts {
			n, err := strconv.ParseUint(part, 16, 16)
			if err != nil || len(parts) != 4 {
				return nil, fmt.Errorf("%q is not an interface id such as 0:0:0:1", text)
			}
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		}
		return b, nil
	case kindEther:
		b, err := net.ParseMAC(text)
		if err != nil || len(b) != 6 {
			return nil, fmt.Errorf("%q is not an address such as 00:00:5e:00:53:01", text)
		}
		return b, nil
	}
	return []byte(text), nil
}

// numeric reads a number, or the name of one, of so many bytes.
func (a *attribute) numeric(text string, size int) ([]byte, error) {
	bits, base, digits := 8*size, 10, text
	if hex, ok := strings.CutPrefix(text, "0x"); ok {
		base, digits = 16, hex
	}
	n, err := strconv.ParseUint(digits, base, bits)
	if v := a.named(text); v != nil {
		n, err = v.number, nil
	}
	if err != nil && a.kind == kindSigned {
		var signed int64
		signed, err = strconv.ParseInt(text, 10, bits)
		n = uint64(signed)
	}
	if err != nil && a.kind == kindDate {
		var at time.Time
		if at, err = time.Parse(time.RFC3339, text); err == nil && (at.Unix() < 0 || at.Unix() >= 1<<32) {
			err = strconv.ErrRange
		}
		n = uint64(at.Unix())
	}
	switch {
	case err != nil && a.kind == kindDate:
		return nil, fmt.Errorf("%q is not a time such as 2027-01-31T12:00:00Z", text)
	case err != nil && len(a.values) > 0:
		names := make([]string, len(a.values))
		for i, v := range a.values {
			names[i] = v.name
		}
		return nil, fmt.Errorf("%q is not a number of %d bits, nor one of %s", text, bits, strings.Join(names, ", "))
	case err != nil:
		return nil, fmt.Errorf("%q is not a number of %d bits", text, bits)
	}
	b := binary.BigEndian.AppendUint64(nil, n)
	return b[8-size:], nil
}

// withTag puts the tag where the kind has it (RFC 2868, section 3): in the first of the
// four bytes of a number, and before a text, where there need not be one.
func (a *attribute) withTag(tag byte, value []byte) ([]byte, error) {
	switch {
	case !a.tagged:
	case a.kind == kindInteger:
		if value[0] != 0 {
			return nil, errors.New("a number with a tag has 24 bits")
		}
		value[0] = tag
	case tag != 0:
		return append([]byte{tag}, value...), nil
	case len(value) > 0 && value[0] <= maxTag:
		return nil, errors.New("the value begins with what would be taken for a tag")
	}
	return value, nil
}

// frame puts the header before a value.
func (a *attribute) frame(value []byte) ([]byte, error) {
	room, head := maxValue, 0
	if a.vendor != nil {
		head = a.vendor.typeSize + a.vendor.length
		room -= 4 + head
	} else if a.number > 255 {
		return nil, errors.New("its number is higher than a byte")
	}
	if len(value) > room {
		return nil, fmt.Errorf("the value has %d bytes; %d are possible", len(value), room)
	}
	if a.vendor == nil {
		return append([]byte{byte(a.number), byte(2 + len(value))}, value...), nil
	}
	b := []byte{attrVendorSpecific, byte(6 + head + len(value))}
	b = binary.BigEndian.AppendUint32(b, a.vendor.number)
	number := binary.BigEndian.AppendUint32(nil, a.number)
	for _, high := range number[:4-a.vendor.typeSize] {
		if high != 0 {
			return nil, errors.New("its number is higher than the vendor's attributes have")
		}
	}
	b = append(b, number[4-a.vendor.typeSize:]...)
	switch a.vendor.length {
	case 1:
		b = append(b, byte(head+len(value)))
	case 2:
		b = binary.BigEndian.AppendUint16(b, uint16(head+len(value)))
	}
	return append(b, value...), nil
}

// describe shows an attribute of a packet in the words of the dictionary: several, where
// it holds several of a vendor's. What only the client can read is not shown.
func (d *Dictionary) describe(number byte, value []byte) []Attribute {
	if number != attrVendorSpecific {
		a := d.numbers[attributeID{0, uint32(number)}]
		if a == nil {
			return []Attribute{{fmt.Sprintf("Attr-%d", number), fmt.Sprintf("0x%x", value)}}
		}
		return []Attribute{a.show(value)}
	}
	unread := []Attribute{{"Vendor-Specific", fmt.Sprintf("0x%x", value)}}
	if len(value) < 4 {
		return unread
	}
	n := binary.BigEndian.Uint32(value)
	of := d.vendors[n]
	if of == nil || of.length == 0 {
		return unread
	}
	var list []Attribute
	head := of.typeSize + of.length
	for rest := value[4:]; len(rest) > 0; {
		if len(rest) < head {
			return unread
		}
		number, size := bigEndian(rest[:of.typeSize]), int(bigEndian(rest[of.typeSize:head]))
		if size < head || size > len(rest) {
			return unread
		}
		if a := d.numbers[attributeID{n, number}]; a != nil {
			list = append(list, a.show(rest[head:size]))
		} else {
			list = append(list, Attribute{fmt.Sprintf("%s-Attr-%d", of.name, number), fmt.Sprintf("0x%x", rest[head:size])})
		}
		rest = rest[size:]
	}
	return list
}

func bigEndian(b []byte) (n uint32) {
	for _, c := range b {
		n = n<<8 | uint32(c)
	}
	return n
}

// show is an attribute with a value as it would be written; what is not of its kind is
// written as octets.
func (a *attribute) show(value []byte) Attribute {
	shown := Attribute{a.name, fmt.Sprintf("0x%x", value)}
	switch {
	case a.barred == hidden || a.secret():
		shown.Value = "(hidden)"
		return shown
	case a.tagged && len(value) > 0 && value[0] <= maxTag:
		if value[0] > 0 {
			shown.Name += fmt.Sprintf(":%d", value[0])
		}
		if a.kind == kindInteger {
			value = append([]byte{0}, value[1:]...)
		} else {
			value = value[1:]
		}
	}
	if text, ok := a.text(value); ok {
		shown.Value = text
	}
	return shown
}

// secret says whether the attribute holds keys (RFC 2548, section 2.4).
func (a *attribute) secret() bool {
	return a.vendor != nil && a.vendor.number == vendorMicrosoft &&
		(a.number == msCHAPMPPEKeys || a.number == msMPPESendKey || a.number == msMPPERecvKey)
}

func (a *attribute) text(value []byte) (string, bool) {
	if n := widths[a.kind]; n > 0 {
		if len(value) != n {
			return "", false
		}
		var wide [8]byte
		copy(wide[8-n:], value)
		number := binary.BigEndian.Uint64(wide[:])
		for _, v := range a.values {
			if v.number == number {
				return v.name, true
			}
		}
		switch a.kind {
		case kindDate:
			return time.Unix(int64(number), 0).UTC().Format(time.RFC3339), true
		case kindSigned:
			return strconv.FormatInt(int64(int32(number)), 10), true
		}
		return strconv.FormatUint(number, 10), true
	}
	switch a.kind {
	case kindIPAddr, kindIPv6Addr:
		addr, ok := netip.AddrFromSlice(value)
		return addr.String(), ok && addr.Is4() == (a.kind == kindIPAddr)
	case kindIPv4Prefix, kindIPv6Prefix:
		size := map[kind]int{kindIPv4Prefix: 4, kindIPv6Prefix: 16}[a.kind]
		if len(value) < 2 || len(value) > 2+size {
			return "", false
		}
		whole := make([]byte, size) // RFC 3162 lets the bytes behind the length out
		copy(whole, value[2:])
		addr, _ := netip.AddrFromSlice(whole)
		p, err := addr.Prefix(int(value[1]))
		return p.String(), err == nil
	case kindIFID:
		if len(value) != 8 {
			return "", false
		}
		n := binary.BigEndian.Uint64(value)
		return fmt.Sprintf("%x:%x:%x:%x", n>>48, n>>32&0xffff, n>>16&0xffff, n&0xffff), true
	case kindEther:
		return net.HardwareAddr(value).String(), len(value) == 6
	}
	readable := utf8.Valid(value) && !strings.ContainsFunc(string(value), func(r rune) bool { return !unicode.IsPrint(r) })
	return string(value), readable && len(value) > 0 && !(a.kind == kindOctets && strings.HasPrefix(string(value), "0x"))
}
