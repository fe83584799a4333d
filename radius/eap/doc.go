// Package eap is the server's side of EAP (RFC 3748), without sockets, RADIUS, or the
// core: packets go in and come out, and in between stands a question.
//
//	New -> Step -> Continue   send the packet, wait for the peer's
//	            -> Ask        is this the user's code? -> Told -> as Step
//	            -> Done       send Success, with keys, or Failure; the end
//	            -> Discard    send nothing
//
// # What there is
//
//	eap-gtc        the code as it is; no keys, so not for wireless networks
//	eap-mschapv2   a proof of the code, and keys
//
// # What it promises
//
// Done with Accept comes from Told(true) and from nothing else. A packet that comes
// again is answered with the same bytes and asks the core nothing, unless the core had
// not answered yet; one that answers another request than the last is not answered. A
// conversation takes [MaxRounds] packets of the peer within [MaxLife], and 64 KB. What
// a peer typed is wiped once the core has decided.
package eap
