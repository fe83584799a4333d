package radius

import (
	"net/netip"

	"watchword/tokens"
)

func newClient(name, prefix, secret string, requireMA bool) *tokens.RADIUSClient {
	return &tokens.RADIUSClient{
		Client: tokens.Client{
			Name: name, Prefix: netip.MustParsePrefix(prefix), Realm: tokens.DefaultRealm,
			RequireMA: requireMA, NameRule: tokens.NamePlain,
		},
		Plain: []byte(secret),
	}
}
