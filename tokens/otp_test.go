package tokens

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/hsm"
)

var hashes = map[hsm.Hash]func() hash.Hash{hsm.SHA1: sha1.New, hsm.SHA256: sha256.New, hsm.SHA512: sha512.New}

// factorMAC is the HMAC of a moving factor, made here and not by an HSM.
func factorMAC(h hsm.Hash, seed []byte, factor uint64) []byte {
	m := hmac.New(hashes[h], seed)
	m.Write(binary.BigEndian.AppendUint64(nil, factor))
	return m.Sum(nil)
}

// codeText is a code as a token shows it.
func codeText(h hsm.Hash, seed []byte, digits int, factor uint64) string {
	return fmt.Sprintf("%0*d", digits, truncate(factorMAC(h, seed, factor), digits))
}

func TestTruncationGivesTheValuesOfRFC4226(t *testing.T) {
	seed := []byte("12345678901234567890")
	want := []string{ // appendix D
		"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489",
	}
	decimal := []uint32{
		1284755224, 1094287082, 137359152, 1726969429, 1640338314, 868254676, 1918287922, 82162583, 673399871, 645520489,
	}
	for counter, code := range want {
		if got := codeText(hsm.SHA1, seed, 6, uint64(counter)); got != code {
			t.Errorf("counter %d: code %s, RFC 4226 says %s", counter, got, code)
		}
		for digits := 6; digits <= 8; digits++ {
			if got := truncate(factorMAC(hsm.SHA1, seed, uint64(counter)), digits); got != decimal[counter]%powers[digits] {
				t.Errorf("counter %d, %d digits: %d, want the end of %d", counter, digits, got, decimal[counter])
			}
		}
	}
}

func TestTruncationGivesTheValuesOfRFC6238(t *testing.T) {
	for _, c := range []struct { // appendix B
		at                   int64
		sha1, sha256, sha512 string
	}{
		{59, "94287082", "46119246", "90693936"},
		{1111111109, "07081804", "68084774", "25091201"},
		{1111111111, "14050471", "67062674", "99943326"},
		{1234567890, "89005924", "91819424", "93441116"},
		{2000000000, "69279037", "90698825", "38618901"},
		{20000000000, "65353130", "77737706", "47863826"},
	} {
		for h, want := range map[hsm.Hash]string{hsm.SHA1: c.sha1, hsm.SHA256: c.sha256, hsm.SHA512: c.sha512} {
			seed := []byte(strings.Repeat("1234567890", 7))[:h.Size()]
			if got := codeText(h, seed, 8, uint64(step(time.Unix(c.at, 0), 30))); got != want {
				t.Errorf("%s at %d: code %s, RFC 6238 says %s", h, c.at, got, want)
			}
		}
	}
}

// An independent program must agree on seeds, digits, steps and digests that
// nobody chose.
func TestCodesAreThoseOfOathtool(t *testing.T) {
	if _, err := exec.LookPath("oathtool"); err != nil {
		t.Fatalf("oathtool is needed (Debian package oathtool): %v", err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		seed := make([]byte, 10+r.IntN(55))
		for i := range seed {
			seed[i] = byte(r.Uint32())
		}
		digits := 6 + r.IntN(3)
		counter := r.Uint64() >> (1 + r.IntN(50))
		out := oathtool(t, "--hotp", "-d", strconv.Itoa(digits), "-c", strconv.FormatUint(counter, 10), "-w", "2", hex.EncodeToString(seed))
		for i, want := range out {
			if got := codeText(hsm.SHA1, seed, digits, counter+uint64(i)); got != want {
				t.Errorf("HOTP seed %x counter %d digits %d: %s, oathtool says %s", seed, counter+uint64(i), digits, got, want)
			}
		}
		for h := range hashes {
			period := 1 + r.IntN(300)
			at := r.Int64N(1 << 33)
			out := oathtool(t, "--totp="+strings.ToUpper(h.String()), "-d", strconv.Itoa(digits), "-s", strconv.Itoa(period)+"s",
				"-N", "@"+strconv.FormatInt(at, 10), hex.EncodeToString(seed))
			if got := codeText(h, seed, digits, uint64(step(time.Unix(at, 0), period))); got != out[0] {
				t.Errorf("TOTP %s seed %x at %d period %d digits %d: %s, oathtool says %s", h, seed, at, period, digits, got, out[0])
			}
		}
	}
}

func oathtool(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("oathtool", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("oathtool %q: %v: %s", args, err, out)
	}
	return strings.Fields(string(out))
}

func TestOnlyExactlySoManyDigitsAreACode(t *testing.T) {
	for _, c := range []struct {
		text   string
		digits int
		want   uint32
	}{
		{"000000", 6, 0},
		{"999999", 6, 999999},
		{"0123456", 7, 123456},
		{"99999999", 8, 99999999},
		{"", 6, noCode},
		{"12345", 6, noCode},
		{"1234567", 6, noCode},
		{"12 456", 6, noCode},
		{" 12345", 6, noCode},
		{"-12345", 6, noCode},
		{"+12345", 6, noCode},
		{"0x1234", 6, noCode},
		{"1e5000", 6, noCode},
		{"12345/", 6, noCode},
		{"12345:", 6, noCode},
		{"１２", 6, noCode}, // full width, six bytes
		{"\x00\x00\x00\x00\x00\x00", 6, noCode},
	} {
		if got := parseCode(c.text, c.digits); got != c.want {
			t.Errorf("parseCode(%q, %d) = %d, want %d", c.text, c.digits, got, c.want)
		}
	}
}

func TestNoMACHasWhatIsNoCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mac := rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "mac")[:rapid.SampledFrom([]int{20, 32, 64}).Draw(t, "size")]
		digits := rapid.IntRange(6, 8).Draw(t, "digits")
		if matches(mac, digits, noCode) {
			t.Fatalf("MAC %x matches what is no code", mac)
		}
		v := truncate(mac, digits)
		if v >= powers[digits] {
			t.Fatalf("%d has more than %d digits", v, digits)
		}
		if !matches(mac, digits, parseCode(fmt.Sprintf("%0*d", digits, v), digits)) {
			t.Fatalf("the code of MAC %x does not match it", mac)
		}
		if other := rapid.Uint32Range(0, powers[digits]-1).Draw(t, "other"); other != v && matches(mac, digits, other) {
			t.Fatalf("code %d matches a MAC whose code is %d", other, v)
		}
	})
}

func TestWhatIsTypedIsThePINAndThenTheCode(t *testing.T) {
	for _, c := range []struct {
		typed  string
		digits int
		pin    string
		code   uint32
	}{
		{"123456", 6, "", 123456},
		{"1234567890", 6, "1234", 567890},
		{"1234567890", 8, "12", 34567890},
		{"pässwörd 000001", 6, "pässwörd ", 1},
		{"1234", 6, "", noCode},
		{"", 6, "", noCode},
		{"123456 ", 6, "1", noCode},
	} {
		if pin, code := split(c.typed, c.digits); pin != c.pin || code != c.code {
			t.Errorf("split(%q, %d) = %q, %d, want %q, %d", c.typed, c.digits, pin, code, c.pin, c.code)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.IntRange(6, 8).Draw(t, "digits")
		pin := rapid.String().Draw(t, "pin")
		code := rapid.Uint32Range(0, powers[digits]-1).Draw(t, "code")
		gotPIN, gotCode := split(pin+fmt.Sprintf("%0*d", digits, code), digits)
		if gotPIN != pin || gotCode != code {
			t.Fatalf("PIN %q and code %d came back as %q and %d", pin, code, gotPIN, gotCode)
		}
	})
}
