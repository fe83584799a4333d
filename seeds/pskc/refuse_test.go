package pskc

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

var figure6Options = Options{Key: mustHex(figureKey)}

// edit changes the first place where old stands; it must stand there.
func edit(t testing.TB, file, old, new string) string {
	t.Helper()
	if !strings.Contains(file, old) {
		t.Fatalf("the test edits %q, which is not in the file", old)
	}
	return strings.Replace(file, old, new, 1)
}

// noSecret fails if an error shows what it must not.
func noSecret(t testing.TB, err error) {
	t.Helper()
	text := strings.ToLower(err.Error())
	for _, secret := range []string{figureSeed, hex.EncodeToString([]byte(figureSeed)), "gezdgnbvgy3tqojqgezdgnbvgy3tqojq",
		strings.ToLower(base64.StdEncoding.EncodeToString([]byte(figureSeed))), figureKey, "qwerty"} {
		if strings.Contains(text, secret) {
			t.Errorf("the error shows a secret: %s", text)
		}
	}
}

func TestFilesThatAreRefusedAsAWhole(t *testing.T) {
	plain := wrapXML("", keyPackage("A1", hotpURI, eight, plainSeed+counter0))
	pkg := keyPackage("A1", hotpURI, eight, figure6Seed+counter0)
	noMAC := figure6Header[:strings.Index(figure6Header, "<MACMethod")]
	for _, c := range []struct {
		name, file string
		o          Options
		says       string
	}{
		{"empty", "", Options{}, "line 1: there is no KeyContainer"},
		{"text", "serial,seed", Options{}, "this is not XML"},
		{"another root", "<KeyBag/>", Options{}, `the root element is "KeyBag"`},
		{"unknown draft", edit(t, plain, Namespace, "urn:ietf:params:xml:ns:keyprov:pskc:7.0"), Options{}, "nor in one of its drafts"},
		{"no namespace", edit(t, plain, `xmlns="`+Namespace+`"`, ""), Options{}, "the KeyContainer is in the namespace"},
		{"version", edit(t, plain, `Version="1.0"`, `Version="2.0"`), Options{}, `the container is of version "2.0"`},
		{"DTD", edit(t, plain, "<KeyContainer", "<!DOCTYPE KeyContainer [<!ENTITY a \"b\">]><KeyContainer"), Options{}, "document type declaration"},
		{"entity", edit(t, plain, "MTIz", "&lol;MTIz"), Options{}, "not well-formed"},
		{"encoding", edit(t, plain, "UTF-8", "UTF-16"), Options{}, "an encoding other than UTF-8"},
		{"trailing garbage", plain + "x", Options{}, "something follows the end"},
		{"trailing element", plain + "<KeyContainer/>", Options{}, "something follows the end"},
		{"unclosed", edit(t, plain, "</KeyPackage>", ""), Options{}, "not well-formed"},
		{"nested", wrapXML("", strings.Repeat("<KeyPackage>", 10000)), Options{}, "nested more than 24 deep"},
		{"attributes", wrapXML("", `<KeyPackage `+strings.Repeat("x", 1)+`=""`+manyAttributes(40)+`/>`), Options{}, "more than 32 attributes"},
		{"same attribute twice", edit(t, plain, `Id="12345678"`, `Id="1" Id="2"`), Options{}, "the same attribute twice"},
		{"large text", edit(t, plain, "MTIz", strings.Repeat("A", 1<<20)), Options{}, "64 KB"},
		{"many elements", edit(t, plain, "<DeviceInfo>", "<DeviceInfo>"+strings.Repeat("<x/>", 1000)), Options{}, "more than 500 elements"},
		{"text between packages", edit(t, plain, "<KeyPackage>", "text<KeyPackage>"), Options{}, "text between the key packages"},
		{"text between elements", edit(t, plain, "<DeviceInfo>", "text<DeviceInfo>"), Options{}, "text between the elements of KeyPackage"},
		{"unknown element", edit(t, plain, "<KeyPackage>", "<Keys/><KeyPackage>"), Options{}, `a "Keys" element`},

		{"no key", figure6, Options{}, `key package 1, serial "987654321": the seeds are encrypted under a pre-shared key, which the file calls "Pre-shared-key"; give it with --psk-file`},
		{"no key, only a password", figure6, Options{Password: []byte("qwerty")}, "give it with --psk-file"},
		{"no password", figure7, Options{}, "give it with --password-file"},
		{"no password, only a key", figure7, figure6Options, "give it with --password-file"},
		{"wrong key", figure6, Options{Key: mustHex("00" + figureKey[2:])}, "the key or password is not the one"},
		{"wrong password", figure7, Options{Password: []byte("qwertz")}, "the key or password is not the one"},
		{"key of another length", figure6, Options{Key: mustHex(figureKey + figureKey)}, "AES-128-CBC, with a key of 128 bits, but the one in --psk-file has 256"},
		{"broken MAC", edit(t, figure6, "Su+Nv", "Su+Nw"), figure6Options, "the MAC of the seed is wrong"},
		{"altered seed", edit(t, figure6, "2lef1V", "2lef1W"), figure6Options, "the MAC of the seed is wrong"},
		{"altered IV", edit(t, figure6, "AAECAw", "AAECBw"), figure6Options, "the MAC of the seed is wrong"},
		{"shorter MAC", edit(t, figure6, "Su+NvtQfmvfJzF6bmQiJqoLRExc=", "Su+NvtQfmvfJzF6bmQiJqg=="), figure6Options, "the MAC of the seed is wrong"},
		{"no MACMethod", wrapXML(noMAC, pkg), figure6Options, "there is no MACMethod; RFC 6030, section 6.1.1, requires"},
		{"no EncryptionKey", wrapXML(figure6Header[strings.Index(figure6Header, "<MACMethod"):], pkg), figure6Options, "no EncryptionKey"},
		{"header after package", wrapXML("", pkg, figure6Header), figure6Options, "no EncryptionKey"},
		{"header between packages", wrapXML("", keyPackage("A0", hotpURI, eight, plainSeed), figure6Header, pkg), figure6Options, "not where it belongs"},
		{"two headers", wrapXML(figure6Header+figure6Header, pkg), figure6Options, "not where it belongs"},
		{"X.509", wrapXML("<EncryptionKey><ds:X509Data/></EncryptionKey>", pkg), figure6Options, "names a public key, but its values are encrypted by a symmetric cipher"},
		{"MAC algorithm", edit(t, figure6, "#hmac-sha1", "#hmac-md5"), figure6Options, "the MAC is made by"},
		{"another derivation", edit(t, figure7, "#pbkdf2", "#pbkdf1"), Options{Password: []byte("qwerty")}, "PBKDF2 is what can be read"},
		{"PRF", edit(t, figure7, "<PRF/>", `<PRF Algorithm="x#hmac-md5"/>`), Options{Password: []byte("qwerty")}, "PBKDF2 uses"},
		{"iterations", edit(t, figure7, ">1000<", ">99999999999<"), Options{Password: []byte("qwerty")}, "iterations; 1 to"},
		{"no iterations", edit(t, figure7, ">1000<", ">0<"), Options{Password: []byte("qwerty")}, "iterations; 1 to"},
		{"key length", edit(t, figure7, ">16<", ">17<"), Options{Password: []byte("qwerty")}, "a key of 17 bytes"},
		{"salt", edit(t, figure7, "Ej7/PEpyEpw=", "?"), Options{Password: []byte("qwerty")}, "the salt of PBKDF2 is not base64"},
		{"MAC key too short", edit(t, figure6, "ESIzRFVmd4iZABEiM0RVZgKn6WjLaTC1sbeBMSvIhRejN9vJa2BOlSaMrR7I5wSX", "ESIz"), figure6Options, "the MAC key is not whole blocks"},
	} {
		keys, err := readAll(strings.NewReader(c.file), c.o)
		var bad *Error
		if err == nil || !errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) || bad.Line < 1 {
			t.Errorf("%s: %d keys, %v; want %s", c.name, len(keys), err, c.says)
			continue
		}
		noSecret(t, err)
	}
}

func manyAttributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ` a%d=""`, i)
	}
	return b.String()
}

func TestFileThatIsCutOffAnywhereIsRefused(t *testing.T) {
	whole := strings.TrimSpace(figure6)
	for cut := 0; cut < len(whole); cut += 11 {
		_, err := readAll(strings.NewReader(whole[:cut]), figure6Options)
		var bad *Error
		if !errors.As(err, &bad) {
			t.Fatalf("cut at %d (%q): %v", cut, whole[max(0, cut-20):cut], err)
		}
		noSecret(t, err)
	}
}

func TestKeysThatAreRefusedAlone(t *testing.T) {
	data := plainSeed + counter0
	policy := func(rule string) string { return "</Data><Policy>" + rule + "</Policy>" }
	for _, c := range []struct{ name, bad, says string }{
		{"ocra", keyPackage("A2", "urn:ietf:params:xml:ns:keyprov:pskc:ocra", eight, data), "neither HOTP nor TOTP"},
		{"no algorithm", keyPackage("A2", "", eight, data), "names no algorithm"},
		{"hex codes", keyPackage("A2", hotpURI, `<AlgorithmParameters><ResponseFormat Length="8" Encoding="HEXADECIMAL"/></AlgorithmParameters>`, data), "not decimal digits"},
		{"check digit", keyPackage("A2", hotpURI, `<AlgorithmParameters><ResponseFormat Length="8" Encoding="DECIMAL" CheckDigits="true"/></AlgorithmParameters>`, data), "check digit"},
		{"length", keyPackage("A2", hotpURI, `<AlgorithmParameters><ResponseFormat Length="eight"/></AlgorithmParameters>`, data), "length of its codes"},
		{"two suites", keyPackage("A2", hotpURI, `<AlgorithmParameters Suite="SHA1"><Suite>SHA256</Suite></AlgorithmParameters>`, data), "two suites"},
		{"suite and attribute", keyPackage("A2", hotpURI, `<AlgorithmParameters Suite="HMAC-SHA256"><Suite>HMAC-SHA512</Suite></AlgorithmParameters>`, data), "two suites"},
		{"empty suite", keyPackage("A2", hotpURI, `<AlgorithmParameters><Suite/></AlgorithmParameters>`, data), "a suite, but without a name"},
		{"parameter", keyPackage("A2", hotpURI, `<AlgorithmParameters><Hash>SHA256</Hash></AlgorithmParameters>`, data), `the parameter "Hash", which is not understood`},
		{"attribute", keyPackage("A2", hotpURI, `<AlgorithmParameters Hash="SHA256"/>`, data), `the parameter "Hash", which is not understood`},
		{"foreign parameter", keyPackage("A2", hotpURI, `<AlgorithmParameters><x:Suite xmlns:x="urn:x">SHA256</x:Suite></AlgorithmParameters>`, data), `the parameter "Suite", which is not understood`},
		{"unknown data", keyPackage("A2", hotpURI, eight, data+"<Offset><PlainValue>1</PlainValue></Offset>"), `data named "Offset"`},
		{"unknown value", keyPackage("A2", hotpURI, eight, counter0+"<Secret><HexValue>00</HexValue></Secret>"), `the element "HexValue"`},
		{"counter without value", keyPackage("A2", hotpURI, eight, plainSeed+"<Counter/>"), "Counter has no value"},
		{"counter with MAC", keyPackage("A2", hotpURI, eight, plainSeed+"<Counter><PlainValue>1</PlainValue><ValueMAC>AAAA</ValueMAC></Counter>"), "Counter is in clear but has a MAC"},
		{"no seed", keyPackage("A2", hotpURI, eight, counter0), "no seed in it"},
		{"reference", keyPackage("A2", hotpURI, "<KeyProfileId>p</KeyProfileId><KeyReference>MasterKeyLabel</KeyReference>", counter0), "only a reference"},
		{"two seeds", keyPackage("A2", hotpURI, eight, plainSeed+plainSeed), "two Secret elements"},
		{"two values", keyPackage("A2", hotpURI, eight, "<Secret><PlainValue>MTIz</PlainValue><PlainValue>MTIz</PlainValue></Secret>"), "two PlainValue elements"},
		{"empty seed", keyPackage("A2", hotpURI, eight, "<Secret><PlainValue> </PlainValue></Secret>"), "the seed is empty"},
		{"not base64", keyPackage("A2", hotpURI, eight, "<Secret><PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA</PlainValue></Secret>"), "the seed is not base64"},
		{"plain with MAC", keyPackage("A2", hotpURI, eight, "<Secret><PlainValue>MTIz</PlainValue><ValueMAC>MTIz</ValueMAC></Secret>"), "cannot be checked"},
		{"no key", "<KeyPackage><DeviceInfo><SerialNo>A2</SerialNo></DeviceInfo></KeyPackage>", "no key in it"},
		{"counter", keyPackage("A2", hotpURI, eight, plainSeed+"<Counter><PlainValue>one</PlainValue></Counter>"), "Counter is not a number"},
		{"negative counter", keyPackage("A2", hotpURI, eight, plainSeed+"<Counter><PlainValue>-1</PlainValue></Counter>"), "Counter is out of range"},
		{"great counter", keyPackage("A2", hotpURI, eight, plainSeed+"<Counter><PlainValue>99999999999999999999</PlainValue></Counter>"), "Counter is not a number"},
		{"time", keyPackage("A2", totpURI, eight, plainSeed+"<Time><PlainValue>946684800</PlainValue></Time>"), "not counted from 1970"},
		{"unknown policy", keyPackage("A2", hotpURI, eight, data+policy("<Geofence>EU</Geofence>")+"<Data>"), `the rule "Geofence"`},
		{"foreign policy", keyPackage("A2", hotpURI, eight, data+policy(`<x:KeyUsage xmlns:x="urn:x">OTP</x:KeyUsage>`)+"<Data>"), "is not understood"},
		{"uses", keyPackage("A2", hotpURI, eight, data+policy("<NumberOfTransactions>5</NumberOfTransactions>")+"<Data>"), "limited number of uses"},
		{"usage", keyPackage("A2", hotpURI, eight, data+policy("<KeyUsage>Encrypt</KeyUsage>")+"<Data>"), "does not allow the key to be used for one-time"},
		{"PIN", keyPackage("A2", hotpURI, eight, data+policy(`<PINPolicy PINUsageMode="Append"/>`)+"<Data>"), "a PIN checked by the server"},
		{"rule for the PIN", keyPackage("A2", hotpURI, eight, data+policy(`<PINPolicy PINUsageMode="Local" WeekDays="1"/>`)+"<Data>"), `the rule "WeekDays" for the PIN`},
		{"rules for the PIN", keyPackage("A2", hotpURI, eight, data+policy(`<PINPolicy PINUsageMode="Local"><Month/></PINPolicy>`)+"<Data>"), "rules for the PIN that are not understood"},
		{"expired", keyPackage("A2", hotpURI, eight, data+policy("<ExpiryDate>2026-11-20T00:00:00Z</ExpiryDate>")+"<Data>"), "the key expired on 2026-11-20; --partial imports it all the same"},
		{"early", keyPackage("A2", hotpURI, eight, data+policy("<StartDate>2026-11-22T00:00:00+01:00</StartDate>")+"<Data>"), "may not be used before 2026-11-21"},
		{"no date", keyPackage("A2", hotpURI, eight, data+policy("<ExpiryDate>soon</ExpiryDate>")+"<Data>"), "ExpiryDate is not a date"},
		{"device expired", strings.Replace(keyPackage("A2", hotpURI, eight, data), "</DeviceInfo>", "<ExpiryDate>2020-01-01T00:00:00</ExpiryDate></DeviceInfo>", 1), "the device expired on 2020-01-01"},
	} {
		bad := strings.ReplaceAll(c.bad, "<Data></Data>", "") // what policy() leaves open
		file := wrapXML("", keyPackage("A1", hotpURI, eight, data), bad, keyPackage("A3", hotpURI, eight, data))
		keys, err := readAll(strings.NewReader(file), Options{})
		if err != nil || len(keys) != 3 {
			t.Errorf("%s: %d keys, %v", c.name, len(keys), err)
			continue
		}
		if keys[0].Err != nil || keys[2].Err != nil || string(keys[2].Secret) != figureSeed {
			t.Errorf("%s: its neighbours suffer: %v, %v", c.name, keys[0].Err, keys[2].Err)
		}
		k := keys[1]
		if k.Err == nil || !strings.Contains(k.Err.Error(), c.says) || len(k.Secret) > 0 || k.Number != 2 || k.Serial != "A2" {
			t.Errorf("%s: %+v, want %s", c.name, k, c.says)
			continue
		}
		noSecret(t, k.Err)
	}
}

// Once a MAC was right the key is known to be, and a wrong MAC later is that
// package's own.
func TestMACThatIsWrongLaterRejectsOnlyItsKey(t *testing.T) {
	good := keyPackage("A1", hotpURI, eight, figure6Seed+counter0)
	for name, c := range map[string]struct{ bad, says string }{
		"altered":      {edit(t, good, "2lef1V", "2lef1W"), "the MAC of the seed is wrong: the seed was altered or damaged, and is not imported"},
		"no MAC":       {edit(t, good, "<ValueMAC>Su+NvtQfmvfJzF6bmQiJqoLRExc=\n  </ValueMAC>", ""), "has no ValueMAC, which RFC 6030"},
		"in clear":     {keyPackage("A1", hotpURI, eight, plainSeed), "in clear in a file that says its seeds are encrypted"},
		"other cipher": {edit(t, good, "#aes128-cbc", "#arcfour"), "AES, 3DES and Camellia, in CBC mode or as key wrap, and RSA can be read"},
		"both":         {edit(t, good, "<Secret>", "<Secret><PlainValue>MTIz</PlainValue>"), "both in clear and encrypted"},
	} {
		keys, err := readAll(strings.NewReader(wrapXML(figure6Header, good, c.bad, good)), figure6Options)
		if err != nil || len(keys) != 3 {
			t.Errorf("%s: %d keys, %v", name, len(keys), err)
			continue
		}
		if k := keys[1]; k.Err == nil || !strings.Contains(k.Err.Error(), c.says) || len(k.Secret) > 0 {
			t.Errorf("%s: %+v", name, k)
		}
		if string(keys[0].Secret) != figureSeed || string(keys[2].Secret) != figureSeed {
			t.Errorf("%s: its neighbours suffer", name)
		}
	}
}

// Under an option a key whose validity period is over is read, and noted; one
// whose period is still to come is not.
func TestExpiredKeyIsReadIfAllowed(t *testing.T) {
	key := func(serial, rule string) string {
		return strings.Replace(keyPackage(serial, hotpURI, eight, plainSeed), "</Data>", "</Data><Policy>"+rule+"</Policy>", 1)
	}
	file := wrapXML("", key("A1", "<ExpiryDate>2006-05-31T00:00:00Z</ExpiryDate>"), key("A2", "<StartDate>2030-01-01T00:00:00Z</StartDate>"), key("A3", "<ExpiryDate>2030-01-01T00:00:00Z</ExpiryDate>"))
	for allowed, want := range map[bool]string{false: "[false false true]", true: "[true false true]"} {
		r := NewReader(strings.NewReader(file), Options{Now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), AllowExpired: allowed})
		var good []bool
		for {
			k, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			good = append(good, k.Err == nil)
		}
		notes := fmt.Sprint(r.Notes())
		if fmt.Sprint(good) != want || strings.Contains(notes, `1, the first of them of serial "A1", the key expired on 2006-05-31`) != allowed {
			t.Errorf("allowed: %v: %v, %s", allowed, good, notes)
		}
		r.Close()
	}
}

// The end of a validity period that is still to come goes with the key: of several
// the first. One that is over, and read all the same, does not.
func TestValidityPeriodGoesWithTheKey(t *testing.T) {
	key := func(serial, device, rule string) string {
		p := strings.Replace(keyPackage(serial, hotpURI, eight, plainSeed), "</Data>", "</Data><Policy>"+rule+"</Policy>", 1)
		return strings.Replace(p, "</DeviceInfo>", device+"</DeviceInfo>", 1)
	}
	end := func(day string) string { return "<ExpiryDate>" + day + "</ExpiryDate>" }
	file := wrapXML("",
		key("A1", "", ""),
		key("A2", "", end("2030-01-01T10:00:00+02:00")),
		key("A3", end("2031-12-31"), ""),
		key("A4", end("2029-06-01T00:00:00Z"), end("2030-01-01T00:00:00Z")),
		key("A5", end("2030-01-01T00:00:00Z"), end("2029-06-01T00:00:00Z")),
		key("A6", "", end("2006-05-31T00:00:00Z")),
		key("A7", end("2006-05-31T00:00:00Z"), end("2028-01-01T00:00:00Z")),
	)
	want := []string{
		"A1 0001-01-01T00:00:00Z", "A2 2030-01-01T08:00:00Z", "A3 2031-12-31T23:59:59.999999999Z", "A4 2029-06-01T00:00:00Z", "A5 2029-06-01T00:00:00Z",
		"A6 0001-01-01T00:00:00Z", "A7 2028-01-01T00:00:00Z",
	}
	r := NewReader(strings.NewReader(file), Options{Now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), AllowExpired: true})
	defer r.Close()
	var got []string
	for {
		k, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil || k.Err != nil {
			t.Fatal(err, k)
		}
		got = append(got, k.Serial+" "+k.Expires.Format(time.RFC3339Nano))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
	if notes := fmt.Sprint(r.Notes()); !strings.Contains(notes, "validity period ends: 5, the first of them on 2028-01-01") || !strings.Contains(notes, "is over, read all the same: 2") {
		t.Error(notes)
	}
}

func TestPINIsLeftOutAndNamed(t *testing.T) {
	var list []string
	for i := range 15 {
		list = append(list, strings.Replace(keyPackage("A1", Namespace+":pin", "", `<Secret><PlainValue>MTIzNA==</PlainValue></Secret>`), "12345678", fmt.Sprint("pin", i), 1))
	}
	otp := strings.Replace(keyPackage("A1", hotpURI, eight, plainSeed), "</Data>", `</Data><Policy><PINPolicy PINKeyId="pin1" PINUsageMode="Local"/></Policy>`, 1)
	r := NewReader(strings.NewReader(wrapXML("", append([]string{otp}, list...)...)), Options{})
	defer r.Close()
	if k, err := r.Next(); err != nil || k.Err != nil || string(k.Secret) != figureSeed {
		t.Fatalf("%+v, %v", k, err)
	}
	if k, err := r.Next(); err != io.EOF {
		t.Fatalf("%+v, %v", k, err)
	}
	notes := r.Notes()
	if len(notes) != maxPINs+1 || notes[0] != `Key package 2, key "pin0", is the PIN of another key, not a token; it was left out.` ||
		notes[1] != `Key package 3, key "pin1", is the PIN of key "12345678", not a token; it was left out.` || notes[maxPINs] != "Further key packages that are PINs of other keys and were left out: 5." {
		t.Errorf("%q", notes)
	}
}

func TestContainersThatAreReadAllTheSame(t *testing.T) {
	plain := wrapXML("", keyPackage("A1", hotpURI, eight, plainSeed+counter0))
	totp := wrapXML("", keyPackage("A1", "urn:ietf:params:xml:ns:keyprov:pskc#TOTP", eight, plainSeed+"<Time><PlainValue>0</PlainValue></Time><TimeInterval><PlainValue>60</PlainValue></TimeInterval><TimeDrift><PlainValue>-4</PlainValue></TimeDrift>"))
	for name, c := range map[string]struct {
		file string
		want func(Key) bool
	}{
		"byte order mark":       {"\xef\xbb\xbf" + plain, nil},
		"CRLF":                  {strings.ReplaceAll(plain, "\n", "\r\n"), nil},
		"no declaration":        {plain[strings.Index(plain, "<KeyContainer"):], nil},
		"ASCII":                 {edit(t, plain, "UTF-8", "US-ASCII"), nil},
		"comment at the end":    {plain + "<!-- end --> \n<?pi?>", nil},
		"comment in the seed":   {edit(t, plain, "MTIz", "MTI<!-- x -->z"), nil},
		"CDATA":                 {edit(t, plain, "MTIzNDU2", "<![CDATA[MTIzNDU2]]>"), nil},
		"extensions":            {edit(t, plain, "<KeyPackage>", `<Extensions><x:a xmlns:x="urn:x">text<x:b/></x:a></Extensions><KeyPackage>`), nil},
		"totp":                  {totp, func(k Key) bool { return k.Algorithm == TOTP && k.Interval == 60 && k.Drift == -4 }},
		"no length":             {edit(t, plain, eight, ""), func(k Key) bool { return k.Digits == 6 }},
		"suite as an attribute": {edit(t, plain, "<AlgorithmParameters>", `<AlgorithmParameters Suite="HMAC-SHA256">`), func(k Key) bool { return k.Suite == "HMAC-SHA256" }},
		"suite of the key":      {edit(t, plain, "<Key ", `<Key Suite="hmac-sha256" `), func(k Key) bool { return k.Suite == "hmac-sha256" }},
		"suite named twice":     {edit(t, plain, "<AlgorithmParameters>", `<AlgorithmParameters Suite="SHA256"><Suite> SHA256 </Suite>`), func(k Key) bool { return k.Suite == "SHA256" }},
		"user of the key":       {edit(t, plain, "</Data>", "</Data><UserId>UID=jsmith,DC=net</UserId>"), func(k Key) bool { return k.User == "jsmith" }},
		"user of the device":    {edit(t, edit(t, plain, "</Data>", "</Data><UserId>DC=net</UserId>"), "</SerialNo>", "</SerialNo><UserId>carol</UserId>"), func(k Key) bool { return k.User == "carol" }},
		"foreign elements":      {edit(t, plain, "</Data>", `<x:More xmlns:x="urn:x">1</x:More></Data><x:More xmlns:x="urn:x">1</x:More>`), nil},
		"suite":                 {edit(t, plain, "<ResponseFormat", "<Suite>HMAC-SHA512</Suite><ResponseFormat"), func(k Key) bool { return k.Suite == "HMAC-SHA512" }},
		"serial from the key":   {edit(t, plain, "<SerialNo>A1</SerialNo>", ""), func(k Key) bool { return k.Serial == "12345678" }},
	} {
		keys, err := readAll(strings.NewReader(c.file), Options{})
		if err != nil || len(keys) != 1 || keys[0].Err != nil || string(keys[0].Secret) != figureSeed || c.want != nil && !c.want(keys[0]) {
			t.Errorf("%s: %+v, %v", name, keys, err)
		}
	}
}

// endless is a file of many gigabytes: a beginning, and then the same again
// and again. It fails the test when memory grows behind the reader.
type endless struct {
	t      *testing.T
	begin  string
	again  string
	n      int
	memory uint64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.begin != "" {
		n := copy(p, e.begin)
		e.begin = e.begin[n:]
		return n, nil
	}
	n := 0
	for len(p)-n >= len(e.again) {
		n += copy(p[n:], e.again)
	}
	if e.n += n; e.n > 4<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	if e.n%(1<<20) < len(p) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if e.memory == 0 {
			e.memory = m.HeapAlloc
		}
		if m.HeapAlloc > e.memory+(4<<20) {
			e.t.Fatalf("%d MB were read and %d MB of memory taken", e.n>>20, (m.HeapAlloc-e.memory)>>20)
		}
	}
	return n, nil
}

func TestHostileFilesTakeNoMemory(t *testing.T) {
	head := wrapXML("")
	head = head[:strings.Index(head, "</KeyContainer>")]
	for name, c := range map[string]struct{ begin, again string }{
		"elements":         {head + "<Extensions>", "<a/>"},
		"nesting":          {head + "<Extensions>", "<a>"},
		"text":             {head + "<KeyPackage>", "aaaaaaaa"},
		"white space":      {head, "        "},
		"attributes":       {head + "<KeyPackage ", `a="" `},
		"comment":          {head + "<!--", "aaaaaaaa"},
		"comments":         {head, "<!---->"},
		"key packages":     {head, keyPackage("A1", hotpURI, eight, plainSeed+counter0)},
		"DTD":              {"<!DOCTYPE x [", `<!ENTITY a "aaaa">`},
		"instruction":      {"<?xml ", "aaaaaaaa"},
		"before the root":  {"", "<!-- -->"},
		"after the root":   {head + "</KeyContainer>", "<!-- -->"},
		"signature":        {head + `<ds:Signature>`, "<ds:x>aaaa</ds:x>"},
		"text of one node": {head + `<KeyPackage><Key><Data>`, "<![CDATA[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]]>"},
	} {
		if _, err := drain(&endless{t: t, begin: c.begin, again: c.again}); err == nil {
			t.Errorf("%s: came to an end", name)
		}
	}
}

// drain reads a container and keeps nothing.
func drain(r io.Reader) (n int, err error) {
	rd := NewReader(r, Options{})
	defer rd.Close()
	for {
		if _, err := rd.Next(); err != nil {
			return n, err
		}
		n++
	}
}
