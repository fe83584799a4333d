package seeds

import (
	"fmt"
	"strings"
	"testing"

	"watchword/hsm"
	"watchword/tokens"
)

// fuzzTable fuzzes a format's reader, without choices and with all of them.
func fuzzTable(f *testing.F, format *Format, files ...string) {
	for _, file := range append(files, "", "\n", "#", "\xef\xbb\xbf", strings.Repeat("A", maxLine+10), `"`, "\x00\xff") {
		f.Add([]byte(file), false)
		f.Add([]byte(file), true)
	}
	f.Fuzz(func(t *testing.T, file []byte, chosen bool) {
		var c Choices
		if chosen {
			c = Choices{Type: tokens.HOTP, Hash: hsm.SHA256, Digits: 8, Period: 60, Encoding: Base32}
		}
		readableWith(t, format, file, OpenOptions{Choices: c})
	})
}

func FuzzEntra(f *testing.F) {
	const header = "upn,serial number,secret key,time interval,manufacturer,model\n"
	fuzzTable(f, &entraCSV, header+"a@b.c,E1,"+rfcBase32+",30,ACME,\"a \"\"model\"\"\"\r\n", header+"a@b.c,E1,"+both+",30,,\n,E2,"+rfcSeed+",60,,",
		"model;manufacturer;time interval;secret key;serial number\n;;30;"+both+";E1\n", header+header, "serial number,secret key\nA,B", header+",E1,"+rfcSeed+",1,,\n,E2,"+rfcBase32+",1,,\n")
}

func FuzzPingID(f *testing.F) {
	fuzzTable(f, &pingID, "P1,"+rfcSeed+",5\nP2,"+rfcSeed+"\n", "P1,"+rfcSeed+",x", "P1,,5", "P1,"+rfcSeed+",5,6")
}

func FuzzPhenixID(f *testing.F) {
	fuzzTable(f, &phenixID, "HOTP;H1;"+rfcSeed+";0\nTOTP;T1;SHA1;"+rfcBase32+";0;30;6\nP1;"+both+";7\n", "TOTP;T1;SHA;"+both+";1;;", "HOTP;;;", "TOTP;TOTP;TOTP")
}

func FuzzMultiOTP(f *testing.F) {
	fuzzTable(f, &multiOTP, "M1;ACME;totp;"+rfcSeed+";6;30\nM2;;HOTP;"+rfcSeed+";8;5\n", "M1\tA\ttotp\t"+rfcSeed+"\t6\t30", "M1,A,motp,"+rfcSeed+",6,30", ";;;;;", "\t\t\t\t\t\t")
}

func FuzzFeitian(f *testing.F) {
	fuzzTable(f, &feitianText, "F1  "+rfcSeed+"\r\nF2\t"+rfcSeed+"\r\n", "F1 "+seed32, "F1", " F1 x y")
}

func FuzzOtpauth(f *testing.F) {
	fuzzTable(f, &otpauthList, "otpauth://totp/ACME:alice?secret="+rfcBase32+"&issuer=ACME&algorithm=SHA512&digits=8&period=60\n", "otpauth://hotp/a%20b?counter=5&secret="+rfcBase32,
		"otpauth://totp/%?secret=%", "otpauth://totp/a?=&&=", "otpauth://", "otpauth://totp/a#?secret", "otpauth-migration://offline?data=", "otpauth://totp/a?serial=x&secret="+rfcBase32)
}

func FuzzMigration(f *testing.F) {
	fuzzTable(f, &migrationExport, migrationURI(1, 0, 5, account("a"), account("ACME:b"))+"\n", migrationURI(2, 1, 5, account("a"))+"\r\n"+migrationURI(2, 0, 5, replaced(4, 4)),
		migrationURI(2, 0, 1), migrationScheme, migrationScheme+"offline?data=CgA", fmt.Sprint(migrationScheme, "offline?x=1&data=EAI%3D"))
}
