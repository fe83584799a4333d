package eap_test

import (
	"strings"
	"testing"

	"watchword/radius/eap"
)

const (
	ttls = "eap=TTLS\n"
	peap = "eap=PEAP\n"
)

// TestEachMethodIsSpokenWithARealPeer accepts the right code and refuses a wrong one.
func TestEachMethodIsSpokenWithARealPeer(t *testing.T) {
	for _, m := range []struct {
		method  eap.Method
		network string
		args    []string
	}{
		{eap.GTC, `eap=GTC`, []string{"-n"}},
		{eap.MSCHAPv2, `eap=MSCHAPV2`, nil},
		{eap.TTLSPAP, ttls + `phase2="auth=PAP"`, nil},
		{eap.TTLSMSCHAPv2, ttls + `phase2="auth=MSCHAPV2"`, nil},
		{eap.TTLSMSCHAPv2, ttls + `phase2="autheap=MSCHAPV2"`, nil},
		{eap.TTLSGTC, ttls + `phase2="autheap=GTC"`, nil},
		{eap.PEAPGTC, peap + `phase2="auth=GTC"`, nil},
		{eap.PEAPMSCHAPv2, peap + `phase2="auth=MSCHAPV2"`, nil},
	} {
		t.Run(string(m.method), func(t *testing.T) {
			cfg := eap.Config{Methods: []eap.Method{m.method}, TLS: certified(t)}
			if strings.HasPrefix(m.network, ttls) || strings.HasPrefix(m.network, peap) {
				m.network += "\n" + `ca_cert="` + caFile(t) + `"` + "\nanonymous_identity=\"anonymous@example.org\""
			}
			s := serveTwice(t, cfg, true)
			ok, said := s.eapolTest(m.network+"\nidentity=\"alice\"\npassword=\""+goodCode+"\"", m.args...)
			done, asked := s.last()
			if !ok || !done.Accept {
				t.Fatalf("the right code is refused (%v):\n%s", done.Err, said)
			}
			if asked.User != goodUser || asked.Method != m.method || (asked.Proof != nil) != strings.HasSuffix(string(m.method), "mschapv2") {
				t.Fatalf("the core was asked %+v", asked)
			}
			if s.asks() != 1 {
				t.Fatalf("the core was asked %d times", s.asks())
			}
			if m.args == nil && (len(done.MSK) != 64 || !has(said, done.MSK[:32])) {
				t.Fatalf("the peer has other keys:\n%s", said)
			}

			for _, wrong := range []string{"identity=\"alice\"\npassword=\"755225\"", "identity=\"bob\"\npassword=\"" + goodCode + "\""} {
				ok, said = s.eapolTest(m.network+"\n"+wrong, m.args...)
				if done, _ := s.last(); ok || done.Accept || done.MSK != nil {
					t.Fatalf("%s is accepted:\n%s", wrong, said)
				} else if done.Err != nil {
					t.Fatalf("the core refused it, but the conversation says %v", done.Err)
				}
			}
		})
	}
}

// TestAPeerDeclinesUntilItIsOfferedWhatItWants goes through Nak with a real peer.
func TestAPeerDeclinesUntilItIsOfferedWhatItWants(t *testing.T) {
	s := serve(t, eap.Config{Methods: []eap.Method{eap.MSCHAPv2, eap.GTC}})
	if ok, said := s.eapolTest("eap=GTC\nidentity=\"alice\"\npassword=\""+goodCode+"\"", "-n"); !ok {
		t.Fatalf("GTC is not reached:\n%s", said)
	}
	if _, asked := s.last(); asked.Method != eap.GTC {
		t.Fatalf("the core was asked %+v", asked)
	}
	if ok, said := s.eapolTest("eap=MD5\nidentity=\"alice\"\npassword=\""+goodCode+"\"", "-n"); ok {
		t.Fatalf("a method is spoken that is not offered:\n%s", said)
	}
	if done, _ := s.last(); done.Err == nil || !strings.Contains(done.Err.Error(), "[4]") {
		t.Fatalf("the log does not say what the peer wants: %v", done.Err)
	}
}
