package pskc

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run runs a program of Debian's pskc-utils, the independent producer and
// reader of containers.
func run(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s (package pskc-utils): %v\n%s", name, err, errs.String())
	}
	return out.String()
}

const shipment = `serial,secret,counter,time_interval,algorithm,response_length,manufacturer,model
H1,3132333435363738393031323334353637383930,17,,urn:ietf:params:xml:ns:keyprov:pskc:hotp,6,ACME,One
H2,00112233445566778899aabbccddeeff,0,,urn:ietf:params:xml:ns:keyprov:pskc:hotp,8,ACME,One
T1,3132333435363738393031323334353637383930313233343536373839303132,,60,urn:ietf:params:xml:ns:keyprov:pskc:totp,8,ACME,Two
T2,ffeeddccbbaa99887766,,30,urn:ietf:params:xml:ns:keyprov:pskc:totp,7,ACME,Two
`

// checkShipment compares keys with shipment, line by line.
func checkShipment(t *testing.T, keys []Key) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(shipment), "\n")[1:]
	if len(keys) != len(lines) {
		t.Fatalf("%d keys, want %d", len(keys), len(lines))
	}
	for i, k := range keys {
		counter, interval := "", ""
		if k.Algorithm == HOTP {
			counter = fmt.Sprint(k.Counter)
		} else {
			interval = fmt.Sprint(k.Interval)
		}
		got := strings.Join([]string{k.Serial, hex.EncodeToString(k.Secret), counter, interval, Namespace + ":" + k.Algorithm, fmt.Sprint(k.Digits), k.Manufacturer, k.Model}, ",")
		if got != lines[i] || k.Err != nil {
			t.Errorf("key %d:\n got %s (%v)\nwant %s", i, got, k.Err, lines[i])
		}
	}
}

func TestContainersOfPSKCUtilsAreReadAsWritten(t *testing.T) {
	dir := t.TempDir()
	csv := filepath.Join(dir, "shipment.csv")
	if err := os.WriteFile(csv, []byte(shipment), 0o600); err != nil {
		t.Fatal(err)
	}
	key := mustHex(figureKey)
	for _, c := range []struct {
		name string
		args []string
		o    Options
	}{
		{"plain", nil, Options{}},
		{"pre-shared key", []string{"-s", figureKey}, Options{Key: key}},
		{"password", []string{"-p", "qwerty"}, Options{Password: []byte("qwerty")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := run(t, "", "csv2pskc", append([]string{"-e", "hex", csv}, c.args...)...)
			keys, err := readAll(strings.NewReader(file), c.o)
			if err != nil {
				t.Fatal(err)
			}
			checkShipment(t, keys)

			// Its own reader reads the same out of it.
			path := filepath.Join(dir, "back.pskcxml")
			if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			back := run(t, "", "pskc2csv", append([]string{"-e", "hex", "-c", "serial,secret", path}, c.args...)...)
			for _, k := range keys {
				if !strings.Contains(back, k.Serial+","+hex.EncodeToString(k.Secret)) {
					t.Errorf("pskc2csv reads another secret of %s", k.Serial)
				}
			}
		})
	}
	// From one encryption to another, by pskc2pskc.
	plain, encrypted := filepath.Join(dir, "plain.pskcxml"), filepath.Join(dir, "encrypted.pskcxml")
	run(t, "", "csv2pskc", "-e", "hex", "-s", figureKey, "-o", plain, csv)
	run(t, "", "pskc2pskc", "-s", figureKey, "--new-password", "another", "-o", encrypted, plain)
	file, err := os.ReadFile(encrypted)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := readAll(bytes.NewReader(file), Options{Password: []byte("another")})
	if err != nil {
		t.Fatal(err)
	}
	checkShipment(t, keys)
}

// make writes a container by pskc-utils' library, which can do more than its
// programs; setup protects p.
func makePSKC(t *testing.T, setup string) string {
	return run(t, `import sys
from pskc import PSKC
p = PSKC()
p.add_key(serial='T1', manufacturer='ACME', secret=b'12345678901234567890', algorithm='urn:ietf:params:xml:ns:keyprov:pskc:totp',
    algorithm_suite='HMAC-SHA256', response_length=8, response_encoding='DECIMAL', time_interval=60, time_drift=3)
p.add_key(serial='H1', manufacturer='ACME', secret=b'12345678901234567890', algorithm='urn:ietf:params:xml:ns:keyprov:pskc:hotp',
    response_length=6, response_encoding='DECIMAL', counter=100000)
`+setup+`
p.write(sys.stdout.buffer)
`, "/usr/bin/python3", "-")
}

func TestEachProtectionOfPSKCUtilsIsRead(t *testing.T) {
	fields := "fields=['secret', 'counter', 'time_interval', 'time_drift']"
	keys := map[string]string{"aes128-cbc": figureKey, "aes192-cbc": figureKey + figureKey[:16], "aes256-cbc": figureKey + figureKey}
	for cipher, key := range keys {
		for _, mac := range []string{"sha1", "sha224", "sha256", "sha384", "sha512"} {
			t.Run(cipher+" hmac-"+mac, func(t *testing.T) {
				file := makePSKC(t, fmt.Sprintf("p.mac.setup(algorithm='hmac-%s')\np.encryption.setup_preshared_key(key=bytes.fromhex('%s'), algorithm='%s', key_name='ours', %s)", mac, key, cipher, fields))
				got, err := readAll(strings.NewReader(file), Options{Key: mustHex(key)})
				checkTwo(t, got, err)
			})
		}
	}
	for _, prf := range []string{"None", "'hmac-sha1'", "'hmac-sha256'", "'hmac-sha512'"} {
		t.Run("PBKDF2 "+prf, func(t *testing.T) {
			file := makePSKC(t, fmt.Sprintf("p.encryption.setup_pbkdf2('grün', algorithm='aes256-cbc', iterations=1234, prf=%s, %s)", prf, fields))
			got, err := readAll(strings.NewReader(file), Options{Password: []byte("grün")})
			checkTwo(t, got, err)
		})
	}
}

func checkTwo(t *testing.T, got []Key, err error) {
	t.Helper()
	if err != nil || len(got) != 2 {
		t.Fatalf("%d keys, %v", len(got), err)
	}
	totp, hotp := got[0], got[1]
	if totp.Err != nil || totp.Serial != "T1" || string(totp.Secret) != figureSeed || totp.Algorithm != TOTP || totp.Suite != "HMAC-SHA256" || totp.Digits != 8 || totp.Interval != 60 || totp.Drift != 3 {
		t.Errorf("TOTP: %+v", totp)
	}
	if hotp.Err != nil || hotp.Serial != "H1" || string(hotp.Secret) != figureSeed || hotp.Algorithm != HOTP || hotp.Digits != 6 || hotp.Counter != 100000 {
		t.Errorf("HOTP: %+v", hotp)
	}
}
