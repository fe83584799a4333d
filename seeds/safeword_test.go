package seeds

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

const safewordHeader = "# ===== SafeWord Authenticator Records $Version: 100$ =====\n"

// safewordToken is an entry with the given token data.
func safewordToken(serial, data string) string {
	return "dn: sccAuthenticatorId=" + serial + "\nobjectclass: sccCompatibleToken\nsccAuthenticatorId: " + serial + "\nsccTokenType: eToken-PASS\n" +
		"sccTokenData: " + data + "\nsccSignature:MC0CFQCsignature==\n\n"
}

const (
	safewordEvent = "sccKey=" + rfcSeed + ";sccMode=E;sccPwLen=6;sccVer=6.20;"
	safewordTime  = "sccKey=" + rfcSeed + ";sccMode=T;sccPwLen=8;sccVer=6.20;sccTick=60;sccPrTime=2012/02/29 23:59:59;"
)

func TestSafeWordTokensAreRead(t *testing.T) {
	utc := func(y int, m time.Month, d, h int) time.Time { return time.Date(y, m, d, h, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		data  string
		o     Choices
		want  Record
		drift int
	}{
		{safewordEvent, Choices{}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6}, 0},
		{strings.ToLower(safewordEvent), Choices{Digits: 8, Hash: hsm.SHA256}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA256, Digits: 6}, 0},
		{" sccKey = " + rfcSeed + " ; sccMode=E ", Choices{Digits: 8}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 8}, 0},
		{safewordEvent + "crypto=HmacSHA256", Choices{}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA256, Digits: 6}, 0},
		{safewordTime, Choices{}, Record{Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 8, Period: 60, Origin: 946684800}, -15778080},
		{strings.Replace(safewordTime, "Tick=60", "Tick=30", 1), Choices{}, Record{Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 8, Period: 30, Origin: 946684800}, -31556160},
		{strings.Replace(safewordTime, "sccTick=60;", "", 1), Choices{Period: 30}, Record{Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 8, Period: 30, Origin: 946684800}, -31556160},
		{safewordTime, Choices{TimeOrigin: utc(1999, 12, 31, 23)}, Record{Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 8, Period: 60, Origin: 946681200}, -15778020},
		{safewordTime, Choices{TimeOrigin: time.Unix(0, 0)}, Record{Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 8, Period: 60}, 0},
		{"sccKey=" + rfcSeed + ";sccMode=T;sccPwLen=6;sccTick=30", Choices{TimeOrigin: utc(2000, 1, 1, 0)}, Record{Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30, Origin: 946684800}, -31556160},
		{"sccKey=" + rfcSeed[:8] + "\n " + rfcSeed[8:] + ";sccMode=E\r\n ;sccPwLen=6", Choices{}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6}, 0}, // folded
	} {
		got, err := readAll(&safewordDAT, strings.NewReader(safewordHeader+"\n"+safewordToken("T-1", c.data)), OpenOptions{Choices: c.o})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %v", c.data, got, err)
			continue
		}
		r, w := got[0], c.want
		if r.Err != nil || r.Line != 3 || r.Serial != "T-1" || r.Model != "eToken-PASS" || r.Type != w.Type || r.Algorithm != w.Algorithm || r.Digits != w.Digits ||
			r.Period != w.Period || r.Origin != w.Origin || r.drift() != c.drift || string(r.Seed) != "12345678901234567890" {
			t.Errorf("%s: %+v, drift %d", c.data, r, r.drift())
		}
	}
}

func TestSafeWordTokensThatAreRefused(t *testing.T) {
	good := safewordToken("T1", safewordEvent)
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	data := func(d string) string { return safewordToken("T1", d) }
	for _, c := range []struct {
		entry, says string
		o           Choices
	}{
		{with("sccAuthenticatorId: T1\n", ""), "there is no sccAuthenticatorId", Choices{}},
		{with("sccTokenData", "sccOther"), "there is no sccTokenData", Choices{}},
		{with("\nsccTokenData", "\nsccAuthenticatorId: T2\nsccTokenData"), "several sccAuthenticatorId", Choices{}},
		{with("\nsccSignature", "\nsccTokenData: x=y\nsccSignature"), "several sccAuthenticatorId or sccTokenData", Choices{}},
		{with("Id=T1", "Id=T2,o=x"), "its dn names another", Choices{}},
		{with("sccTokenData: ", "sccTokenData:: "), "base64", Choices{}},
		{with("objectclass: ", "objectclass "), "has no colon", Choices{}},
		{strings.ReplaceAll(good, "T1", "T 1"), "character 2 of a serial", Choices{}},
		{data(""), "the token data has no sccKey", Choices{}},
		{data("sccMode=E;sccPwLen=6"), "the token data has no sccKey", Choices{}},
		{data("sccKey=;sccMode=E;sccPwLen=6"), "sccKey: a seed of 0 bytes", Choices{}},
		{data("sccKey=" + rfcSeed + ";sccPwLen=6"), "the token data has no sccMode", Choices{}},
		{data(strings.Replace(safewordEvent, "Mode=E", "Mode=S", 1)), "sccMode is neither E", Choices{}},
		{data("sccKey=" + rfcSeed + ";sccMode=E"), "(sccPwLen, or --digits)", Choices{}},
		{data(strings.Replace(safewordEvent, "Len=6", "Len=x", 1)), "sccPwLen is not a number", Choices{}},
		{data(strings.Replace(safewordEvent, "Len=6", "Len=10", 1)), "codes of 10 digits", Choices{}},
		{data(safewordEvent + "sccMode=E"), "has sccMode twice", Choices{}},
		{data(safewordEvent + "sccEvents=17"), "the token data has sccEvents, which is not understood", Choices{}},
		{data(safewordEvent + rfcSeed), "entry 5 of the token data is not a name and a value", Choices{}},
		{data(safewordEvent + rfcSeed + "=1"), "entry 5 of the token data is not a name and a value", Choices{}},
		{data(safewordEvent + "crypto=HmacMD5"), "crypto names no hash", Choices{}},
		{data("sccKey=(aes:" + rfcSeed + ");sccMode=E;sccPwLen=6"), "encrypted under a key of the SafeWord server", Choices{}},
		{data("sccKey=x" + rfcSeed + ";sccMode=E;sccPwLen=6"), "sccKey: character 1", Choices{}},
		{data("sccKey=1234;sccMode=E;sccPwLen=6"), "a seed of 2 bytes", Choices{}},
		{data(strings.Replace(safewordTime, "sccTick=60;", "", 1)), "(sccTick, or --period)", Choices{}},
		{data(strings.Replace(safewordTime, "=60;", "=0;", 1)), "sccTick is not a number", Choices{}},
		{data(strings.Replace(safewordTime, "=60;", "=100000;", 1)), "does not fall on the beginning of a time step", Choices{}},
		{data(strings.Replace(safewordTime, "2012/02/29", "2012/02/30", 1)), "sccPrTime is not a time", Choices{}},
		{data("sccKey=" + rfcSeed + ";sccMode=T;sccPwLen=6;sccTick=30"), "(--time-origin)", Choices{}},
		{data(safewordTime), "(--time-origin) does not fall on the beginning of a time step of 60 s", Choices{TimeOrigin: time.Unix(946684830, 0)}},
		{data(safewordTime), "too far from 1970", Choices{TimeOrigin: time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		{data(safewordEvent + strings.Repeat(";", 3000) + "\n " + strings.Repeat(";", 3000)), "longer than any is", Choices{}},
	} {
		file := safewordHeader + safewordToken("ok", safewordEvent) + c.entry + safewordToken("ok2", safewordEvent)
		got, err := readAll(&safewordDAT, strings.NewReader(file), OpenOptions{Choices: c.o})
		if err != nil || len(got) != 3 || got[0].Err != nil || got[2].Err != nil {
			t.Errorf("%s: %d records, %v", c.entry, len(got), err)
			continue
		}
		r := got[1]
		if r.Err == nil || !strings.Contains(r.Err.Error(), c.says) || len(r.Seed) > 0 || r.Line != 9 || strings.Contains(r.Err.Error(), rfcSeed[:8]) {
			t.Errorf("%s: %+v; want %s", c.entry, r, c.says)
		}
	}
}

// A file that was cut off never yields a token of another seed or hash, and
// what is no token is counted.
func TestSafeWordFileCutOffIsNoticed(t *testing.T) {
	const user = "dn: sccUserId=alice\nobjectclass: sccUser\nsccUserId: alice\n\n"
	file := safewordHeader + user + safewordToken("T1", safewordEvent) + safewordToken("T2", "sccMode=E;sccPwLen=6;crypto=HmacSHA256;sccKey="+rfcSeed)
	for cut := range len(file) {
		got, err := readAll(&safewordDAT, strings.NewReader(file[:cut]), OpenOptions{})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		for _, r := range got {
			if r.Err == nil && (string(r.Seed) != "12345678901234567890" || r.Algorithm != map[string]hsm.Hash{"T1": hsm.SHA1, "T2": hsm.SHA256}[r.Serial]) {
				t.Fatalf("cut at %d: %+v", cut, r)
			}
		}
	}
	s := newShelf(t)
	s.seed = []byte("12345678901234567890")
	r, err := importText(s, file, Options{})
	if err != nil || r.Created != 2 || r.Format != "safeword" || len(r.Notes) != 2 || !strings.Contains(r.Notes[0], "not checked: 2") || !strings.Contains(r.Notes[1], "left out: 1") {
		t.Errorf("%+v, %v", r, err)
	}
	if f, reason, err := Detect([]byte(file), true); err != nil || f.Name != "safeword" || !strings.Contains(reason, "line 6 has the attribute dn: sccAuthenticatorId") {
		t.Errorf("%q, %v", reason, err)
	}
}

func TestSafeWordReaderWipesSeeds(t *testing.T) {
	s := openSafeWord(strings.NewReader(safewordToken("T1", safewordEvent)), OpenOptions{}).(*safewordReader)
	rec, err := s.Next()
	if err != nil || rec.Err != nil {
		t.Fatal(err)
	}
	seed, data := rec.Seed, s.entry.data
	s.Close()
	if !bytes.Equal(seed, make([]byte, 20)) || bytes.Contains(data, []byte("31")) || bytes.Contains(s.lines.buf, []byte(rfcSeed)) {
		t.Error("a seed stays behind")
	}
}

func FuzzSafeWord(f *testing.F) {
	for _, file := range []string{
		"", "\n", "#", " x", "dn: a\n b", safewordHeader + safewordToken("T1", safewordEvent) + safewordToken("T2", safewordTime), "sccTokenData: sccKey=(aes:00);",
		"sccAuthenticatorId: T1\nsccTokenData: ;;=;a=b;", "sccAuthenticatorId:: T1\n", "sccTokenData: " + strings.Repeat("x", 4000) + "\n " + strings.Repeat("x", 4000),
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) { readable(t, &safewordDAT, file) })
}
