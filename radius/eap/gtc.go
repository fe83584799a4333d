package eap

import (
	"bytes"
	"context"
)

// gtc asks for the code and takes it as it is (RFC 3748, section 5.6).
type gtc struct {
	method Method
	prompt string
	user   string
}

func newGTC(c *Conversation, user string, methods []Method) speaker {
	return &gtc{method: methods[0], prompt: c.cfg.Prompt, user: user}
}

func (g *gtc) begin() move { return say([]byte(g.prompt)) }

func (g *gtc) respond(_ context.Context, data []byte) move {
	if len(data) > maxCode {
		return fail(errCode)
	}
	return ask(&Attempt{User: g.user, Code: bytes.Clone(data), Method: g.method})
}

func (g *gtc) told(accept bool) move {
	if accept {
		return succeed(nil)
	}
	return fail(nil)
}

func (g *gtc) close() {}
