package tokens

import (
	"crypto/aes"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"watchword/hsm"
)

// yubikeyTool runs a program of libyubikey, by Yubico.
func yubikeyTool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s (of the package libyubikey-dev): %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// opened is what an OTP holds, by the standard library's AES.
func opened(t testing.TB, key []byte, o *otp) {
	t.Helper()
	c, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	var plain [otpBytes]byte
	c.Decrypt(plain[:], o.block[:])
	o.read(&plain)
}

// The OTP, key and values that the documentation of ykparse has.
func TestThePublishedOTPIsReadAsPublished(t *testing.T) {
	key, _ := hex.DecodeString("ecde18dbe76fbd0c33330f1c354871db")
	pin, o := splitOTP("dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh", "dteffuje")
	opened(t, key, o)
	if pin != "" || !o.sound || !o.whole || hex.EncodeToString(o.private[:]) != "8792ebfe26cc" || o.factor != 19<<8|17 {
		t.Errorf("%q, %+v", pin, o)
	}
	out := yubikeyTool(t, "ykparse", "ecde18dbe76fbd0c33330f1c354871db", "hknhfjbrjnlnldnhcujvddbikngjrtgh")
	for _, says := range []string{"87 92 eb fe 26 cc", "counter: 19 (0x0013)", "session use: 17 (0x11)"} {
		if !strings.Contains(out, says) {
			t.Errorf("ykparse reads it differently: no %q in\n%s", says, out)
		}
	}
}

// What ykgenerate makes of any values is read as these values.
func TestOTPsOfLibyubikeyAreReadWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytesOf := func(n int, what string) []byte { return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, what) }
		key, private, public := bytesOf(16, "key"), bytesOf(6, "private id"), bytesOf(rapid.IntRange(0, 16).Draw(t, "n"), "public id")
		session, use := rapid.Uint16().Draw(t, "session"), rapid.Byte().Draw(t, "use")
		out, err := exec.Command("ykgenerate", hex.EncodeToString(key), hex.EncodeToString(private),
			fmt.Sprintf("%04x", session), "c0a8", "01", fmt.Sprintf("%02x", use)).Output()
		if err != nil {
			t.Fatalf("ykgenerate (of the package libyubikey-dev): %v", err)
		}
		name := modhexText(public)
		if ValidPublicID(name) != nil {
			t.Fatalf("public id %s is not valid", name)
		}
		typedPIN := rapid.SampledFrom([]string{"", "4711", "vvvv", "pässword"}).Draw(t, "PIN")
		pin, o := splitOTP(typedPIN+name+strings.TrimSpace(string(out)), name)
		c, _ := aes.NewCipher(key)
		var plain [otpBytes]byte
		c.Decrypt(plain[:], o.block[:])
		o.read(&plain)
		if pin != typedPIN || !o.sound || !o.whole || string(o.private[:]) != string(private) || o.factor != uint64(session&0x7fff)<<8|uint64(use) {
			t.Fatalf("PIN %q, %+v", pin, o)
		}
	})
}

func TestModhexIsThatOfLibyubikey(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for n := 0; n < len(all); n += 16 {
		part := all[n : n+16]
		if want := yubikeyTool(t, "modhex", "-h", hex.EncodeToString(part)); modhexText(part) != want {
			t.Errorf("%x is %s, modhex says %s", part, modhexText(part), want)
		}
	}
}

func TestWhatIsNoOTPGoesTheWayOfAWrongOne(t *testing.T) {
	const id, block = "vvhvcccccccd", "hknhfjbrjnlnldnhcujvddbikngjrtgh"
	for _, c := range []struct {
		typed, pin string
		sound      bool
	}{
		{id + block, "", true},
		{"1234" + id + block, "1234", true},
		{id + id + block, id, true}, // a PIN like a public id
		{"", "", false},
		{"123456", "", false},
		{block, "", false},
		{id[1:] + block, "", false},
		{"vvhvcccccccb" + block, "", false},
		{strings.ToUpper(id + block), "", false},
		{id + strings.ToUpper(block), "", false},
		{strings.ToUpper(id) + block, "", false},
		{id + block[:31] + "a", "", false},
		{id + block[:31] + "\x00", "", false},
		{id + block[:31] + " ", "", false},
		{id + block + " ", "v", false},
		{id + block + "c", "v", false},
		{"\xff\xfe" + id + block, "\xff\xfe", true},
		{strings.Repeat("é", 64), strings.Repeat("é", 42), false},
	} {
		pin, o := splitOTP(c.typed, id)
		if pin != c.pin || o.sound != c.sound || !c.sound && o.block != [otpBytes]byte{} {
			t.Errorf("%q: PIN %q, sound %v; want %q, %v", c.typed, pin, o.sound, c.pin, c.sound)
		}
	}
	for typed, want := range map[string]bool{id + block: true, block: true, "1" + block: true, "": false, "123456": false, block[1:]: false, id + strings.ToUpper(block): false} {
		if looksOTP(typed) != want {
			t.Errorf("%q looks like an OTP: %v", typed, !want)
		}
	}
}

func TestPublicIDsThatCannotBe(t *testing.T) {
	for _, id := range []string{"v", "vvv", "VV", "va", "v v ", "avv", "vv\x00v", "vévv", strings.Repeat("vv", 17)} {
		if ValidPublicID(id) == nil {
			t.Errorf("%q is valid", id)
		}
	}
	for _, id := range []string{"", "vv", "cccccccccccc", strings.Repeat("vv", 16)} {
		if err := ValidPublicID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// What decides of a YubiKey is bound in its row, and the rows of other tokens are
// what they were.
func TestTheIDsOfAYubiKeyAreBoundInItsRow(t *testing.T) {
	base := Token{Realm: "default", Serial: "1", Type: YubicoOTP, Algorithm: hsm.AES128, PublicID: "vvcc", PrivateMAC: []byte("mac")}
	row := string(base.Row(nil))
	for name, edit := range map[string]func(*Token){
		"public id":      func(t *Token) { t.PublicID = "vvcb" },
		"no public id":   func(t *Token) { t.PublicID = "" },
		"private MAC":    func(t *Token) { t.PrivateMAC = []byte("maC") },
		"no private MAC": func(t *Token) { t.PrivateMAC = nil },
		"moved between":  func(t *Token) { t.PublicID, t.PrivateMAC = "vvccmac", nil },
	} {
		other := base
		edit(&other)
		if string(other.Row(nil)) == row {
			t.Errorf("%s edited: the same row", name)
		}
	}
	totp := Token{Realm: "default", Serial: "1", Type: TOTP}
	plain := string(totp.Row([]byte("pin")))
	totp.PublicID, totp.PrivateMAC = "vvcc", []byte("mac")
	if string(totp.Row([]byte("pin"))) != plain {
		t.Error("the row of a TOTP token holds what only a YubiKey has")
	}
	a, b := Token{Realm: "a", Serial: "bc"}, Token{Realm: "ab", Serial: "c"}
	if string(privateMessage(&a, []byte("123456"))) == string(privateMessage(&b, []byte("123456"))) {
		t.Error("two tokens' private ids have the same message")
	}
}

func TestTokensOfYubicoOTPsThatCannotBe(t *testing.T) {
	good := Token{Serial: "1", Type: YubicoOTP, Algorithm: hsm.AES128, PublicID: "vvcc"}
	if err := good.Valid(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Token){
		"hash":             func(t *Token) { t.Algorithm = hsm.SHA1 },
		"digits":           func(t *Token) { t.Digits = 6 },
		"period":           func(t *Token) { t.Period = 30 },
		"drift":            func(t *Token) { t.Drift = 1 },
		"negative counter": func(t *Token) { t.Last = -1 },
		"counter":          func(t *Token) { t.Last = maxOTP + 2 },
		"public id":        func(t *Token) { t.PublicID = "x" },
		"serial":           func(t *Token) { t.Serial = "" },
		"type":             func(t *Token) { t.Type = TOTP },
		"type and period":  func(t *Token) { t.Type, t.Digits, t.Period = TOTP, 6, 30 },
		"type and digits":  func(t *Token) { t.Type, t.Digits = HOTP, 6 },
	} {
		bad := good
		edit(&bad)
		if bad.Valid() == nil {
			t.Errorf("%s: valid", name)
		}
	}
}

func FuzzSplitOTP(f *testing.F) {
	f.Add("vvhvcccccccdhknhfjbrjnlnldnhcujvddbikngjrtgh", "vvhvcccccccd")
	f.Add("1234hknhfjbrjnlnldnhcujvddbikngjrtgh", "")
	f.Add("", "vv")
	f.Add("ccccccccccccccccccccccccccccccccc", "c")
	f.Fuzz(func(t *testing.T, typed, id string) {
		pin, o := splitOTP(typed, id)
		if !strings.HasPrefix(typed, pin) {
			t.Fatalf("PIN %q of %q", pin, typed)
		}
		if !o.sound {
			if o.block != [otpBytes]byte{} {
				t.Fatal("what is no OTP has a block")
			}
			return
		}
		if pin+id+modhexText(o.block[:]) != typed {
			t.Fatalf("%q with public id %q is taken for PIN %q and block %x", typed, id, pin, o.block)
		}
		if !looksOTP(typed) {
			t.Fatal("an OTP does not look like one")
		}
	})
}
