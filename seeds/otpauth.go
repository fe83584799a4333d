package seeds

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"watchword/hsm"
	"watchword/tokens"
)

// otpauthList is one key URI a line, as authenticator apps scan them (Google
// Authenticator's wiki, "Key Uri Format"):
//
//	otpauth://totp/Issuer:account?secret=BASE32&issuer=...&algorithm=...&digits=...&period=...
//	otpauth://hotp/Issuer:account?secret=BASE32&counter=...
//
// with SHA1, 6 digits and 30 s where the URI does not say; an HOTP token must have
// its counter. The account is the hint at the user, the issuer the model. A URI
// has no serial, unless one is written as the parameter serial; labelSerial makes
// one.
var otpauthList = Format{Name: "otpauth", Title: "list of otpauth URIs", Detect: detectOtpauth, Open: openOtpauth}

const (
	otpauthScheme   = "otpauth://"
	migrationScheme = "otpauth-migration://"
)

// uriSilence is what the key URI format has where a URI does not say.
var uriSilence = Choices{Hash: hsm.SHA1, Digits: 6, Period: 30}

type otpauthReader struct {
	lines  *lines
	chosen Choices
	rec    Record
	tail   tail
}

func openOtpauth(r io.Reader, o OpenOptions) Reader {
	return &otpauthReader{lines: newLines(r), chosen: o.Choices, rec: Record{Seed: make([]byte, 0, MaxSeed)}}
}

func (u *otpauthReader) Close() {
	u.rec.reset()
	u.lines.wipe()
}

func (u *otpauthReader) Next() (*Record, error) {
	rec := &u.rec
	rec.reset()
	for {
		line, ended, err := u.lines.next()
		if err != nil {
			return nil, err
		}
		if line = trimBlank(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		rec.Line = u.lines.n
		n, last, err := u.parse(line)
		if err == nil && !ended {
			err = u.tail.check(n, len(rec.Seed), last)
		}
		if err != nil {
			if mayBeSeed(rec.User) {
				rec.User = ""
			}
			rec.fail("%w", err)
			return rec, nil
		}
		u.tail.keep(n, len(rec.Seed), last)
		return rec, nil
	}
}

// parse reads a URI into u.rec. It answers how many parameters it has and the
// value of the last one, or nothing where that is the secret.
func (u *otpauthReader) parse(uri []byte) (n int, last []byte, err error) {
	rec := &u.rec
	if hasScheme(uri, migrationScheme) {
		return 0, nil, errors.New("this is an export of Google Authenticator; import such lines in a file of their own (--format otpauth-migration)")
	}
	if !hasScheme(uri, otpauthScheme) {
		return 0, nil, errors.New("it is no otpauth:// URI")
	}
	kind, rest, _ := bytes.Cut(uri[len(otpauthScheme):], []byte("/"))
	path, query, _ := bytes.Cut(rest, []byte("?"))
	if i := bytes.IndexByte(query, '#'); i >= 0 {
		query = query[:i]
	}
	if rec.Type = typeNamed(kind); rec.Type == "" {
		return 0, nil, errors.New("the URI is neither of type totp nor hotp")
	}
	label, err := unescape(path, false)
	if err != nil {
		return 0, nil, fmt.Errorf("the label: %w", err)
	}
	var p uriParameters
	if n, last, err = p.read(query); err != nil {
		return 0, nil, err
	}
	if err := rec.label(string(label), string(p.values[paramIssuer])); err != nil && len(p.values[paramSerial]) == 0 {
		return 0, nil, err
	}
	if s := p.values[paramSerial]; len(s) > 0 {
		serial := string(s)
		if err := tokens.ValidSerial(serial); err != nil {
			rec.Serial = ""
			return 0, nil, fmt.Errorf("the parameter serial: %s", strings.TrimPrefix(err.Error(), tokens.ErrInvalid.Error()+": "))
		}
		rec.Serial = serial
	}
	if err := u.take(&p); err != nil {
		if mayBeSeed(string(p.values[paramSerial])) {
			rec.Serial = ""
		}
		return 0, nil, err
	}
	return n, last, nil
}

// take reads a URI's parameters into u.rec.
func (u *otpauthReader) take(p *uriParameters) error {
	rec := &u.rec
	if len(p.values[paramSecret]) == 0 {
		return errors.New("there is no parameter secret")
	}
	if err := Base32.decode(rec, p.values[paramSecret]); err != nil {
		return fmt.Errorf("the parameter secret: %w", err)
	}
	if f := p.values[paramAlgorithm]; len(f) > 0 {
		if rec.Algorithm = hashNamed(f); rec.Algorithm == 0 {
			return errors.New("the parameter algorithm is not SHA1, SHA256 or SHA512")
		}
	}
	if f := p.values[paramDigits]; len(f) > 0 {
		if len(f) != 1 || f[0] < '6' || f[0] > '8' {
			return errors.New("the parameter digits is not 6, 7 or 8")
		}
		rec.Digits = int(f[0] - '0')
	}
	if rec.Type == tokens.HOTP {
		n, err := strconv.ParseUint(string(p.values[paramCounter]), 10, 64)
		if err != nil || n > maxCounter {
			return errors.New("the parameter counter, which an HOTP token must have, is missing or no possible number")
		}
		rec.Counter = n
	} else if f := p.values[paramPeriod]; len(f) > 0 {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil || n < 1 || n > 86400 {
			return errors.New("the parameter period is not a number of 1 to 86400 seconds")
		}
		rec.Period = int(n)
	}
	if err := rec.settle(u.chosen, uriSilence); err != nil {
		return err
	}
	return rec.check()
}

// uriParameter is a parameter of a key URI that is understood.
type uriParameter int

const (
	paramSecret uriParameter = iota
	paramIssuer
	paramAlgorithm
	paramDigits
	paramPeriod
	paramCounter
	paramSerial
	paramCount
)

var paramNames = [paramCount]string{"secret", "issuer", "algorithm", "digits", "period", "counter", "serial"}

// otherCodes are parameters that ask for codes which are not made as RFC 4226
// and RFC 6238 have it. Those that are for show, like image and color, are no
// matter.
var otherCodes = []string{"encoder", "epoch", "t0", "offset", "pin"}

type uriParameters struct{ values [paramCount][]byte }

// read takes a query apart, in place. It answers how many parameters there are
// and the last one's value, or nothing where that is the secret.
func (p *uriParameters) read(query []byte) (n int, last []byte, err error) {
	for more := true; more && len(query) > 0; n++ {
		var pair []byte
		pair, query, more = bytes.Cut(query, []byte("&"))
		name, value, _ := bytes.Cut(pair, []byte("="))
		if value, err = unescape(value, true); err != nil {
			return 0, nil, fmt.Errorf("parameter %d: %w", n+1, err)
		}
		last = value
		for _, other := range otherCodes {
			if bytes.EqualFold(name, []byte(other)) {
				return 0, nil, fmt.Errorf("the parameter %s asks for codes that are not those of TOTP or HOTP", other)
			}
		}
		for i, known := range paramNames {
			if !bytes.EqualFold(name, []byte(known)) {
				continue
			}
			if p.values[i] != nil {
				return 0, nil, fmt.Errorf("the parameter %s is there twice", known)
			}
			if p.values[i] = value[:len(value):len(value)]; uriParameter(i) == paramSecret {
				last = nil
			}
			break
		}
	}
	return n, last, nil
}

// unescape takes the percent signs off a text, in place; in a query a plus sign
// is a blank.
func unescape(text []byte, query bool) ([]byte, error) {
	end := 0
	for i := 0; i < len(text); i++ {
		b := text[i]
		switch {
		case b == '+' && query:
			b = ' '
		case b == '%':
			var octet [1]byte
			if i+2 >= len(text) {
				return nil, errors.New("a percent sign is not followed by two hex digits")
			}
			if _, err := hex.Decode(octet[:], text[i+1:i+3]); err != nil {
				return nil, errors.New("a percent sign is not followed by two hex digits")
			}
			b = octet[0]
			i += 2
		}
		text[end] = b
		end++
	}
	return text[:end], nil
}

// label takes over what a label and the issuer beside it say: the account as the
// hint at the user, the issuer as the model, and a serial made of both. r.Type is
// known.
func (r *Record) label(label, issuer string) error {
	account := label
	if before, after, ok := strings.Cut(label, ":"); ok {
		account = after
		if issuer == "" {
			issuer = before
		}
	}
	account, issuer = strings.TrimSpace(account), strings.TrimSpace(issuer)
	if account == "" {
		return errors.New("there is no account in the label, of which a serial could be made")
	}
	r.Model = deviceName(issuer, "")
	if _, err := tokens.FoldName(account); err == nil {
		r.User = account
	}
	r.Serial = labelSerial(r.Type, issuer, account)
	return nil
}

// labelSerial makes the serial of a token that has only a label: "O-" and the
// first 16 hex digits of SHA-256 over type, issuer and account. The same label
// gives the same serial in a key URI and in an export of Google Authenticator, so
// importing a list again makes no token twice; and the secret is no part of it.
func labelSerial(t tokens.Type, issuer, account string) string {
	sum := sha256.Sum256([]byte(string(t) + "\x00" + issuer + "\x00" + account))
	return "O-" + hex.EncodeToString(sum[:8])
}

func hasScheme(uri []byte, scheme string) bool {
	return len(uri) >= len(scheme) && bytes.EqualFold(uri[:len(scheme)], []byte(scheme))
}

func detectOtpauth(prefix []byte, whole bool) (bool, string) {
	return detectScheme(prefix, whole, otpauthScheme)
}

// detectScheme looks for a URI among the first lines.
func detectScheme(prefix []byte, whole bool, scheme string) (bool, string) {
	for n, seen := 1, 0; len(prefix) > 0 && seen < enough; n++ {
		line, rest, _ := bytes.Cut(prefix, []byte("\n"))
		prefix = rest
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		seen++
		if hasScheme(line, scheme) {
			return true, fmt.Sprintf("line %d begins with %s", n, scheme)
		}
	}
	return false, "no line begins with " + scheme
}
