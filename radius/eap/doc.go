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
//	eap-gtc              the code as it is; no keys, so not for wireless networks
//	eap-mschapv2         a proof of the code, and keys; nothing is hidden but the code
//	eap-ttls-pap         the code, in a tunnel that the server's certificate opens
//	eap-ttls-gtc         the same, as EAP
//	eap-ttls-mschapv2    a proof in that tunnel: MS-CHAPv2 or EAP-MSCHAPv2
//	eap-peap-gtc         the code, in a tunnel of PEAP
//	eap-peap-mschapv2    a proof in that tunnel
//
// Tunnels are EAP-TTLS version 0 (RFC 5281) and PEAP version 0, over TLS 1.2 and 1.3
// (RFC 9427). The user who is asked about is the one named inside: outside stands
// whatever the peer likes to be called. A device that does not check the certificate
// gives its code to anyone who offers a tunnel.
//
// # What it promises
//
// Done with Accept comes from Told(true) and from nothing else. A packet that comes
// again is answered with the same bytes and asks the core nothing, unless the core had
// not answered yet; one that answers another request than the last is not answered. A
// conversation takes [MaxRounds] packets of the peer within [MaxLife], and 64 KB. What
// a peer typed is wiped once the core has decided; what crypto/tls decrypted it in is
// crypto/tls's.
//
// Sessions are not resumed: whoever comes back shows another code. So the byte by which
// TLS 1.3 says that nothing follows (RFC 9190, section 2.5) is never sent: with these
// methods something always follows (RFC 9427, section 5.1).
//
// # What it cannot do
//
// crypto/tls makes keys (RFC 5705) up to TLS 1.2 only with the extended master secret
// (RFC 7627). A peer without it is refused before it sends a code, with an error that
// says so. crypto/tls reads from a connection until it has enough, so it runs in a
// goroutine for each tunnel, which ends with Close, or after MaxLife if nobody calls it.
// Alerts of TLS 1.3 that are not encrypted it does not understand; they are read here.
//
// PEAP's cryptobinding is not spoken; a peer that insists on it is refused by itself.
// Nor are PEAP version 1 and 2, EAP-TLS, and methods by which a PIN would be changed.
package eap
