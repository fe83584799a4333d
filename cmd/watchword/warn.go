package main

import (
	"context"
	"fmt"
	"net"
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
	// Read where the core reads it: nobody asked, so nothing is to be audited.
	registry, err := a.db.Registry(ctx)
	if err != nil {
		a.log.Warn("the RADIUS clients could not be looked through", "error", err)
		return
	}
	for _, c := range registry.Clients {
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

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
