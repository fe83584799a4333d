package pskc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// dataNames are the values of a key by the Name that the early drafts give
// them, in lower case and without underscores.
var dataNames = map[string]string{
	"secret": "Secret", "counter": "Counter", "time": "Time", "timeinterval": "TimeInterval", "timedrift": "TimeDrift",
}

// fields are the values of a key, by their names in RFC 6030, section 4.2.
type fields map[string]*node

// readFields finds the values of a key in its Data, or, as the early drafts
// have them, each in a Data with a Name. What a file has beside them is
// refused: it may change what the codes are.
func readFields(k element) (fields, error) {
	f := make(fields, 5)
	for _, from := range []*node{k.common, k.own} { // the key's own values come last
		if from == nil {
			continue
		}
		seen := make(fields, 5)
		for _, data := range from.kids {
			if !data.is("Data", nsPSKC) {
				continue
			}
			if name := data.attr("Name", "name"); name != "" {
				local := dataNames[strings.ReplaceAll(strings.ToLower(name), "_", "")]
				if local == "" {
					return nil, fmt.Errorf("it has data named %s, which is not understood", quoted(name))
				}
				if seen[local] != nil {
					return nil, fmt.Errorf("there are two %s elements", local)
				}
				seen[local] = data
				continue
			}
			for _, field := range data.kids {
				local := field.name.Local
				switch {
				case field.name.Space != nsPSKC || local == "Extensions":
				case dataNames[strings.ToLower(local)] != local:
					return nil, fmt.Errorf("it has data named %s, which is not understood", quoted(local))
				case seen[local] != nil:
					return nil, fmt.Errorf("there are two %s elements", local)
				default:
					seen[local] = field
				}
			}
		}
		if from == k.common && seen["Secret"] != nil {
			return nil, errors.New("its KeyProperties hold a seed, which would be that of several tokens")
		}
		for local, n := range seen {
			f[local] = n
		}
	}
	return f, nil
}

// data reads the moving factor and, last, the secret.
func (r *Reader) data(k element) error {
	key := &r.key
	f, err := readFields(k)
	if err != nil {
		return err
	}
	secret := f["Secret"]
	if secret == nil {
		ref, _ := k.one("KeyReference")
		if ref != nil {
			return errors.New("there is no seed in it, only a reference to a key that the vendor holds")
		}
		return errors.New("there is no seed in it")
	}
	switch key.Algorithm {
	case HOTP:
		n, _, err := r.integer(f["Counter"], "Counter", 0)
		if err != nil {
			return err
		}
		key.Counter = uint64(n)
	case TOTP:
		if err := r.clock(f); err != nil {
			return err
		}
	}
	if err := r.secret(secret); err != nil {
		return err
	}
	if key.Digits == 0 && key.Algorithm != YubiKeyAES {
		if key.Digits = r.vault.given.Digits; key.Digits == 0 {
			key.Digits = 6
			r.lengths++
		}
	}
	return nil
}

// clock reads what TOTP counts by. The time that steps are counted from is 0 in
// TOTP as it is used (RFC 6238, section 4.1: T0); another one would make other
// codes.
func (r *Reader) clock(f fields) error {
	if n, _, err := r.integer(f["Time"], "Time", math.MinInt32); err != nil {
		return err
	} else if n != 0 {
		return errors.New("its time steps are not counted from 1970 (Time is not 0), which is not supported")
	}
	n, there, err := r.integer(f["TimeInterval"], "TimeInterval", 0)
	if err != nil {
		return err
	}
	if !there {
		n = 30 // RFC 6238, section 4.1: the default
		if chosen := r.vault.given.Interval; chosen != 0 {
			n = int64(chosen)
		}
	}
	r.key.Interval = int(min(n, math.MaxInt32))
	if n, _, err = r.integer(f["TimeDrift"], "TimeDrift", math.MinInt32); err != nil {
		return err
	}
	r.key.Drift = int(min(n, math.MaxInt32))
	return nil
}

// secret reads a Secret into the key, decrypted if need be, unless it is
// encrypted to a public key.
func (r *Reader) secret(n *node) error {
	value, err := r.octets("the seed", n, true)
	if err != nil {
		return err
	}
	if r.key.Encrypted != nil {
		return nil
	}
	if len(value) == 0 {
		return errors.New("the seed is empty")
	}
	if len(value) > MaxSecret {
		clear(value)
		return errors.New("the seed is longer than any")
	}
	if r.key.Secret == nil {
		r.key.Secret = make([]byte, 0, MaxSecret)
	}
	r.key.Secret = append(r.key.Secret[:0], value...)
	clear(value)
	return nil
}

// octets answers the octets of a value, decrypted if need be; they are valid
// until the next call. If it is a seed that is encrypted to a public key, they
// are none and the key has it.
func (r *Reader) octets(what string, n *node, seed bool) ([]byte, error) {
	v, err := readValue(what, n)
	if err != nil {
		return nil, err
	}
	switch {
	case v.encrypted != nil && seed:
		if r.key.Encrypted, err = r.vault.transported(v.encrypted, v.mac); err != nil || r.key.Encrypted != nil {
			return nil, err
		}
		fallthrough
	case v.encrypted != nil:
		return r.vault.open(what, v.encrypted, v.mac)
	case v.legacy != nil && r.vault.legacy != nil && (seed || v.mac != nil):
		return r.vault.openLegacy(what, v.legacy, v.mac)
	case v.legacy != nil:
		if seed && v.mac != nil {
			r.digests++ // the drafts say of no key that it were under
		}
		v.plain = v.legacy
	case v.plain == nil:
		return nil, fmt.Errorf("%s has no value", what)
	case seed && r.vault.declared:
		return nil, fmt.Errorf("%s is in clear in a file that says its seeds are encrypted", what)
	case v.mac != nil:
		return nil, fmt.Errorf("%s is in clear but has a MAC, which cannot be checked", what)
	}
	value, err := decodeBase64(r.vault.scratch[:], v.plain)
	if err != nil {
		return nil, fmt.Errorf("%s %w", what, err)
	}
	return value, nil
}

// value is a value as it stands in the file: at most one of the first three.
type value struct {
	plain, encrypted *node
	legacy           *node // a draft's Value, in clear or not
	mac              *node
}

func readValue(what string, n *node) (v value, err error) {
	for _, k := range n.kids {
		var place **node
		switch {
		case k.is("PlainValue", nsPSKC):
			place = &v.plain
		case k.is("EncryptedValue", nsPSKC):
			place = &v.encrypted
		case k.is("Value", nsPSKC):
			place = &v.legacy
		case k.is("ValueMAC", nsPSKC), k.is("ValueDigest", nsPSKC):
			place = &v.mac
		default:
			if k.name.Space != nsPSKC {
				continue
			}
			return v, fmt.Errorf("%s has the element %s, which is not understood", what, quoted(k.name.Local))
		}
		if *place != nil {
			return v, fmt.Errorf("there are two %s elements", k.name.Local)
		}
		*place = k
	}
	if v.plain != nil && v.encrypted != nil {
		return v, fmt.Errorf("%s is there both in clear and encrypted", what)
	}
	if v.legacy != nil && (v.plain != nil || v.encrypted != nil) {
		return v, fmt.Errorf("%s has two values", what)
	}
	return v, nil
}

// integer reads an integer of Data, and says whether it is there.
func (r *Reader) integer(n *node, local string, least int64) (i int64, there bool, err error) {
	if n == nil {
		return 0, false, nil
	}
	v, err := readValue(local, n)
	if err != nil {
		return 0, false, err
	}
	if v.encrypted != nil || v.legacy != nil {
		octets, err := r.octets(local, n, false)
		if err != nil {
			return 0, false, err
		}
		defer clear(octets)
		if i, err = integer(octets); err != nil {
			return 0, false, fmt.Errorf("%s %w", local, err)
		}
	} else {
		if v.plain == nil {
			return 0, false, fmt.Errorf("%s has no value", local)
		}
		if v.mac != nil {
			return 0, false, fmt.Errorf("%s is in clear but has a MAC, which cannot be checked", local)
		}
		text, err := v.plain.content()
		if err != nil {
			return 0, false, err
		}
		if i, err = strconv.ParseInt(text, 10, 64); err != nil {
			return 0, false, fmt.Errorf("%s is not a number", local)
		}
	}
	if i < least {
		return 0, false, fmt.Errorf("%s is out of range", local)
	}
	return i, true, nil
}

// integer reads an encrypted integer: RFC 6030, section 4.2, has it in network
// byte order, in 4 or 8 octets; some products use fewer octets, or decimal
// digits. What could be either is refused rather than guessed.
func integer(octets []byte) (int64, error) {
	switch {
	case len(octets) == 0 || len(octets) > 8:
		return 0, errors.New("is in a form that is not understood")
	case len(bytes.Trim(octets, "0123456789")) == 0:
		return 0, errors.New("is in a form that can be read in two ways, as decimal digits and as octets")
	}
	var n uint64
	for _, b := range octets {
		n = n<<8 | uint64(b)
	}
	if len(octets) == 4 {
		return int64(int32(n)), nil
	}
	return int64(n), nil
}
