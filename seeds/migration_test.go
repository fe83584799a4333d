package seeds

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"watchword/hsm"
	"watchword/tokens"
)

// migrationURI is a QR code of an export.
func migrationURI(size, index, id uint64, accounts ...[]byte) string {
	return migrationScheme + "offline?data=" + base64.StdEncoding.EncodeToString(migrationPayload(size, index, id, accounts...))
}

func migrationPayload(size, index, id uint64, accounts ...[]byte) (m []byte) {
	for _, a := range accounts {
		m = protowire.AppendBytes(protowire.AppendTag(m, 1, protowire.BytesType), a)
	}
	for n, v := range []uint64{2: 2, 3: size, 4: index, 5: id} {
		if n >= 2 {
			m = protowire.AppendVarint(protowire.AppendTag(m, protowire.Number(n), protowire.VarintType), v)
		}
	}
	return m
}

func account(name string) []byte {
	r := Record{Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Seed: []byte("12345678901234567890")}
	return migrationAccount(&r, name, "ACME")
}

// replaced is an account with one field that is a number set otherwise, as
// protocol buffers have it: the last one counts.
func replaced(field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(account("a"), field, protowire.VarintType), v)
}

func TestExportIsReadOnlyIfAllItsCodesAreThere(t *testing.T) {
	one, two, three := migrationURI(3, 0, 9, account("a"), account("b")), migrationURI(3, 1, 9, account("c")), migrationURI(3, 2, 9, account("d"))
	other := migrationURI(1, 0, 10, account("e"))
	for _, c := range []struct {
		lines []string
		n     int
		says  string
	}{
		{[]string{one, two, three}, 4, ""},
		{[]string{"# scanned", three, "", one, other, two}, 5, ""},
		{[]string{one, three}, 3, "line 1: the export that begins here has 3 QR codes, and number 2 of them is missing"},
		{[]string{other, two, three}, 3, "line 2: the export that begins here has 3 QR codes, and number 1 of them is missing"},
		{[]string{one}, 2, "number 2 of them is missing"},
		{[]string{one, one, two, three}, 2, "line 2: QR code 1 of the export that began in line 1 is there twice"},
		{[]string{one, migrationURI(2, 1, 9, account("c"))}, 2, "line 2: the export that began in line 1 has another number of QR codes"},
		{[]string{migrationURI(3, 3, 9, account("a"))}, 0, "line 1: the data name an impossible number of QR codes"},
		{[]string{migrationURI(0, 0, 9, account("a"))}, 0, "impossible number"},
		{[]string{migrationURI(1<<40, 0, 9, account("a"))}, 0, "impossible number"},
		{[]string{other, "otpauth://totp/a?secret=" + rfcBase32}, 1, "line 2: it is no otpauth-migration:// URI"},
	} {
		list, why := refusal(&migrationExport, strings.Join(c.lines, "\n")+"\n", Choices{})
		if len(list) != c.n || !strings.Contains(why, c.says) || (why == "") != (c.says == "") {
			t.Errorf("%d lines: %d records, %q, want %d, %q", len(c.lines), len(list), why, c.n, c.says)
		}
	}
	// What was read before the end is found missing is not imported either.
	s := newShelf(t)
	if _, err := importText(s, one+"\n"+two+"\n", Options{Partial: true}); !errors.Is(err, tokens.ErrInvalid) || len(s.have) != 0 {
		t.Errorf("%v, %d tokens", err, len(s.have))
	}
}

func TestAccountsOfAnExport(t *testing.T) {
	hotp := slices.Clip(replaced(6, 1))
	for _, c := range []struct {
		name    string
		account []byte
		choices Choices
		says    string
		want    func(*Record) bool
	}{
		{"TOTP", account("ACME:alice"), Choices{}, "", func(r *Record) bool {
			return r.Type == tokens.TOTP && r.Period == 30 && r.User == "alice" && r.Model == "ACME" && r.Algorithm == hsm.SHA1 && r.Digits == 6 && r.Key == 1 && r.Line == 1
		}},
		{"HOTP", protowire.AppendVarint(protowire.AppendTag(hotp, 7, protowire.VarintType), 41), Choices{}, "", func(r *Record) bool { return r.Type == tokens.HOTP && r.Counter == 41 && r.Period == 0 }},
		{"SHA-512, 8 digits", protowire.AppendVarint(protowire.AppendTag(replaced(4, 3), 5, protowire.VarintType), 2), Choices{}, "", func(r *Record) bool { return r.Algorithm == hsm.SHA512 && r.Digits == 8 }},
		{"nothing of hash and digits", protowire.AppendVarint(protowire.AppendTag(replaced(4, 0), 5, protowire.VarintType), 0), Choices{}, "", func(r *Record) bool { return r.Algorithm == hsm.SHA1 && r.Digits == 6 }},
		{"MD5", replaced(4, 4), Choices{}, "the hash is MD5", nil},
		{"a hash of the future", replaced(4, 5), Choices{}, "the hash is none that is known", nil},
		{"digits of the future", replaced(5, 3), Choices{}, "the number of digits is none that is known", nil},
		{"a type of the future", replaced(6, 3), Choices{}, "the type is neither TOTP nor HOTP", nil},
		{"no type", replaced(6, 0), Choices{}, "(--type totp or --type hotp)", nil},
		{"no type, but one is chosen", replaced(6, 0), Choices{Type: tokens.TOTP}, "", func(r *Record) bool {
			return r.Type == tokens.TOTP && r.Serial == labelSerial(tokens.TOTP, "ACME", "a")
		}},
		{"a negative counter", protowire.AppendVarint(protowire.AppendTag(hotp, 7, protowire.VarintType), ^uint64(0)), Choices{}, "the counter is negative", nil},
		{"no name", account(""), Choices{}, "no account in the label", nil},
		{"two secrets", protowire.AppendBytes(protowire.AppendTag(account("a"), 1, protowire.BytesType), make([]byte, 20)), Choices{}, "more than one secret", nil},
		{"no secret", protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "a"), Choices{Type: tokens.TOTP}, "a seed of 0 bytes", nil},
		{"a long secret", protowire.AppendString(protowire.AppendTag(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), make([]byte, 129)), 2, protowire.BytesType), "a"), Choices{Type: tokens.TOTP}, "a seed of 129 bytes", nil},
	} {
		list, why := refusal(&migrationExport, migrationURI(1, 0, 1, c.account)+"\n", c.choices)
		if len(list) != 1 || !strings.Contains(why, c.says) || (why == "") != (c.says == "") || c.want != nil && !c.want(&list[0]) {
			t.Errorf("%s: %q, %+v", c.name, why, list)
		}
	}
}

func TestDamagedExportIsRefused(t *testing.T) {
	whole := migrationPayload(1, 0, 77, account("alice"), account("bob"))
	uri := func(payload []byte) string {
		return migrationScheme + "offline?data=" + base64.StdEncoding.EncodeToString(payload)
	}
	for _, end := range []string{"\n", ""} {
		if list, why := refusal(&migrationExport, uri(whole)+end, Choices{}); len(list) != 2 || why != "" {
			t.Fatalf("whole: %s", why)
		}
	}
	// The version, and all behind it, is what the export ends with: cut off before
	// it, nothing of it says so, but the line's missing end.
	for cut := range whole {
		list, why := refusal(&migrationExport, uri(whole[:cut]), Choices{})
		if cut >= len(whole)-4 {
			continue // only the batch's id is lost, or its index, and it has but one code
		}
		if why == "" && cut > 0 || len(list) > 0 {
			t.Errorf("cut at %d of %d: %q", cut, len(whole), why)
		}
	}
	text := uri(whole)
	for cut := len(migrationScheme); cut < len(text)-12; cut++ {
		if list, why := refusal(&migrationExport, text[:cut], Choices{}); why == "" || len(list) > 0 {
			t.Errorf("the URI cut at %d of %d: %q", cut, len(text), why)
		}
	}
	for _, c := range []struct{ uri, says string }{
		{migrationScheme + "offline", "there are no data"},
		{migrationScheme + "offline?data=%4", "a percent sign"},
		{migrationScheme + "offline?data=!!!!", "not base64"},
		{uri([]byte("\x0b\x0c")), "damaged"}, // a group
		{uri([]byte("\x00\x00")), "damaged"}, // field 0
		{uri([]byte("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")), "damaged"},
		{uri([]byte("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a")), "damaged"},
		{uri([]byte("\x10\x03\x18\x01")), "a version that is not known"},
	} {
		if _, why := refusal(&migrationExport, c.uri+"\n", Choices{}); !strings.HasPrefix(why, "line 1: ") || !strings.Contains(why, c.says) {
			t.Errorf("%s: %q, want %q", c.uri, why, c.says)
		}
	}
}

func TestExportIsWiped(t *testing.T) {
	rd := openMigration(strings.NewReader(migrationURI(1, 0, 1, account("a"), account("b"))+"\n"), OpenOptions{}).(*migrationReader)
	rec, err := rd.Next()
	if err != nil || rec.Err != nil {
		t.Fatal(err, rec.Err)
	}
	payload, held := rd.payload[:cap(rd.payload)], rec.Seed
	if !strings.Contains(string(payload), "1234567890") {
		t.Fatal("the payload is somewhere else")
	}
	rd.Close()
	if strings.Contains(string(payload), "1234") || strings.Trim(string(held), "\x00") != "" || strings.Contains(string(rd.lines.buf), "data=C") {
		t.Error("a seed stays behind")
	}
}
