package eap

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Method is a way in which a user proves to be who they are: a method of EAP, or one
// inside the tunnel of another.
type Method string

// The methods that there are.
const (
	// GTC sends the code as it is (RFC 3748, section 5.6). It makes no keys.
	GTC Method = "eap-gtc"
	// MSCHAPv2 is a Proof (draft-kamath-pppext-eap-mschapv2).
	MSCHAPv2 Method = "eap-mschapv2"

	// TTLSPAP sends the code through a tunnel of TLS (EAP-TTLS version 0, RFC 5281).
	TTLSPAP Method = "eap-ttls-pap"
	// TTLSGTC is GTC in that tunnel.
	TTLSGTC Method = "eap-ttls-gtc"
	// TTLSMSCHAPv2 is MS-CHAPv2 in it, as RADIUS has it or as EAP has it.
	TTLSMSCHAPv2 Method = "eap-ttls-mschapv2"
	// PEAPGTC is GTC in a tunnel of PEAP (version 0).
	PEAPGTC Method = "eap-peap-gtc"
	// PEAPMSCHAPv2 is MSCHAPv2 in it.
	PEAPMSCHAPv2 Method = "eap-peap-mschapv2"
)

// Config is what conversations have in common. It may serve many at once.
type Config struct {
	// Methods are what a peer may use, in order of offer. The peer chooses: it
	// declines what it does not want until it is offered what it does.
	Methods []Method

	// TLS answers the settings of a tunnel that begins: a certificate, and versions and
	// suites if they should be other than Go's. Sessions are never resumed, and nothing
	// below TLS 1.2 is spoken. Without it there are no tunnels.
	TLS func() *tls.Config
	// FragmentSize is how many bytes of EAP a packet of a tunnel has at most, 64 to
	// 4,000; 0: 1,024. All of a handshake takes no more than MaxRounds packets.
	FragmentSize int

	// Prompt is what GTC asks a person; empty: "Enter your code." At most 253 bytes of
	// UTF-8.
	Prompt string

	// Now tells the time, for the life of conversations; nil: time.Now.
	Now func() time.Time
	// Rand is where challenges come from; nil: crypto/rand.
	Rand io.Reader
}

// check completes the configuration and says what is wrong with it.
func (c *Config) check() error {
	if len(c.Methods) == 0 {
		return errors.New("EAP is configured without a method")
	}
	for i, m := range c.Methods {
		if _, known := ways[m]; !known {
			return fmt.Errorf("EAP method %q is not known", m)
		}
		if slices.Contains(c.Methods[:i], m) {
			return fmt.Errorf("EAP method %s is named twice", m)
		}
	}
	if c.TLS == nil && slices.ContainsFunc(c.Methods, tunnelled) {
		return errors.New("EAP methods with a tunnel (TTLS, PEAP) need a certificate")
	}
	if c.FragmentSize == 0 {
		c.FragmentSize = 1024
	}
	if c.FragmentSize < minFragment || c.FragmentSize > maxFragment {
		return fmt.Errorf("EAP fragments of %d bytes: they have %d to %d", c.FragmentSize, minFragment, maxFragment)
	}
	if c.Prompt == "" {
		c.Prompt = "Enter your code."
	}
	if len(c.Prompt) > maxName {
		return fmt.Errorf("the EAP prompt is longer than %d bytes", maxName)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return nil
}

// tunnelled says whether a method needs TLS.
func tunnelled(m Method) bool {
	return ways[m].kind == typeTTLS || ways[m].kind == typePEAP
}
