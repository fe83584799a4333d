package seeds

import (
	"bytes"
	"strings"
	"testing"

	"watchword/hsm"
	"watchword/tokens"
)

// safenetToken is a Token element; the application's elements are given.
func safenetToken(serial, application string) string {
	return "<Token serial=\"" + serial + "\">\n<CaseModel>7</CaseModel><Model>42</Model><ProductionDate>05/23/2011</ProductionDate><ProductName>eToken PASS</ProductName>\n" +
		"<Applications><Application ConnectorID=\"{00000000-1111-2222-3333-444444444444}\">" + application + "</Application></Applications></Token>\n"
}

func safenetFile(tokens ...string) string {
	return "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Tokens>\n" + strings.Join(tokens, "") + "</Tokens>\n"
}

const safenetSeed = "<Seed>" + rfcSeed + "</Seed>"

func TestSafeNetTokensAreRead(t *testing.T) {
	seed32 := strings.Repeat("a5", 32)
	for _, c := range []struct {
		application string
		o           Choices
		want        Record
	}{
		{safenetSeed + "<MovingFactor>1</MovingFactor>", Choices{}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6, Counter: 1}},
		{"\n <seed>\n" + strings.ToUpper(rfcSeed) + " \n</seed><movingfactor> 77 </movingfactor>", Choices{Digits: 8}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 8, Counter: 77}},
		{safenetSeed + "<Counter>5</Counter>", Choices{Type: tokens.HOTP}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6, Counter: 5}},
		{safenetSeed, Choices{Type: tokens.HOTP}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6}},
		{safenetSeed, Choices{Type: tokens.TOTP}, Record{Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30}},
		{safenetSeed, Choices{Type: tokens.TOTP, Period: 60, Hash: hsm.SHA256}, Record{Type: tokens.TOTP, Algorithm: hsm.SHA256, Digits: 6, Period: 60}},
		{"<Seed>" + seed32 + "</Seed><MovingFactor>0</MovingFactor>", Choices{Hash: hsm.SHA256}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA256, Digits: 6}},
		{"<Seed>" + seed32 + "</Seed><MovingFactor>0</MovingFactor>", Choices{Hash: hsm.SHA1}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6}},
		{"<Seed>" + rfcSeed[:20] + "<!-- x -->" + rfcSeed[20:] + "</Seed><MovingFactor>0</MovingFactor>", Choices{}, Record{Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6}},
	} {
		got, err := readAll(&safenetXML, strings.NewReader("\xef\xbb\xbf"+safenetFile(safenetToken(" 0004A1 ", c.application))), OpenOptions{Choices: c.o})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v", c.application, err)
			continue
		}
		r, w := got[0], c.want
		if r.Err != nil || r.Line != 3 || r.Key != 1 || r.Serial != "0004A1" || r.Model != "SafeNet eToken PASS" || r.Type != w.Type || r.Algorithm != w.Algorithm ||
			r.Digits != w.Digits || r.Period != w.Period || r.Counter != w.Counter || len(r.Seed) < 20 {
			t.Errorf("%s: %+v", c.application, r)
		}
	}
}

func TestSafeNetTokensThatAreRefused(t *testing.T) {
	const factor = "<MovingFactor>1</MovingFactor>"
	for _, c := range []struct {
		token, says string
		o           Choices
	}{
		{safenetToken("", safenetSeed+factor), "the token has no serial", Choices{}},
		{safenetToken("A 1", safenetSeed+factor), "character 2 of a serial", Choices{}},
		{safenetToken("A1", factor), "there is no seed", Choices{}},
		{safenetToken("A1", "<Seed/>"+factor), "the Seed element: a seed of 0 bytes", Choices{}},
		{safenetToken("A1", "<Seed>"+rfcSeed[1:]+"</Seed>"+factor), "an odd number of hex digits", Choices{}},
		{safenetToken("A1", "<Seed>x"+rfcSeed[1:]+"</Seed>"+factor), "character 1 is not a hex digit", Choices{}},
		{safenetToken("A1", "<Seed>123456</Seed>"+factor), "a seed of 3 bytes", Choices{}},
		{safenetToken("A1", "<Seed>"+strings.Repeat("ab", 129)+"</Seed>"+factor), "128 are the most", Choices{}},
		{safenetToken("A1", safenetSeed+safenetSeed+factor), "several seeds", Choices{}},
		{safenetToken("A1", safenetSeed+factor+factor), "several seeds or moving factors", Choices{}},
		{safenetToken("A1", safenetSeed+"</Application><Application>"+safenetSeed+factor), "several seeds", Choices{}},
		{safenetToken("A1", safenetSeed+"<MovingFactor>-1</MovingFactor>"), "the moving factor is not a number", Choices{}},
		{safenetToken("A1", safenetSeed+"<MovingFactor>4611686018427387904</MovingFactor>"), "a counter greater than", Choices{}},
		{safenetToken("A1", safenetSeed), "(--type)", Choices{}},
		{safenetToken("A1", safenetSeed+factor), "--type says totp", Choices{Type: tokens.TOTP}},
		{safenetToken("A1", "<Seed>"+strings.Repeat("a5", 32)+"</Seed>"+factor), "(--hash)", Choices{}},
		{safenetToken("A1", safenetSeed+factor+"<Cipher>AES</Cipher>"), `an element "Cipher", which is not understood`, Choices{}},
		{safenetToken("A1", safenetSeed+factor), "codes of 9 digits", Choices{Digits: 9}},
		{safenetToken(rfcSeed, "<Seed>0004A1</Seed>"+factor), "a seed of 3 bytes", Choices{}},
	} {
		got, err := readAll(&safenetXML, strings.NewReader(safenetFile(safenetToken("ok", safenetSeed+factor), c.token, safenetToken("ok2", safenetSeed+factor))), OpenOptions{Choices: c.o})
		if err != nil || len(got) != 3 {
			t.Errorf("%s: %d records, %v", c.token, len(got), err)
			continue
		}
		r := got[1]
		if r.Err == nil || !strings.Contains(r.Err.Error(), c.says) || len(r.Seed) > 0 || r.Line != 6 || r.Key != 2 || r.Serial == rfcSeed || strings.Contains(r.Err.Error(), rfcSeed[:8]) {
			t.Errorf("%s: %+v; want %s", c.token, r, c.says)
		}
	}
}

func TestSafeNetFilesThatAreRefused(t *testing.T) {
	good := safenetToken("A1", safenetSeed+"<MovingFactor>1</MovingFactor>")
	for _, c := range []struct{ file, says string }{
		{"", "line 1: there is no Tokens element in the file"},
		{"hello", "line 1: this is not XML"},
		{"<Token/>", `line 1: the root element is "Token", not Tokens`},
		{"<Tokens><EncryptedData/></Tokens>", `a child "EncryptedData", which is not known`},
		{"<Tokens>x</Tokens>", "there is text between the elements"},
		{safenetFile(strings.Replace(good, "<Model>", "x<Model>", 1)), "line 4: there is text between the elements"},
		{safenetFile(good) + "<Tokens/>", "something follows the end"},
		{safenetFile(good)[:200], "line 5: the file ends in the middle of an element"},
		{strings.Replace(safenetFile(good), "</Tokens>", "", 1), "the file ends in the middle of an element"},
		{safenetFile(good[:20] + good), "not well-formed XML"},
		{"<!DOCTYPE a [<!ENTITY b \"c\">]>" + safenetFile(good), "document type declaration"},
		{safenetFile(strings.Replace(good, rfcSeed, "<a/>", 1)), "an element that holds a value has elements in it"},
		{safenetFile(strings.Replace(good, rfcSeed, strings.Repeat("ab", 4096), 1)), "longer than any seed file has it"},
		{safenetFile(strings.Replace(good, "<Model>", strings.Repeat("<m>", 30), 1)), "nested more than 24 deep"},
		{safenetFile(strings.Repeat(" ", 70<<10)), "larger than 64 KB"},
		{strings.Replace(safenetFile(good), "utf-8", "utf-16", 1), "an encoding other than UTF-8"},
		{strings.Replace(strings.Replace(safenetFile(good), "utf-8", "ISO-8859-1", 1), "PASS", "P\xc4SS", 1), "an encoding other than UTF-8 and uses it"},
	} {
		_, err := readAll(&safenetXML, strings.NewReader(c.file), OpenOptions{})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), rfcSeed[:8]) {
			t.Errorf("%.60q: %v; want %s", c.file, err, c.says)
		}
	}
	// Cut off anywhere, the file is refused.
	file := safenetFile(good, strings.Replace(good, "A1", "A2", 1))
	for cut := range len(file) - len("\n") {
		if _, err := importText(newShelf(t), file[:cut], Options{Format: "safenet-xml", Partial: true}); err == nil {
			t.Fatalf("cut at %d it was imported", cut)
		}
	}
	if r, err := importText(newShelf(t), file, Options{}); err != nil || r.Created != 2 || r.Format != "safenet-xml" || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "for want of --digits: 2") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestSafeNetReaderWipesSeeds(t *testing.T) {
	s := openSafeNet(strings.NewReader(safenetFile(safenetToken("A1", safenetSeed+"<MovingFactor>1</MovingFactor>"))), OpenOptions{}).(*safenetReader)
	rec, err := s.Next()
	if err != nil || rec.Err != nil {
		t.Fatal(err)
	}
	seed := rec.Seed
	s.Close()
	if !bytes.Equal(seed, make([]byte, 20)) || bytes.Contains(s.text[:cap(s.text)], []byte("3132")) {
		t.Error("a seed stays behind")
	}
}

// A file of RSA's is told from others, and refused with the reason.
func TestSecurIDFilesAreRefused(t *testing.T) {
	const file = "<?xml version=\"1.0\"?>\n<TKNBatch>\n<TKNHeader><Version>0</Version></TKNHeader><TKN><SN>000</SN><Seed>AAAA</Seed></TKN></TKNBatch>"
	for _, f := range []string{file, "\xef\xbb\xbf" + file, "<x><TKNHeader/></x>"} {
		if _, err := importText(newShelf(t), f, Options{}); err == nil || !strings.Contains(err.Error(), "an algorithm of RSA's own, not from OATH") {
			t.Errorf("%.40q: %v", f, err)
		}
	}
}

func FuzzSafeNet(f *testing.F) {
	good := safenetToken("A1", safenetSeed+"<MovingFactor>1</MovingFactor>")
	for _, file := range []string{
		"", "<", "<Tokens/>", safenetFile(good), safenetFile(good, good), safenetFile(safenetToken("A1", safenetSeed+safenetSeed)), "<Tokens><Token/></Tokens>",
		"<Tokens><Token><Applications><Application><Seed>", "<!DOCTYPE a><Tokens/>", "<a:Tokens xmlns:a='b'><a:Token serial='x' a:serial='y'/></a:Tokens>",
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) { readable(t, &safenetXML, file) })
}
