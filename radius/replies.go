package radius

import (
	"fmt"
	"slices"

	"watchword/tokens"
)

// maxReplies bounds the attributes of a client's replies, in bytes: all of them, as a
// user may belong to every group. With what the protocol wants, a question or a
// Reply-Message, and keys of MS-CHAP there is room left for Proxy-State.
const maxReplies = 2048

// replies are what the replies to one client have beside what the protocol wants,
// encoded once when the client has changed. They are never changed.
type replies struct {
	client    *tokens.RADIUSClient // whose they are, as it was
	broken    bool                 // they cannot be made here
	accepting []byte               // Reply-Message
	rejecting []byte
	questions map[tokens.Question][]byte
	all       []replyTo
	grouped   bool // some are for members of a group
	longest   int  // bytes that a reply can have of all this, State included
}

// replyTo are the attributes for members of a group; empty: for everybody.
type replyTo struct {
	group      string
	attributes []replyPart
}

type replyPart struct {
	wire []byte
	once uint64 // a bit of its own for an attribute that may stand in a reply once
}

// repliesTo are those to a client, which the registry replaces when it changes.
func (s *Server) repliesTo(client *tokens.RADIUSClient, t *tally) *replies {
	r := t.replies.Load()
	if r == nil || r.client != client {
		var err error
		if r, err = newReplies(client, s.config.Dictionary); err != nil {
			s.log.Error("the reply attributes of a RADIUS client cannot be made; its requests are dropped", "client", client.Name, "error", err)
		}
		t.replies.Store(r)
	}
	return r
}

// newReplies encodes what the replies to a client have. With an error they are broken:
// a user must not be let in without the attributes that keep them in bounds.
func newReplies(client *tokens.RADIUSClient, d *Dictionary) (*replies, error) {
	r := &replies{
		client:    client,
		accepting: appendText(nil, attrReplyMessage, client.Messages[tokens.MessageAccept]),
		rejecting: appendText(nil, attrReplyMessage, client.Messages[tokens.MessageReject]),
	}
	var size int
	var err error
	if r.all, size, err = d.encodeAll(client.Replies); err != nil {
		r.broken = true
		return r, err
	}
	for _, to := range r.all {
		r.grouped = r.grouped || to.group != ""
	}
	r.longest = max(len(r.accepting)+size, len(r.rejecting))
	if len(client.Dialogues) > 0 {
		r.questions = make(map[tokens.Question][]byte, len(questions))
		for q := range questions {
			b := asks(q, client.Messages)
			r.questions[q] = b
			r.longest = max(r.longest, 2+maxValue+len(b))
		}
	}
	return r, nil
}

// Check says what is wrong with reply attributes, as tokens.ErrInvalid: that one is
// unknown or does not belong there, that a value is none of its kind, or that there is
// too much.
func (d *Dictionary) Check(list []tokens.Reply) error {
	if _, _, err := d.encodeAll(list); err != nil {
		return fmt.Errorf("%w: %w", tokens.ErrInvalid, err)
	}
	return nil
}

// encodeAll encodes replies, and counts the bytes of all of them.
func (d *Dictionary) encodeAll(list []tokens.Reply) (all []replyTo, size int, err error) {
	var once []*attribute
	for _, r := range list {
		to, whose := replyTo{group: r.Group}, "everybody"
		if r.Group != "" {
			whose = "group " + r.Group
		}
		var here uint64
		for _, given := range r.Attributes {
			wire, a, err := d.encode(given)
			if err != nil {
				return nil, 0, fmt.Errorf("the reply for %s: %w", whose, err)
			}
			e := replyPart{wire: wire}
			if a.once {
				i := slices.Index(once, a)
				if i < 0 {
					i = len(once)
					once = append(once, a)
				}
				e.once = 1 << i
				if here&e.once != 0 || i >= 64 {
					return nil, 0, fmt.Errorf("the reply for %s: attribute %s may stand in a reply once", whose, a.name)
				}
				here |= e.once
			}
			to.attributes = append(to.attributes, e)
			size += len(wire)
		}
		all = append(all, to)
	}
	if size > maxReplies {
		return nil, 0, fmt.Errorf("the reply attributes have %d bytes in all; %d are possible", size, maxReplies)
	}
	return all, size, nil
}

// accept appends what an Access-Accept has for a user of these groups, which are sorted.
// Of an attribute that may stand there once the first counts.
func (r *replies) accept(b []byte, groups []string) []byte {
	b = append(b, r.accepting...)
	var there uint64
	for i := range r.all {
		to := &r.all[i]
		if to.group != "" {
			if _, member := slices.BinarySearch(groups, to.group); !member {
				continue
			}
		}
		for _, a := range to.attributes {
			if there&a.once == 0 {
				b = append(b, a.wire...)
			}
			there |= a.once
		}
	}
	return b
}

// reject appends what an Access-Reject has: the same for everybody.
func (r *replies) reject(b []byte) []byte { return append(b, r.rejecting...) }

// ask says whether a question can be asked by an Access-Challenge of this client's.
func (r *replies) ask(c *tokens.Challenge) bool {
	_, known := r.questions[c.Question]
	return known && len(c.State) > 0 && len(c.State) <= maxValue
}

// challenge appends what an Access-Challenge has.
func (r *replies) challenge(b []byte, c *tokens.Challenge) []byte {
	b = append(b, attrState, byte(2+len(c.State)))
	b = append(b, c.State...)
	return append(b, r.questions[c.Question]...)
}
