package eap_test

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"watchword/radius/eap"
)

// TestTunnelsInBothVersionsAndInSmallFragments has both sides cut what they say, and
// takes care that the version is the one that was meant.
func TestTunnelsInBothVersionsAndInSmallFragments(t *testing.T) {
	for _, m := range []struct {
		method  eap.Method
		network string
	}{
		{eap.TTLSPAP, ttls + `phase2="auth=PAP"`},
		{eap.TTLSMSCHAPv2, ttls + `phase2="auth=MSCHAPV2"`},
		{eap.TTLSMSCHAPv2, ttls + `phase2="autheap=MSCHAPV2"`},
		{eap.PEAPGTC, peap + `phase2="auth=GTC"`},
		{eap.PEAPMSCHAPv2, peap + `phase2="auth=MSCHAPV2"`},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, size := range []int{100, 0, 4000} {
				t.Run(fmt.Sprintf("%s/%s/%s/%d", m.method, m.network[len(ttls):], tls.VersionName(version), size), func(t *testing.T) {
					var spoken atomic.Uint32
					certificate := certified(t)
					s := serveTwice(t, eap.Config{Methods: []eap.Method{m.method}, FragmentSize: size, TLS: func() *tls.Config {
						cfg := certificate()
						cfg.VerifyConnection = func(state tls.ConnectionState) error { spoken.Store(uint32(state.Version)); return nil }
						return cfg
					}}, size == 100)
					network := m.network + "\nphase1=\"tls_disable_tlsv1_3=" + map[uint16]string{tls.VersionTLS12: "1", tls.VersionTLS13: "0"}[version] + `"` +
						"\nca_cert=\"" + caFile(t) + "\"\nanonymous_identity=\"anonymous\"\nidentity=\"alice\"\n"
					if size == 100 {
						network += "fragment_size=100\n"
					}
					ok, said := s.eapolTest(network + `password="` + goodCode + `"`)
					done, asked := s.last()
					if !ok || !done.Accept {
						t.Fatalf("the right code is refused (%v):\n%s", done.Err, said)
					}
					if uint16(spoken.Load()) != version {
						t.Fatalf("they spoke %s", tls.VersionName(uint16(spoken.Load())))
					}
					if asked.User != goodUser || s.asks() != 1 {
						t.Fatalf("the core was asked %d times, of %q", s.asks(), asked.User)
					}
					if len(done.MSK) != 64 || !has(said, done.MSK[:32]) {
						t.Fatalf("the peer has other keys:\n%s", said)
					}
					for _, n := range s.packets() {
						if size > 0 && n > size {
							t.Fatalf("a packet has %d bytes, %d are allowed", n, size)
						}
					}
					if size == 100 && len(s.packets()) < 10 {
						t.Fatalf("%d packets: nothing was cut", len(s.packets()))
					}
					if ok, said = s.eapolTest(network + `password="000000"`); ok {
						t.Fatalf("a wrong code is accepted:\n%s", said)
					}
					if done, _ := s.last(); done.Accept || done.MSK != nil || done.Err != nil {
						t.Fatalf("a wrong code ends in %+v", done)
					}
				})
			}
		}
	}
}

// TestAPeerThatDoesNotTrustTheCertificateSendsNoCode looks at what the log is told.
func TestAPeerThatDoesNotTrustTheCertificateSendsNoCode(t *testing.T) {
	for _, version := range []string{"0", "1"} {
		for _, network := range []string{ttls + `phase2="auth=PAP"`, peap + `phase2="auth=GTC"`} {
			s := serve(t, eap.Config{Methods: []eap.Method{eap.TTLSPAP, eap.PEAPGTC}, TLS: certified(t)})
			ok, said := s.eapolTest(network + "\nphase1=\"tls_disable_tlsv1_3=" + version + "\"\nca_cert=\"" + caFile(t) + "\"\naltsubject_match=\"DNS:other.example.org\"\nidentity=\"alice\"\npassword=\"" + goodCode + `"`)
			if ok || s.asks() != 0 {
				t.Fatalf("a code was sent to someone else:\n%s", said)
			}
			if done, _ := s.last(); done.Err == nil || !strings.Contains(done.Err.Error(), "remote error: tls: ") {
				t.Fatalf("the log is told %v", done.Err)
			}
		}
	}
}

// TestAPeerThatSpeaksNothingNewIsRefused sends the alert that says so, and then ends.
func TestAPeerThatSpeaksNothingNewIsRefused(t *testing.T) {
	certificate := certified(t)
	s := serve(t, eap.Config{Methods: []eap.Method{eap.PEAPGTC}, TLS: func() *tls.Config {
		cfg := certificate()
		cfg.MinVersion = tls.VersionTLS13
		return cfg
	}})
	if ok, said := s.eapolTest(peap + "phase1=\"tls_disable_tlsv1_3=1\"\nphase2=\"auth=GTC\"\nca_cert=\"" + caFile(t) + "\"\nidentity=\"alice\"\npassword=\"" + goodCode + `"`); ok || !strings.Contains(said, "protocol version") {
		t.Fatalf("the peer is not told why:\n%s", said)
	}
	if done, _ := s.last(); done.Err == nil || !strings.Contains(done.Err.Error(), "versions") {
		t.Fatalf("the log is told %v", done.Err)
	}
}

// TestAMethodInsideThatIsNotOfferedIsRefused asks nothing about the code that came.
func TestAMethodInsideThatIsNotOfferedIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		methods []eap.Method
		network string
	}{
		"PAP":                    {[]eap.Method{eap.TTLSMSCHAPv2}, ttls + `phase2="auth=PAP"`},
		"CHAP":                   {[]eap.Method{eap.TTLSPAP, eap.TTLSMSCHAPv2}, ttls + `phase2="auth=CHAP"`},
		"MS-CHAPv2":              {[]eap.Method{eap.TTLSPAP, eap.TTLSGTC}, ttls + `phase2="auth=MSCHAPV2"`},
		"EAP":                    {[]eap.Method{eap.TTLSPAP}, ttls + `phase2="autheap=GTC"`},
		"EAP of another kind":    {[]eap.Method{eap.TTLSMSCHAPv2}, ttls + `phase2="autheap=GTC"`},
		"another inside PEAP":    {[]eap.Method{eap.PEAPMSCHAPv2, eap.TTLSGTC}, peap + `phase2="auth=GTC"`},
		"another one altogether": {[]eap.Method{eap.PEAPMSCHAPv2}, peap + `phase2="auth=MD5"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, eap.Config{Methods: c.methods, TLS: certified(t)})
			ok, said := s.eapolTest(c.network + "\nca_cert=\"" + caFile(t) + "\"\nidentity=\"alice\"\npassword=\"" + goodCode + `"`)
			if ok || s.asks() != 0 {
				t.Fatalf("it is taken:\n%s", said)
			}
			if done, _ := s.last(); done.Err == nil || !strings.Contains(done.Err.Error(), "offered") {
				t.Fatalf("the log is told %v", done.Err)
			}
		})
	}
}

// TestAPeerWithoutTheExtendedMasterSecretIsToldFromOthers sees that a peer that shares
// no keys sends no code, and that the log says what to do.
func TestAPeerWithoutTheExtendedMasterSecretIsToldFromOthers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "openssl.cnf")
	if err := os.WriteFile(file, []byte("openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nOptions = -ExtendedMasterSecret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OPENSSL_CONF", file)
	for _, network := range []string{ttls + `phase2="auth=PAP"`, peap + `phase2="auth=GTC"`} {
		s := serve(t, eap.Config{Methods: []eap.Method{eap.TTLSPAP, eap.PEAPGTC}, TLS: certified(t)})
		network += "\nca_cert=\"" + caFile(t) + "\"\nidentity=\"alice\"\npassword=\"" + goodCode + `"`
		if ok, said := s.eapolTest(network + "\nphase1=\"tls_disable_tlsv1_3=1\""); ok || s.asks() != 0 {
			t.Fatalf("a code was sent:\n%s", said)
		}
		if done, _ := s.last(); done.Err == nil || !strings.Contains(done.Err.Error(), "RFC 7627") {
			t.Fatalf("the log is told %v", done.Err)
		}
		if ok, said := s.eapolTest(network + "\nphase1=\"tls_disable_tlsv1_3=0\""); !ok {
			t.Fatalf("TLS 1.3 needs none of it:\n%s", said)
		}
	}
}

// TestAPeerThatComesBackIsAskedAgain has a peer that would resume its session.
func TestAPeerThatComesBackIsAskedAgain(t *testing.T) {
	for _, version := range []string{"0", "1"} {
		s := serve(t, eap.Config{Methods: []eap.Method{eap.TTLSPAP}, TLS: certified(t)})
		ok, said := s.eapolTest(ttls+"phase1=\"tls_disable_tlsv1_3="+version+"\"\nphase2=\"auth=PAP\"\nca_cert=\""+caFile(t)+"\"\nidentity=\"alice\"\npassword=\""+goodCode+`"`, "-r", "1")
		if !ok || s.asks() != 2 {
			t.Fatalf("the core was asked %d times:\n%s", s.asks(), said)
		}
	}
}

// TestARealPeerThatIsCutOffLeavesNothing has the server fall silent in a handshake, and
// inside the tunnel.
func TestARealPeerThatIsCutOffLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, requests := range []int32{3, 6} {
		t.Run(fmt.Sprint(requests), func(t *testing.T) {
			s := serve(t, eap.Config{Methods: []eap.Method{eap.PEAPGTC}, TLS: certified(t)})
			s.silent.Store(requests)
			ok, said := s.eapolTest(peap+"phase2=\"auth=GTC\"\nca_cert=\""+caFile(t)+"\"\nidentity=\"alice\"\npassword=\""+goodCode+`"`, "-t", "1")
			if ok || s.asks() != 0 || len(s.packets()) != int(requests)-1 {
				t.Fatalf("after %d packets:\n%s", len(s.packets()), said)
			}
			if runtime.NumGoroutine() < before+2 { // this test, and the tunnel
				t.Fatal("there was no tunnel to close")
			}
		})
	}
	for wait := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(wait) {
			t.Fatalf("%d goroutines are left", runtime.NumGoroutine()-before)
		}
	}
}
