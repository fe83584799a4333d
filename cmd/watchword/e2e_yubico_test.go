package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// A yubiKey is a YubiKey as ykgenerate plays it, libyubikey's own program.
type yubiKey struct {
	serial, public, private, key string
}

func newYubiKey(serial, public string) *yubiKey {
	secret := make([]byte, 22)
	rand.Read(secret)
	return &yubiKey{serial, public, hex.EncodeToString(secret[:6]), hex.EncodeToString(secret[6:])}
}

// row is the key's row in the log of Yubico's Personalization Tool.
func (y *yubiKey) row() string {
	return fmt.Sprintf("%s,%s,%s,%s,000000000000,2026-01-02T03:04:05,\n", y.serial, y.public, y.private, y.key)
}

// touch is what the key types.
func (y *yubiKey) touch(t testing.TB, session, use int) string {
	t.Helper()
	out, err := exec.Command("ykgenerate", y.key, y.private, fmt.Sprintf("%04x", session), "c0a8", "00", fmt.Sprintf("%02x", use)).Output()
	if err != nil {
		t.Fatalf("ykgenerate (of the package libyubikey-dev): %v", err)
	}
	return y.public + strings.TrimSpace(string(out))
}

// YubiKeys that Yubico's own tool logged are imported, and their OTPs let people in
// through RADIUS and HTTP: each once, none after a later one, also after the server
// was killed.
func TestYubiKeysLetPeopleIn(t *testing.T) {
	n := startNode(t, nodeOptions{})
	y, other := newYubiKey("7654321", "vvhvcccccccd"), newYubiKey("7654322", "vvhvccccccce")
	n.importFile(strings.NewReader(y.row()+other.row()), 2)
	n.assign(&hardToken{serial: y.serial, user: "yuri"}, &hardToken{serial: other.serial, user: "olga"})

	var shown struct {
		Type, Algorithm string
		PublicID        string `json:"public_id"`
		Counter         *int
		Digits          int
	}
	n.must(http.MethodGet, "/v1/tokens/"+y.serial, nil, &shown)
	if shown.Type != "yubico" || shown.Algorithm != "aes128" || shown.PublicID != y.public || shown.Counter == nil || *shown.Counter != 0 || shown.Digits != 0 {
		t.Errorf("the token is shown as %+v", shown)
	}

	pap := func(user, typed string) sight {
		return radclient(t, n, "auth", n.secret, papAttributes(user, typed)+withMA)
	}
	ends := func(got, want sight, user, reason string) {
		t.Helper()
		last := n.lastAttempt(user)
		if got != want || last.Reason != reason {
			t.Errorf("%s, %s; want %s, %s", got, last.Reason, want, reason)
		}
	}
	first := y.touch(t, 1, 0)
	ends(pap("yuri", first), sawAccept, "yuri", "accepted")
	ends(pap("yuri", first), sawReject, "yuri", "replay")
	ends(n.verify("yuri", first), sawReject, "yuri", "replay")
	skipped, later := y.touch(t, 1, 1), y.touch(t, 2, 0)
	ends(n.verify("yuri", later), sawAccept, "yuri", "accepted")
	ends(pap("yuri", skipped), sawReject, "yuri", "replay")
	ends(pap("yuri", other.touch(t, 1, 0)), sawReject, "yuri", "wrong_code")
	ends(pap("nobody", y.touch(t, 3, 0)), sawReject, "nobody", "unknown_user")
	n.must(http.MethodPut, "/v1/users/yuri/pin", map[string]string{"pin": "s3cret"}, nil)
	ends(pap("yuri", y.touch(t, 3, 0)), sawReject, "yuri", "pin_missing")
	ends(pap("yuri", "s3cret"+y.touch(t, 3, 1)), sawAccept, "yuri", "accepted")

	n.kill()
	n.start()
	n.waitReady()
	ends(pap("yuri", "s3cret"+y.touch(t, 3, 1)), sawReject, "yuri", "replay")
	ends(pap("yuri", "s3cret"+y.touch(t, 3, 2)), sawAccept, "yuri", "accepted")
	ends(pap("olga", other.touch(t, 1, 0)), sawAccept, "olga", "accepted")

	for _, secret := range []string{y.private, y.key, first, first[12:], later} {
		if strings.Contains(n.log(), secret) {
			t.Error("the log holds an OTP, a private id or a key")
		}
	}
	n.wantIntactAudit()
}
