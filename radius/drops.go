package radius

import (
	"context"
	"log/slog"
	"net/netip"
	"time"
)

// cause is why a packet was dropped without an answer.
type cause int

const (
	unknownClient cause = iota + 1
	noSecret
	malformed
	unsupportedCode
	missingMA
	wrongMA
	duplicateMA
	unsignedProxyState
	reusedAuthenticator
	overload
	notReady
	rateLimited
	badReplies
	causes // how many there are, and one
)

// A remedy says for each cause what is counted and what a person reads: what
// happened and what to do about it.
type remedy struct {
	label string // in metrics
	says  string // nothing: not logged
	do    string
}

var remedies = [causes]remedy{
	unknownClient: {"unknown_client", "the address belongs to no RADIUS client",
		"if it is a gateway of yours: watchword client add NAME --address ADDRESS --secret-file FILE"},
	noSecret: {"no_secret", "the client has no shared secret",
		"add it anew with one: watchword client add NAME --address ADDRESS --secret-file FILE"},
	malformed: {"malformed", "the packet is malformed",
		"look at the gateway's RADIUS settings and software version, or at what sends packets from there"},
	unsupportedCode: {"unsupported_code", "the packet is neither Access-Request nor Status-Server",
		"point accounting and change-of-authorization elsewhere, or switch them off on the gateway"},
	missingMA: {"missing_message_authenticator", "the packet has no Message-Authenticator, which this client must send",
		"switch it on at the gateway (often a software update); if it cannot, read docs/vpn.md on what " +
			"--no-require-message-authenticator costs"},
	wrongMA: {"wrong_message_authenticator", "the packet's Message-Authenticator is wrong",
		"the shared secret differs between gateway and Watchword (look for spaces and line ends), or the packet was altered on its way"},
	duplicateMA: {"duplicate_message_authenticator", "the packet has more than one Message-Authenticator",
		"look at proxies between the gateway and Watchword: one of them adds a second one"},
	unsignedProxyState: {"unsigned_proxy_state", "the packet has a Proxy-State and no Message-Authenticator: so does one with which a reply is forged (CVE-2024-3596)",
		"have the proxy send a Message-Authenticator; if it cannot, read docs/vpn.md on what --allow-unsigned-proxy-state costs"},
	reusedAuthenticator: {"reused_authenticator", "another packet with the same identifier and Request Authenticator came within 30 s",
		"the gateway's authenticators are not random, which lets replies be forged: update its software"},
	overload: {"overload", "too many requests are in work, so the newest are dropped",
		"see whether HSM and database are slow, or raise the bound on requests in work"},
	notReady: {"not_ready", "Status-Server stays unanswered while Watchword is not ready, so that gateways use another server",
		"ask /readyz what is missing"},
	badReplies: {"reply_attributes", "the client's reply attributes cannot be made with the dictionary that there is here",
		"give all nodes the same radius.dictionaries, or set the attributes anew: watchword client set NAME --reply"},
	rateLimited: {"rate_limited", "the client sends more requests a second than it may",
		"see what the gateway sends ('watchword radius watch --client'), or raise the client's rate"},
}

// drops logs and counts what was dropped.
type drops struct {
	log     *slog.Logger
	metrics *metrics
	hub     *hub
	clients quiet[clientCause]
	unknown quiet[netip.Addr]
}

type clientCause struct {
	client string
	cause  cause
}

// What is dropped is logged once per period for a client and cause, or for an
// unknown address, of which so many are remembered.
const (
	quietPeriod   = time.Minute
	quietClients  = 4096
	quietUnknowns = 1024
)

func newDrops(log *slog.Logger, m *metrics, h *hub) *drops {
	return &drops{
		log:     log,
		metrics: m,
		hub:     h,
		clients: quiet[clientCause]{period: quietPeriod, max: quietClients},
		unknown: quiet[netip.Addr]{period: quietPeriod, max: quietUnknowns},
	}
}

// fromUnknown notes a packet from an address that belongs to no client.
func (d *drops) fromUnknown(r *request, now time.Time) {
	d.metrics.unknown.Inc()
	d.hub.dropped(r, unknownClient)
	if speak, unsaid := d.unknown.may(r.from, now); speak {
		known := &remedies[unknownClient]
		d.log.LogAttrs(context.Background(), slog.LevelWarn, "RADIUS packet dropped: "+known.says,
			slog.String("address", r.source), slog.String("remedy", known.do), slog.Int64("since_last", unsaid))
	}
}

// fromClient notes a packet of a known client.
func (d *drops) fromClient(r *request, c cause, now time.Time) {
	r.tally.dropped[c].Inc()
	d.hub.dropped(r, c)
	if speak, unsaid := d.clients.may(clientCause{r.client.Name, c}, now); speak {
		d.log.LogAttrs(context.Background(), slog.LevelWarn, "RADIUS packet dropped: "+remedies[c].says,
			slog.String("client", r.client.Name), slog.String("address", r.source),
			slog.String("cause", remedies[c].label), slog.String("remedy", remedies[c].do), slog.Int64("since_last", unsaid))
	}
}
