package radius

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"layeh.com/radius/dictionary"
)

// Dictionary knows attributes by name and number: those of attributes.txt, and what
// files add. It is never changed once it is made.
type Dictionary struct {
	names   map[string]*attribute // in lower case
	numbers map[attributeID]*attribute
	vendors map[uint32]*vendor
}

// attributeID is a vendor, 0 for none, and a number.
type attributeID struct{ vendor, number uint32 }

// vendor is one with attributes of its own (RFC 2865, section 5.26).
type vendor struct {
	name             string
	number           uint32
	typeSize, length int // bytes of the type and of the length of its attributes
}

// attribute is what is known of one.
type attribute struct {
	name   string
	vendor *vendor // nil: it is of the standard
	number uint32
	kind   kind
	size   int  // of octets that are always as many; 0: they may be any
	once   bool // may stand in a reply once
	tagged bool
	barred bar // why no client's settings may hold it
	values []namedValue
}

type namedValue struct {
	name   string
	number uint64
}

// bar says why an attribute may not be in a client's settings; empty: it may.
type bar string

const (
	ofRequests bar = "request"
	ofServer   bar = "server"
	hidden     bar = "hidden"
)

//go:embed attributes.txt
var builtin string

// NewDictionary reads the attributes that Watchword knows by itself, and those of files
// in the syntax of FreeRADIUS. A file may add vendors, attributes and names of values;
// a name that is known already must be the same attribute there.
func NewDictionary(files ...string) (*Dictionary, error) {
	d := &Dictionary{names: map[string]*attribute{}, numbers: map[attributeID]*attribute{}, vendors: map[uint32]*vendor{}}
	if err := d.readBuiltin(builtin); err != nil {
		return nil, err
	}
	for _, name := range files {
		p := dictionary.Parser{Opener: &dictionary.FileSystemOpener{Root: filepath.Dir(name)}, IgnoreIdenticalAttributes: true}
		read, err := p.ParseFile(filepath.Base(name))
		if err != nil {
			var at *dictionary.ParseError
			if errors.As(err, &at) {
				return nil, fmt.Errorf("RADIUS dictionary %s, line %d: %w", name, at.Line, at.Inner)
			}
			return nil, fmt.Errorf("RADIUS dictionary: %w", err)
		}
		if err := d.add(read); err != nil {
			return nil, fmt.Errorf("RADIUS dictionary %s: %w", name, err)
		}
	}
	return d, nil
}

// readBuiltin reads the form that stands at the head of attributes.txt.
func (d *Dictionary) readBuiltin(text string) error {
	var of *vendor
	for i, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		wrong := fmt.Errorf("attributes.txt, line %d: %q is not as it must be", i+1, line)
		if len(f) < 3 {
			return wrong
		}
		number := f[1]
		if f[0] == "vendor" {
			number = f[2]
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return wrong
		}
		if f[0] == "vendor" {
			of = &vendor{name: f[1], number: uint32(n), typeSize: 1, length: 1}
			d.vendors[of.number] = of
			continue
		}
		flags := strings.Split(f[2], ",")
		a := &attribute{name: f[0], vendor: of, number: uint32(n), kind: kind(flags[0])}
		for _, flag := range flags[1:] {
			switch flag {
			case "once":
				a.once = true
			case "tag":
				a.tagged = true
			case string(ofRequests), string(ofServer), string(hidden):
				a.barred = bar(flag)
			default:
				return wrong
			}
		}
		for _, v := range f[3:] {
			name, text, _ := strings.Cut(v, "=")
			number, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return wrong
			}
			a.values = append(a.values, namedValue{name, number})
		}
		if !a.kind.known() || !d.learn(a) {
			return wrong
		}
	}
	return nil
}

// learn adds an attribute; false if it is another than one that is known by its name.
// Of two with one number the first stays the one that is shown.
func (d *Dictionary) learn(a *attribute) bool {
	key := strings.ToLower(a.name)
	if was := d.names[key]; was != nil {
		return was.id() == a.id()
	}
	d.names[key] = a
	if d.numbers[a.id()] == nil {
		d.numbers[a.id()] = a
	}
	return true
}

func (a *attribute) id() attributeID {
	if a.vendor == nil {
		return attributeID{0, a.number}
	}
	return attributeID{a.vendor.number, a.number}
}

// add takes up what a file holds.
func (d *Dictionary) add(read *dictionary.Dictionary) error {
	if err := d.addAll(nil, read.Attributes, read.Values); err != nil {
		return err
	}
	for _, v := range read.Vendors {
		of := d.vendors[uint32(v.Number)]
		if of == nil {
			of = &vendor{name: v.Name, number: uint32(v.Number), typeSize: v.GetTypeOctets(), length: v.GetLengthOctets()}
			d.vendors[of.number] = of
		}
		if err := d.addAll(of, v.Attributes, v.Values); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dictionary) addAll(of *vendor, attributes []*dictionary.Attribute, values []*dictionary.Value) error {
	for _, r := range attributes {
		if len(r.OID) != 1 {
			continue // a part of another one: these are not sent
		}
		a := &attribute{name: r.Name, vendor: of, number: uint32(r.OID[0]), kind: kind(r.Type.String()), tagged: r.FlagHasTag.Bool}
		if r.Size.Valid {
			a.size = r.Size.Int
		}
		if r.FlagEncrypt.Valid {
			a.barred = hidden
		}
		if same := d.numbers[a.id()]; same != nil { // what is known of it stays so under another name
			a.once, a.tagged, a.barred = same.once, same.tagged, same.barred
		}
		if !d.learn(a) {
			return fmt.Errorf("attribute %s is known already, as another one", a.name)
		}
	}
	for _, v := range values {
		a := d.names[strings.ToLower(v.Attribute)]
		if a == nil {
			return fmt.Errorf("value %s is of attribute %s, which there is not", v.Name, v.Attribute)
		}
		if a.named(v.Name) == nil {
			a.values = append(a.values, namedValue{v.Name, v.Number})
		}
	}
	return nil
}

// named finds a value by its name.
func (a *attribute) named(name string) *namedValue {
	i := slices.IndexFunc(a.values, func(v namedValue) bool { return strings.EqualFold(v.name, name) })
	if i < 0 {
		return nil
	}
	return &a.values[i]
}

// Entry is what a person needs to know of an attribute to have it in replies.
type Entry struct {
	Name   string
	Vendor string // empty: none
	Number uint32
	Kind   string // string, integer, ipaddr ...
	Once   bool   // only the first of several is sent
	Tagged bool   // NAME:1 to NAME:31 tell groups of them apart
	Values []string
}

// Entries are the attributes that a client's settings may hold and whose names, vendors or
// values have the text somewhere, whatever its case; in order of vendors and names.
func (d *Dictionary) Entries(text string) []Entry {
	text = strings.ToLower(text)
	var list []Entry
	for a := range maps.Values(d.names) {
		e := Entry{Name: a.name, Number: a.number, Kind: string(a.kind), Once: a.once, Tagged: a.tagged}
		if a.vendor != nil {
			e.Vendor = a.vendor.name
		}
		for _, v := range a.values {
			e.Values = append(e.Values, v.name)
		}
		all := strings.ToLower(e.Name + " " + e.Vendor + " " + strings.Join(e.Values, " "))
		if a.barred == "" && a.kind.known() && strings.Contains(all, text) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int {
		if c := strings.Compare(a.Vendor, b.Vendor); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}
