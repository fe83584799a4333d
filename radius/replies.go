package radius

import (
	"watchword/tokens"
)

// replies are what the replies to one client have beside what the protocol wants,
// encoded once when the client has changed. They are never changed.
type replies struct {
	client    *tokens.RADIUSClient // whose they are, as it was
	accepting []byte               // Reply-Message
	rejecting []byte
	questions map[tokens.Question][]byte
	longest   int // bytes that a reply can have of all this, State included
}

// repliesTo are those to a client, which the registry replaces when it changes.
func (s *Server) repliesTo(client *tokens.RADIUSClient, t *tally) *replies {
	r := t.replies.Load()
	if r == nil || r.client != client {
		r = newReplies(client)
		t.replies.Store(r)
	}
	return r
}

func newReplies(client *tokens.RADIUSClient) *replies {
	r := &replies{
		client:    client,
		accepting: appendText(nil, attrReplyMessage, client.Messages[tokens.MessageAccept]),
		rejecting: appendText(nil, attrReplyMessage, client.Messages[tokens.MessageReject]),
	}
	r.longest = max(len(r.accepting), len(r.rejecting))
	if len(client.Dialogues) > 0 {
		r.questions = make(map[tokens.Question][]byte, len(questions))
		for q := range questions {
			b := asks(q, client.Messages)
			r.questions[q] = b
			r.longest = max(r.longest, 2+maxValue+len(b))
		}
	}
	return r
}

// accept appends what an Access-Accept has.
func (r *replies) accept(b []byte) []byte {
	return append(b, r.accepting...)
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
