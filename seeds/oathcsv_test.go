package seeds

import (
	"bytes"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"watchword/hsm"
	"watchword/tokens"
)

const rfcSeed = "3132333435363738393031323334353637383930" // RFC 4226, appendix D

// readAll reads a file with a format and answers copies of its records.
func readAll(f *Format, r io.Reader, o OpenOptions) ([]Record, error) {
	rd := f.Open(r, o)
	defer rd.Close()
	var all []Record
	for {
		rec, err := rd.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		c := *rec
		c.Seed, c.PrivateID = bytes.Clone(rec.Seed), bytes.Clone(rec.PrivateID)
		all = append(all, c)
	}
}

func TestOATHCSVDefaults(t *testing.T) {
	seed, _ := hex.DecodeString(rfcSeed)
	totp := Record{Line: 1, Serial: "A1", Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30, Seed: seed}
	hotp := Record{Line: 1, Serial: "A1", Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6, Seed: seed}
	with := func(r Record, f func(*Record)) Record { f(&r); return r }
	for _, c := range []struct {
		line string
		want Record
	}{
		{"A1," + rfcSeed, totp},
		{"A1," + strings.ToUpper(rfcSeed) + ",,,,", totp},
		{" A1 ,\t" + rfcSeed + " , TOTP ", totp},
		{`"A1","` + rfcSeed + `","totp"`, totp},
		{"A1," + rfcSeed + ",hotp", hotp},
		{"A1," + rfcSeed + ",HOTP,8", with(hotp, func(r *Record) { r.Digits = 8 })},
		{"A1," + rfcSeed + ",hotp,6,17", with(hotp, func(r *Record) { r.Counter = 17 })},
		{"A1," + rfcSeed + ",hotp,,4611686018427387903", with(hotp, func(r *Record) { r.Counter = 1<<62 - 1 })},
		{"A1," + rfcSeed + ",totp,7,60,sha256", with(totp, func(r *Record) { r.Digits, r.Period, r.Algorithm = 7, 60, hsm.SHA256 })},
		{"A1," + rfcSeed + ",,,,SHA512", with(totp, func(r *Record) { r.Algorithm = hsm.SHA512 })},
		{"A1," + rfcSeed[:20], with(totp, func(r *Record) { r.Seed = seed[:10] })},
		{"A,1," + rfcSeed, Record{}}, // a comma needs quotes, and is then a bad serial or not; here column 2 is bad
	} {
		got, err := readAll(&oathCSV, strings.NewReader(c.line), OpenOptions{})
		if err != nil || len(got) != 1 {
			t.Fatalf("%q: %d records, %v", c.line, len(got), err)
		}
		if c.want.Line == 0 {
			if got[0].Err == nil {
				t.Errorf("%q: was read", c.line)
			}
			continue
		}
		if g, w := fmt.Sprintf("%+v", got[0]), fmt.Sprintf("%+v", c.want); g != w {
			t.Errorf("%q:\n got %s\nwant %s", c.line, g, w)
		}
	}
}

func TestOATHCSVBadRecordsNameLineAndColumn(t *testing.T) {
	long := strings.Repeat("ab", MaxSeed+1)
	for _, c := range []struct{ line, reason string }{
		{"A1", "column 2 (hexseed): there is no seed"},
		{"A1,", "column 2 (hexseed): there is no seed"},
		{"," + rfcSeed, "column 1 (serial): a serial is empty"},
		{"A 1," + rfcSeed, "column 1 (serial): character 2"},
		{`"A""1",` + rfcSeed, "column 1 (serial): character 2"},
		{"A1," + rfcSeed[:39], "column 2 (hexseed): the seed has an odd number"},
		{"A1," + rfcSeed[:18], "column 2 (hexseed): a seed of 9 bytes"},
		{"A1," + long, "column 2 (hexseed): a seed of 129 bytes"},
		{"A1,3132 33343536373839303132", "column 2 (hexseed): character 5 is not a hex digit"},
		{"A1,0x" + rfcSeed, "column 2 (hexseed): character 2"},
		{"A1,GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "column 2 (hexseed): character 1 is not a hex digit"},
		{"A1," + rfcSeed + ",motp", "column 3 (type)"},
		{"A1," + rfcSeed + ",totp,5", "column 4 (digits)"},
		{"A1," + rfcSeed + ",totp,06", "column 4 (digits)"},
		{"A1," + rfcSeed + ",totp,6,0", "column 5 (period|counter)"},
		{"A1," + rfcSeed + ",totp,6,86401", "column 5 (period|counter)"},
		{"A1," + rfcSeed + ",totp,6,30s", "column 5 (period|counter): it is not a number"},
		{"A1," + rfcSeed + ",hotp,6,-1", "column 5 (period|counter): it is not a number"},
		{"A1," + rfcSeed + ",hotp,6,4611686018427387904", "column 5 (period|counter): the counter is too great"},
		{"A1," + rfcSeed + ",hotp,6,99999999999999999999", "column 5 (period|counter): it is not a number"},
		{"A1," + rfcSeed + ",totp,6,30,md5", "column 6 (hash)"},
		{"A1," + rfcSeed + ",totp,6,30,sha224", "column 6 (hash)"},
		{"A1," + rfcSeed + ",totp,6,30,sha1,x", "column 7: there are 6 columns"},
		{"A1," + rfcSeed + ",totp,6,30,sha1,,,,,,,,,,,,,,", "column 7: there are 6 columns"},
		{`"A1,` + rfcSeed, "column 1: a quote is not closed"},
		{`"A1"x,` + rfcSeed, "column 1: there is text after"},
		{`A"1,` + rfcSeed, "column 1: a quote in the middle"},
		{"A1\x00," + rfcSeed, "column 1 (serial): character 3"},
		{"A1\xff," + rfcSeed, "column 1 (serial): character 3"},
		{rfcSeed + ",12345678901234567890", "column 1 (serial): it looks like a seed"},
	} {
		// As the second of three, with the good ones unharmed.
		file := "# a shipment\r\n\r\nA0," + rfcSeed + "\r\n" + c.line + "\r\nA2," + rfcSeed + "\r\n"
		got, err := readAll(&oathCSV, strings.NewReader(file), OpenOptions{})
		if err != nil || len(got) != 3 {
			t.Errorf("%q: %d records, %v", c.line, len(got), err)
			continue
		}
		bad := got[1]
		if bad.Err == nil || !strings.HasPrefix(bad.Err.Error(), c.reason) {
			t.Errorf("%q: reason %v, want %s", c.line, bad.Err, c.reason)
		}
		if bad.Line != 4 || len(bad.Seed) != 0 {
			t.Errorf("%q: line %d, seed of %d bytes", c.line, bad.Line, len(bad.Seed))
		}
		if got[0].Err != nil || got[2].Err != nil || got[2].Line != 5 {
			t.Errorf("%q: its neighbours suffer: %v, %v", c.line, got[0].Err, got[2].Err)
		}
	}
}

func TestOATHCSVHeaderRow(t *testing.T) {
	for _, header := range []string{
		"serial,hexseed", "Serial Number,Seed,Type,Digits,Period,Hash", `"SERIAL","Secret-Key","token type"`,
		"\xef\xbb\xbfserial,seed", "# made by a vendor\n\nserial , seed", "serial,hexseed,totp|hotp,digits,period|counter,sha1|sha256|sha512",
		"serial,secret,algorithm,response_length,time_interval", "serial,hexseed,type,digits,counter,alg",
	} {
		got, err := readAll(&oathCSV, strings.NewReader(header+"\nA1,"+rfcSeed+"\n"), OpenOptions{})
		if err != nil || len(got) != 1 || got[0].Err != nil {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
	// A token is never taken for a header.
	got, err := readAll(&oathCSV, strings.NewReader("token,"+rfcSeed+"\n"), OpenOptions{})
	if err != nil || len(got) != 1 || got[0].Serial != "token" {
		t.Errorf("a token named token: %v, %v", got, err)
	}
	for _, c := range []struct{ file, says string }{
		{"serial,seed,type,digits,period,hash,owner\n", "line 1: column 7 of the header row"},
		{"serial,seed,digits,what\n", "line 1: column 4 of the header row"},
		{"serial,seed,secret key\n", "line 1: column 3 of the header row"},
		{"serial,seed,type,digits,period|counter,counter\n", "line 1: column 6 of the header row"},
		{"serial,seed,type,hash,algorithm\n", "line 1: column 5 of the header row"},
		{"# version: 3\nalice,x,y\n", "line 1: the file says that it is of a version of the format that is not known"},
		{"A1," + rfcSeed + "\n# version: 2\n", "line 2: the version of the format changes within the file"},
	} {
		_, err := readAll(&oathCSV, strings.NewReader(c.file), OpenOptions{})
		if err == nil || !strings.HasPrefix(err.Error(), c.says) || !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%q: %v", c.file, err)
		}
	}
}

func TestOATHCSVCutOffInItsLastLineIsNoticed(t *testing.T) {
	for _, line := range []string{rfcSeed, rfcSeed + ",totp", rfcSeed + ",totp,8", rfcSeed + ",totp,8,60", rfcSeed + ",totp,8,60,sha256"} {
		cutOff(t, "A1,"+line+"\nA2,"+line)
	}
}

func cutOff(t *testing.T, whole string) {
	t.Helper()
	for cut := len(whole) - 1; cut > strings.LastIndex(whole, "\n")+1; cut-- {
		got, err := readAll(&oathCSV, strings.NewReader(whole[:cut]), OpenOptions{})
		if err != nil || len(got) != 2 {
			t.Fatalf("cut at %d: %d records, %v", cut, len(got), err)
		}
		if got[1].Err == nil {
			t.Errorf("a file that ends in %q was taken for whole", whole[cut-6:cut])
		}
	}
	// The same without its newline, but all there, is well.
	if got, err := readAll(&oathCSV, strings.NewReader(whole), OpenOptions{}); err != nil || got[1].Err != nil {
		t.Errorf("a last line without an end: %v, %v", got, err)
	}
}

func TestOATHCSVLineOfOneMegabyteEndsTheFile(t *testing.T) {
	for _, tail := range []string{"", "\n"} {
		file := "A1," + rfcSeed + "\nA2," + strings.Repeat("31", 1<<19) + tail
		got, err := readAll(&oathCSV, strings.NewReader(file), OpenOptions{})
		if len(got) != 1 || err == nil || !strings.HasPrefix(err.Error(), "line 2: longer than 4096 bytes") {
			t.Errorf("%d records, %v", len(got), err)
		}
	}
}

func TestOATHCSVReadsTheSameInAnyPieces(t *testing.T) {
	var file strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&file, "T%d,%s,hotp,6,%d\n", i, rfcSeed, i)
	}
	for name, r := range map[string]io.Reader{
		"one byte": iotest.OneByteReader(strings.NewReader(file.String())),
		"half":     iotest.HalfReader(strings.NewReader(file.String())),
		"with EOF": iotest.DataErrReader(strings.NewReader(file.String())),
	} {
		got, err := readAll(&oathCSV, r, OpenOptions{})
		if err != nil || len(got) != 5000 {
			t.Fatalf("%s: %d records, %v", name, len(got), err)
		}
		for i, rec := range got {
			if rec.Err != nil || rec.Counter != uint64(i) || rec.Line != i+1 || hex.EncodeToString(rec.Seed) != rfcSeed {
				t.Fatalf("%s: record %d is %+v", name, i, rec)
			}
		}
	}
	_, err := readAll(&oathCSV, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(file.String()))), OpenOptions{})
	if !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a source that fails: %v", err)
	}
}

// writeCSV writes records as the contract has it, quoting some fields.
func writeCSV(w *bytes.Buffer, list []Record, quote func() bool) {
	for _, r := range list {
		moving := fmt.Sprint(r.Period)
		if r.Type == tokens.HOTP {
			moving = fmt.Sprint(r.Counter)
		}
		for i, f := range []string{r.Serial, hex.EncodeToString(r.Seed), string(r.Type), fmt.Sprint(r.Digits), moving, r.Algorithm.String()} {
			if i > 0 {
				w.WriteByte(',')
			}
			if quote() || strings.ContainsAny(f, `,"`) {
				f = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
			}
			w.WriteString(f)
		}
		w.WriteByte('\n')
	}
}

func TestOATHCSVRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		serial := rapid.StringMatching(`T[!#$%&()*+,\-.0-9:;<=>?@A-Z_a-z{|}~]{0,20}`)
		record := rapid.Custom(func(t *rapid.T) Record {
			r := Record{
				Serial: serial.Draw(t, "serial"),
				Type:   tokens.TOTP, Algorithm: rapid.SampledFrom([]hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}).Draw(t, "hash"),
				Digits: rapid.IntRange(6, 8).Draw(t, "digits"), Period: rapid.IntRange(1, 86400).Draw(t, "period"),
				Seed: rapid.SliceOfN(rapid.Byte(), MinSeed, MaxSeed).Draw(t, "seed"),
			}
			if rapid.Bool().Draw(t, "hotp") {
				r.Type, r.Period, r.Counter = tokens.HOTP, 0, rapid.Uint64Range(0, maxCounter).Draw(t, "counter")
			}
			return r
		})
		list := rapid.SliceOfN(record, 1, 20).Draw(t, "records")
		var file bytes.Buffer
		writeCSV(&file, list, func() bool { return rapid.Bool().Draw(t, "quote") })
		f, _, err := Detect(file.Bytes(), true)
		if err != nil || f != &oathCSV {
			t.Fatalf("detected %v, %v", f, err)
		}
		got, err := readAll(f, &file, OpenOptions{})
		if err != nil || len(got) != len(list) {
			t.Fatalf("%d of %d records, %v", len(got), len(list), err)
		}
		for i := range list {
			list[i].Line = i + 1
			if g, w := fmt.Sprintf("%+v", got[i]), fmt.Sprintf("%+v", list[i]); g != w {
				t.Fatalf("record %d:\n got %s\nwant %s", i, g, w)
			}
		}
	})
}

// holds says whether text shows a seed: raw, in hex, in base32 or in base64.
func holds(text string, seed []byte) bool {
	fold := strings.ToLower(text)
	b32 := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(seed)
	for _, form := range []string{string(seed), hex.EncodeToString(seed), strings.ToLower(b32)} {
		if strings.Contains(fold, form) {
			return true
		}
	}
	return false
}

func TestNoErrorOfACSVHoldsASeed(t *testing.T) {
	seed := []byte("\x9e\x01Zq7seed-of-a-token!")
	x := hex.EncodeToString(seed)
	b32 := base32.StdEncoding.EncodeToString(seed)
	for _, file := range []string{
		"A1," + x + ",motp", "A1," + x + ",totp,9", "A1," + x + ",totp,6,x", x + ",A1", b32 + ",A1", "A1," + b32,
		`"A1,` + x, "A1;" + x, "A1," + x + "0", "A1," + x[:18], x, b32, "A1,totp," + x, "A1,,," + x, x + "," + x, b32 + "," + x + ",motp",
		"A1," + strings.Repeat(x, 300), "A1,A2," + x + "\n" + x, "A1," + x + ",totp,6,30," + x, "A1," + x + ",totp,6,30,sha1," + x,
	} {
		got, err := readAll(&oathCSV, strings.NewReader(file), OpenOptions{})
		text := ""
		if err != nil {
			text = err.Error()
		}
		bad := err != nil
		for _, r := range got {
			if r.Err != nil {
				bad = true
				text += fmt.Sprintf(" %s %s", r.Serial, r.Err)
			}
		}
		if _, reason, err := Detect([]byte(file), true); err != nil {
			text += err.Error()
		} else {
			text += reason
		}
		if !bad {
			t.Errorf("%q was read", file)
		}
		if holds(text, seed) {
			t.Errorf("%q: %s", file, text)
		}
	}
}
