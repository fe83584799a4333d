package pskc

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The names of the algorithms that Key.Algorithm can be (RFC 6030, sections
// 10.1 and 10.2, and the profile of TOTP).
const (
	HOTP = "hotp"
	TOTP = "totp"
)

// MaxSecret is the longest secret that is read, in bytes.
const MaxSecret = 1024

// Key is one key package.
type Key struct {
	Number int // of the package in the container, from 1
	Line   int // that its element begins on, from 1

	ID           string // of the key
	Serial       string // of the device; the key's ID if the device has none
	Manufacturer string
	Model        string

	Algorithm string // HOTP or TOTP
	Suite     string // names the hash; empty if the file does not say
	Digits    int    // length of the code; 6 if the file does not say
	Counter   uint64 // HOTP: the next counter; zero if the file does not say
	Interval  int    // TOTP: seconds; 30 if the file does not say
	Drift     int    // TOTP: time steps that the device's clock is ahead
	Secret    []byte // in the clear

	// Err says why the key cannot be used, without any secret; the other fields
	// then hold what could be read.
	Err error
}

// judge reads a key package into r.key. An error that is fatal is for the
// file, any other for this package.
func (r *Reader) judge(n *node) error {
	k := &r.key
	*k = Key{Secret: k.Secret[:0]}
	info, err := n.one("DeviceInfo", nsPSKC)
	if err != nil {
		return err
	}
	if k.Serial, err = info.value("SerialNo"); err != nil {
		return err
	}
	if k.Manufacturer, err = info.value("Manufacturer"); err != nil {
		return err
	}
	if k.Model, err = info.value("Model"); err != nil {
		return err
	}
	key, err := n.one("Key", nsPSKC)
	if err != nil {
		return err
	}
	if key == nil {
		return errors.New("the key package has no key in it")
	}
	k.ID = key.attr("Id")
	if k.Serial == "" {
		k.Serial = k.ID
	}
	if err := k.algorithm(key); err != nil {
		return err
	}
	if err := valid(info, "the device", r.vault.given.Now); err != nil {
		return err
	}
	if err := policy(key, r.vault.given.Now); err != nil {
		return err
	}
	return r.data(key)
}

// algorithm reads what the key computes: its profile, hash and form of code.
func (k *Key) algorithm(key *node) error {
	uri := key.attr("Algorithm")
	name := strings.ToLower(uri)
	for _, prefix := range []string{nsPSKC + ":", nsPSKC + "#", "http://www.ietf.org/keyprov/pskc#"} {
		name = strings.TrimPrefix(name, prefix)
	}
	switch name {
	case HOTP, TOTP:
		k.Algorithm = name
	case "pin":
		return errors.New("this is a PIN that belongs to another key, not a token")
	case "":
		return errors.New("the key names no algorithm")
	default:
		return fmt.Errorf("the key is for %s, which is neither HOTP nor TOTP", quoted(uri))
	}
	params, err := key.one("AlgorithmParameters", nsPSKC)
	if err != nil {
		return err
	}
	if k.Suite, err = params.value("Suite"); err != nil {
		return err
	}
	if attr := params.attr("Suite"); attr != "" {
		if k.Suite != "" && k.Suite != attr {
			return errors.New("the key names two suites")
		}
		k.Suite = attr
	}
	format, err := params.one("ResponseFormat", nsPSKC)
	if err != nil {
		return err
	}
	if e := format.attr("Encoding"); e != "" && !strings.EqualFold(e, "DECIMAL") {
		return fmt.Errorf("its codes are %s, not decimal digits", quoted(e))
	}
	switch check := format.attr("CheckDigits"); check {
	case "", "false", "0":
	default:
		return errors.New("its codes have a check digit, which cannot be verified")
	}
	if length := format.attr("Length"); length != "" {
		if k.Digits, err = strconv.Atoi(length); err != nil || k.Digits < 1 {
			return errors.New("the length of its codes is not a number")
		}
	}
	return nil
}

// policy refuses a key that may not be used for what it would be used for
// here. RFC 6030, section 5: whoever does not understand a policy element must
// assume that the key may not be used.
func policy(key *node, now time.Time) error {
	p, err := key.one("Policy", nsPSKC)
	if p == nil || err != nil {
		return err
	}
	usages, otp := 0, false
	for _, rule := range p.kids {
		switch {
		case rule.is("StartDate", nsPSKC), rule.is("ExpiryDate", nsPSKC):
		case rule.is("KeyUsage", nsPSKC):
			usages++
			otp = otp || string(bytes.TrimSpace(rule.text)) == "OTP"
		case rule.is("PINPolicy", nsPSKC):
			if mode := rule.attr("PINUsageMode"); mode != "" && mode != "Local" {
				return fmt.Errorf("its policy wants a PIN checked by the server (PINUsageMode %s), which an import cannot arrange", quoted(mode))
			}
			if len(rule.kids) > 0 {
				return errors.New("its policy has rules for the PIN that are not understood, so the key may not be used")
			}
		case rule.is("NumberOfTransactions", nsPSKC):
			return errors.New("its policy allows a limited number of uses, which cannot be enforced here")
		default:
			return fmt.Errorf("its policy has the rule %s, which is not understood, so the key may not be used", quoted(rule.name.Local))
		}
	}
	if usages > 0 && !otp {
		return errors.New("its policy does not allow the key to be used for one-time passwords")
	}
	return valid(p, "the key", now)
}

// valid checks the validity period that n states.
func valid(n *node, what string, now time.Time) error {
	start, err := n.time("StartDate")
	if err != nil {
		return err
	}
	end, err := n.time("ExpiryDate")
	if err != nil {
		return err
	}
	const day = "2006-01-02"
	switch {
	case !end.IsZero() && now.After(end):
		return fmt.Errorf("%s expired on %s", what, end.Format(day))
	case !start.IsZero() && now.Before(start):
		return fmt.Errorf("%s may not be used before %s; import it then", what, start.Format(day))
	}
	return nil
}

// time reads a child's xs:dateTime; without a zone it is taken as UTC.
func (n *node) time(local string) (time.Time, error) {
	text, err := n.value(local)
	if text == "" || err != nil {
		return time.Time{}, err
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is not a date and time", local)
}

// data reads the moving factor and, last, the secret.
func (r *Reader) data(key *node) error {
	k := &r.key
	data, err := key.one("Data", nsPSKC)
	if err != nil {
		return err
	}
	secret, err := data.one("Secret", nsPSKC)
	if err != nil {
		return err
	}
	if secret == nil {
		ref, _ := key.value("KeyReference")
		if ref != "" {
			return errors.New("there is no seed in it, only a reference to a key that the vendor holds")
		}
		return errors.New("there is no seed in it")
	}
	if k.Algorithm == HOTP {
		n, _, err := r.integer(data, "Counter", 0)
		if err != nil {
			return err
		}
		k.Counter = uint64(n)
	} else {
		// The time that steps are counted from is 0 in TOTP as it is used (RFC
		// 6238, section 4.1: T0); another one would make other codes.
		if n, _, err := r.integer(data, "Time", math.MinInt32); err != nil {
			return err
		} else if n != 0 {
			return errors.New("its time steps are not counted from 1970 (Time is not 0), which is not supported")
		}
		n, there, err := r.integer(data, "TimeInterval", 0)
		if err != nil {
			return err
		}
		if !there {
			n = 30 // RFC 6238, section 4.1: the default
		}
		if n > math.MaxInt32 {
			n = math.MaxInt32
		}
		k.Interval = int(n)
		if n, _, err = r.integer(data, "TimeDrift", math.MinInt32); err != nil {
			return err
		}
		k.Drift = int(min(n, math.MaxInt32))
	}
	value, err := r.value("the seed", secret)
	if err != nil {
		return err
	}
	if len(value) > MaxSecret {
		return errors.New("the seed is longer than any")
	}
	if k.Secret == nil {
		k.Secret = make([]byte, 0, MaxSecret)
	}
	k.Secret = append(k.Secret[:0], value...)
	clear(value)
	if k.Digits == 0 {
		k.Digits = 6
		r.lengths++
	}
	return nil
}

// value answers the octets of a Secret, decrypted if need be. They are valid
// until the next call.
func (r *Reader) value(what string, n *node) ([]byte, error) {
	plain, err := n.one("PlainValue", nsPSKC)
	if err != nil {
		return nil, err
	}
	encrypted, mac, err := sealed(n)
	switch {
	case err != nil:
		return nil, err
	case plain != nil && encrypted != nil:
		return nil, fmt.Errorf("%s is there both in clear and encrypted", what)
	case encrypted != nil:
		return r.vault.open(what, encrypted, mac)
	case plain == nil:
		return nil, fmt.Errorf("%s has no value", what)
	case r.vault.declared:
		return nil, fmt.Errorf("%s is in clear in a file that says its seeds are encrypted", what)
	case mac != nil:
		return nil, fmt.Errorf("%s is in clear but has a MAC, which cannot be checked", what)
	}
	value, err := decodeBase64(r.vault.scratch[:], plain)
	if err != nil {
		return nil, fmt.Errorf("%s %w", what, err)
	}
	return value, nil
}

func sealed(n *node) (encrypted, mac *node, err error) {
	if encrypted, err = n.one("EncryptedValue", nsPSKC); err != nil {
		return nil, nil, err
	}
	mac, err = n.one("ValueMAC", nsPSKC)
	return encrypted, mac, err
}

// number reads an integer of Data, and says whether it is there.
func (r *Reader) integer(data *node, local string, least int64) (n int64, there bool, err error) {
	element, err := data.one(local, nsPSKC)
	if element == nil || err != nil {
		return 0, false, err
	}
	encrypted, mac, err := sealed(element)
	if err != nil {
		return 0, false, err
	}
	text, err := element.value("PlainValue")
	if err != nil {
		return 0, false, err
	}
	if encrypted != nil {
		if text != "" {
			return 0, false, fmt.Errorf("%s is there both in clear and encrypted", local)
		}
		value, err := r.vault.open(local, encrypted, mac)
		if err != nil {
			return 0, false, err
		}
		defer clear(value)
		if n, err = integer(value); err != nil {
			return 0, false, fmt.Errorf("%s %w", local, err)
		}
	} else if n, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, false, fmt.Errorf("%s is not a number", local)
	}
	if n < least {
		return 0, false, fmt.Errorf("%s is out of range", local)
	}
	return n, true, nil
}

// integer reads an encrypted integer: RFC 6030, section 4.2, has it in network
// byte order, in 4 or 8 octets; some products use fewer octets, or decimal
// digits. What could be either is refused rather than guessed.
func integer(octets []byte) (int64, error) {
	digits := true
	for _, b := range octets {
		digits = digits && b >= '0' && b <= '9'
	}
	switch {
	case len(octets) == 0 || len(octets) > 8:
		return 0, errors.New("is encrypted in a form that is not understood")
	case digits:
		return 0, errors.New("is encrypted in a form that can be read in two ways, as decimal digits and as octets")
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
