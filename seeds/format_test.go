package seeds

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

const container = `<?xml version="1.0"?>
<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc">
<KeyPackage><DeviceInfo><Manufacturer>ACME</Manufacturer><SerialNo>S1</SerialNo><Model>One</Model></DeviceInfo>
<Key Id="K1" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:totp">
<AlgorithmParameters><Suite>HMAC-SHA256</Suite><ResponseFormat Length="8" Encoding="DECIMAL"/></AlgorithmParameters>
<Data><Secret><PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=</PlainValue></Secret>
<TimeInterval><PlainValue>60</PlainValue></TimeInterval><TimeDrift><PlainValue>-4</PlainValue></TimeDrift></Data></Key></KeyPackage>
</KeyContainer>
`

func TestFormatIsToldFromContent(t *testing.T) {
	for _, c := range []struct{ file, format, reason string }{
		{csvOf("A1"), "oath-csv", "looks like OATH CSV: line 1 is a serial and a seed in hex"},
		{"\xef\xbb\xbf\r\n# from ACME\r\nSerial,Seed\r\nA1,zz", "oath-csv", "looks like OATH CSV: header row in line 3"},
		{"A0,zz\nA1," + rfcSeed + ",hotp\n", "oath-csv", "looks like OATH CSV: line 2 is a serial and a seed in hex"},
		{csvOf("A1") + strings.Repeat("x", 2*prefixSize), "oath-csv", "looks like OATH CSV"},
		{container, "pskc", "looks like PSKC: root element KeyContainer in the namespace of RFC 6030"},
		{"\xef\xbb\xbf <!-- a comment --> " + strings.ReplaceAll(strings.ReplaceAll(container[strings.Index(container, "<Key"):], "<", "<p:"), "<p:/", "</p:"), "", "not PSKC"}, // prefix p is not bound
		{`<x:KeyContainer xmlns:x="urn:ietf:params:xml:ns:keyprov:pskc"/>`, "pskc", "looks like PSKC"},
		{"", "", "the file is empty"},
		{"\n \r\n", "", "the file is empty"},
		{"PK\x03\x04xxxx", "", "zip archive"},
		{"\x1f\x8b\x08", "", "gzip"},
		{"-----BEGIN PGP MESSAGE-----", "", "PGP"},
		{"\xff\xfes\x00e\x00", "", "UTF-16"},
		{"hello world\n", "", "not PSKC (it is not XML), "},
		{"A1,GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n", "", "column 2 is not a seed in hex"},
		{"A1," + rfcSeed + ",ocra\n", "", "column 3 is neither totp nor hotp"},
		{"<html><body/></html>", "", `its root element is "html"`},
		{"<!DOCTYPE a [<!ENTITY b \"c\">]><a/>", "", noDTD},
		{"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- <a/> -->\n\n <!DOCTYPE " + strings.Repeat("x", 2*prefixSize), "", "line 4: " + noDTD},
		{"<a><!DOCTYPE b></a>", "", "the format cannot be told"},
		{`<KeyContainer xmlns="urn:ietf:params:xml:ns:keyprov:pskc:1.0"/>`, "pskc", "in the namespace of a draft of RFC 6030"},
		{`<KeyContainer xmlns="urn:ietf:params:xml:ns:keyprov:pskc:7.0"/>`, "", "not in that of RFC 6030 or of a draft"},
	} {
		prefix := []byte(c.file)
		whole := len(prefix) <= prefixSize
		if !whole {
			prefix = prefix[:prefixSize]
		}
		before := bytes.Clone(prefix)
		f, reason, err := Detect(prefix, whole)
		if !bytes.Equal(before, prefix) {
			t.Errorf("%.40q: Detect wrote into the file", c.file)
		}
		if c.format == "" {
			if strings.HasSuffix(c.reason, noDTD) && err != nil && err.Error() != c.reason && err.Error() != "line 1: "+c.reason {
				t.Errorf("%.40q: %v, and not one sentence", c.file, err)
			}
			if err == nil || !strings.Contains(err.Error(), c.reason) || !errors.Is(err, tokens.ErrInvalid) {
				t.Errorf("%.40q: %v", c.file, err)
			}
			continue
		}
		if err != nil || f.Name != c.format || !strings.Contains(reason, c.reason) {
			t.Errorf("%.40q: %+v, %q, %v", c.file, f, reason, err)
		}
	}
}

func TestFormatsHaveNamesOfTheirOwn(t *testing.T) {
	names := map[string]bool{Auto: true}
	for _, f := range Formats() {
		if names[f.Name] || f.Title == "" {
			t.Errorf("%q", f.Name)
		}
		names[f.Name] = true
		if g, err := FormatNamed(strings.ToUpper(f.Name)); err != nil || g.Name != f.Name {
			t.Errorf("%q is not found by its name: %v", f.Name, err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	raw := "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x0a"
	for _, c := range []struct{ file, want string }{
		{"12345678901234567890123456789012", "\x12\x34\x56\x78\x90\x12\x34\x56\x78\x90\x12\x34\x56\x78\x90\x12"},
		{"12345678901234567890123456789012\n", "\x12\x34\x56\x78\x90\x12\x34\x56\x78\x90\x12\x34\x56\x78\x90\x12"},
		{"ABcdef78901234567890123456789012\r\n", "\xab\xcd\xef\x78\x90\x12\x34\x56\x78\x90\x12\x34\x56\x78\x90\x12"},
		{strings.Repeat("00", 24), strings.Repeat("\x00", 24)},
		{strings.Repeat("ff", 32), strings.Repeat("\xff", 32)},
		{raw, raw}, // ends in a byte that looks like a newline
		{raw + "\n", raw},
		{raw + "\r\n", raw},
		{raw + raw[:8], raw + raw[:8]},
		{raw + raw, raw + raw},
		{"1234567890123456", "1234567890123456"}, // as hex it would be 8 bytes
		{"", ""}, {"\n", ""}, {"1234", ""}, {raw[:15], ""}, {raw + "\n\n", ""}, {" " + raw[:15] + "x", ""}, {strings.Repeat("0", 40), ""}, {strings.Repeat("0", 66), ""},
		{"0x12345678901234567890123456789012", ""},
	} {
		key, err := ParseKeyFile([]byte(c.file))
		if string(key) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %x, %v", c.file, key, err)
		}
		if err != nil && (!errors.Is(err, tokens.ErrInvalid) || len(c.file) > 3 && strings.Contains(err.Error(), c.file)) {
			t.Errorf("%q: %v", c.file, err)
		}
	}
	for file, want := range map[string]string{"qwerty": "qwerty", "qwerty\n": "qwerty", " a b \r\n": " a b ", "a\n\n": "a\n", "": "", "\n": ""} {
		password, err := ParsePasswordFile([]byte(file))
		if string(password) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", file, password, err)
		}
	}
}

func TestPSKCRecord(t *testing.T) {
	got, err := readAll(&pskcXML, strings.NewReader(container), OpenOptions{Now: time.Now()})
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	r := got[0]
	if r.Err != nil || r.Line != 3 || r.Key != 1 || r.Serial != "S1" || r.Model != "ACME One" || r.Type != tokens.TOTP || r.Algorithm != hsm.SHA256 ||
		r.Digits != 8 || r.Period != 60 || r.Counter != 0 || r.Drift != -4 || string(r.Seed) != "12345678901234567890" {
		t.Errorf("%+v", r)
	}
}

func TestPSKCRecordsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ old, new, says string }{
		{"HMAC-SHA256", "HMAC-SHA224", `the suite "HMAC-SHA224" names no hash that is known`},
		{"HMAC-SHA256", "OCRA-1:HOTP-SHA1-6:QN08", "names no hash that is known"},
		{`Length="8"`, `Length="10"`, "codes of 10 digits"},
		{">60<", ">0<", "a time step of 0 s"},
		{">60<", ">99999999999<", "a time step of"},
		{">-4<", ">-9999999999<", "TimeDrift is out of range"},
		{">-4<", ">100000<", "a clock drift of 100000 time steps"},
		{"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=", "MTIzNDU2Nzg5", "a seed of 9 bytes"},
		{"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=", strings.Repeat("MTIz", 50), "a seed of 150 bytes"},
		{"MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=", strings.Repeat("MTIz", 500), "the seed is longer than any"},
		{">S1<", ">S 1<", "character 2 of a serial is not allowed"},
		{`<SerialNo>S1</SerialNo>`, ``, ""},
		{"HMAC-SHA256", "sha-512", ""},
		{"HMAC-SHA256", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256", ""},
		{"pskc:totp", "pskc#TOTP", ""},
	} {
		if !strings.Contains(container, c.old) {
			t.Fatalf("the container has no %s", c.old)
		}
		got, err := readAll(&pskcXML, strings.NewReader(strings.Replace(container, c.old, c.new, 1)), OpenOptions{Now: time.Now()})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v", c.new, err)
			continue
		}
		switch {
		case c.says == "" && got[0].Err != nil, c.says != "" && got[0].Err == nil, c.says != "" && (!strings.Contains(got[0].Err.Error(), c.says) || len(got[0].Seed) > 0):
			t.Errorf("%s: %+v; want %s", c.new, got[0], c.says)
		}
	}
}

// A shipment written by Debian's pskc-utils goes all the way through.
func TestEncryptedContainerIsImported(t *testing.T) {
	cmd := exec.Command("csv2pskc", "-e", "hex", "-p", "swordfish", "--skip-rows", "0", "-c", "serial,secret,algorithm,response_length")
	cmd.Stdin = strings.NewReader("A1," + rfcSeed + ",urn:ietf:params:xml:ns:keyprov:pskc:totp,6\nA2," + rfcSeed + ",urn:ietf:params:xml:ns:keyprov:pskc:totp,6\n")
	file, err := cmd.Output()
	if err != nil {
		t.Fatalf("csv2pskc (package pskc-utils): %v", err)
	}
	s := newShelf(t)
	s.seed = []byte("12345678901234567890")
	r, err := importText(s, string(file), Options{Password: []byte("swordfish\n")})
	if err != nil || r.Created != 2 || r.Format != "pskc" || !r.Published {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, c := range []struct {
		o    Options
		says string
	}{
		{Options{}, "--password-file"},
		{Options{Password: []byte("wrong")}, "the key or password is not the one"},
		{Options{PSK: []byte("12345678901234567890123456789012")}, "--password-file"},
	} {
		s := newShelf(t)
		_, err := importText(s, string(file), c.o)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "line ") || !errors.Is(err, tokens.ErrInvalid) || len(s.have) != 0 {
			t.Errorf("%v; want %s", err, c.says)
		}
	}
	// Cut off anywhere, nothing comes of it.
	for cut := len(file) - 2; cut > 0; cut -= 397 {
		s := newShelf(t)
		if _, err := importText(s, string(file[:cut]), Options{Password: []byte("swordfish"), Partial: true}); err == nil || len(s.have) != 0 {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

func TestNotesOfAContainerReachTheReport(t *testing.T) {
	file := strings.Replace(container, "</KeyContainer>", `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/></KeyContainer>`, 1)
	r, err := importText(newShelf(t), file, Options{})
	if err != nil || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "signature, which was not checked") {
		t.Errorf("%+v, %v", r, err)
	}
}

// A reader holds no seed once it is done: neither after the end nor when it is
// closed early.
func TestReadersWipeSeeds(t *testing.T) {
	seed := []byte("12345678901234567890")
	for _, end := range []bool{true, false} {
		c := oathLayout.reader(strings.NewReader(csvOf("A1", "A2")), Choices{})
		rec, err := c.Next()
		if err != nil || !bytes.Equal(rec.Seed, seed) {
			t.Fatal(err)
		}
		held := rec.Seed
		if end {
			for err == nil {
				_, err = c.Next()
			}
			if err != io.EOF {
				t.Fatal(err)
			}
		}
		c.Close()
		if bytes.Contains(c.lines.buf, []byte(rfcSeed)) || !bytes.Equal(held, make([]byte, len(seed))) {
			t.Errorf("a seed stays behind (read to the end: %v)", end)
		}
	}
}
