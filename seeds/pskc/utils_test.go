package pskc

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// protection is one way in which pskc-utils can write a container.
type protection struct {
	name, setup string
	o           Options
	plain       string // the secret; some key wraps take whole blocks only
}

// protections are all of them: each cipher with each MAC it needs, each key
// wrap with and without padding, each PRF.
func protections() (list []protection) {
	const fields = "fields=['secret', 'counter', 'time_interval', 'time_drift']"
	key := func(n int) string { return strings.Repeat(figureKey, 2)[:2*n] }
	preshared := func(name, algorithm string, length int, plain, before string) {
		list = append(list, protection{
			fmt.Sprintf("%s, key of %d, secret of %d", name, length, len(plain)),
			before + fmt.Sprintf("p.encryption.setup_preshared_key(key=bytes.fromhex('%s'), algorithm='%s', key_name='ours', %s)", key(length), algorithm, fields),
			Options{Key: mustHex(key(length))}, plain,
		})
	}
	for algorithm, length := range map[string]int{
		"aes128-cbc": 16, "aes192-cbc": 24, "aes256-cbc": 32, "tripledes-cbc": 24, "camellia128-cbc": 16, "camellia192-cbc": 24, "camellia256-cbc": 32,
	} {
		for _, mac := range []string{"sha1", "sha224", "sha256", "sha384", "sha512"} {
			preshared(algorithm+" hmac-"+mac, algorithm, length, figureSeed, "p.mac.setup(algorithm='hmac-"+mac+"')\n")
		}
	}
	preshared("tripledes-cbc hmac-sha1", "tripledes-cbc", 16, figureSeed, "")
	preshared("the encryption key as MAC key", "aes128-cbc", 16, figureSeed, "p.mac.setup(key=bytes.fromhex('"+key(16)+"'))\n")
	for algorithm, length := range map[string]int{
		"kw-aes128": 16, "kw-aes192": 24, "kw-aes256": 32, "kw-camellia128": 16, "kw-camellia192": 24, "kw-camellia256": 32,
	} {
		preshared(algorithm+" (RFC 3394)", algorithm, length, figureSeed+"1234", "")
		preshared(algorithm+" (RFC 5649)", algorithm, length, figureSeed, "")
		preshared(algorithm+" with a MAC", algorithm, length, figureSeed, "p.mac.setup(algorithm='hmac-sha256', key=b'0123456789abcdef')\n")
	}
	for _, length := range []int{16, 24} {
		list = append(list, protection{
			fmt.Sprintf("kw-tripledes, key of %d", length),
			fmt.Sprintf("p.encryption.setup_preshared_key(key=bytes.fromhex('%s'), algorithm='kw-tripledes', fields=['secret'])", key(length)),
			Options{Key: mustHex(key(length))}, figureSeed + "1234",
		})
	}
	for _, prf := range []string{"None", "'hmac-sha1'", "'hmac-sha224'", "'hmac-sha256'", "'hmac-sha384'", "'hmac-sha512'"} {
		for _, algorithm := range []string{"aes128-cbc", "aes256-cbc", "tripledes-cbc", "kw-aes256"} {
			list = append(list, protection{
				"PBKDF2 " + prf + " " + algorithm,
				fmt.Sprintf("p.encryption.setup_pbkdf2('grün', algorithm='%s', iterations=1234, prf=%s, %s)", algorithm, prf, fields),
				Options{Password: []byte("grün")}, figureSeed,
			})
		}
	}
	list = append(list, protection{"none", "", Options{}, figureSeed})
	slices.SortFunc(list, func(a, b protection) int { return strings.Compare(a.name, b.name) })
	return list
}

func TestEachProtectionOfPSKCUtilsIsRead(t *testing.T) {
	// One run of its library writes them all: it takes long to start.
	dir := t.TempDir()
	var script strings.Builder
	script.WriteString("from pskc import PSKC\n")
	list := protections()
	for i, c := range list {
		fmt.Fprintf(&script, `
p = PSKC()
p.add_key(serial='T1', manufacturer='ACME', secret=b'%[1]s', algorithm='urn:ietf:params:xml:ns:keyprov:pskc:totp',
    algorithm_suite='HMAC-SHA256', response_length=8, response_encoding='DECIMAL', time_interval=60, time_drift=3)
p.add_key(serial='H1', manufacturer='ACME', secret=b'%[1]s', algorithm='urn:ietf:params:xml:ns:keyprov:pskc:hotp',
    response_length=6, response_encoding='DECIMAL', counter=100000)
%[2]s
p.write('%[3]s')
`, c.plain, c.setup, filepath.Join(dir, fmt.Sprint(i)))
	}
	run(t, script.String(), "/usr/bin/python3", "-")
	for i, c := range list {
		file, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if c.name != "none" && bytes.Contains(file, []byte(base64.StdEncoding.EncodeToString([]byte(c.plain)))) {
			t.Fatalf("%s: the test writes the seed in clear", c.name)
		}
		got, err := readAll(bytes.NewReader(file), c.o)
		if err != nil || len(got) != 2 {
			t.Errorf("%s: %d keys, %v", c.name, len(got), err)
			continue
		}
		totp, hotp := got[0], got[1]
		if totp.Err != nil || totp.Serial != "T1" || string(totp.Secret) != c.plain || totp.Algorithm != TOTP || totp.Suite != "HMAC-SHA256" || totp.Digits != 8 || totp.Interval != 60 || totp.Drift != 3 {
			t.Errorf("%s: TOTP: %+v", c.name, totp)
		}
		if hotp.Err != nil || hotp.Serial != "H1" || string(hotp.Secret) != c.plain || hotp.Algorithm != HOTP || hotp.Digits != 6 || hotp.Counter != 100000 {
			t.Errorf("%s: HOTP: %+v", c.name, hotp)
		}
		// A wrong key is called that, whatever the mode.
		wrong := Options{Key: bytes.Clone(c.o.Key), Password: bytes.Clone(c.o.Password)}
		if c.o.Key != nil {
			wrong.Key[3] ^= 0x10
		} else if c.o.Password != nil {
			wrong.Password[3] ^= 0x10
		} else {
			continue
		}
		got, err = readAll(bytes.NewReader(file), wrong)
		if err == nil || !strings.Contains(err.Error(), errWrongKey) || len(got) > 0 {
			t.Errorf("%s: under a wrong key: %d keys, %v", c.name, len(got), err)
		}
	}
}
