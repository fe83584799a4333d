package seeds_test

import (
	"context"
	"strings"
	"testing"

	"watchword/hsm"
	"watchword/seeds"
	"watchword/tokens"
)

// Files in each format of the family go in, told from their content, and the
// tokens' codes are those that oathtool makes of the same seeds.
func TestCodesOfTablesAndURIsAreOathtools(t *testing.T) {
	core, root := newCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	ctx := context.Background()
	const hex, base32 = "3132333435363738393031323334353637383930", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	long := strings.Repeat("5a", 32)
	for _, f := range []struct {
		format, file string
		choices      seeds.Choices
		codes        map[string][]string // serial to oathtool's arguments
	}{
		{"entra", "upn,serial number,secret key,time interval,manufacturer,model\r\nalice@example.com,E1," + base32 + ",60,ACME,\"The \"\"One\"\"\"\r\n", seeds.Choices{},
			map[string][]string{"E1": {"-b", "--totp", "-s60", base32}}},
		{"entra", "serial number,secret key,time interval,manufacturer,model\nE2," + hex + ",30,Deepnet Security,SafeID/Classic\n", seeds.Choices{},
			map[string][]string{"E2": {"--totp", hex}}},
		{"pingid", "P1," + hex + ",41\n", seeds.Choices{Type: tokens.HOTP}, map[string][]string{"P1": {"-c41", hex}}},
		{"phenixid", "TOTP;X1;SHA256;" + long + ";0;60;8\nHOTP;X2;" + hex + ";5\n", seeds.Choices{},
			map[string][]string{"X1": {"--totp=sha256", "-d8", "-s60", long}, "X2": {"-c5", hex}}},
		{"multiotp", "M1;ACME;totp;" + hex + ";8;45\nM2;ACME;hotp;" + hex + ";6;7\n", seeds.Choices{},
			map[string][]string{"M1": {"--totp", "-d8", "-s45", hex}, "M2": {"-c7", hex}}},
		{"feitian", "F1  " + long + "\r\n", seeds.Choices{Type: tokens.TOTP, Period: 60, Hash: hsm.SHA256}, map[string][]string{"F1": {"--totp=sha256", "-s60", long}}},
		{"oath-csv", "# version: 2\nalice,ldap,corp,V1," + hex + ",totp,8,60\n", seeds.Choices{}, map[string][]string{"V1": {"--totp", "-d8", "-s60", hex}}},
		{"oath-csv", "model,hash,secret,counter,serial,type\nOne,sha512," + long + ",9,V2,hotp\n", seeds.Choices{}, nil}, // oathtool has HOTP with SHA-1 only
		{"otpauth", "otpauth://totp/ACME:alice?secret=" + base32 + "&algorithm=SHA512&digits=8&period=20&serial=U1\n", seeds.Choices{},
			map[string][]string{"U1": {"-b", "--totp=sha512", "-d8", "-s20", base32}}},
		{"otpauth-migration", migrationFile(t), seeds.Choices{}, map[string][]string{"O-7ea2bff1603cbd6b": {"--totp=sha256", "-d8", hex}}},
	} {
		r, err := im.Import(ctx, root, seeds.Options{Choices: f.choices}, strings.NewReader(f.file))
		if err != nil || !r.Published || r.Format != f.format {
			t.Errorf("%s: %+v, %v", f.format, r, err)
			continue
		}
		for serial, args := range f.codes {
			user := "user-" + serial
			if _, err := core.AddUser(ctx, root, "", user); err != nil {
				t.Fatal(err)
			}
			if _, err := core.Assign(ctx, root, "", serial, user); err != nil {
				t.Fatalf("%s: %v", f.format, err)
			}
			code := strings.TrimSpace(output(t, "", "oathtool", args...))
			r, err := core.Verify(ctx, root, tokens.Attempt{User: user, Code: code, Transport: "http"})
			if err != nil || !r.Accept || r.Serial != serial {
				t.Errorf("%s: oathtool's code is answered %+v, %v", serial, r, err)
			}
		}
	}
}

// migrationFile is an export of one account: ACME, bob, SHA-256, 8 digits, TOTP.
func migrationFile(t *testing.T) string {
	t.Helper()
	account := "\x0a\x14" + "12345678901234567890" + "\x12\x03bob" + "\x1a\x04ACME" + "\x20\x02\x28\x02\x30\x02"
	payload := "\x0a" + string(rune(len(account))) + account + "\x10\x01\x18\x01\x20\x00\x28\x07"
	return "otpauth-migration://offline?data=" + strings.TrimSpace(output(t, payload, "base64", "-w0")) + "\n"
}
