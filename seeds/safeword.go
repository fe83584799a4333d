package seeds

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

// safewordDAT is the text that SafeWord servers import tokens from, shipped with
// SafeWord tokens and eToken PASS as a .dat file. It is like LDIF: entries of
// attributes, an empty line after each.
//
//	dn: sccAuthenticatorId=SERIAL
//	objectclass: sccCompatibleToken
//	sccAuthenticatorId: SERIAL
//	sccTokenType: eToken-PASS-TS
//	sccTokenData: sccKey=HEX;sccMode=T;sccPwLen=6;sccVer=6.20;sccTick=30;sccPrTime=2013/03/12 00:00:00;
//	sccSignature: BASE64
//
// The mode is E for tokens that count and T for those that follow the clock.
// The clock of the latter counts from 2000-01-01 00:00 UTC and not from 1970, as
// sccPrTime shows (the time of production, otherwise of no use); where it is
// missing, the origin must be chosen.
var safewordDAT = Format{Name: "safeword", Title: "SafeWord .dat", Detect: detectSafeWord, Open: openSafeWord}

// safewordOrigin is what SafeWord's time counts from.
var safewordOrigin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

type safewordReader struct {
	lines  *lines
	rec    Record
	o      Choices
	entry  safewordEntry
	signed int // entries with a signature
	others int // entries of something other than a token
}

// safewordEntry is an entry as it is collected. data holds the seed.
type safewordEntry struct {
	line           int
	any            bool // there is an attribute at all
	serial, dn     string
	model          string
	data           []byte // of sccTokenData
	hasData        bool
	signed, atEnd  bool
	open           bool // its last line has no end
	last           byte // attribute of the line before: d for the data, x for one that may go on, 0 for none
	bad            error
	serials, datas int
}

func openSafeWord(r io.Reader, o OpenOptions) Reader {
	return &safewordReader{
		lines: newLines(r), o: o.Choices, rec: Record{Seed: make([]byte, 0, MaxSeed)},
		entry: safewordEntry{data: make([]byte, 0, maxLine)},
	}
}

func (s *safewordReader) Close() {
	s.rec.reset()
	s.clear()
	s.lines.wipe()
}

// clear forgets the entry and wipes its data.
func (s *safewordReader) clear() {
	clear(s.entry.data)
	s.entry = safewordEntry{data: s.entry.data[:0]}
}

// Notes says what else the file shows.
func (s *safewordReader) Notes() []string {
	var notes []string
	if s.signed > 0 {
		notes = append(notes, fmt.Sprintf("Tokens that carry a signature (sccSignature), which was not checked: %d.", s.signed))
	}
	if s.others > 0 {
		notes = append(notes, fmt.Sprintf("Entries of something other than a token, which were left out: %d.", s.others))
	}
	return notes
}

func (s *safewordReader) Next() (*Record, error) {
	s.rec.reset()
	for {
		s.clear()
		if err := s.read(); err != nil {
			return nil, err
		}
		e, rec := &s.entry, &s.rec
		if e.serials == 0 && !e.hasData && e.bad == nil {
			s.others++
			continue
		}
		rec.Line, rec.Serial, rec.Model = e.line, e.serial, deviceName("", e.model)
		if err := s.judge(); err != nil {
			if tokens.ValidSerial(rec.Serial) != nil || mayBeSeed(rec.Serial) {
				rec.Serial = ""
			}
			rec.fail("%w", err)
		} else if e.signed {
			s.signed++
		}
		return rec, nil
	}
}

// read collects the next entry, or answers io.EOF after the last one.
func (s *safewordReader) read() error {
	e := &s.entry
	for {
		line, ended, err := s.lines.next()
		if err == io.EOF && e.any {
			e.atEnd = true
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			if e.any {
				return nil
			}
		case line[0] == '#':
			e.last = 0
		case line[0] == ' ' || line[0] == '\t':
			// LDIF folds long lines so (RFC 2849).
			if e.last == 'd' {
				s.addData(line[1:])
			} else if !e.any || e.last == 0 {
				s.fault(errors.New("a line begins with a blank and continues none that may go on"))
				e.any = true
			}
		default:
			if !e.any {
				e.line, e.any = s.lines.n, true
			}
			s.attribute(line)
		}
		if e.any && e.line == 0 {
			e.line = s.lines.n
		}
		e.open = !ended
	}
}

// attribute takes one attribute over.
func (s *safewordReader) attribute(line []byte) {
	e := &s.entry
	e.last = 0
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		s.fault(fmt.Errorf("line %d has no colon, so it is no attribute", s.lines.n))
		return
	}
	if bytes.HasPrefix(value, []byte(":")) || bytes.HasPrefix(value, []byte("<")) {
		s.fault(fmt.Errorf("the attribute in line %d is in base64 or in another file, which is not read", s.lines.n))
		return
	}
	value = bytes.TrimSpace(value)
	switch {
	case bytes.EqualFold(name, []byte("dn")):
		rdn, _, _ := bytes.Cut(value, []byte(","))
		if at, id, ok := bytes.Cut(rdn, []byte("=")); ok && bytes.EqualFold(bytes.TrimSpace(at), []byte("sccAuthenticatorId")) && len(id) <= 256 {
			e.dn = string(bytes.TrimSpace(id))
		}
	case bytes.EqualFold(name, []byte("sccAuthenticatorId")):
		e.serials++
		e.serial = string(value[:min(len(value), 256)])
	case bytes.EqualFold(name, []byte("sccTokenType")):
		e.model = string(value[:min(len(value), 256)])
	case bytes.EqualFold(name, []byte("sccTokenData")):
		e.datas++
		e.hasData, e.last = true, 'd'
		s.addData(value)
	case bytes.EqualFold(name, []byte("sccSignature")):
		e.signed = len(value) > 0
		e.last = 'x'
	default:
		e.last = 'x'
	}
}

// addData appends to the token data, within its room.
func (s *safewordReader) addData(b []byte) {
	e := &s.entry
	if len(e.data)+len(b) > cap(e.data) {
		s.fault(errors.New("the token data is longer than any is"))
		return
	}
	e.data = append(e.data, b...)
}

// fault keeps the first thing that is wrong with an entry.
func (s *safewordReader) fault(err error) {
	if s.entry.bad == nil {
		s.entry.bad = err
	}
}

// judge reads the entry into s.rec and says what is wrong with it.
func (s *safewordReader) judge() error {
	e, rec := &s.entry, &s.rec
	switch {
	case e.bad != nil:
		return e.bad
	case e.serials == 0:
		return errors.New("there is no sccAuthenticatorId")
	case !e.hasData:
		return errors.New("there is no sccTokenData")
	case e.serials > 1 || e.datas > 1:
		return errors.New("there are several sccAuthenticatorId or sccTokenData in one entry; is an empty line missing?")
	case e.dn != "" && e.dn != e.serial:
		return errors.New("its dn names another sccAuthenticatorId")
	case e.open && e.last == 'd':
		return errors.New("the file ends in the middle of its token data; it may have been cut off")
	case e.atEnd && !e.signed && s.signed > 0:
		return errors.New("it is the last entry and has no signature, as those before have; the file may have been cut off")
	}
	var d safewordData
	if err := d.parse(rec, e.data); err != nil {
		return err
	}
	if err := d.complete(rec, s.o); err != nil {
		return err
	}
	return rec.check()
}

// safewordData is what sccTokenData says besides the seed.
type safewordData struct {
	seen       []string // names, in lower case
	mode       string
	hash       hsm.Hash
	digits     int
	tick       int
	production bool
}

// parse takes token data apart: name=value pairs, a semicolon after each. The
// seed goes to rec. Its errors hold no value.
func (d *safewordData) parse(rec *Record, data []byte) error {
	for rest := data; len(bytes.TrimSpace(rest)) > 0; {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, []byte(";"))
		key, value, ok := bytes.Cut(pair, []byte("="))
		if len(bytes.TrimSpace(pair)) == 0 {
			continue
		}
		key, value = bytes.TrimSpace(key), bytes.TrimSpace(value)
		if !ok || len(key) > 24 || slices.ContainsFunc(key, func(b byte) bool { return (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') }) {
			return fmt.Errorf("entry %d of the token data is not a name and a value", len(d.seen)+1)
		}
		name := strings.ToLower(string(key))
		if slices.Contains(d.seen, name) {
			return fmt.Errorf("the token data has %s twice", key)
		}
		d.seen = append(d.seen, name)
		switch name {
		case "scckey":
			if bytes.HasPrefix(value, []byte("(")) {
				return errors.New("the seed is encrypted under a key of the SafeWord server (sccKey begins with a parenthesis); ask for a file with plain seeds, or PSKC")
			}
			if err := decodeHex(rec, value); err != nil {
				return fmt.Errorf("sccKey: %w", err)
			}
		case "sccmode":
			d.mode = strings.ToUpper(string(value[:min(len(value), 8)]))
		case "sccpwlen":
			n, err := strconv.Atoi(string(value))
			if d.digits = n; err != nil || n < 1 {
				return errors.New("sccPwLen is not a number")
			}
		case "scctick":
			n, err := strconv.Atoi(string(value))
			if d.tick = n; err != nil || n < 1 {
				return errors.New("sccTick is not a number of seconds")
			}
		case "sccprtime":
			if _, err := time.Parse("2006/01/02 15:04:05", string(value)); err != nil {
				return errors.New("sccPrTime is not a time such as 2013/03/12 00:00:00; the file may have been cut off")
			}
			d.production = true
		case "crypto":
			hash, ok := parseHash(string(value))
			if !ok {
				return errors.New("crypto names no hash that is known: HmacSHA1, HmacSHA256 and HmacSHA512 are")
			}
			d.hash = hash
		case "sccver":
			// The version of SafeWord that the file is for.
		default:
			return fmt.Errorf("the token data has %s, which is not understood", key)
		}
	}
	return nil
}

// complete fills rec in with what the data says, and where it is silent with
// what was chosen.
func (d *safewordData) complete(rec *Record, o Choices) error {
	if !slices.Contains(d.seen, "scckey") {
		return errors.New("the token data has no sccKey")
	}
	switch d.mode {
	case "E":
		rec.Type = tokens.HOTP
	case "T":
		rec.Type = tokens.TOTP
	case "":
		return errors.New("the token data has no sccMode")
	default:
		return errors.New("sccMode is neither E (counts) nor T (follows the clock); tokens of another mode are not OATH")
	}
	rec.Digits = d.digits
	if rec.Digits == 0 {
		rec.Digits = o.Digits
	}
	if rec.Digits == 0 {
		return errors.New("the token data does not say how long the codes are (sccPwLen, or --digits)")
	}
	rec.Algorithm = d.hash
	if rec.Algorithm == 0 {
		rec.Algorithm = o.Hash
	}
	if rec.Algorithm == 0 {
		rec.Algorithm = hsm.SHA1
	}
	if rec.Type == tokens.HOTP {
		return nil
	}
	rec.Period = d.tick
	if rec.Period == 0 {
		rec.Period = o.Period
	}
	if rec.Period == 0 {
		return errors.New("the token data does not say how long a time step is (sccTick, or --period)")
	}
	origin := o.TimeOrigin
	if origin.IsZero() {
		if !d.production {
			return errors.New("the token data has no sccPrTime, so it is not certain that the token's time counts from 2000-01-01; say what it counts from (--time-origin)")
		}
		origin = safewordOrigin
	}
	rec.Origin = origin.Unix()
	if rec.Origin%int64(rec.Period) != 0 {
		return fmt.Errorf("the time that the token counts from (--time-origin) does not fall on the beginning of a time step of %d s", rec.Period)
	}
	return nil
}

// detectSafeWord looks for an attribute that only such files have among the
// first lines.
func detectSafeWord(prefix []byte, whole bool) (bool, string) {
	text := prefix
	for n := 1; len(text) > 0 && n <= 64; n++ {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		text = rest
		if !ended && !whole {
			break
		}
		for _, begin := range []string{"dn: sccAuthenticatorId=", "sccAuthenticatorId:", "sccTokenData:"} {
			if len(line) >= len(begin) && bytes.EqualFold(line[:len(begin)], []byte(begin)) {
				return true, fmt.Sprintf("line %d has the attribute %s", n, strings.TrimRight(begin, ":="))
			}
		}
	}
	return false, "no attribute of a SafeWord token at its beginning"
}
