package eap

import (
	"crypto/rand"
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
)

// Config is what conversations have in common. It may serve many at once.
type Config struct {
	// Methods are what a peer may use, in order of offer. The peer chooses: it
	// declines what it does not want until it is offered what it does.
	Methods []Method

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
