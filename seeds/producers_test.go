package seeds

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"watchword/hsm"
	"watchword/tokens"
)

// product is a file as one of the products writes it, what it holds, and what
// must be chosen to read it.
type product struct {
	text    []byte
	records []Record
	choices Choices
}

// producers write files in each format of the family, in all the ways that are
// open to them.
var producers = []struct {
	name   string
	format *Format
	make   func(t *rapid.T) product
}{
	{"OATH CSV with a header row", &oathCSV, oathWithHeader},
	{"OATH CSV version 2", &oathCSV, oathVersion2},
	{"Entra", &entraCSV, entraTable},
	{"PingID", &pingID, pingTable},
	{"PhenixID", &phenixID, phenixTable},
	{"multiOTP", &multiOTP, multiTable},
	{"Feitian", &feitianText, feitianTable},
	{"otpauth", &otpauthList, otpauthLines},
	{"otpauth-migration", &migrationExport, migrationLines},
}

func TestEveryProducersFileIsToldAndReadBack(t *testing.T) {
	for _, p := range producers {
		t.Run(p.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				file := p.make(t)
				prefix := file.text[:min(len(file.text), prefixSize)]
				f, reason, err := Detect(prefix, len(prefix) == len(file.text))
				if err != nil || f != p.format {
					t.Fatalf("told to be %v (%s), %v:\n%s", f, reason, err, file.text)
				}
				got, err := readAll(f, bytes.NewReader(file.text), OpenOptions{Choices: file.choices})
				if err != nil || len(got) != len(file.records) {
					t.Fatalf("%d of %d records, %v:\n%s", len(got), len(file.records), err, file.text)
				}
				for i, want := range file.records {
					if g, w := fmt.Sprintf("%+v", got[i]), fmt.Sprintf("%+v", want); g != w {
						t.Fatalf("record %d:\n got %s\nwant %s\n%s", i, g, w, file.text)
					}
				}
			})
		})
	}
}

// drawRecords draws what tokens may be, each with the seed that some has; a
// second drawing of a serial is told apart by a number.
func drawRecords(t *rapid.T, hash hsm.Hash) []Record {
	serial := rapid.StringMatching(`T[A-Za-z0-9._:-]{0,15}`)
	n := rapid.IntRange(1, 8).Draw(t, "records")
	list := make([]Record, n)
	for i := range list {
		r := Record{
			Serial: fmt.Sprintf("%s%d", serial.Draw(t, "serial"), i), Type: tokens.TOTP, Algorithm: hash,
			Digits: rapid.IntRange(6, 8).Draw(t, "digits"), Period: rapid.IntRange(1, 86400).Draw(t, "period"),
			Seed: rapid.SliceOfN(rapid.Byte(), MinSeed, MaxSeed).Draw(t, "seed"),
		}
		if hash == 0 {
			r.Algorithm = rapid.SampledFrom([]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}).Draw(t, "hash")
		}
		if rapid.Bool().Draw(t, "hotp") {
			r.Type, r.Period, r.Counter = tokens.HOTP, 0, rapid.Uint64Range(0, maxCounter).Draw(t, "counter")
		}
		list[i] = r
	}
	return list
}

// style is how a text is written.
type style struct {
	t         *rapid.T
	separator string
	end       string
	quotes    bool
	text      bytes.Buffer
	line      int
}

func newStyle(t *rapid.T, separators ...string) *style {
	s := &style{t: t, separator: rapid.SampledFrom(separators).Draw(t, "separator"), end: rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "end"), quotes: true}
	if rapid.Bool().Draw(t, "bom") {
		s.text.WriteString("\xef\xbb\xbf")
	}
	return s
}

// write ends a line and answers its number; before it, empty lines and comments
// may stand.
func (s *style) write(line string) int {
	for rapid.IntRange(0, 9).Draw(s.t, "comment") == 0 {
		s.text.WriteString(rapid.SampledFrom([]string{"# a comment, with a comma", "", " \t", "#"}).Draw(s.t, "skipped") + s.end)
		s.line++
	}
	s.text.WriteString(line + s.end)
	s.line++
	return s.line
}

func (s *style) row(fields ...string) int {
	for i, f := range fields {
		switch {
		case s.quotes && (strings.ContainsAny(f, s.separator+`"`) || rapid.IntRange(0, 3).Draw(s.t, "quote") == 0):
			fields[i] = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
		case s.separator != "\t" && s.quotes && rapid.IntRange(0, 3).Draw(s.t, "blank") == 0:
			fields[i] = " " + f + "\t"
		}
	}
	return s.write(strings.Join(fields, s.separator))
}

// shuffled writes a header row and rows in a drawn order of columns. The rows
// are maps from the header's names.
func (s *style) shuffled(names []string, rows []map[string]string, list []Record) {
	names = rapid.Permutation(names).Draw(s.t, "order")
	s.row(slices.Clone(names)...)
	for i, row := range rows {
		fields := make([]string, len(names))
		for j, name := range names {
			fields[j] = row[name]
		}
		list[i].Line = s.row(fields...)
	}
}

var makers = rapid.StringMatching(`[A-Z"][A-Za-z0-9 "',;/&]{0,12}[a-z")]`)

func oathWithHeader(t *rapid.T) product {
	list := drawRecords(t, 0)
	s := newStyle(t, ",", ";", "\t")
	rows := make([]map[string]string, len(list))
	for i := range list {
		r := &list[i]
		if rapid.Bool().Draw(t, "owned") {
			r.User, r.UserRealm = rapid.StringMatching(`[a-z]{1,8}@[a-z]{1,8}`).Draw(t, "user"), rapid.StringMatching(`[a-z]{0,5}`).Draw(t, "realm")
		}
		maker, model := makers.Draw(t, "maker"), makers.Draw(t, "model")
		r.Model = maker + " " + model
		rows[i] = map[string]string{
			"Serial Number": r.Serial, "Secret": hex.EncodeToString(r.Seed), "Token Type": string(r.Type), "digits": fmt.Sprint(r.Digits),
			"time-step": fmt.Sprint(r.Period), "Counter": fmt.Sprint(r.Counter), "HASH": r.Algorithm.String(), "user": r.User, "realm": r.UserRealm, "manufacturer": maker, "model": model,
		}
	}
	s.shuffled([]string{"Serial Number", "Secret", "Token Type", "digits", "time-step", "Counter", "HASH", "user", "realm", "model", "manufacturer"}, rows, list)
	return product{text: s.text.Bytes(), records: list}
}

func oathVersion2(t *rapid.T) product {
	hash := rapid.SampledFrom([]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}).Draw(t, "hash")
	list := drawRecords(t, hash)
	s := newStyle(t, ",")
	s.text.WriteString("# version: 2" + s.end)
	s.line++
	for i := range list {
		r := &list[i]
		resolver := ""
		if rapid.Bool().Draw(t, "owned") {
			r.User, r.UserRealm, resolver = rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "user"), rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "realm"), "ldap"
		}
		r.Line = s.row(r.User, resolver, r.UserRealm, r.Serial, hex.EncodeToString(r.Seed), string(r.Type), fmt.Sprint(r.Digits), moving(r))
	}
	return product{text: s.text.Bytes(), records: list, choices: Choices{Hash: hash}}
}

func moving(r *Record) string {
	if r.Type == tokens.HOTP {
		return fmt.Sprint(r.Counter)
	}
	return fmt.Sprint(r.Period)
}

// drawEncoding draws how seeds are written. Unless it is to be chosen, it adds a
// record whose seed is in that encoding only.
func drawEncoding(t *rapid.T, list []Record, choices *Choices) ([]Record, func([]byte) string) {
	e := rapid.SampledFrom([]Encoding{Hex, Base32}).Draw(t, "encoding")
	if rapid.Bool().Draw(t, "chosen") {
		choices.Encoding = e
	} else {
		r := list[0]
		r.Serial, r.Seed = "TellTale", []byte("12345678901234567890")
		list = slices.Insert(list, rapid.IntRange(0, len(list)).Draw(t, "place"), r)
	}
	upper := rapid.Bool().Draw(t, "upper")
	padding := rapid.SampledFrom([]rune{base32.StdPadding, base32.NoPadding}).Draw(t, "padding")
	return list, func(seed []byte) string {
		text := hex.EncodeToString(seed)
		if e == Base32 {
			text = base32.StdEncoding.WithPadding(padding).EncodeToString(seed)
		}
		if upper {
			return strings.ToUpper(text)
		}
		return strings.ToLower(text)
	}
}

func entraTable(t *rapid.T) product {
	hash := rapid.SampledFrom([]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}).Draw(t, "hash")
	p := product{choices: Choices{Hash: hash}}
	list, encode := drawEncoding(t, drawRecords(t, hash), &p.choices)
	names := []string{"upn", "serial number", "secret key", "time interval", "manufacturer", "model"}
	if rapid.Bool().Draw(t, "no upn") {
		names = names[1:]
	}
	s := newStyle(t, ",", ";")
	rows := make([]map[string]string, len(list))
	for i := range list {
		r := &list[i]
		if r.Type, r.Counter, r.Digits = tokens.TOTP, 0, 6; r.Period == 0 {
			r.Period = 60
		}
		if len(names) == 6 && rapid.Bool().Draw(t, "owned") {
			r.User = rapid.StringMatching(`[a-z]{1,8}@[a-z]{1,8}\.com`).Draw(t, "upn")
		}
		maker, model := makers.Draw(t, "maker"), makers.Draw(t, "model")
		r.Model = maker + " " + model
		rows[i] = map[string]string{"upn": r.User, "serial number": r.Serial, "secret key": encode(r.Seed), "time interval": fmt.Sprint(r.Period), "manufacturer": maker, "model": model}
	}
	s.shuffled(names, rows, list)
	p.text, p.records = s.text.Bytes(), list
	return p
}

func pingTable(t *rapid.T) product {
	hash := rapid.SampledFrom([]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}).Draw(t, "hash")
	list := drawRecords(t, hash)
	s := newStyle(t, ",")
	for i := range list {
		r := &list[i]
		r.Type, r.Period, r.Digits = tokens.HOTP, 0, 8
		r.Line = s.row(r.Serial, hex.EncodeToString(r.Seed), fmt.Sprint(r.Counter))
	}
	return product{text: s.text.Bytes(), records: list, choices: Choices{Type: tokens.HOTP, Hash: hash, Digits: 8}}
}

func phenixTable(t *rapid.T) product {
	hash := rapid.SampledFrom([]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}).Draw(t, "hash")
	p := product{choices: Choices{Hash: hash, Type: tokens.TOTP}} // the file states the type
	list, encode := drawEncoding(t, drawRecords(t, 0), &p.choices)
	s := newStyle(t, ";")
	typed := false
	for i := range list {
		r := &list[i]
		if r.Type == tokens.TOTP {
			name := rapid.SampledFrom([]string{"%s", "Hmac%s", "HMAC-%s"}).Draw(t, "name")
			r.Line = s.row("TOTP", r.Serial, fmt.Sprintf(name, r.Algorithm), encode(r.Seed), "0", fmt.Sprint(r.Period), fmt.Sprint(r.Digits))
			typed = true
			continue
		}
		r.Digits, r.Algorithm = 6, hash
		if typed && rapid.Bool().Draw(t, "plain") {
			r.Line = s.row(r.Serial, encode(r.Seed), fmt.Sprint(r.Counter))
			continue
		}
		r.Line = s.row("hotp", r.Serial, encode(r.Seed), fmt.Sprint(r.Counter))
		typed = true
	}
	p.text, p.records = s.text.Bytes(), list
	return p
}

func multiTable(t *rapid.T) product {
	hash := rapid.SampledFrom([]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}).Draw(t, "hash")
	list := drawRecords(t, hash)
	s := newStyle(t, ";", ",", "\t")
	s.quotes = false // multiOTP knows none
	for i := range list {
		r := &list[i]
		r.Model = rapid.StringMatching(`([A-Z][A-Za-z0-9 ]{0,9}[a-z])?`).Draw(t, "maker")
		r.Line = s.row(r.Serial, r.Model, strings.ToUpper(string(r.Type)), hex.EncodeToString(r.Seed), fmt.Sprint(r.Digits), moving(r))
	}
	return product{text: s.text.Bytes(), records: list, choices: Choices{Hash: hash}}
}

func feitianTable(t *rapid.T) product {
	hash := rapid.SampledFrom([]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}).Draw(t, "hash")
	list := drawRecords(t, hash)
	choices := Choices{Type: rapid.SampledFrom([]tokens.Type{tokens.TOTP, tokens.HOTP}).Draw(t, "type"), Period: 60, Hash: hash}
	s := newStyle(t, " ", "  ", "\t", " \t ")
	s.quotes = false
	for i := range list {
		r := &list[i]
		if r.Type, r.Period, r.Counter, r.Digits = choices.Type, 60, 0, 6; r.Type == tokens.HOTP {
			r.Period = 0
		}
		r.Line = s.row(r.Serial, strings.ToUpper(hex.EncodeToString(r.Seed)))
	}
	return product{text: s.text.Bytes(), records: list, choices: choices}
}

// drawLabel draws issuer and account, and sets what comes of them.
func drawLabel(t *rapid.T, r *Record, i int) (issuer, account string) {
	issuer = rapid.StringMatching(`([A-Z][A-Za-zé &+%]{0,9}[a-z])?`).Draw(t, "issuer")
	account = rapid.StringMatching(`[a-zä][a-z @.+%]{0,9}[a-z]`).Draw(t, "account") + fmt.Sprint(i)
	r.User, r.Model, r.Serial = account, issuer, labelSerial(r.Type, issuer, account)
	return issuer, account
}

func otpauthLines(t *rapid.T) product {
	list := drawRecords(t, 0)
	s := newStyle(t, "")
	for i := range list {
		r := &list[i]
		serial := r.Serial
		issuer, account := drawLabel(t, r, i)
		label := url.PathEscape(account)
		parameters := []string{"secret=" + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(r.Seed)}
		inLabel, inParameter := issuer != "" && rapid.Bool().Draw(t, "in label"), rapid.Bool().Draw(t, "in parameter")
		if inLabel {
			label = url.PathEscape(issuer) + rapid.SampledFrom([]string{":", "%3A", "%3a%20"}).Draw(t, "colon") + label
		}
		if issuer != "" && (inParameter || !inLabel) {
			parameters = append(parameters, "issuer="+strings.ReplaceAll(url.QueryEscape(issuer), "+", rapid.SampledFrom([]string{"+", "%20"}).Draw(t, "blank")))
		}
		if r.Algorithm != hsm.SHA1 || rapid.Bool().Draw(t, "sha1") {
			parameters = append(parameters, "algorithm="+strings.ToUpper(r.Algorithm.String()))
		}
		if r.Digits != 6 || rapid.Bool().Draw(t, "six") {
			parameters = append(parameters, fmt.Sprint("digits=", r.Digits))
		}
		if r.Type == tokens.HOTP {
			parameters = append(parameters, fmt.Sprint("counter=", r.Counter))
		} else if r.Period != 30 || rapid.Bool().Draw(t, "thirty") {
			parameters = append(parameters, fmt.Sprint("period=", r.Period))
		}
		if rapid.IntRange(0, 3).Draw(t, "named") == 0 {
			r.Serial = serial
			parameters = append(parameters, "serial="+url.QueryEscape(serial), "image=https%3A%2F%2Fexample.com%2Fa.png")
		}
		r.Line = s.write("otpauth://" + string(r.Type) + "/" + label + "?" + strings.Join(rapid.Permutation(parameters).Draw(t, "parameters"), "&"))
	}
	return product{text: s.text.Bytes(), records: list}
}

// migrationLines writes an export with the protocol buffer encoder of Google's.
func migrationLines(t *rapid.T) product {
	list := drawRecords(t, 0)
	s := newStyle(t, "")
	sizes := []int{} // of the QR codes
	for left := len(list); left > 0; left -= sizes[len(sizes)-1] {
		sizes = append(sizes, rapid.IntRange(1, left).Draw(t, "accounts"))
	}
	i := 0
	for index, size := range sizes {
		var payload []byte
		first := i
		for ; i < first+size; i++ {
			r := &list[i]
			if r.Digits == 7 {
				r.Digits = 8
			}
			if r.Type == tokens.TOTP {
				r.Period = 30
			}
			issuer, account := drawLabel(t, r, i)
			if issuer != "" && rapid.Bool().Draw(t, "prefixed") {
				account = issuer + ":" + account
			}
			payload = protowire.AppendTag(payload, 1, protowire.BytesType)
			payload = protowire.AppendBytes(payload, migrationAccount(r, account, issuer))
			r.Key = i + 1
		}
		for number, v := range []uint64{2: 1, 3: uint64(len(sizes)), 4: uint64(index), 5: ^uint64(0) - 5} { // a batch id may be negative
			if v > 0 {
				payload = protowire.AppendTag(payload, protowire.Number(number), protowire.VarintType)
				payload = protowire.AppendVarint(payload, v)
			}
		}
		data := base64.StdEncoding.EncodeToString(payload)
		if rapid.Bool().Draw(t, "escaped") {
			data = url.QueryEscape(data)
		}
		line := s.write("otpauth-migration://offline?data=" + data)
		for ; first < i; first++ {
			list[first].Line = line
		}
	}
	return product{text: s.text.Bytes(), records: list}
}

func migrationAccount(r *Record, name, issuer string) (m []byte) {
	text := func(n protowire.Number, v []byte) {
		m = protowire.AppendBytes(protowire.AppendTag(m, n, protowire.BytesType), v)
	}
	number := func(n protowire.Number, v uint64) {
		m = protowire.AppendVarint(protowire.AppendTag(m, n, protowire.VarintType), v)
	}
	text(1, r.Seed)
	text(2, []byte(name))
	text(3, []byte(issuer))
	number(4, uint64(r.Algorithm))
	number(5, uint64(r.Digits/2-2))
	number(6, map[tokens.Type]uint64{tokens.HOTP: 1, tokens.TOTP: 2}[r.Type])
	number(7, r.Counter)
	text(99, []byte("what a later version may add"))
	return m
}
