package radius

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"
	"unicode/utf8"

	"watchword/tokens"
)

// method is one way in which an Access-Request proves a user. Each has a file
// of its own.
type method struct {
	name tokens.Method
	// speaks says whether the request uses the method.
	speaks func(*packet) bool
	// read fills in what the user typed, or what proves it. With an error, whose words
	// are for the log, the request is rejected.
	read func(*request, *tokens.Attempt) error
	// answer appends what the method adds to the reply to r.extra; nil: nothing. The
	// attempt is the one that read filled in.
	answer func(r *request, a *tokens.Attempt, accepted bool)
}

// methods are tried in order; a packet speaks at most one, see packet.parse.
var methods = []method{pap, chap, msCHAP, msCHAPv2}

// Reasons why no code could be read. None depends on whether the user exists,
// and none leaves the server: every reject looks the same. Each is logged with
// its remedy at most once a minute per client.
var (
	errMethod  = errors.New("the method is not supported: set the gateway to PAP")
	errBarred  = errors.New("the client may not use this method: allow it with watchword client add --replace --method, or have the gateway use PAP")
	errProof   = errors.New("the proof of the method (CHAP, MS-CHAP) is not of the form that it must have")
	errNoProof = errors.New("the request has neither password nor any other proof: look at the gateway's authentication settings")
	errNoUser  = errors.New("the request names no user: look at the gateway's authentication settings")
	errUser    = errors.New("the user name is not valid UTF-8: set the gateway to UTF-8")
	errState   = errors.New("it answers a question of ours by another method than PAP: set the gateway to PAP")
	errEmpty   = errors.New("the password is empty: the gateway must ask for the code and send it as the password")
	errNoise   = errors.New("the password is not valid UTF-8: most likely the shared secret differs between gateway and Watchword")
)

// errQuestion is the core's fault.
var errQuestion = errors.New("the core asks what this client cannot be asked")

// attempt fills in what the core is asked about an Access-Request. Where no code
// could be read r.unread says why: it is put to the core as well, which audits and
// refuses it, and counts it against nobody.
func (s *Server) attempt(r *request) {
	r.asked, r.by, r.unread = r.attempt()
	r.asked.Groups = r.replies.grouped && r.unread == nil
	if r.unread != nil {
		s.refused(r, r.unread)
		r.asked.Code, r.asked.Proof, r.asked.State, r.asked.Dialogues, r.asked.Joined = "", nil, nil, nil, nil
	}
	r.asked.Transport, r.asked.Origin = r.byway(), r.origin()
}

// outcome is where errors become outcomes: only an Accept without any error is one,
// and whatever is not understood is silence.
func (s *Server) outcome(r *request, result tokens.Result, err error) outcome {
	switch {
	case err == nil && r.unread == nil && result.Challenge != nil:
		if r.asked.Proof != nil || !r.replies.ask(result.Challenge) {
			s.fault(r, errQuestion)
			return unanswered
		}
		return challenged
	case err == nil && r.unread == nil && result.Accept:
		return accepted
	case err == nil, errors.Is(err, tokens.ErrInvalid), errors.Is(err, tokens.ErrForbidden):
		return rejected // no oracle: all are alike
	case errors.Is(err, tokens.ErrOverloaded):
		return shed
	}
	s.fault(r, err)
	return unanswered
}

// fault logs why a request is not answered.
func (s *Server) fault(r *request, err error) {
	if speak, unsaid := s.faults.may(r.client.Name, time.Now()); speak {
		s.log.LogAttrs(context.Background(), slog.LevelError, "RADIUS request not answered: the core cannot decide; the gateway will try again or use another server",
			slog.String("client", r.client.Name), slog.Any("error", err), slog.Int64("since_last", unsaid))
	}
}

// attempt turns the request into a question to the core by its method. With an
// error it holds the user, as far as that could be read.
func (r *request) attempt() (a tokens.Attempt, by *method, err error) {
	p := &r.packet
	if a.Realm, a.User, err = r.user(); err != nil {
		return a, nil, err
	}
	for i := range methods {
		by = &methods[i]
		switch {
		case !by.speaks(p):
			continue
		case !r.client.Uses(by.name):
			return a, by, errBarred
		case p.state != nil && by.name != tokens.MethodPAP:
			return a, by, errState // no question was asked there
		}
		return a, by, by.read(r, &a)
	}
	switch {
	case p.eap:
		return a, nil, errMethod
	case r.mayBeEmpty() && r.client.Uses(tokens.MethodPAP): // some leave an empty password out
		r.converse(&a)
		return a, &pap, nil
	}
	return a, nil, errNoProof
}

// answers lets the method add to the reply.
func (r *request) answers(accepted bool) {
	if r.unread == nil && r.by != nil && r.by.answer != nil {
		r.by.answer(r, &r.asked, accepted)
	}
}

// origin is what the request says of the gateway, and of where the person is: nothing
// but its Message-Authenticator proves that.
func (r *request) origin() (o tokens.Origin) {
	p := &r.packet
	switch {
	case len(p.nasIdentifier) > 0:
		o.NAS = string(p.nasIdentifier)
	case p.nasAddress != nil:
		o.NAS = netip.AddrFrom4([4]byte(p.nasAddress)).String()
	}
	// Many gateways put something else there, such as a MAC address.
	if n := len(p.calling); n >= len("1.1.1.1") || n >= 2 && bytes.IndexByte(p.calling, ':') >= 0 {
		o.Caller, _ = netip.ParseAddr(string(p.calling))
	}
	return o
}

// user is the realm and name in User-Name, by the client's rule.
func (r *request) user() (realm, name string, err error) {
	if len(r.packet.userName) == 0 {
		return "", "", errNoUser
	}
	if !utf8.Valid(r.packet.userName) {
		return "", "", errUser
	}
	realm, name = r.client.SplitName(string(r.packet.userName))
	return realm, name, nil
}

// refused logs why a request is rejected whatever the core knows.
func (s *Server) refused(r *request, why error) {
	if speak, unsaid := s.refusals.may(refusal{r.client.Name, why}, time.Now()); speak {
		s.log.LogAttrs(context.Background(), slog.LevelWarn, "RADIUS request rejected: "+why.Error(),
			slog.String("client", r.client.Name), slog.String("address", r.source), slog.Int64("since_last", unsaid))
	}
}

type refusal struct {
	client string
	why    error // one of the above
}
