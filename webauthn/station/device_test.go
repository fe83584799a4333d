package station

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"watchword/webauthn/softkey"
)

// plug opens a software key through libfido2.
func plug(t *testing.T, o softkey.Options) (*Device, *softkey.Key) {
	t.Helper()
	k, err := softkey.New(o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := softkey.Plug(k)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(p.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Close()
		d.Close()
		p.Close()
	})
	return d, k
}

func creation(user string, resident, enterprise bool) *Creation {
	return &Creation{
		RPID: "example.org", RPName: "Example", UserID: []byte(user), UserName: user, Display: user,
		ClientDataHash: sha256.Sum256([]byte(user)), Algorithms: []int{-65535, -7}, Resident: resident, Protect: 2, Enterprise: enterprise,
	}
}

func TestAKeyGoesThroughAllThatAStationDoes(t *testing.T) {
	for _, o := range []softkey.Options{{}, {CTAP20: true}} {
		d, _ := plug(t, o)
		i, err := d.Info()
		if err != nil || i.Model != softkey.DefaultAAGUID || i.On("clientPin") || i.Retries != -1 || i.MinPIN != 4 {
			t.Fatalf("%+v, %v", i, err)
		}
		first, second := secret(t, "271828"), secret(t, "314159")
		if err := d.SetPIN(first, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.SetPIN(second, second); err == nil || !strings.Contains(err.Error(), "PIN is wrong") {
			t.Errorf("the PIN is changed with a wrong one: %v", err)
		}
		if i, err := d.Info(); err != nil || !i.On("clientPin") || i.Retries != 7 {
			t.Errorf("after a wrong PIN: %+v, %v", i, err)
		}
		if err := d.SetPIN(second, first); err != nil {
			t.Fatal(err)
		}
		made, err := d.MakeCredential(t.Context(), creation("alice", true, false), second)
		if err != nil || made.Format != "packed" || len(made.Statement) < 100 || made.AuthData[32]&0x45 != 0x45 {
			t.Fatalf("%+v, %v", made, err)
		}
		again := creation("alice", true, false)
		again.Exclude = [][]byte{made.ID}
		if _, err := d.MakeCredential(t.Context(), again, second); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("an excluded credential is made: %v", err)
		}
		for _, rp := range []string{"", "example.org"} {
			held, err := d.Credentials(second, rp)
			if err != nil || len(held) != 1 || held[0].RPID != "example.org" || held[0].User != "alice" || !bytes.Equal(held[0].ID, made.ID) {
				t.Errorf("%q: %+v, %v", rp, held, err)
			}
		}
		if err := d.Delete(made.ID, second); err != nil {
			t.Error(err)
		}
		for _, rp := range []string{"", "example.org"} {
			if held, err := d.Credentials(second, rp); err != nil || len(held) != 0 {
				t.Errorf("%q: %+v, %v", rp, held, err)
			}
		}
		if err := d.Reset(t.Context()); err != nil {
			t.Error(err)
		}
		if i, err := d.Info(); err != nil || i.On("clientPin") {
			t.Errorf("after the reset: %+v, %v", i, err)
		}
	}
}

// libfido2 has no call for it: the parameter is put into the reports, however long the
// request is.
func TestEnterpriseAttestationNamesTheSerialNumber(t *testing.T) {
	d, _ := plug(t, softkey.Options{Serial: "SN-00123"})
	pin := secret(t, "271828")
	if err := d.SetPIN(pin, nil); err != nil {
		t.Fatal(err)
	}
	names := func(m *Creation) bool {
		t.Helper()
		made, err := d.MakeCredential(t.Context(), m, pin)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(made.Statement, []byte("SN-00123"))
	}
	if names(creation("alice", false, false)) {
		t.Error("the key names its serial number to whoever asks")
	}
	if i, err := d.Info(); err != nil || !i.Has("ep") || i.On("ep") {
		t.Fatalf("%+v, %v", i, err)
	}
	if err := d.EnableEnterprise(pin); err != nil {
		t.Fatal(err)
	}
	for _, excluded := range []int{0, 1, 5, 20} { // of one report, and of many
		m := creation("alice", false, true)
		for n := range excluded {
			m.Exclude = append(m.Exclude, bytes.Repeat([]byte{byte(n)}, 64))
		}
		if !names(m) {
			t.Errorf("with %d excluded credentials the statement names no serial number", excluded)
		}
	}
	if names(creation("alice", false, false)) {
		t.Error("the statement names a serial number that was not asked for")
	}
}

func TestSettingsOfPINsAreMade(t *testing.T) {
	d, _ := plug(t, softkey.Options{})
	pin := secret(t, "271828")
	if err := d.SetPIN(pin, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.SetMinPIN(6, pin); err != nil {
		t.Error(err)
	}
	if err := d.ToggleAlwaysUV(pin); err != nil {
		t.Error(err)
	}
	if i, err := d.Info(); err != nil || i.MinPIN != 6 || !i.On("alwaysUv") || i.PINDue {
		t.Errorf("%+v, %v", i, err)
	}
	if err := d.ForcePINChange(pin); err != nil {
		t.Error(err)
	}
	if i, err := d.Info(); err != nil || !i.PINDue {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := d.MakeCredential(t.Context(), creation("alice", false, false), pin); err == nil {
		t.Error("a PIN that must be changed makes a credential")
	}
}

// Whoever waits for a touch is not waited for, once nobody wants it any more.
func TestAWaitForATouchIsBrokenOff(t *testing.T) {
	waits := make(chan struct{})
	d, _ := plug(t, softkey.Options{Touch: func(ctx context.Context) bool { close(waits); <-ctx.Done(); return false }})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-waits; cancel() }()
	begin := time.Now()
	if _, err := d.MakeCredential(ctx, creation("alice", false, false), nil); err == nil || Gone(err) {
		t.Errorf("it ends with %v", err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("after %s", took)
	}
	if _, err := d.Info(); err != nil {
		t.Errorf("and then: %v", err)
	}
}

func TestWhatIsNoKeyIsNotOpened(t *testing.T) {
	for _, path := range []string{"/dev/null", "/dev/nonesuch", "/etc/passwd", t.TempDir(), ""} {
		if d, err := Open(path); err == nil {
			d.Close()
			t.Errorf("%q is opened", path)
		}
	}
}

func TestTheAnswerIsWhatABrowserWouldWrite(t *testing.T) {
	o, err := readOptions(json.RawMessage(`{"publicKey":{"rp":{"id":"example.org","name":"E"},"user":{"id":"AQI","name":"a","displayName":"A"},"challenge":"AQIDBA",
		"pubKeyCredParams":[{"type":"public-key","alg":-7}],"excludeCredentials":[{"type":"public-key","id":"BQY"}],
		"authenticatorSelection":{"residentKey":"required"},"attestation":"enterprise","extensions":{"credentialProtectionPolicy":"userVerificationOptionalWithCredentialIDList"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	m := o.creation(&Info{Extensions: []string{"credProtect"}, Options: map[string]bool{"ep": true}}, []byte("x"))
	if !m.Resident || !m.Enterprise || m.Protect != 2 || string(m.UserID) != "\x01\x02" || len(m.Exclude) != 1 || m.Algorithms[0] != -7 {
		t.Errorf("%+v", m)
	}
	if m := o.creation(&Info{}, nil); m.Enterprise || m.Protect != 0 {
		t.Errorf("a key that can neither: %+v", m)
	}
	data, err := o.clientData("https://login.example.org")
	if err != nil || string(data) != `{"type":"webauthn.create","challenge":"AQIDBA","origin":"https://login.example.org","crossOrigin":false}` {
		t.Errorf("%s, %v", data, err)
	}
	for _, bad := range []string{``, `{}`, `[]`, `{"publicKey":{}}`, `{"publicKey":{"challenge":"!","user":{"id":"AQ"}}}`} {
		if _, err := readOptions(json.RawMessage(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	for n, want := range map[int]string{3: "\x43", 23: "\x57", 24: "\x58\x18", 255: "\x58\xff", 256: "\x59\x01\x00", 65536: "\x5a\x00\x01\x00\x00"} {
		if got := cborHead(nil, 2, n); string(got) != want {
			t.Errorf("a string of %d: %x", n, got)
		}
	}
}
