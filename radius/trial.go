package radius

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2759"

	"watchword/tokens"
)

// Trial is a request that the server makes in the place of a client, to find out what
// its users would be answered. It goes the way of every request, but for the network:
// what is typed is consumed, and a failure counts.
type Trial struct {
	Client *tokens.RADIUSClient
	User   string        // User-Name; empty: a Status-Server
	Code   []byte        // what the user types; the caller wipes it
	Method tokens.Method // empty: PAP
	NAS    string        // NAS-Identifier; empty: the client's name
	Caller string        // Calling-Station-Id; empty: none
	State  []byte        // of the challenge that Code answers; nil: none
}

// Tried is what came of a Trial.
type Tried struct {
	Outcome    string // as in Sight
	Cause      string // why it was dropped, as in Sight
	Says, Do   string // the same for people, and what to do about it
	Reply      string // the name of the reply's code; empty: there was none
	Attributes []Attribute
	State      []byte        // of a challenge; nil: none
	Took       time.Duration // until the reply was there, or it was plain that none comes
	Refused    string        // why a correct client would discard the reply; empty: it would not
}

// Attribute is one attribute of a reply, in the words of the dictionary. What only the
// client may read is not shown.
type Attribute struct {
	Name, Value string
}

// trial is a Trial under way, and where its reply goes.
type trial struct {
	client *tokens.RADIUSClient
	ended  chan trialEnd
}

type trialEnd struct {
	reply   []byte
	outcome string // without a reply
	cause   cause
}

// of is the client that a request is from, if a trial says so.
func (t *trial) of() (*tokens.RADIUSClient, bool) {
	if t == nil {
		return nil, false
	}
	return t.client, true
}

// byway is how the request came.
func (r *request) byway() string {
	if r.test != nil {
		return transportTrial
	}
	return transport
}

func (t *trial) send(reply []byte, _ *path) error {
	t.end(trialEnd{reply: bytes.Clone(reply)})
	return nil
}

// unanswered notes that no reply comes. Of a request that is no trial it notes nothing.
func (t *trial) unanswered(outcome string, c cause) {
	if t != nil {
		t.end(trialEnd{outcome: outcome, cause: c})
	}
}

func (t *trial) end(e trialEnd) {
	select {
	case t.ended <- e:
	default: // there is one already
	}
}

// Try makes a request in the place of a client and answers what came of it. It fails
// where the request cannot be made, with ErrServerClosed where the server does not
// read, and with ctx's error.
func (s *Server) Try(ctx context.Context, t Trial) (Tried, error) {
	wire, proof, err := t.request()
	if err != nil {
		return Tried{}, err
	}
	r := newRequest()
	r.test = &trial{client: t.Client, ended: make(chan trialEnd, 1)}
	ended := r.test.ended
	// Port 0, from which nothing comes by network, keeps it apart in the reply cache.
	r.path.via, r.path.peer = r.test, netip.AddrPortFrom(t.Client.Prefix.Addr(), 0)
	n := copy(r.buf[:], wire)
	begin := time.Now()
	if err := s.try(r, n); err != nil {
		return Tried{}, err
	}
	select {
	case e := <-ended:
		out := Tried{Outcome: e.outcome, Took: time.Since(begin)}
		if e.reply == nil {
			if e.cause != 0 {
				k := &remedies[e.cause]
				out.Cause, out.Says, out.Do = k.label, k.says, k.do
			}
			return out, nil
		}
		t.read(&out, e.reply, wire, proof, s.config.Dictionary)
		return out, nil
	case <-ctx.Done():
		return Tried{}, ctx.Err()
	}
}

// try gives the server a request as if it had been read from a socket.
func (s *Server) try(r *request, n int) error {
	s.trying.RLock()
	defer s.trying.RUnlock()
	s.mu.Lock()
	reads := s.started && !s.stopping()
	s.mu.Unlock()
	if !reads {
		return ErrServerClosed
	}
	s.receive(r, n)
	return nil
}

// ErrTrial is a Trial that no client could send.
var ErrTrial = errors.New("no such request can be sent")

// request is the packet that the client would send, and what shows of MS-CHAPv2 that
// the server knew the code.
func (t *Trial) request() (wire, proof []byte, err error) {
	b := make([]byte, headerSize, 512)
	b[0] = codeAccessRequest
	if t.User == "" {
		b[0] = codeStatusServer
	}
	if _, err := rand.Read(b[1:headerSize]); err != nil { // identifier and authenticator
		return nil, nil, err
	}
	var long error
	add := func(kind byte, value []byte) {
		if len(value) > maxValue {
			long = fmt.Errorf("%w: %s is longer than %d bytes", ErrTrial, attributeName(kind), maxValue)
			return
		}
		b = append(append(b, kind, byte(2+len(value))), value...)
	}
	add(attrMessageAuthenticator, zeros[:])
	nas := t.NAS
	if nas == "" {
		nas = t.Client.Name
	}
	add(attrNASIdentifier, []byte(nas))
	if t.User != "" {
		add(attrUserName, []byte(t.User))
		if proof, err = t.prove(b[4:headerSize], add); err != nil {
			return nil, nil, err
		}
	}
	if t.Caller != "" {
		add(attrCallingStationID, []byte(t.Caller))
	}
	if t.State != nil {
		add(attrState, t.State)
	}
	if long != nil {
		return nil, nil, long
	}
	binary.BigEndian.PutUint16(b[2:4], uint16(len(b)))
	copy(b[headerSize+2:], newDigester().messageAuthenticator(t.Client.Plain, b, headerSize+2))
	return b, proof, nil
}

// prove adds what shows the code.
func (t *Trial) prove(authenticator []byte, add func(kind byte, value []byte)) (proof []byte, err error) {
	var random [1 + 16 + 16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	ident, challenge, peer := random[0], random[1:17], random[17:]
	switch t.Method {
	case "", tokens.MethodPAP:
		if len(t.Code) > maxPasswordSize {
			return nil, fmt.Errorf("%w: a password is at most %d bytes", ErrTrial, maxPasswordSize)
		}
		hidden, err := layeh.NewUserPassword(t.Code, t.Client.Plain, authenticator)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrial, err)
		}
		add(attrUserPassword, hidden)
		return nil, nil
	case tokens.MethodCHAP:
		sum := md5.Sum(slices.Concat([]byte{ident}, t.Code, challenge))
		add(attrCHAPChallenge, challenge)
		add(attrCHAPPassword, append([]byte{ident}, sum[:]...))
		return nil, nil
	case tokens.MethodMSCHAP, tokens.MethodMSCHAPv2:
	default:
		return nil, fmt.Errorf("%w: method %q; it is pap, chap, mschap or mschapv2", ErrTrial, t.Method)
	}
	wide, err := rfc2759.ToUTF16(t.Code)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrial, err)
	}
	defer clear(wide)
	hash := rfc2759.NTPasswordHash(wide)
	vendor := func(kind byte, value []byte) {
		held := binary.BigEndian.AppendUint32(nil, vendorMicrosoft)
		add(attrVendorSpecific, append(append(held, kind, byte(2+len(value))), value...))
	}
	response := make([]byte, msResponseSize)
	response[0] = ident
	if t.Method == tokens.MethodMSCHAP {
		response[1] = 1 // the NT response counts
		copy(response[2+24:], rfc2759.ChallengeResponse(challenge[:msChallengeSize], hash))
		vendor(msCHAPChallenge, challenge[:msChallengeSize])
		vendor(msCHAPResponse, response)
		return nil, nil
	}
	name := undomained([]byte(t.User))
	nt := rfc2759.ChallengeResponse(rfc2759.ChallengeHash(peer, challenge, name), hash)
	copy(response[2:], peer)
	copy(response[2+24:], nt)
	vendor(msCHAPChallenge, challenge)
	vendor(msCHAP2Response, response)
	success, err := rfc2759.GenerateAuthenticatorResponse(challenge, peer, nt, name, t.Code)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrial, err)
	}
	return append([]byte{ident}, success...), nil
}

// read looks at the reply as a correct client does, and shows what is in it.
func (t *Trial) read(out *Tried, reply, request, proof []byte, d *Dictionary) {
	out.Reply = layeh.Code(reply[0]).String()
	switch reply[0] {
	case codeAccessAccept:
		out.Outcome = outcomeLabels[accepted]
	case codeAccessReject:
		out.Outcome = outcomeLabels[rejected]
	default:
		out.Outcome = outcomeLabels[challenged]
	}
	if why := refuse(reply, request, t.Client.Plain); why != nil {
		out.Refused = why.Error()
		return
	}
	var p packet
	_ = p.parse(reply) // refuse has done so
	proven := proof == nil || reply[0] != codeAccessAccept
	for kind, value := range p.attributes() {
		switch kind {
		case attrMessageAuthenticator:
			continue
		case attrState:
			out.State = bytes.Clone(value)
			continue
		case attrVendorSpecific:
			proven = proven || bytes.Equal(value, slices.Concat([]byte{0, 0, vendorMicrosoft >> 8, vendorMicrosoft & 0xff, msCHAP2Success, byte(2 + len(proof))}, proof))
		}
		out.Attributes = append(out.Attributes, d.describe(kind, value)...)
	}
	if !proven {
		out.Refused = "MS-CHAP2-Success does not prove that the server knew the code"
	}
}

// Why a correct client discards a reply.
var (
	errReplyForm          = errors.New("the reply is malformed")
	errReplyIdentifier    = errors.New("the reply has another identifier than the request")
	errReplyNoMA          = errors.New("the reply has no Message-Authenticator")
	errReplyMAPlace       = errors.New("Message-Authenticator is not the reply's first attribute")
	errReplyMA            = errors.New("the reply's Message-Authenticator is wrong")
	errReplyAuthenticator = errors.New("the reply's Response Authenticator is wrong")
)

// refuse says why a client that does as draft-ietf-radext-deprecating-radius has it
// would discard a reply: nil, if it would not.
func refuse(reply, request, secret []byte) error {
	var p packet
	switch c := p.parse(reply); {
	case c == duplicateMA:
		return errReplyMAPlace
	case c != 0 || len(reply) != len(p.wire):
		return errReplyForm
	case p.identifier() != request[1]:
		return errReplyIdentifier
	case p.ma == 0:
		return errReplyNoMA
	case p.ma != headerSize+2:
		return errReplyMAPlace
	}
	d := newDigester()
	own := bytes.Clone(reply)
	copy(own[4:headerSize], request[4:headerSize])
	if !bytes.Equal(d.messageAuthenticator(secret, own, p.ma), reply[p.ma:p.ma+authSize]) {
		return errReplyMA
	}
	sum := md5.Sum(slices.Concat(own, secret))
	if !bytes.Equal(sum[:], p.authenticator()) {
		return errReplyAuthenticator
	}
	return nil
}

func attributeName(kind byte) string {
	switch kind {
	case attrNASIdentifier:
		return "NAS-Identifier"
	case attrUserName:
		return "User-Name"
	case attrCallingStationID:
		return "Calling-Station-Id"
	case attrState:
		return "State"
	}
	return fmt.Sprintf("Attr-%d", kind)
}
