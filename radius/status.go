package radius

import "time"

// status answers Status-Server (RFC 5997): an Access-Accept while the core is
// ready, else silence, so that a gateway uses another server. It is not held
// in the reply cache, as an old answer would be a wrong one, and is answered
// even where requests are being shed: the server is there.
func (s *Server) status(r *request, now time.Time) {
	if len(s.core.Ready()) > 0 {
		s.drops.fromClient(r, notReady, now)
		return
	}
	r.tally.status.Inc()
	s.hub.ended(r, outcomeLabels[accepted], codeAccessAccept, time.Since(now))
	s.send(r.reply(codeAccessAccept), &r.path)
}
