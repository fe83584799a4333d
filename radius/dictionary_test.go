package radius

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	layeh "layeh.com/radius"
	"pgregory.net/rapid"

	"watchword/tokens"
)

func builtinDictionary(t testing.TB) *Dictionary {
	t.Helper()
	d, err := NewDictionary()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// freeRADIUS is where Debian keeps the dictionaries of FreeRADIUS.
const freeRADIUS = "/usr/share/freeradius"

// Each attribute that Watchword knows by itself is the one that FreeRADIUS has by that
// name: its vendor, number and kind, and the names of its values.
func TestTheDictionaryAgreesWithFreeRADIUS(t *testing.T) {
	theirs := readFreeRADIUS(t)
	d := builtinDictionary(t)
	// The same to those who read it, and different in the dictionaries of others.
	alike := map[string]string{"User-Password": "string", "MS-CHAP-Error": "string", "MS-CHAP-Domain": "string", "Vendor-Specific": "vsa"}
	for _, a := range d.names {
		their, ok := theirs[strings.ToLower(a.name)]
		if !ok {
			t.Errorf("FreeRADIUS has no %s", a.name)
			continue
		}
		kind := strings.SplitN(their.kind, "[", 2)[0]
		if their.id != a.id() || kind != string(a.kind) && kind != alike[a.name] {
			t.Errorf("%s is %v %s; FreeRADIUS has %v %s", a.name, a.id(), a.kind, their.id, their.kind)
		}
		if tagged := strings.Contains(their.flags, "has_tag"); tagged != a.tagged {
			t.Errorf("%s has a tag: %v", a.name, a.tagged)
		}
		if strings.Contains(their.flags, "encrypt") && a.barred == "" {
			t.Errorf("%s is sent hidden", a.name)
		}
		for _, v := range a.values {
			if n, ok := their.values[strings.ToLower(v.name)]; !ok || n != v.number {
				t.Errorf("%s: %s is %d; FreeRADIUS has %d, %v", a.name, v.name, v.number, n, ok)
			}
		}
	}
}

type theirAttribute struct {
	id          attributeID
	kind, flags string
	values      map[string]uint64
}

// readFreeRADIUS reads what there is, as far as it is simple.
func readFreeRADIUS(t *testing.T) map[string]*theirAttribute {
	t.Helper()
	files, err := filepath.Glob(freeRADIUS + "/dictionary.*")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d dictionaries in %s (%v); they are in the package freeradius-common", len(files), freeRADIUS, err)
	}
	all := map[string]*theirAttribute{}
	values := map[string]map[string]uint64{}
	for _, file := range files {
		if strings.HasSuffix(file, ".dhcp") || strings.HasSuffix(file, ".freeradius.internal") || strings.HasSuffix(file, ".illegal") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		vendors := map[string]uint32{}
		var of uint32
		for _, line := range strings.Split(string(text), "\n") {
			line, _, _ = strings.Cut(line, "#")
			f := strings.Fields(line)
			switch {
			case len(f) >= 3 && f[0] == "VENDOR":
				n, _ := strconv.ParseUint(f[2], 0, 32)
				vendors[f[1]] = uint32(n)
			case len(f) >= 2 && f[0] == "BEGIN-VENDOR":
				of = vendors[f[1]]
			case len(f) >= 2 && f[0] == "END-VENDOR":
				of = 0
			case len(f) >= 4 && f[0] == "ATTRIBUTE":
				n, err := strconv.ParseUint(f[2], 0, 32)
				if err != nil || all[strings.ToLower(f[1])] != nil {
					continue
				}
				all[strings.ToLower(f[1])] = &theirAttribute{id: attributeID{of, uint32(n)}, kind: strings.ToLower(f[3]), flags: strings.Join(f[4:], ",")}
			case len(f) >= 4 && f[0] == "VALUE":
				n, _ := strconv.ParseUint(f[3], 0, 64)
				name := strings.ToLower(f[1])
				if values[name] == nil {
					values[name] = map[string]uint64{}
				}
				values[name][strings.ToLower(f[2])] = n
			}
		}
	}
	for name, a := range all {
		a.values = values[name]
	}
	return all
}

// Whatever is written for an attribute is read back from the packet, by an independent
// codec, as what was written.
func TestEveryAttributeIsReadAsItWasWritten(t *testing.T) {
	d := builtinDictionary(t)
	for _, entry := range d.Entries("") {
		a := d.names[strings.ToLower(entry.Name)]
		t.Run(a.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				name, tag := a.name, 0
				if a.tagged && rapid.Bool().Draw(t, "with a tag") {
					tag = rapid.IntRange(1, 31).Draw(t, "tag")
					name += fmt.Sprintf(":%d", tag)
				}
				text := writtenFor(t, a, tag)
				wire, _, err := d.encode(tokens.ReplyAttribute{Name: name, Value: text})
				if err != nil {
					t.Fatalf("%s = %q: %v", name, text, err)
				}
				packet := append(append([]byte{2, 1, 0, byte(20 + len(wire)), 19: 0}, wire...), make([]byte, 0)...)
				binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
				p, err := layeh.Parse(packet, []byte(secret))
				if err != nil || len(p.Attributes) != 1 {
					t.Fatalf("%s = %q: %x is no attribute: %v", name, text, wire, err)
				}
				value := p.Attributes[0].Attribute
				if a.vendor != nil {
					n, inner, err := layeh.VendorSpecific(value)
					if err != nil || n != a.vendor.number || inner[0] != byte(a.number) || int(inner[1]) != len(inner) {
						t.Fatalf("%s = %q: %x is none of the vendor's: %v", name, text, wire, err)
					}
					value = layeh.Attribute(inner[2:])
				} else if p.Attributes[0].Type != layeh.Type(a.number) {
					t.Fatalf("%s is sent as %d", name, p.Attributes[0].Type)
				}
				if got := readBack(t, a, tag, value); got != text {
					t.Errorf("%s = %q is read as %q", name, text, got)
				}
				// And we show it in the same words, by the name of the value where it has one.
				shown := d.describe(wire[0], wire[2:])
				if len(shown) != 1 || shown[0].Name != name {
					t.Fatalf("%x is shown as %v", wire, shown)
				}
				if again, _, err := d.encode(tokens.ReplyAttribute(shown[0])); err != nil || !bytes.Equal(again, wire) {
					t.Errorf("%s = %q is shown as %v, which is %x: %v", name, text, shown[0], again, err)
				}
			})
		})
	}
}

// writtenFor draws a value as a person would write it in one way only.
func writtenFor(t *rapid.T, a *attribute, tag int) string {
	room := maxValue
	if a.vendor != nil {
		room -= 6
	}
	if tag > 0 && a.kind != kindInteger {
		room--
	}
	switch a.kind {
	case kindString:
		return rapid.StringMatching(fmt.Sprintf(`[ -~]{1,%d}`, room)).Draw(t, "text")
	case kindOctets:
		return fmt.Sprintf("0x%x", rapid.SliceOfN(rapid.Byte(), 1, room).Draw(t, "octets"))
	case kindInteger:
		if a.tagged {
			return strconv.FormatUint(uint64(rapid.Uint32Range(0, 1<<24-1).Draw(t, "number")), 10)
		}
		return strconv.FormatUint(uint64(rapid.Uint32().Draw(t, "number")), 10)
	case kindIPAddr:
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address"))).String()
	case kindIPv6Addr:
		return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))).String()
	case kindIPv6Prefix:
		a := netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")))
		return netip.PrefixFrom(a, rapid.IntRange(0, 128).Draw(t, "bits")).Masked().String()
	case kindIFID:
		n := rapid.SliceOfN(rapid.Uint16(), 4, 4).Draw(t, "parts")
		return fmt.Sprintf("%x:%x:%x:%x", n[0], n[1], n[2], n[3])
	}
	t.Fatalf("nothing is drawn for the kind %s", a.kind)
	return ""
}

// readBack reads a value with the other codec.
func readBack(t *rapid.T, a *attribute, tag int, value layeh.Attribute) string {
	if a.tagged && (tag > 0 || a.kind == kindInteger) {
		if int(value[0]) != tag {
			t.Errorf("the tag is %d, not %d", value[0], tag)
		}
		if a.kind == kindInteger {
			value = append(layeh.Attribute{0}, value[1:]...)
		} else {
			value = value[1:]
		}
	}
	switch a.kind {
	case kindString:
		return layeh.String(value)
	case kindOctets:
		return fmt.Sprintf("0x%x", layeh.Bytes(value))
	case kindInteger:
		n, err := layeh.Integer(value)
		if err != nil {
			t.Fatal(err)
		}
		return strconv.FormatUint(uint64(n), 10)
	case kindIPAddr:
		ip, err := layeh.IPAddr(value)
		if err != nil {
			t.Fatal(err)
		}
		return ip.String()
	case kindIPv6Addr:
		ip, err := layeh.IPv6Addr(value)
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := netip.AddrFromSlice(ip)
		return addr.String()
	case kindIPv6Prefix:
		p, err := layeh.IPv6Prefix(value)
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := netip.AddrFromSlice(p.IP.To16())
		bits, _ := p.Mask.Size()
		return netip.PrefixFrom(addr, bits).String()
	default:
		id, err := layeh.IFID(value)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x:%x:%x:%x", binary.BigEndian.Uint16(id), binary.BigEndian.Uint16(id[2:]), binary.BigEndian.Uint16(id[4:]), binary.BigEndian.Uint16(id[6:]))
	}
}

func TestValuesMayBeWrittenInSeveralWays(t *testing.T) {
	d := builtinDictionary(t)
	for written, want := range map[[2]string]string{
		{"service-type", "framed-user"}:               "0606 00000002",
		{"Service-Type", "0x2"}:                       "0606 00000002",
		{"Class", "staff"}:                            "1907 7374616666",
		{"Session-Timeout", "0600"}:                   "1b06 00000258",
		{"Class", "0xFF00"}:                           "1904 ff00",
		{"Cisco-AVPair", "shell:priv-lvl=15"}:         "1a19 00000009 0113 7368656c6c3a707269762d6c766c3d3135",
		{"Tunnel-Type:1", "VLAN"}:                     "4006 0100000d",
		{"Tunnel-Type", "13"}:                         "4006 0000000d",
		{"Tunnel-Private-Group-Id:31", "7"}:           "5104 1f37",
		{"Tunnel-Private-Group-Id", "7"}:              "5103 37",
		{"Framed-IPv6-Prefix", "2001:db8::/32"}:       "6114 0020 20010db8000000000000000000000000",
		{"Framed-Interface-Id", "0:0:0:1"}:            "600a 0000000000000001",
		{"MS-Primary-DNS-Server", "192.0.2.53"}:       "1a0c 00000137 1c06 c0000235",
		{"Framed-IP-Address", "255.255.255.254"}:      "0806 fffffffe",
		{"F5-LTM-User-Role", "Guest"}:                 "1a0c 00000d2f 0106 000002bc",
		{"Framed-MTU", "1400"}:                        "0c06 00000578",
		{"Filter-Id", "größe"}:                        "0b09 6772c3b6c39f65",
		{"Fortinet-Group-Name", "VPN users: all, =1"}: "1a1a 00003044 0114 56504e2075736572733a20616c6c2c203d31",
	} {
		got, _, err := d.encode(tokens.ReplyAttribute{Name: written[0], Value: written[1]})
		if err != nil || !bytes.Equal(got, unhex(t, strings.ReplaceAll(want, " ", ""))) {
			t.Errorf("%v is sent as %x (%v), want %s", written, got, err, want)
		}
	}
}

func TestMistakesInReplyAttributesAreFoundWhenTheyAreWritten(t *testing.T) {
	d := builtinDictionary(t)
	check := func(group string, pairs ...string) error {
		r := tokens.Reply{Group: group}
		for i := 0; i < len(pairs); i += 2 {
			r.Attributes = append(r.Attributes, tokens.ReplyAttribute{Name: pairs[i], Value: pairs[i+1]})
		}
		return d.Check([]tokens.Reply{r})
	}
	for says, err := range map[string]error{
		"the reply for everybody: there is no attribute Colour in the dictionary":             check("", "Colour", "red"),
		"the reply for group staff: there is no attribute Colour in the dictionary":           check("staff", "Class", "x", "Colour", "red"),
		`attribute Session-Timeout: "soon" is not a number of 32 bits`:                        check("", "Session-Timeout", "soon"),
		`attribute Session-Timeout: "-1" is not a number of 32 bits`:                          check("", "Session-Timeout", "-1"),
		`attribute Session-Timeout: "4294967296" is not a number of 32 bits`:                  check("", "Session-Timeout", "4294967296"),
		`attribute Framed-Routing: "Loud" is not a number of 32 bits, nor one of None, Broad`: check("", "Framed-Routing", "Loud"),
		`attribute Framed-IP-Address: "2001:db8::1" is not an address of IPv4`:                check("", "Framed-IP-Address", "2001:db8::1"),
		`attribute Login-IPv6-Host: "192.0.2.1" is not an address of IPv6`:                    check("", "Login-IPv6-Host", "192.0.2.1"),
		`attribute Framed-IPv6-Prefix: "2001:db8::1/32" is not a prefix of IPv6`:              check("", "Framed-IPv6-Prefix", "2001:db8::1/32"),
		`attribute Framed-Interface-Id: "1:2:3" is not an interface id`:                       check("", "Framed-Interface-Id", "1:2:3"),
		"attribute Class: what follows 0x are not pairs":                                      check("", "Class", "0xabc"),
		"attribute Tunnel-Private-Group-Id: the value is empty":                               check("", "Tunnel-Private-Group-Id:1", ""),
		"attribute Class: the value is empty":                                                 check("", "Class", ""),
		"attribute Class: the value has 254 bytes; 253 are possible":                          check("", "Class", strings.Repeat("x", 254)),
		"attribute Cisco-AVPair: the value has 248 bytes; 247 are possible":                   check("", "Cisco-AVPair", strings.Repeat("x", 248)),
		"attribute Tunnel-Assignment-Id: the value has 254 bytes; 253 are possible":           check("", "Tunnel-Assignment-Id:1", strings.Repeat("x", 253)),
		"attribute Tunnel-Preference: a number with a tag has 24 bits":                        check("", "Tunnel-Preference:1", "16777216"),
		`attribute Tunnel-Type has no tag "32"`:                                               check("", "Tunnel-Type:32", "VLAN"),
		`attribute Tunnel-Type has no tag "0"`:                                                check("", "Tunnel-Type:0", "VLAN"),
		`attribute Filter-Id has no tag "1"`:                                                  check("", "Filter-Id:1", "x"),
		"attribute Session-Timeout may stand in a reply once":                                 check("", "Session-Timeout", "1", "session-timeout", "2"),
		"attribute State is Watchword's to make":                                              check("", "State", "x"),
		"attribute Proxy-State is Watchword's to make":                                        check("", "Proxy-State", "x"),
		"attribute Message-Authenticator is Watchword's to make":                              check("", "Message-Authenticator", "0x00"),
		"attribute EAP-Message is Watchword's to make":                                        check("", "EAP-Message", "x"),
		"attribute MS-MPPE-Send-Key is Watchword's to make":                                   check("", "MS-MPPE-Send-Key", "x"),
		"attribute Vendor-Specific is Watchword's to make":                                    check("", "Vendor-Specific", "x"),
		"the text of Reply-Message is not an attribute, but the client's message accept":      check("", "Reply-Message", "Hello"),
		"attribute User-Password does not belong into an Access-Accept":                       check("", "User-Password", "x"),
		"attribute Tunnel-Password is sent hidden under the shared secret":                    check("", "Tunnel-Password:1", "x"),
		"the reply attributes have 2295 bytes in all; 2048 are possible": check("", "Class", strings.Repeat("a", 253), "Class", strings.Repeat("b", 253), "Class", strings.Repeat("c", 253),
			"Class", strings.Repeat("d", 253), "Class", strings.Repeat("e", 253), "Class", strings.Repeat("f", 253), "Class", strings.Repeat("g", 253), "Class", strings.Repeat("h", 253), "Class", strings.Repeat("i", 253)),
	} {
		if !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestFilesAddAttributesToTheDictionary(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("wide", "VENDOR Wide 32473 format=2,2\nBEGIN-VENDOR Wide\nATTRIBUTE Wide-Level 258 integer\nEND-VENDOR Wide\n")
	main := write("main", `# of our own
$INCLUDE wide
VENDOR	Example	32474
VENDOR	Cisco-Again	9
VALUE	Filter-Id	x	1
BEGIN-VENDOR Example
ATTRIBUTE	Example-Role	1	string
ATTRIBUTE	Example-Since	2	date
ATTRIBUTE	Example-Level	3	byte
ATTRIBUTE	Example-Port	4	short
ATTRIBUTE	Example-Offset	5	signed
ATTRIBUTE	Example-Bytes	6	integer64
ATTRIBUTE	Example-MAC	7	ether
ATTRIBUTE	Example-Net	8	ipv4prefix
ATTRIBUTE	Example-Key	9	octets[4]
ATTRIBUTE	Example-Secret	10	string	encrypt=2
ATTRIBUTE	Example-Tree	11	tlv
VALUE	Example-Level	High	0x0f
END-VENDOR Example
BEGIN-VENDOR Cisco-Again
ATTRIBUTE	Cisco-Fax-Pages	5	string
END-VENDOR Cisco-Again
`)
	d, err := NewDictionary(main)
	if err != nil {
		t.Fatal(err)
	}
	for written, want := range map[[2]string]string{
		{"Example-Role", "x"}:                     "1a09 00007eda 0103 78",
		{"Example-Since", "2027-01-31T12:00:00Z"}: "1a0c 00007eda 0206 6b5f2240",
		{"Example-Since", "1801396800"}:           "1a0c 00007eda 0206 6b5f2240",
		{"Example-Level", "High"}:                 "1a09 00007eda 0303 0f",
		{"Example-Port", "443"}:                   "1a0a 00007eda 0404 01bb",
		{"Example-Offset", "-2"}:                  "1a0c 00007eda 0506 fffffffe",
		{"Example-Bytes", "4294967296"}:           "1a10 00007eda 060a 0000000100000000",
		{"Example-MAC", "00:00:5e:00:53:01"}:      "1a0e 00007eda 0708 00005e005301",
		{"Example-Net", "192.0.2.0/24"}:           "1a0e 00007eda 0808 0018c0000200",
		{"Example-Key", "0x01020304"}:             "1a0c 00007eda 0906 01020304",
		{"Wide-Level", "7"}:                       "1a0e 00007ed9 0102 0008 00000007",
		{"Cisco-Fax-Pages", "7"}:                  "1a09 00000009 0503 37",
	} {
		got, _, err := d.encode(tokens.ReplyAttribute{Name: written[0], Value: written[1]})
		if err != nil || !bytes.Equal(got, unhex(t, strings.ReplaceAll(want, " ", ""))) {
			t.Errorf("%v is sent as %x (%v), want %s", written, got, err, want)
			continue
		}
		shown := d.describe(got[0], got[2:])
		if again, _, err := d.encode(tokens.ReplyAttribute(shown[0])); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%v is shown as %v: %v", written, shown, err)
		}
	}
	for name, value := range map[string]string{"Example-Secret": "x", "Example-Tree": "x", "Example-Key": "0x010203", "Example-Level": "256", "Example-Since": "yesterday"} {
		if _, _, err := d.encode(tokens.ReplyAttribute{Name: name, Value: value}); err == nil {
			t.Errorf("%s = %s was taken", name, value)
		}
	}
	for name, text := range map[string]string{
		"no such vendor":     "BEGIN-VENDOR Nobody\nEND-VENDOR Nobody\n",
		"another Class":      "ATTRIBUTE Class 26 octets\n",
		"a kind of its own":  "ATTRIBUTE Colour 200 colour\n",
		"a value of nothing": "VALUE Colour Red 1\n",
	} {
		path := write("wrong", text)
		if _, err := NewDictionary(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewDictionary(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
}

// Files that are in use elsewhere can be named as they are.
func TestDictionariesOfFreeRADIUSAreTaken(t *testing.T) {
	var files []string
	for _, name := range []string{"fortinet", "paloalto", "juniper", "aruba", "f5", "sonicwall", "mikrotik", "huawei", "starent"} {
		files = append(files, filepath.Join(freeRADIUS, "dictionary."+name))
	}
	d, err := NewDictionary(files...)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Fortinet-Host-Port-AVPair", "Aruba-Gateway-Zone", "SN-VPN-Name"} {
		if list := d.Entries(name); len(list) == 0 {
			t.Errorf("%s is not there", name)
		}
	}
	for _, e := range d.Entries("MPSK") {
		t.Errorf("%s is hidden, and offered", e.Name)
	}
}
