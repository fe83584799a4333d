package radius

import "net/netip"

func newClient(name, prefix, secret string, requireMA bool) *RADIUSClient {
	return &RADIUSClient{
		Name: name, Prefix: netip.MustParsePrefix(prefix), RequireMA: requireMA,
		Plain: []byte(secret),
	}
}
