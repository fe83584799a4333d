package seeds

import (
	"bytes"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"watchword/hsm"
	"watchword/tokens"
)

// hotpRow is a traditional row of an OATH-HOTP key.
func hotpRow(time, public, digits, factor string) string {
	return "OATH-HOTP," + time + ",1," + public + ",," + rfcSeed + ",,,0,1,0," + digits + "," + factor + ",0,0,0,0,0\n"
}

func TestYubicoRowsOfOATHKeysAreHOTPTokens(t *testing.T) {
	const at = "24.12.20 18:01"
	for _, c := range []struct {
		row     string
		o       Choices
		serial  string
		public  string
		digits  int
		counter uint64
	}{
		{hotpRow(at, "ubhvcccccccd", "6", "0"), Choices{}, "ubhv00000002", "ubhv00000002", 6, 0},
		{hotpRow(at, "UBHVCCCCCCCD", "8", "1048560"), Choices{}, "ubhv00000002", "ubhv00000002", 8, 1048560},
		{hotpRow("12/24/20, 6:01 PM", "ubhvcccccccd", "6", "0"), Choices{}, "ubhv00000002", "ubhv00000002", 6, 0}, // a comma in the time
		{hotpRow("12/24/20, 6:01 PM", "ubhvcccccccd", "6", "0"), Choices{Digits: 8}, "ubhv00000002", "ubhv00000002", 6, 0},
		{strings.Replace(hotpRow(at, "ubhvcccccccd", "6", "0"), ",0,1,0,6", ",1,0,0,6", 1), Choices{}, "ub6f00000002", "ub6f00000002", 6, 0},
		{strings.Replace(hotpRow(at, "ubhvcccccccd", "6", "0"), ",0,1,0,6", ",0,0,1,6", 1), Choices{}, "ubhvcccccccd", "ubhvcccccccd", 6, 0},
		{strings.Replace(hotpRow(at, "cccccccccbcd", "6", "0"), ",0,1,0,6", ",0,0,0,6", 1), Choices{}, "000000000102", "000000000102", 6, 0},
		{"7654321,,0," + rfcSeed + ",,2020-12-24T18:01:02,\n", Choices{Type: tokens.HOTP, Digits: 6}, "7654321", "", 6, 0},
		{"7654321,,16," + strings.ToUpper(rfcSeed) + ",000000000000,2020-12-24T18:01:02,\r\n", Choices{Digits: 8}, "7654321", "", 8, 16},
		{"7654321,ubhvcccccccd,0," + rfcSeed + ",,2020-12-24T18:01:02,", Choices{Digits: 8}, "7654321", "ubhvcccccccd", 8, 0},
		{",ubhvcccccccd,0," + rfcSeed + ",,2020-12-24T18:01:02,\n", Choices{Digits: 6}, "ubhvcccccccd", "ubhvcccccccd", 6, 0},
	} {
		got, err := readAll(&yubicoLog, strings.NewReader("\xef\xbb\xbf# a comment\nLOGGING START,"+at+"\n\n"+c.row), OpenOptions{Choices: c.o})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %v", c.row, got, err)
			continue
		}
		r := got[0]
		if r.Err != nil || r.Line != 4 || r.Serial != c.serial || r.PublicID != c.public || r.Type != tokens.HOTP || r.Algorithm != hsm.SHA1 || r.Digits != c.digits ||
			r.Counter != c.counter || r.Period != 0 || r.Model != "Yubico" || string(r.Seed) != "12345678901234567890" {
			t.Errorf("%s: %+v", c.row, r)
		}
	}
}

func TestYubicoRowsThatAreRefused(t *testing.T) {
	const (
		at  = "24.12.20 18:01"
		iso = ",,2020-12-24T18:01:02,"
		aes = "00112233445566778899aabbccddeeff"
	)
	good := strings.TrimSuffix(hotpRow(at, "ubhvcccccccd", "6", "0"), "\n")
	for _, c := range []struct {
		row    string
		o      Choices
		serial string
		says   string
	}{
		{"Static Password," + at + ",1,,a1b2c3d4e5f6," + aes + ",,,0,0,0,0,0,0,0,0,0,0", Choices{}, "", "static password"},
		{"Static Password: Short," + at + ",2,,a1b2c3d4e5f6," + aes + ",,,0,0,0,0,0,0,0,0,0,0", Choices{}, "", "static password"},
		{"Static Password: Scan Code," + at + ",1,bbbbbbbbcccc,,,,,0,0,0,0,0,0,0,0,0,0", Choices{}, "", "static password"},
		{"Challenge-Response: HMAC-SHA1," + at + ",2,,," + rfcSeed + ",,,0,0,0,0,0,0,0,0,0,1", Choices{}, "", "programmed for challenge-response"},
		{"Challenge-Response: Yubico OTP," + at + ",2,,a1b2c3d4e5f6," + aes + ",,,0,0,0,0,0,0,0,0,0,0", Choices{}, "", "programmed for challenge-response"},
		{"7654321,,a1b2c3d4e5f6," + aes + iso, Choices{}, "7654321", "whether this is a Yubico OTP key without a public id or a challenge-response one"},
		{"Yubico OTP," + at + ",1,,a1b2c3d4e5f6," + aes + ",,,0,0,0,0,0,0,0,0,0,0", Choices{}, "", "neither a serial nor a public id"},
		{"7654321,vvhvcccccccd,," + aes + iso, Choices{}, "7654321", "the private id is not 12 hex digits"},
		{"7654321,vvhvcccccccx,a1b2c3d4e5f6," + aes + iso, Choices{}, "7654321", "the public id is not modhex"},
		{"7654321,vvhvcccccccd,a1b2c3d4e5f6," + aes[2:] + iso, Choices{}, "7654321", "the key is not 32 hex digits"},
		{",,a1b2c3d4e5f6," + aes + iso, Choices{}, "", "neither a serial nor a public id"},
		{"7654321,,," + aes + iso, Choices{}, "7654321", "static password"},
		{"7654321,,0," + rfcSeed + iso, Choices{}, "7654321", "whether this is an OATH-HOTP key or a challenge-response one (--type hotp), nor how many digits its codes have (--digits 6 or --digits 8)"},
		{"7654321,,0," + rfcSeed + iso, Choices{Digits: 6}, "7654321", "whether this is an OATH-HOTP key"},
		{"7654321,,0," + rfcSeed + iso, Choices{Digits: 6, Type: tokens.TOTP}, "7654321", "--type says"},
		{"7654321,,16," + rfcSeed + iso, Choices{}, "7654321", "the log does not say how many digits"},
		{"7654321,,16," + rfcSeed + iso, Choices{Digits: 7}, "7654321", "YubiKeys make codes of 6 or 8"},
		{"7654321,,1x," + rfcSeed + iso, Choices{Digits: 6}, "7654321", "the moving factor is not a number"},
		{"7654321,,16," + rfcSeed[1:] + iso, Choices{Digits: 6}, "7654321", "an odd number of hex digits"},
		{"7654321,,16," + rfcSeed[:10] + iso, Choices{Digits: 6}, "7654321", "a seed of 5 bytes"},
		{"7654321,,16,x" + rfcSeed[1:] + iso, Choices{Digits: 6}, "7654321", "character 1 is not a hex digit"},
		{"7654321,,16," + strings.Repeat("ab", MaxSeed+1) + iso, Choices{Digits: 6}, "7654321", "128 are the most"},
		{"A654321,,16," + rfcSeed + iso, Choices{Digits: 6}, "", "column 1 (serial): it is not a number"},
		{strings.Replace(good, ",ubhvcccccccd,", ",,", 1), Choices{}, "", "names no serial for this key"},
		{strings.Replace(good, "cccd,", "cccx,", 1), Choices{}, "", "the public id is not modhex"},
		{strings.Replace(good, ",6,0,0", ",7,0,0", 1), Choices{}, "ubhv00000002", "a number of digits other than 6 and 8"},
		{strings.Replace(good, ",1,ub", ",3,ub", 1), Choices{}, "", "the slot is neither 1 nor 2"},
		{good[:len(good)-2], Choices{}, "", "the row has 17 columns"},
		{good[:40], Choices{}, "", "columns of the traditional format have 18"},
		{good + ",,,,,,,,,", Choices{}, "", "the row has 23 columns"},
		{"Unknown programming mode,1,2,3", Choices{}, "", "neither of the traditional nor of the Yubico format"},
		{"A1," + rfcSeed, Choices{}, "", "neither of the traditional nor of the Yubico format"},
	} {
		got, err := readAll(&yubicoLog, strings.NewReader(c.row), OpenOptions{Choices: c.o})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %v", c.row, got, err)
			continue
		}
		r := got[0]
		if r.Err == nil || !strings.Contains(strings.ReplaceAll(r.Err.Error(), "columns; those", "columns"), c.says) || r.Serial != c.serial || r.Line != 1 || len(r.Seed) > 0 || len(r.PrivateID) > 0 ||
			strings.Contains(r.Err.Error(), rfcSeed[:8]) || strings.Contains(r.Err.Error(), aes[:8]) {
			t.Errorf("%s: %+v; want %s", c.row, r, c.says)
		}
	}
}

func TestYubicoRowsWithoutAKeyAreCounted(t *testing.T) {
	const flags = ",,,,,,0,0,0,0,0,0,0,0,0,0"
	r, err := importText(newShelf(t), "LOGGING START,1\nConfiguration Update,1,1"+flags+"\nConfiguration Swap,1,2"+flags+"\n7654321,,,,000000000000,2020-12-24T18:01:02,\n"+
		hotpRow("1", "ubhvcccccccd", "6", "0"), Options{})
	if err != nil || r.Created != 1 || r.Format != "yubico" || len(r.Notes) != 2 || !strings.Contains(r.Notes[0], "hold no key: 3") || !strings.Contains(r.Notes[1], "before each code: 1") {
		t.Errorf("%+v, %v", r, err)
	}
}

// Rows of Yubico OTP keys, in both formats, are tokens with the ids and the key of
// the row; the codes that libyubikey makes of these are theirs (see the tokens room).
func TestYubicoOTPRowsAreReadWhole(t *testing.T) {
	const aes = "00112233445566778899AABBCCDDEEFF"
	for _, c := range []struct{ row, serial, public string }{
		{"7654321,VVhvcccccccd,a1b2c3d4e5f6," + aes + ",,2020-12-24T18:01:02,", "7654321", "vvhvcccccccd"},
		{",vvhvcccccccd,A1B2C3D4E5F6," + aes + ",,2020-12-24T18:01:02,", "vvhvcccccccd", "vvhvcccccccd"},
		{"Yubico OTP,24.12.20 18:01,2,vvhvcccccccd,a1b2c3d4e5f6," + aes + ",,,0,0,0,0,0,0,0,0,0,0", "vvhvcccccccd", "vvhvcccccccd"},
		{"Yubico OTP,12/24/20, 6:01 PM,2,vvhv,a1b2c3d4e5f6," + strings.ToLower(aes) + ",,,0,0,0,0,0,0,0,0,0,0", "vvhv", "vvhv"},
	} {
		y := openYubico(strings.NewReader(c.row), OpenOptions{}).(*yubicoReader)
		r, err := y.Next()
		if err != nil || r.Err != nil {
			t.Fatal(c.row, err, r)
		}
		if r.Serial != c.serial || r.PublicID != c.public || r.Type != tokens.YubicoOTP || r.Algorithm != hsm.AES128 || r.Digits != 0 || r.Period != 0 || r.Counter != 0 ||
			!bytes.Equal(r.PrivateID, []byte{0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6}) || len(r.Seed) != 16 || r.Seed[15] != 0xff {
			t.Errorf("%s: %+v", c.row, r)
		}
		private, seed := r.PrivateID, r.Seed
		y.Close()
		if !bytes.Equal(private, make([]byte, 6)) || !bytes.Equal(seed, make([]byte, 16)) || y.typed != 0 {
			t.Error("the private id or the key is not wiped, or it counts as an identifier that is in the way")
		}
	}
}

// The core gets what the row says, in memory that the chunk wipes.
func TestYubicoOTPRowsReachTheCoreWhole(t *testing.T) {
	c := newChunk()
	y := openYubico(strings.NewReader("7654321,vvhvcccccccd,a1b2c3d4e5f6,00112233445566778899aabbccddeeff,,2020-12-24T18:01:02,\n7654322,ubhvcccccccd,16,"+rfcSeed+",,2020-12-24T18:01:02,\n"), OpenOptions{Choices: Choices{Digits: 6}})
	records := 0
	if err := fillChunk(c, y, newSerials(), &records); err != io.EOF || len(c.tokens) != 2 {
		t.Fatal(err, len(c.tokens))
	}
	y.Close()
	n, hotp := c.tokens[0], c.tokens[1]
	if n.Type != tokens.YubicoOTP || n.PublicID != "vvhvcccccccd" || hex.EncodeToString(n.PrivateID) != "a1b2c3d4e5f6" || hex.EncodeToString(n.Seed) != "00112233445566778899aabbccddeeff" {
		t.Errorf("%+v", n)
	}
	if hotp.PublicID != "" || hotp.PrivateID != nil {
		t.Errorf("an HOTP token has the ids of a Yubico OTP one: %+v", hotp)
	}
	c.wipe()
	if !bytes.Equal(n.PrivateID, make([]byte, 6)) || !bytes.Equal(n.Seed, make([]byte, 16)) {
		t.Error("the private id or the key is not wiped with the chunk")
	}
}

// Yubico's containers hold tokens that make Yubico OTPs.
func TestYubicosContainersHoldYubicoOTPTokens(t *testing.T) {
	container := func(user string) string {
		return `<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc"><KeyPackage><DeviceInfo><Manufacturer>oath.Yubico</Manufacturer><SerialNo>283599</SerialNo></DeviceInfo>` +
			`<Key Id="A1" Algorithm="http://www.yubico.com/#yubikey-aes"><AlgorithmParameters><ResponseFormat Encoding="ALPHANUMERIC" Length="44"/></AlgorithmParameters>` +
			`<Data><Secret><PlainValue>K34VFiiu0qar9xWICc9PPA==</PlainValue></Secret></Data><UserId>` + user + `</UserId></Key></KeyPackage></KeyContainer>`
	}
	for user, public := range map[string]string{"CN=ekhgjhbctrgn, UID=ca62baca62ba": "ekhgjhbctrgn", "UID=CA62BACA62BA,CN=EKHG": "ekhg"} {
		list, err := readAll(&pskcXML, strings.NewReader(container(user)), OpenOptions{})
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		r := list[0]
		if r.Err != nil || r.Type != tokens.YubicoOTP || r.Algorithm != hsm.AES128 || r.Serial != "283599" || r.PublicID != public || hex.EncodeToString(r.PrivateID) != "ca62baca62ba" ||
			hex.EncodeToString(r.Seed) != "2b7e151628aed2a6abf7158809cf4f3c" || r.Digits != 0 || r.Period != 0 {
			t.Errorf("%s: %+v", user, r)
		}
	}
	for _, user := range []string{"CN=ekhgjhbctrgx, UID=ca62baca62ba", "CN=ekh, UID=ca62baca62ba"} {
		list, err := readAll(&pskcXML, strings.NewReader(container(user)), OpenOptions{})
		if err != nil || len(list) != 1 || list[0].Err == nil || !strings.Contains(list[0].Err.Error(), "public id is not modhex") || len(list[0].Seed) > 0 || len(list[0].PrivateID) > 0 {
			t.Errorf("%s: %+v, %v", user, list, err)
		}
	}
}

func TestYubicoLogIsTold(t *testing.T) {
	for file, want := range map[string]string{
		"LOGGING START,24.12.20 18:01\nx":                                    "line 1 says that logging started",
		"# x\r\n" + hotpRow("1", "", "6", "0"):                               "line 2 has the columns of the traditional format",
		"\n\n7654321,,0," + rfcSeed + ",,2020-12-24T18:01:02,\n":             "line 3 has the columns of the Yubico format",
		",vvhvcccccccd,a1b2c3d4e5f6," + rfcSeed + ",,2020-12-24T18:01:02,\n": "line 1 has the columns of the Yubico format",
	} {
		if f, reason, err := Detect([]byte(file), true); err != nil || f != &yubicoLog || !strings.HasSuffix(reason, want) {
			t.Errorf("%q: %v, %q, %v", file, f, reason, err)
		}
	}
	if is, why := detectYubico([]byte(csvOf("A1")), true); is {
		t.Error(why)
	}
}

func FuzzYubico(f *testing.F) {
	for _, file := range []string{
		"", ",", "LOGGING START,1\n", hotpRow("1", "ubhvcccccccd", "6", "0"), "7654321,,0," + rfcSeed + ",,2020-12-24T18:01:02,\n", "7654321,,,,,2020-12-24T18:01:02,",
		"7654321,vvhvcccccccd,a1b2c3d4e5f6,00112233445566778899aabbccddeeff,,2020-12-24T18:01:02,\n", "Static Password: Scan Code,1,1,bbbb,,,,,0,0,0,0,0,0,0,0,0,0",
		"Yubico OTP" + strings.Repeat(",", 17), strings.Repeat(",", 40),
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) { readable(t, &yubicoLog, file) })
}
