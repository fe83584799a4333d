package seeds

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"watchword/hsm"
	"watchword/tokens"
)

// yubicoLog is the log that Yubico's Personalization Tool appends to whenever it
// programs a key. A row is in one of two formats, by the tool's settings, and a
// file may hold both. The traditional one has 18 columns:
//
//	event, local time, slot, public id, private id, key, access code before, after,
//	first 2, first 4, all characters of the public id in modhex (0 or 1 each),
//	digits, moving factor, four or five flags of other modes
//
// where the local time is as the computer writes it, and may hold a comma. The
// Yubico format has no event; the mode shows in the columns that are empty:
//
//	serial, public id, private id or moving factor, key, access code, time, (empty)
//
// Of an OATH-HOTP row the Yubico format does not say how many digits a code has,
// and with a moving factor of 0 and no public id it is the row of a
// challenge-response key too: both must be chosen.
var yubicoLog = Format{Name: "yubico", Title: "log of Yubico's Personalization Tool", Detect: detectYubico, Open: openYubico}

// The columns of the two kinds of row.
const (
	yubicoTraditional = 18
	yubicoColumns     = 7
	yubicoMost        = yubicoTraditional + 4 // a local time may hold commas
)

// yubicoMode is what a row says that a key was programmed to do.
type yubicoMode int

const (
	yubicoUnknown yubicoMode = iota
	yubicoStart              // the tool began to log
	yubicoChange             // a setting was changed or slots were swapped: no key
	yubicoHOTP
	yubicoOTP
	yubicoStatic
	yubicoChallenge
)

// yubicoEvents are the events of the traditional format, as they begin.
var yubicoEvents = []struct {
	name string
	mode yubicoMode
}{
	{"LOGGING START", yubicoStart},
	{"Configuration Update", yubicoChange},
	{"Configuration Swap", yubicoChange},
	{"OATH-HOTP", yubicoHOTP},
	{"Yubico OTP", yubicoOTP},
	{"Static Password", yubicoStatic},
	{"Challenge-Response", yubicoChallenge},
}

// yubicoRow is a row taken apart; its fields lie in the line.
type yubicoRow struct {
	mode         yubicoMode
	serial       []byte // of the YubiKey; the traditional format has none
	public       []byte // modhex
	modhex       int    // characters of public that are typed in modhex; the rest in decimal
	private      []byte // hex
	key          []byte // hex
	digits       []byte
	movingFactor []byte
	ambiguous    bool // a challenge-response row looks the same
}

type yubicoReader struct {
	lines   *lines
	rec     Record
	o       Choices
	fields  [yubicoMost + 1][]byte
	changes int // rows that hold no key
	typed   int // imported tokens that type their identifier before the code
}

func openYubico(r io.Reader, o OpenOptions) Reader {
	return &yubicoReader{lines: newLines(r), o: o.Choices, rec: Record{Seed: make([]byte, 0, MaxSeed), PrivateID: make([]byte, 0, 6)}}
}

func (y *yubicoReader) Close() {
	y.rec.reset()
	y.lines.wipe()
}

// Notes says what else the log shows.
func (y *yubicoReader) Notes() []string {
	var notes []string
	if y.changes > 0 {
		notes = append(notes, fmt.Sprintf("Rows that tell of changed settings or swapped slots and hold no key: %d.", y.changes))
	}
	if y.typed > 0 {
		notes = append(notes, fmt.Sprintf("YubiKeys that type their token identifier before each code: %d. Watchword expects the code alone, or after the PIN; the identifier must be left out, or the key programmed without one.", y.typed))
	}
	return notes
}

func (y *yubicoReader) Next() (*Record, error) {
	rec := &y.rec
	rec.reset()
	for {
		line, _, err := y.lines.next()
		if err != nil {
			return nil, err
		}
		if line = trimBlank(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		row, err := yubicoSplit(line, y.fields[:])
		if err == nil && row.mode == yubicoStart {
			continue
		}
		if err == nil && row.mode == yubicoChange {
			y.changes++
			continue
		}
		rec.Line = y.lines.n
		if err == nil {
			err = y.take(&row)
		}
		if err != nil {
			rec.fail("%w", err)
		} else if rec.Type == tokens.HOTP && rec.PublicID != "" {
			y.typed++
		}
		return rec, nil
	}
}

// take reads a row that tells of a key into y.rec.
func (y *yubicoReader) take(row *yubicoRow) error {
	rec := &y.rec
	rec.Model = "Yubico"
	switch row.mode {
	case yubicoHOTP:
		return y.hotp(row)
	case yubicoOTP:
		if err := y.otp(row); err != nil {
			return err
		}
		return rec.check()
	case yubicoChallenge:
		y.name(row)
		return errors.New("it is programmed for challenge-response, which is no one-time code that a person could type")
	case yubicoStatic:
		// Its public id may be the password itself.
		if isDecimal(row.serial) {
			rec.Serial = string(row.serial)
		}
		return errors.New("it is programmed to type a static password, which is no one-time code (or, where the log does not tell them apart, for challenge-response)")
	}
	return errors.New("the row is of a kind that is not known")
}

// name gives y.rec its serial: the YubiKey's number if the row has it, else the
// token identifier that it types.
func (y *yubicoReader) name(row *yubicoRow) {
	rec := &y.rec
	if isModhex(row.public) && len(row.public)%2 == 0 && len(row.public) <= 32 {
		rec.PublicID = string(bytes.ToLower(row.public))
	}
	rec.Serial = rec.PublicID
	if isDecimal(row.serial) {
		rec.Serial = string(row.serial)
	}
}

// hotp reads a row of an OATH-HOTP key.
func (y *yubicoReader) hotp(row *yubicoRow) error {
	rec := &y.rec
	if len(row.serial) > 0 && !isDecimal(row.serial) {
		return errors.New("column 1 (serial): it is not a number")
	}
	if len(row.public) > 0 {
		if !isModhex(row.public) || len(row.public)%2 != 0 || len(row.public) > 12 {
			return errors.New("the public id is not modhex of up to 12 characters")
		}
		rec.PublicID = identifier(row.public, row.modhex)
	}
	if rec.Serial = string(row.serial); rec.Serial == "" {
		rec.Serial = rec.PublicID
	}
	if rec.Serial == "" {
		return errors.New("the log names no serial for this key; the traditional format has none unless the key types a token identifier: log in PSKC or in the Yubico format")
	}
	digits, err := y.digits(row)
	if err != nil {
		return err
	}
	rec.Type, rec.Algorithm, rec.Digits = tokens.HOTP, hsm.SHA1, digits
	if rec.Counter, err = strconv.ParseUint(string(row.movingFactor), 10, 64); err != nil {
		return errors.New("the moving factor is not a number")
	}
	if err := decodeHex(rec, row.key); err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	return rec.check()
}

// digits answers how long the codes of an OATH-HOTP row are, and refuses a row
// that may be something else, unless it was chosen.
func (y *yubicoReader) digits(row *yubicoRow) (int, error) {
	var missing []string
	if row.ambiguous {
		switch y.o.Type {
		case tokens.HOTP:
		case "":
			missing = append(missing, "whether this is an OATH-HOTP key or a challenge-response one (--type hotp)")
		default:
			return 0, fmt.Errorf("--type says %.10q, but the row can only be of an OATH-HOTP key or of a challenge-response one", y.o.Type)
		}
	}
	digits := y.o.Digits
	switch {
	case len(row.digits) == 1 && (row.digits[0] == '6' || row.digits[0] == '8'):
		digits = int(row.digits[0] - '0')
	case len(row.digits) > 0:
		return 0, errors.New("the codes have a number of digits other than 6 and 8, which no YubiKey has")
	case digits == 0:
		missing = append(missing, "how many digits its codes have (--digits 6 or --digits 8)")
	case digits != 6 && digits != 8:
		return 0, fmt.Errorf("--digits says %d, but YubiKeys make codes of 6 or 8", digits)
	}
	if len(missing) > 0 {
		return 0, errors.New("the log does not say " + strings.Join(missing, ", nor "))
	}
	return digits, nil
}

// otp reads a row of a Yubico OTP key: the ids, and the AES key as the seed.
func (y *yubicoReader) otp(row *yubicoRow) error {
	rec := &y.rec
	if y.name(row); rec.Serial == "" {
		return errors.New("there is neither a serial nor a public id in modhex")
	}
	if row.ambiguous {
		return errors.New("the log does not say whether this is a Yubico OTP key without a public id or a challenge-response one: log in PSKC, or program the key with a public id")
	}
	if len(row.public) > 0 && rec.PublicID == "" {
		return errors.New("the public id is not modhex of up to 32 characters")
	}
	if len(row.private) != 12 || !isHexText(row.private) {
		return errors.New("the private id is not 12 hex digits")
	}
	if len(row.key) != 32 || !isHexText(row.key) {
		return errors.New("the key is not 32 hex digits")
	}
	rec.PrivateID, rec.Seed = rec.PrivateID[:6], rec.Seed[:16]
	rec.Type, rec.Algorithm = tokens.YubicoOTP, hsm.AES128
	hex.Decode(rec.PrivateID, row.private)
	hex.Decode(rec.Seed, row.key)
	return nil
}

// identifier is a token identifier as the key types it: the first characters in
// modhex, the others in decimal. public is valid modhex.
func identifier(public []byte, modhex int) string {
	typed := bytes.ToLower(public)
	for i := min(modhex, len(typed)); i < len(typed); i++ {
		typed[i] = "0123456789abcdef"[bytes.IndexByte(modhexDigits, typed[i])]
	}
	return string(typed)
}

var modhexDigits = []byte("cbdefghijklnrtuv")

func isModhex(s []byte) bool {
	for _, b := range s {
		if b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		if bytes.IndexByte(modhexDigits, b) < 0 {
			return false
		}
	}
	return len(s) > 0
}

// isDecimal says whether s is a number as serials of YubiKeys are.
func isDecimal(s []byte) bool {
	return len(s) > 0 && len(s) <= 12 && !slices.ContainsFunc(s, func(b byte) bool { return b < '0' || b > '9' })
}

func isHexText(s []byte) bool {
	return !slices.ContainsFunc(s, func(b byte) bool { return !isHex(b) })
}

// yubicoSplit takes a row apart. Its error says that the row is of neither
// format.
func yubicoSplit(line []byte, fields [][]byte) (row yubicoRow, err error) {
	n := 0
	for rest, more := line, true; more && n < len(fields); n++ {
		fields[n], rest, more = bytes.Cut(rest, []byte(","))
		fields[n] = trimBlank(fields[n])
	}
	fields = fields[:n]
	for _, e := range yubicoEvents {
		if len(fields[0]) < len(e.name) || !bytes.EqualFold(fields[0][:len(e.name)], []byte(e.name)) {
			continue
		}
		if e.mode == yubicoStart {
			return yubicoRow{mode: e.mode}, nil
		}
		if n < yubicoTraditional || n > yubicoMost {
			return row, fmt.Errorf("the row has %d columns; those of the traditional format have %d", n, yubicoTraditional)
		}
		c := fields[n-yubicoTraditional:] // from the slot on; before it is the time
		if len(c[2]) != 1 || c[2][0] != '1' && c[2][0] != '2' {
			return row, errors.New("the column of the slot is neither 1 nor 2")
		}
		row = yubicoRow{mode: e.mode, public: c[3], private: c[4], key: c[5], digits: c[11], movingFactor: c[12]}
		switch {
		case string(c[10]) == "1":
			row.modhex = len(row.public)
		case string(c[9]) == "1":
			row.modhex = 4
		case string(c[8]) == "1":
			row.modhex = 2
		}
		return row, nil
	}
	if n != yubicoColumns || len(fields[6]) > 0 || !isTimestamp(fields[5]) {
		return row, errors.New("the row is neither of the traditional nor of the Yubico format")
	}
	row = yubicoRow{serial: fields[0], public: fields[1], key: fields[3], modhex: len(fields[1])}
	switch third := fields[2]; {
	case len(row.key) == 0:
		row.mode = yubicoChange
	case len(third) == 0 && len(row.public) == 0:
		row.mode = yubicoStatic
	case len(third) == 12 || len(row.key) == 32:
		row.mode, row.private = yubicoOTP, third
		row.ambiguous = len(row.public) == 0
	default:
		row.mode, row.movingFactor = yubicoHOTP, third
		row.ambiguous = len(row.public) == 0 && string(third) == "0"
		// The identifier is usually typed with 4 characters in modhex, but this
		// format does not say so.
	}
	return row, nil
}

// isTimestamp says whether s is a time as the Yubico format has it:
// 2013-12-12T08:41:07.
func isTimestamp(s []byte) bool {
	const shape = "dddd-dd-ddTdd:dd:dd"
	if len(s) != len(shape) {
		return false
	}
	for i, b := range s {
		if shape[i] == 'd' && (b < '0' || b > '9') || shape[i] != 'd' && b != shape[i] {
			return false
		}
	}
	return true
}

// detectYubico looks for a row of either format among the first lines.
func detectYubico(prefix []byte, whole bool) (bool, string) {
	var fields [yubicoMost + 1][]byte
	for n, text := 1, prefix; len(text) > 0 && n <= 16; n++ {
		line, rest, ended := bytes.Cut(text, []byte("\n"))
		text = rest
		if !ended && !whole {
			break
		}
		line = trimBlank(bytes.TrimSuffix(line, []byte("\r")))
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		row, err := yubicoSplit(line, fields[:])
		switch {
		case err != nil:
		case row.mode == yubicoStart:
			return true, fmt.Sprintf("line %d says that logging started", n)
		case len(row.serial) > 0 || bytes.HasPrefix(line, []byte(",")):
			return true, fmt.Sprintf("line %d has the columns of the Yubico format", n)
		default:
			return true, fmt.Sprintf("line %d has the columns of the traditional format", n)
		}
	}
	return false, "no line at its beginning is a row of such a log"
}
