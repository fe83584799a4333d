// Package radius is Watchword's RADIUS server: it reads Access-Requests from
// gateways, asks the core whether the code is really the user's, and answers.
//
// # How a packet travels
//
//	datagram -> client by source address          unknown: dropped
//	         -> header, attributes (packet.go)    malformed: dropped
//	         -> Message-Authenticator             missing where required, or wrong: dropped
//	         -> rate of the client (rate.go)      too many a second: dropped, if it is new
//	         -> reply cache (replycache.go)       known: the same reply again; in work: attached
//	         -> bound on requests in work         full: shed, the newest first
//	         -> method (methods.go, pap.go)       the core decides, durably
//	         -> reply, signed, cached, sent
//
// Up to the bound everything happens in the goroutine that reads the socket,
// without allocating: what cannot be answered costs little. Each request that
// is taken then has a goroutine of its own, as the core blocks until its
// decision is durable and decides many at once.
//
// # What it promises
//
// A packet that does not authenticate is never answered. A fault never becomes
// an Accept: when the core cannot answer, neither does this server, nothing is
// cached, and the gateway's retransmission is a new try. A retransmission never
// reaches the core while its first is in work or was answered within the last
// 30 seconds, so a code that was accepted is not rejected as a replay because a
// reply was lost. An Access-Reject carries no reason.
//
// # What a reply has
//
// Message-Authenticator first, so that nobody chooses what stands before it; what the
// method adds; a question (challenge.go), or the client's text and attributes for the
// user's groups (replies.go), which a dictionary encodes when the client changes
// (dictionary.go, attribute.go); each Proxy-State as it came. Whether the longest such
// reply is one packet is seen before a code is spent.
//
// # Who looks on
//
// What happens to each request is counted, and shown to who watches (watch.go). An
// administrator can have the server make a request in the place of a client (trial.go):
// it goes the same way, but for the network.
//
// layeh.com/radius supplies codes and attribute numbers, and in the tests an
// independent codec. Its server is not used: it forgets a reply once sent and
// never checks Message-Authenticator. Its parser allocates for each attribute.
package radius
