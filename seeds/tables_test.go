package seeds

import (
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"watchword/hsm"
	"watchword/tokens"
)

const (
	rfcBase32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // rfcSeed
	seed32    = "3132333435363738393031323334353637383930313233343536373839303132"
	// both is a seed in hex, and another one in base32.
	both = "ABCDEF234567ABCDEF234567ABCDEF23"
)

// refusal reads a file of one format and answers what the first record, or else the
// file, was refused for; empty if neither was.
func refusal(f *Format, file string, c Choices) (list []Record, why string) {
	list, err := readAll(f, strings.NewReader(file), OpenOptions{Choices: c})
	if err != nil {
		return list, err.Error()
	}
	for _, r := range list {
		if r.Err != nil {
			return list, fmt.Sprintf("line %d: %s", r.Line, r.Err)
		}
	}
	return list, ""
}

func TestWhatATableLeavesOpenMustBeChosen(t *testing.T) {
	totp, hotp := Choices{Type: tokens.TOTP}, Choices{Type: tokens.HOTP}
	with := func(c Choices, f func(*Choices)) Choices { f(&c); return c }
	entra := "upn,serial number,secret key,time interval,manufacturer,model\na@b.c,E1,%s,%s,ACME,One\n"
	for _, c := range []struct {
		format  *Format
		file    string
		choices Choices
		says    string // empty: it is read
	}{
		// Type and time step.
		{&feitianText, "F1 " + rfcSeed, Choices{}, "line 1: the file does not say whether this is a TOTP or an HOTP token (--type totp or --type hotp), nor if it is TOTP, how long the time step is (--period, in seconds: 30 or 60 as a rule)"},
		{&feitianText, "F1 " + rfcSeed, totp, "line 1: the file does not say how long the time step is (--period"},
		{&feitianText, "F1 " + rfcSeed, with(totp, func(c *Choices) { c.Period = 60 }), ""},
		{&feitianText, "F1 " + rfcSeed, hotp, ""},
		{&pingID, "P1," + rfcSeed, Choices{}, "(--type totp or --type hotp)"},
		{&pingID, "P1," + rfcSeed + ",7", Choices{}, "(--type totp or --type hotp)"},
		{&pingID, "P1," + rfcSeed, totp, "(--period"},
		{&pingID, "P1," + rfcSeed + ",7", hotp, ""},
		{&pingID, "P1," + rfcSeed + ",7", with(totp, func(c *Choices) { c.Period = 30 }), "column 3 (counter): a TOTP token has no counter"},
		{&entraCSV, fmt.Sprintf(entra, rfcBase32, ""), Choices{}, "(--period"},
		{&entraCSV, fmt.Sprintf(entra, rfcBase32, ""), Choices{Period: 60}, ""},
		{&oathCSV, "A1," + rfcSeed, Choices{}, ""}, // totp
		{&oathCSV, "# version: 2\n,,,A1," + rfcSeed, Choices{}, "line 2: the file does not say whether this is a TOTP or an HOTP token"},
		{&oathCSV, "# version: 2\n,,,A1," + rfcSeed, hotp, ""},
		// The hash of a seed as long as SHA-2's output.
		{&feitianText, "F1 " + seed32, hotp, "line 1: the file does not say the hash: a seed of 32 bytes is for SHA-256 to some products and for SHA-1 to others (--hash)"},
		{&feitianText, "F1 " + seed32, with(hotp, func(c *Choices) { c.Hash = hsm.SHA256 }), ""},
		{&feitianText, "F1 " + seed32 + seed32, hotp, "SHA-512"},
		{&pingID, "P1," + seed32 + seed32[:32], hotp, "SHA-384"},
		{&multiOTP, "M1;ACME;totp;" + seed32 + ";6;30", Choices{}, "(--hash)"},
		{&multiOTP, "M1;ACME;totp;" + seed32 + ";6;30", Choices{Hash: hsm.SHA1}, ""},
		{&phenixID, "HOTP;H1;" + seed32 + ";0", Choices{}, "(--hash)"},
		{&entraCSV, fmt.Sprintf(entra, base32.StdEncoding.EncodeToString(make([]byte, 32)), "30"), Choices{}, "(--hash)"},
		{&oathCSV, "A1," + seed32, Choices{}, ""}, // SHA-1
		{&oathCSV, "# version: 2\n,,,A1," + seed32 + ",totp,6,30", Choices{}, "(--hash)"},
		{&oathCSV, "# version: 2\n,,,A1," + seed32 + ",totp,6,30,sha256", Choices{}, ""},
	} {
		if list, why := refusal(c.format, c.file+"\n", c.choices); len(list) != 1 || (why == "") != (c.says == "") || !strings.Contains(why, c.says) {
			t.Errorf("%s %.60q, %+v: %q, want %q", c.format.Name, c.file, c.choices, why, c.says)
		}
	}
}

func TestChoicesFillWhatATableLeavesOpenAndOverruleNothing(t *testing.T) {
	chosen := Choices{Type: tokens.HOTP, Hash: hsm.SHA512, Digits: 8, Period: 90}
	for _, c := range []struct {
		format *Format
		file   string
		want   string // type, hash, digits, period, counter
	}{
		{&oathCSV, "A1," + rfcSeed, "hotp sha512 8 0 0"},
		{&oathCSV, "A1," + rfcSeed + ",,,7", "hotp sha512 8 0 7"},
		{&oathCSV, "alg,sn,key\nTOTP,A1," + rfcSeed, "totp sha512 8 90 0"},
		{&oathCSV, "alg,sn,key\nHmacSHA256,A1," + rfcSeed, "hotp sha256 8 0 0"},
		{&oathCSV, "alg,sn,key,type\nsha-1,A1," + rfcSeed + ",totp", "totp sha1 8 90 0"},
		{&oathCSV, "alg,sn,key,hash\ntotp,A1," + rfcSeed + ",sha256", "totp sha256 8 90 0"},
		{&oathCSV, "A1," + rfcSeed + ",totp", "totp sha512 8 90 0"},
		{&oathCSV, "A1," + rfcSeed + ",totp,6,30,sha1", "totp sha1 6 30 0"},
		{&pingID, "A1," + rfcSeed + ",9", "hotp sha512 8 0 9"},
		{&phenixID, "TOTP;A1;SHA1;" + rfcSeed + ";0;60;6", "totp sha1 6 60 0"},
		{&phenixID, "HOTP;A1;" + rfcSeed + ";5", "hotp sha512 8 0 5"},
		{&phenixID, "A1;" + rfcSeed + ";5", "hotp sha512 8 0 5"},
		{&multiOTP, "A1\tACME\ttotp\t" + rfcSeed + "\t7\t45", "totp sha512 7 45 0"},
		{&multiOTP, "A1,ACME,HOTP," + rfcSeed + ",6,12", "hotp sha512 6 0 12"},
		{&feitianText, "A1\t " + rfcSeed, "hotp sha512 8 0 0"},
		{&entraCSV, "serial number;secret key;time interval;manufacturer;model;hash function\nA1;" + rfcBase32 + ";30;;;hmacsha256", "hotp sha256 8 0 0"},
		{&otpauthList, "otpauth://totp/a?secret=" + rfcBase32, "totp sha512 8 90 0"},
		{&otpauthList, "otpauth://hotp/a?secret=" + rfcBase32 + "&counter=1&algorithm=sha1&digits=6", "hotp sha1 6 0 1"},
	} {
		list, why := refusal(c.format, c.file+"\n", chosen)
		if c.format == &entraCSV {
			// Entra has TOTP only, but says so by silence; a time step contradicts HOTP.
			if !strings.Contains(why, "an HOTP token has no time step") {
				t.Errorf("entra: %s", why)
			}
			continue
		}
		if why != "" {
			t.Errorf("%s %q: %s", c.format.Name, c.file, why)
			continue
		}
		r := list[0]
		if got := fmt.Sprint(r.Type, " ", r.Algorithm, " ", r.Digits, " ", r.Period, " ", r.Counter); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.format.Name, c.file, got, c.want)
		}
	}
}

func TestBadRowsOfTheFamilyNameTheColumn(t *testing.T) {
	all := Choices{Type: tokens.TOTP, Period: 30}
	entra := "upn,serial number,secret key,time interval,manufacturer,model\n"
	for _, c := range []struct {
		format *Format
		file   string
		says   string
	}{
		{&multiOTP, "M1;ACME;motp;" + rfcSeed + ";6;10", "line 1: column 3 (type): it is neither totp nor hotp"},
		{&multiOTP, "M1;ACME;totp;" + rfcSeed + ";6", "line 1: column 6 (period|counter): there is nothing in it; a row has 6 columns"},
		{&multiOTP, "M1;ACME;totp;" + rfcSeed + ";;30", "line 1: column 5 (digits): there is nothing in it"},
		{&multiOTP, "M1;ACME;totp;" + rfcSeed + ";6;30;x", "line 1: column 7: there are 6 columns at most"},
		{&multiOTP, "M1;ACME;totp;" + rfcBase32 + ";6;30", "line 1: column 4 (hexseed): character 1 is not a hex digit; the seed must be in hex, without blanks (it may be in base32: --encoding base32)"},
		{&multiOTP, "M1;ACME;totp;" + rfcSeed + ";4;30", "line 1: column 5 (digits): 6, 7 and 8"},
		{&multiOTP, "M1;ACME;totp;" + rfcSeed + ";6;0", "line 1: column 6 (period|counter): a time step has 1 to 86400 seconds"},
		{&phenixID, "TOTP;T1;SHA1;" + rfcSeed + ";0;30", "line 1: column 7 (digits): there is nothing in it; a row has 7 columns"},
		{&phenixID, "TOTP;T1;SHA;" + rfcSeed + ";0;30;6", "line 1: column 3 (hash): it is not sha1, sha256 or sha512"},
		{&phenixID, "TOTP;T1;HmacMD5;" + rfcSeed + ";0;30;6", "line 1: column 3 (hash)"},
		{&phenixID, "TOTP;T1;SHA1;" + rfcSeed + ";946684800;30;6", "line 1: column 5 (epoch): its time steps do not count from 1970"},
		{&phenixID, "HOTP;T1;" + rfcSeed + ";-1", "line 1: column 4 (counter): it is not a number"},
		{&phenixID, "HOTP;T1;" + rfcSeed + ";", "line 1: column 4 (counter): there is nothing in it"},
		{&phenixID, "OCRA;T1;" + rfcSeed + ";0", "line 1: column 4: there are 3 columns at most"},
		{&pingID, "P1," + rfcSeed + ",totp", "line 1: column 3 (counter): a TOTP token has no counter"},
		{&feitianText, "F1 " + rfcSeed + " x", "line 1: column 3: there are 2 columns at most"},
		{&feitianText, "F1", "line 1: column 2 (hexseed): there is no seed"},
		{&oathCSV, "A1," + rfcSeed + ",60", "line 1: column 3 (type): it is neither totp nor hotp; a table with a counter here is PingID's (--format pingid)"},
		{&oathCSV, "serial,seed,counter\nA1," + rfcSeed + ",5", "line 2: column 3 (counter): a TOTP token has no counter (a column of time steps is named period)"},
		{&oathCSV, "serial,seed,type,period\nA1," + rfcSeed + ",hotp,5", "line 2: column 4 (period): an HOTP token has no time step (a column of counters is named counter)"},
		{&oathCSV, "serial,seed,algorithm\nA1," + rfcSeed + ",md5", "line 2: column 3 (algorithm): it is neither a type"},
		{&oathCSV, "# version: 2\n alice\x01,,,A1," + rfcSeed + ",totp", "line 2: column 1 (user): a name holds a control character"},
		{&oathCSV, "# version: 2\nalice,,\xff,A1," + rfcSeed + ",totp", "line 2: column 3 (realm): a name is not valid UTF-8"},
		{&oathCSV, "# version: 2\nA1," + rfcSeed + ",totp", "line 2: column 4 (serial): a serial is empty"},
		{&entraCSV, entra + `a@b.c,E1,"` + rfcBase32, "line 2: column 3: a quote is not closed"},
		{&entraCSV, entra + "a@b.c,E1," + rfcBase32 + ",30,ACME,One,more", "line 2: column 7: there are 6 columns at most"},
		{&entraCSV, entra + "a@b.c,E1,,30,ACME,One", "line 2: column 3 (seed): there is no seed"},
		{&entraCSV, entra + "a@b.c,E1," + rfcBase32[:30] + ",30,ACME,One", "line 2: column 3 (seed): it is no seed in hex nor in base32"},
		{&entraCSV, entra + "a@b.c,E1," + rfcBase32 + ",30s,ACME,One", "line 2: column 4 (period): it is not a number"},
		{&entraCSV, entra + "a@b.c,E 1," + rfcBase32 + ",30,ACME,One", "line 2: column 2 (serial): character 2"},
		{&entraCSV, "a@b.c,E1," + rfcBase32 + ",30,ACME,One", "line 1: there is no header row"},
		{&entraCSV, "upn,serial number,secret key,time interval,manufacturer,model,time interval\n", "line 1: column 7 of the header row"},
	} {
		if _, why := refusal(c.format, c.file+"\n", all); !strings.HasPrefix(why, c.says) {
			t.Errorf("%s %.60q: %q, want %q", c.format.Name, c.file, why, c.says)
		}
	}
}

// Cut off anywhere in its last line, a file of the family is not taken for whole.
func TestTableCutOffInItsLastLineIsNoticed(t *testing.T) {
	entra := "upn,serial number,secret key,time interval,manufacturer,model\n"
	uri := "otpauth://totp/ACME:%s?secret=" + rfcBase32 + "&issuer=ACME&algorithm=SHA256&digits=8&period=60"
	for _, c := range []struct {
		format *Format
		whole  string
	}{
		{&entraCSV, entra + "a@b.c,E1," + rfcBase32 + ",60,ACME,One\na@b.c,E2," + rfcBase32 + ",60,ACME,One"},
		{&entraCSV, "model,manufacturer,serial number,secret key,time interval\nOne,ACME,E1," + rfcBase32 + ",60\nOne,ACME,E2," + rfcBase32 + ",60"},
		{&entraCSV, "model,manufacturer,time interval,serial number,secret key\nOne,ACME,60,E1," + rfcBase32 + "\nOne,ACME,60,E2," + rfcBase32},
		{&pingID, "P1," + rfcSeed + ",100\nP2," + rfcSeed + ",100"},
		{&phenixID, "TOTP;T1;SHA256;" + rfcSeed + ";0;30;8\nTOTP;T2;SHA256;" + rfcSeed + ";0;30;8"},
		{&phenixID, "HOTP;T1;" + rfcSeed + ";100\nHOTP;T2;" + rfcSeed + ";100"},
		{&multiOTP, "M1;ACME;totp;" + rfcSeed + ";8;60\nM2;ACME;totp;" + rfcSeed + ";8;60"},
		{&feitianText, "F1 " + rfcSeed + "\nF2 " + rfcSeed},
		{&otpauthList, fmt.Sprintf(uri, "a") + "\n" + fmt.Sprintf(uri, "b")},
	} {
		choices := Choices{Type: tokens.HOTP}
		if c.format == &entraCSV {
			choices.Type = ""
		}
		if list, why := refusal(c.format, c.whole, choices); why != "" || len(list) != 2 {
			t.Errorf("%s: whole, it is refused: %s", c.format.Name, why)
		}
		for cut := len(c.whole) - 1; cut > strings.LastIndex(c.whole, "\n")+1; cut-- {
			if _, why := refusal(c.format, c.whole[:cut], choices); why == "" {
				t.Errorf("%s: a file that ends in %q was taken for whole", c.format.Name, c.whole[cut-6:cut])
			}
		}
	}
}

func TestEncodingOfSeedsIsToldFromTheWholeFile(t *testing.T) {
	const header = "serial number,secret key,time interval,manufacturer,model\n"
	row := func(serial, seed string) string { return serial + "," + seed + ",60,SafeID,Classic\n" }
	inHex, _ := hex.DecodeString(both)
	inBase32, _ := base32.StdEncoding.DecodeString(both)
	far := strings.Repeat("# "+strings.Repeat("x", 1000)+"\n", 70) // more than is looked ahead
	for _, c := range []struct {
		name, file string
		chosen     Encoding
		seed       []byte // of the first record
		says       string
	}{
		{"later rows are in hex", header + row("S1", both) + row("S2", both) + row("S3", rfcSeed), "", inHex, ""},
		{"later rows are in base32", header + row("S1", both) + row("S2", strings.ToLower(both)) + row("S3", rfcBase32), "", inBase32, ""},
		{"all can be either", header + row("S1", both) + row("S2", both), "", nil, "line 2: column 2 (seed): it can be read as hex and as base32, and so can all seeds before it; say which with --encoding hex or --encoding base32"},
		{"chosen hex", header + row("S1", both), Hex, inHex, ""},
		{"chosen base32", header + row("S1", both), Base32, inBase32, ""},
		{"chosen wrongly", header + row("S1", rfcBase32), Hex, nil, "line 2: column 2 (seed): character 1 is not a hex digit"},
		{"hex and base32", header + row("S1", rfcSeed) + row("S2", rfcBase32), "", nil, "line 3: the seed in this line is not in hex, as that in line 2 is"},
		{"base32 and hex", header + row("S1", rfcBase32) + row("S2", both) + row("S3", rfcSeed), "", nil, "line 4: the seed in this line is not in base32, as that in line 2 is"},
		{"told from a row that is too far away", header + row("S1", both) + far + row("S2", rfcSeed), "", nil, "line 2: column 2 (seed): it can be read as hex and as base32"},
		{"the sign is quoted, behind comments", header + row("S1", both) + "# x\r\n\n\"S2\" , \"" + rfcSeed + "\",60,,\n", "", inHex, ""},
		{"the sign is in a row that has no end", header + row("S1", both) + strings.TrimSpace(row("S2", rfcSeed)), "", inHex, ""},
		{"the sign is in a bad row", header + row("S1", both) + "S 2," + rfcSeed + ",60,,\n", "", inHex, "line 3: column 1 (serial)"},
	} {
		list, why := refusal(&entraCSV, c.file, Choices{Encoding: c.chosen})
		if !strings.HasPrefix(why, c.says) || (why == "") != (c.says == "") {
			t.Errorf("%s: %q, want %q", c.name, why, c.says)
		}
		if c.seed != nil && (len(list) == 0 || string(list[0].Seed) != string(c.seed)) {
			t.Errorf("%s: %+v", c.name, list)
		}
	}
	if _, err := ParseEncoding("BASE32"); err != nil {
		t.Error(err)
	}
	if _, err := ParseEncoding("base64"); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// The example in Entra's manual is one that can be read in either way.
func TestSeedsInBase32(t *testing.T) {
	for _, c := range []struct{ text, hex string }{
		{rfcBase32, rfcSeed}, {strings.ToLower(rfcBase32), rfcSeed}, {rfcBase32 + "========", ""},
		{"GEZDGNBVGY3TQOJQ", rfcSeed[:20]}, {"GEZDGNBVGY3TQOJQGE======", rfcSeed[:22]}, {"GEZDGNBVGY3TQOJQGE", rfcSeed[:22]}, {"GEZDGNBVGY3TQOJQGF", rfcSeed[:22]},
		{"GEZDGNBVGY3TQOJQGE=====", ""}, {"GEZDGNBVGY3TQOJQG", ""}, {"GEZDGNBVGY3TQOJQGEZ", ""}, {"GEZDGNBVGY3TQOJQGEZDGN", ""},
		{"GEZDGNBVGY3TQOJ", ""}, {"", ""}, {"GEZDGNBVGY3TQOJ1", ""}, {"GEZD GNBVGY3TQOJQ", ""}, {"GEZDGNBVGY3TQOJQ=GEZDGNB", ""}, {strings.Repeat("A", 208), ""}, {strings.Repeat("A", 205), strings.Repeat("00", 128)},
	} {
		rec := Record{Seed: make([]byte, 0, MaxSeed)}
		err := Base32.decode(&rec, []byte(c.text))
		if got := hex.EncodeToString(rec.Seed); err == nil && got != c.hex || (err == nil) != (c.hex != "") {
			t.Errorf("%q: %s, %v", c.text, got, err)
		}
		if err != nil && len(c.text) > 4 && strings.Contains(err.Error(), c.text[:4]) {
			t.Errorf("%v", err)
		}
	}
}

func TestSeedThatMayBeEitherIsRefusedInEntrasOwnExample(t *testing.T) {
	file := "upn,serial number,secret key,time interval,manufacturer,model\nHelga@contoso.com,1234567,2234567abcdef2234567abcdef,60,Contoso,HardwareKey\n"
	if _, why := refusal(&entraCSV, file, Choices{}); !strings.Contains(why, "--encoding") {
		t.Errorf("%s", why)
	}
	list, why := refusal(&entraCSV, file, Choices{Encoding: Base32})
	if why != "" || list[0].User != "Helga@contoso.com" || list[0].Model != "Contoso HardwareKey" || len(list[0].Seed) != 16 || list[0].Period != 60 {
		t.Errorf("%s %+v", why, list)
	}
}

// Where OATH CSV is taken otherwise than other products take it, the report says
// so.
func TestNotesTellWhatOtherProductsTakeOtherwise(t *testing.T) {
	notes := func(f *Format, file string, c Choices) string {
		rd := f.Open(strings.NewReader(file), OpenOptions{Choices: c})
		defer rd.Close()
		for {
			if r, err := rd.Next(); err != nil {
				break
			} else if r.Err != nil {
				t.Error(r.Err)
			}
		}
		return strings.Join(rd.(interface{ Notes() []string }).Notes(), "\n")
	}
	for _, c := range []struct {
		f       *Format
		file    string
		choices Choices
		says    string
	}{
		{&oathCSV, "A1," + rfcSeed + "\nA2," + rfcSeed + ",totp\n", Choices{}, "|whether they are TOTP or HOTP: 1."},
		{&oathCSV, "A1," + rfcSeed + "\n", Choices{Type: tokens.TOTP}, ""},
		{&oathCSV, "A1," + seed32 + ",totp\n", Choices{}, "|of which the file names no hash: 1."},
		{&oathCSV, "A1," + seed32 + ",totp,6,30,sha1\n", Choices{}, ""},
		{&oathCSV, "A1," + seed32 + ",totp\n", Choices{Hash: hsm.SHA1}, ""},
		{&feitianText, "A1 " + rfcSeed + "\n", Choices{Type: tokens.HOTP}, "|how many digits a code has: 1."},
		{&feitianText, "A1 " + rfcSeed + "\n", Choices{Type: tokens.HOTP, Digits: 6}, ""},
		{&multiOTP, "A1;x;totp;" + rfcSeed + ";6;30\n", Choices{}, ""},
		{&entraCSV, "serial number,secret key,time interval,manufacturer,model\nA1," + rfcBase32 + ",30,,\n", Choices{}, ""},
	} {
		_, says, _ := strings.Cut(c.says, "|")
		if got := notes(c.f, c.file, c.choices); !strings.Contains(got, says) || (got == "") != (says == "") {
			t.Errorf("%s %q: %q, want %q", c.f.Name, c.file, got, says)
		}
	}
}

func TestFormatsOfTheFamilyAreToldWithAReason(t *testing.T) {
	for _, c := range []struct{ file, format, reason string }{
		{"upn,serial number,secret key,time interval,manufacturer,model\n", "entra", "looks like Entra CSV: header row in line 1"},
		{"\xef\xbb\xbf# x\r\n\"Model\";\"Manufacturer\";\"Time Interval\";\"Secret Key\";\"Serial Number\"\r\n", "entra", "looks like Entra CSV: header row in line 2"},
		{"serial number,secret key\nA,B\n", "oath-csv", "header row in line 1"},
		{"# version: 2\nalice,ldap,corp,A1," + rfcSeed + ",totp\n", "oath-csv", "looks like OATH CSV: version 2, and line 2 has a serial and a seed in hex behind the user"},
		{"HOTP;A1;" + rfcSeed + ";0\n", "phenixid", "looks like PhenixID token file: line 1 is a row that begins with its type"},
		{"A1;" + rfcSeed + ";0\nTOTP;A1;SHA1;" + rfcSeed + ";0;30;6\n", "phenixid", "line 2"},
		{"A1;" + rfcSeed + ";0\n", "", "not PhenixID token file (line 1: it is no row of at least four columns"},
		{"A1;ACME;totp;" + rfcSeed + ";6;30\n", "multiotp", "looks like multiOTP token file: line 1 is a row of six columns"},
		{"A1,ACME, Inc;totp;" + rfcSeed + ";6;30\n", "", ""},
		{"A1  " + rfcSeed + "\n", "feitian", "looks like Feitian or Hypersecu seed list: line 1"},
		{"A1," + rfcSeed + ",5\n", "pingid", "looks like PingID seed file: line 1 is a serial, a seed in hex and a counter"},
		{"A1," + rfcSeed + "\n", "oath-csv", ""},
		{"A1, " + rfcSeed + "\n", "oath-csv", ""}, // a blank behind the comma
		{"user,serial,seed\nalice," + "A1 " + rfcSeed + "\nA1 " + rfcSeed + "\n", "oath-csv", ""},
		{"A1; " + rfcSeed + "\n", "", "not Feitian or Hypersecu seed list (line 1: there are commas"},
		{"# mine\notpauth://totp/a?secret=x\n", "otpauth", "looks like list of otpauth URIs: line 2 begins with otpauth://"},
		{"OTPAUTH-MIGRATION://offline?data=x", "otpauth-migration", "looks like export of Google Authenticator: line 1"},
	} {
		f, reason, err := Detect([]byte(c.file), true)
		switch {
		case c.format == "":
			if err == nil || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("%q: %v", c.file, err)
			}
		case err != nil || f.Name != c.format || !strings.Contains(reason, c.reason):
			t.Errorf("%q: %v %q, %v", c.file, f, reason, err)
		}
	}
}

// No error and no reason of the family holds a seed, wherever in the row it
// stands.
func TestNoErrorOfTheFamilyHoldsASeed(t *testing.T) {
	seed := []byte("\x9e\x01Zq7seed-of-a-token!")
	texts := []string{hex.EncodeToString(seed), base32.StdEncoding.EncodeToString(seed)}
	for _, f := range csvFormats {
		for _, x := range texts {
			for _, file := range []string{
				"A1;" + x + ";x", "HOTP;" + x + ";A1;0", "TOTP;A1;" + x + ";sha1;0;30;6", "TOTP;A1;sha1;" + x + ";" + x + ";30;6",
				"A1;" + x + ";totp;A1;6;30", x + ";ACME;totp;A1;6;30", "A1;ACME;" + x + ";" + x + ";6;30", "A1;ACME;totp;" + x + ";" + x + ";30", x + " A1", x + " " + x + " " + x, "A1 " + x + "g",
				"upn,serial number,secret key,time interval,manufacturer,model\n" + x + ",A1,b,30,x,y", "upn,serial number,secret key,time interval,manufacturer,model\na," + x + ",b,30,x,y",
				"upn,serial number,secret key,time interval,manufacturer,model\na,A1,b,30," + x + ",y", "upn,serial number,secret key,time interval,manufacturer,model\na,A1," + x + "," + x + ",x,y",
				"upn,serial number,secret key,time interval,manufacturer," + x + "\na,A1,b,30,x,y", "serial,secret," + x + "\nA1,b", "# version: 2\n" + x + ",A1,totp", "# version: 2\n" + x + ",,,A1,b,totp", "# version: 2\n,," + x + ",A1,b,totp", "# version: " + x + "\nA",
				"otpauth://totp/a?secret=" + x + "1", "otpauth://" + x + "/a?secret=b", "otpauth://totp/" + x + "?secret=b", "otpauth://totp/a?secret=" + x + "&secret=b", "otpauth://totp/a?" + x + "=" + x + "%", "otpauth://hotp/a?secret=" + x, "otpauth://totp/a?secret=b&serial=" + x,
				"otpauth://totp/a?secret=" + x + "&algorithm=" + x, "otpauth-migration://offline?data=" + x, "otpauth-migration://offline?" + x, x,
			} {
				list, why := refusal(f, file, Choices{Type: tokens.HOTP})
				text := why
				for _, r := range list {
					if r.Err != nil {
						text += fmt.Sprint(" ", r.Serial, r.User, r.UserRealm, r.Model, r.Err)
					}
				}
				if _, reason, err := Detect([]byte(file), true); err != nil {
					text += err.Error()
				} else {
					text += reason
				}
				if why == "" {
					t.Errorf("%s: %q was read", f.Name, file)
				}
				if holds(text, seed) {
					t.Errorf("%s: %q: %s", f.Name, file, text)
				}
			}
		}
	}
}

func TestTablesAreWiped(t *testing.T) {
	file := "serial number,secret key,time interval,manufacturer,model\nA1," + rfcBase32 + ",30,,\nA2," + rfcBase32 + ",30,,\n"
	rd := entraLayout.reader(strings.NewReader(file), Choices{})
	rec, err := rd.Next()
	if err != nil || rec.Err != nil {
		t.Fatal(err, rec.Err)
	}
	held := rec.Seed
	rd.Close()
	if strings.Contains(string(rd.lines.buf), rfcBase32[:8]) || strings.Trim(string(held), "\x00") != "" {
		t.Error("a seed stays behind")
	}
}

// A header row in the usual order says nothing that the rows do not say.
func TestAHeaderInTheUsualOrderMayNameFewerColumns(t *testing.T) {
	for _, file := range []string{
		"serial,seed\nA1,3132333435363738393031323334353637383930,hotp,8,7\n",
		"serial,hexseed,type,digits,period\nA1,3132333435363738393031323334353637383930,hotp,8,7,sha1\n",
		"serial,hexseed,type,digits,counter\nA1,3132333435363738393031323334353637383930,hotp,8,7\n",
	} {
		r := oathCSV.Open(strings.NewReader(file), OpenOptions{})
		rec, err := r.Next()
		if err != nil || rec.Err != nil || rec.Type != tokens.HOTP || rec.Digits != 8 || rec.Counter != 7 {
			t.Errorf("%q: %+v, %v", file, rec, err)
		}
		r.Close()
	}
}

// A kind of device is told by all formats in the same way, and never keeps a token
// from being imported.
func TestTheKindOfADeviceIsTextThatATokenCanHave(t *testing.T) {
	for _, c := range []struct{ maker, model, want string }{
		{"", "", ""}, {"Feitian", "", "Feitian"}, {"", "C200", "C200"}, {" Feitian ", " C200 ", "Feitian C200"},
		{"a\x00b", "c\u0085d\u009b", "a b c d "}, {"M\xfcller", "\xff", "M?ller ?"},
		{"x", strings.Repeat("\u00e4", 200), "x " + strings.Repeat("\u00e4", 126)},
	} {
		if got := deviceName(c.maker, c.model); got != c.want {
			t.Errorf("%q %q: %q, want %q", c.maker, c.model, got, c.want)
		}
	}
	file := strings.Replace(container, ">ACME<", ">AC\u0085ME<", 1)
	for name, file := range map[string]string{
		"pskc": file, "oath-csv": "serial,seed,type,model\nA1," + rfcSeed + ",totp,x\u0085y\n",
	} {
		f, err := FormatNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(f, strings.NewReader(file), OpenOptions{Now: time.Now()})
		if err != nil || len(got) != 1 || got[0].Err != nil || strings.ContainsFunc(got[0].Model, unicode.IsControl) || got[0].Model == "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
