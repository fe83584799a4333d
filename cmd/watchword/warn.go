package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"watchword/tokens"
)

// shortSecret is the longest shared secret that is warned of, in octets. RFC
// 2865, section 3, wants at least 16; what ten or fewer hide is found offline
// from one packet.
const shortSecret = 10

// warn says at start what weakens the defaults.
func (a *appliance) warn(ctx context.Context) {
	if a.config.HSM.Module == "" {
		a.log.Warn("SoftHSM IS NOT AN HSM: the keys to every seed lie in a file. Losing it loses every seed: back up both together; configure hsm.module for production",
			"token", a.dir.path+"/"+softHSMDir, "pin", a.dir.path+"/"+pinFile)
	}
	for _, l := range a.sockets {
		if a.config.HTTP.TLSCert == "" && !loopback(l.Addr()) {
			a.log.Warn("http.allow_plaintext: API keys, codes and PINs are open on the wire, unless something in front does TLS", "address", l.Addr().String())
		}
	}
	a.warnFIDO(ctx)
	// Read where the core reads it: nobody asked, so nothing is to be audited.
	registry, err := a.db.Registry(ctx)
	if err != nil {
		a.log.Warn("the RADIUS clients could not be looked through", "error", err)
		return
	}
	for _, c := range registry.Clients {
		a.warnOptions(&c)
		if !c.RequireMA {
			a.log.Warn("a RADIUS client may leave Message-Authenticator out: its requests can be forged on the way (CVE-2024-3596); require it as soon as the gateway sends one",
				"client", c.Name, "address", c.Prefix.String())
		}
		if c.SecretSize <= shortSecret {
			a.log.Warn(fmt.Sprintf("a RADIUS client has a shared secret of %d octets or fewer: it can be guessed from one packet; replace it by 16 random ones or more", shortSecret),
				"client", c.Name, "address", c.Prefix.String())
		}
	}
}

// warnOptions says what a RADIUS client may do that weakens it.
func (a *appliance) warnOptions(c *tokens.Client) {
	options, err := tokens.ParseClientOptions(c.Options)
	if err != nil {
		return // the core says so, and ignores the client
	}
	for _, m := range options.Methods {
		if m != tokens.MethodPAP {
			a.log.Warn("a RADIUS client may use a weak method: who records a request finds its code within moments; have the gateway use PAP as soon as it can",
				"client", c.Name, "method", string(m))
		}
	}
	if slices.Contains(options.Dialogues, tokens.DialogueNextCode) {
		a.log.Warn("a RADIUS client asks for the next code (next_code): who guesses at codes may learn that one was right; docs/dialogues.md says what that is worth", "client", c.Name)
	}
	if options.UnsignedProxyState {
		a.log.Warn("a RADIUS client may send a Proxy-State without a Message-Authenticator: replies to it can be forged (CVE-2024-3596)", "client", c.Name)
	}
}

// warnFIDO says what makes a FIDO key prove less than it could.
func (a *appliance) warnFIDO(ctx context.Context) {
	c := &a.config.FIDO
	if a.fido == nil {
		return
	}
	if c.UserVerification == "discouraged" {
		a.log.Warn("fido.user_verification is discouraged: whoever has a key in the hand is accepted, without PIN or finger")
	}
	if c.AllowSynced {
		a.log.Warn("fido.allow_synced: credentials that may be copied to other devices can be enrolled")
	}
	if c.Attestation == "none" {
		a.log.Warn("fido.attestation is none: nothing proves of what model a key is")
	}
	if c.MetadataGrace < 0 {
		a.log.Warn("fido.metadata_grace: metadata is used for ever, even where newer would say that a model is broken")
	}
	if c.MetadataRoots != "" {
		a.log.Warn("fido.metadata_roots: metadata is trusted that the FIDO Alliance did not sign", "file", c.MetadataRoots)
	}
	for _, p := range c.Parties {
		if p.ID == "localhost" {
			a.log.Warn("localhost is a relying party: keys that are made for it are good for trying, and nowhere else")
		}
	}
	if c.MetadataURL != "" {
		return
	}
	_, err := a.core.Document(ctx, "fido.mds")
	if errors.Is(err, tokens.ErrNotFound) {
		a.log.Warn("there is no FIDO metadata: of no key is known what it is; set fido.metadata_url, or bring it with 'watchword fido mds import FILE'")
	}
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
