package seeds

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"watchword/hsm"
	"watchword/tokens"
)

func TestKeyURIs(t *testing.T) {
	const secret = "secret=" + rfcBase32
	seed, _ := hex.DecodeString(rfcSeed)
	totp := Record{Line: 1, Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30, Seed: seed}
	with := func(f func(*Record)) Record { r := totp; f(&r); return r }
	alice := with(func(r *Record) {
		r.User, r.Model, r.Serial = "alice@example.com", "Example", labelSerial(tokens.TOTP, "Example", "alice@example.com")
	})
	for _, c := range []struct {
		uri  string
		want Record
	}{
		{"otpauth://totp/Example:alice@example.com?" + secret, alice},
		{"OTPAUTH://TOTP/Example%3A%20alice%40example.com?Secret=" + strings.ToLower(rfcBase32) + "&issuer=Example#fragment", alice},
		{"otpauth://totp/alice@example.com?issuer=Example&" + secret + "&image=https%3A%2F%2Fx", alice},
		{"otpauth://totp/Example:alice@example.com?" + secret + "&counter=5&algorithm=&digits=", alice}, // a counter means nothing here
		{"otpauth://totp/Old:alice@example.com?" + secret + "&issuer=Example", alice},                   // the parameter goes first
		{"otpauth://totp/a%20b?" + secret + "&algorithm=SHA256&digits=8&period=60", with(func(r *Record) {
			r.User, r.Serial, r.Algorithm, r.Digits, r.Period = "a b", labelSerial(tokens.TOTP, "", "a b"), hsm.SHA256, 8, 60
		})},
		{"otpauth://hotp/A+B:c?" + secret + "&counter=17&period=60", with(func(r *Record) {
			r.User, r.Model, r.Serial, r.Type, r.Period, r.Counter = "c", "A+B", labelSerial(tokens.HOTP, "A+B", "c"), tokens.HOTP, 0, 17
		})},
		{"otpauth://totp/x?issuer=A+B&" + secret, with(func(r *Record) {
			r.User, r.Model, r.Serial = "x", "A B", labelSerial(tokens.TOTP, "A B", "x")
		})},
		{"otpauth://totp/x?serial=TOTP0001&" + secret, with(func(r *Record) { r.User, r.Serial = "x", "TOTP0001" })},
		{"otpauth://totp/?serial=TOTP0001&" + secret, with(func(r *Record) { r.Serial = "TOTP0001" })},
		{"otpauth://totp/x%07?" + secret, with(func(r *Record) { r.Serial = labelSerial(tokens.TOTP, "", "x\a") })}, // no name of a user
	} {
		got, err := readAll(&otpauthList, strings.NewReader(c.uri+"\n"), OpenOptions{})
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: %v", c.uri, err)
		}
		if g, w := fmt.Sprintf("%+v", got[0]), fmt.Sprintf("%+v", c.want); g != w {
			t.Errorf("%s:\n got %s\nwant %s", c.uri, g, w)
		}
	}
}

func TestKeyURIsThatAreRefused(t *testing.T) {
	const secret = "secret=" + rfcBase32
	for _, c := range []struct{ uri, says string }{
		{"https://example.com/", "it is no otpauth:// URI"},
		{"otpauth-migration://offline?data=CgA", "--format otpauth-migration"},
		{"otpauth://steam/a?" + secret, "neither of type totp nor hotp"},
		{"otpauth://totp?" + secret, "neither of type totp nor hotp"},
		{"otpauth://totp/a?" + secret + "&encoder=steam", "the parameter encoder asks for codes"},
		{"otpauth://totp/a", "there is no parameter secret"},
		{"otpauth://totp/a?secret=", "there is no parameter secret"},
		{"otpauth://totp/a?secret=" + rfcBase32[:14], "a number of base32 digits that none can have"},
		{"otpauth://totp/a?secret=" + rfcBase32[:13], "a seed of 8 bytes; 10 are the least"},
		{"otpauth://totp/a?secret=" + rfcBase32[:8] + "%20" + rfcBase32[8:], "character 9 is not a base32 digit"},
		{"otpauth://totp/a?secret=" + rfcSeed, "is not a base32 digit"},
		{"otpauth://totp/a?" + secret + "&" + secret, "the parameter secret is there twice"},
		{"otpauth://totp/a?secret=&" + secret, "the parameter secret is there twice"},
		{"otpauth://totp/a?" + secret + "&algorithm=MD5", "the parameter algorithm is not"},
		{"otpauth://totp/a?" + secret + "&digits=10", "the parameter digits is not 6, 7 or 8"},
		{"otpauth://totp/a?" + secret + "&period=0", "the parameter period is not"},
		{"otpauth://totp/a?" + secret + "&period=86401", "the parameter period is not"},
		{"otpauth://hotp/a?" + secret, "the parameter counter, which an HOTP token must have"},
		{"otpauth://hotp/a?" + secret + "&counter=-1", "the parameter counter"},
		{"otpauth://hotp/a?" + secret + "&counter=4611686018427387904", "the parameter counter"},
		{"otpauth://totp/?" + secret, "no account in the label"},
		{"otpauth://totp/ACME:%20?" + secret, "no account in the label"},
		{"otpauth://totp/a%2?" + secret, "a percent sign is not followed"},
		{"otpauth://totp/a?" + secret + "&issuer=%zz", "parameter 2: a percent sign is not followed"},
		{"otpauth://totp/a?" + secret + "&serial=a%20b", "the parameter serial: character 2"},
	} {
		list, why := refusal(&otpauthList, c.uri+"\n", Choices{})
		if len(list) != 1 || !strings.Contains(why, c.says) || len(list[0].Seed) > 0 {
			t.Errorf("%s: %q, want %q", c.uri, why, c.says)
		}
	}
}

// The serial that a label gives is fixed: were it made otherwise, importing a
// list again would make each token twice.
func TestSerialOfALabelStays(t *testing.T) {
	if s := labelSerial(tokens.TOTP, "Example", "alice@example.com"); s != "O-d2f08e00d595a084" {
		t.Errorf("%s", s)
	}
	if err := tokens.ValidSerial(labelSerial(tokens.HOTP, "", "ä")); err != nil {
		t.Error(err)
	}
	// Of two of the same label, the second is refused: which of them is which?
	uri := "otpauth://totp/a?secret=%s\n"
	r, err := importText(newShelf(t), fmt.Sprintf(uri, rfcBase32)+fmt.Sprintf(uri, strings.ToLower(rfcBase32)), Options{})
	if err != nil || r.Published || !strings.Contains(r.Records[0].Reason, "occurs already earlier") {
		t.Errorf("%+v, %v", r, err)
	}
}

// A list of URIs and an export of the same accounts are the same tokens.
func TestKeyURIAndExportOfAnAccountHaveOneSerial(t *testing.T) {
	list, why := refusal(&otpauthList, "otpauth://totp/ACME:alice?secret="+rfcBase32+"\n", Choices{})
	if why != "" {
		t.Fatal(why)
	}
	r := list[0]
	got, why := refusal(&migrationExport, migrationURI(1, 0, 5, migrationAccount(&r, "ACME:alice", "ACME"))+"\n", Choices{})
	if why != "" || got[0].Serial != r.Serial || got[0].User != "alice" || got[0].Model != "ACME" || string(got[0].Seed) != string(r.Seed) {
		t.Errorf("%s %+v", why, got)
	}
}
