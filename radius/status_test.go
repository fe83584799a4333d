package radius

import (
	"strings"
	"testing"

	layeh "layeh.com/radius"
)

func TestStatusServerIsAnsweredWhileReady(t *testing.T) {
	h := serve(t, laxClient(), Config{})
	n := gateway(t, "", h.address())
	request := signed(t, layeh.New(layeh.CodeStatusServer, []byte(secret)), secret)
	if p := n.exchange(request, secret); p.Code != layeh.CodeAccessAccept || len(p.Attributes) != 1 {
		t.Errorf("%v %v", p.Code, p.Attributes)
	}
	// The same bytes are asked anew: an old answer would be a wrong one.
	h.core.unready.Store(true)
	n.send(request)
	h.awaitDropped(t, notReady, 1)
	n.silence()
	h.core.unready.Store(false)
	if p := n.exchange(request, secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("ready again: %v", p.Code)
	}
	if got := h.metric(t, "watchword_radius_requests_total", "code=status_server", "outcome=accept"); got != 2 {
		t.Errorf("%v counted", got)
	}
	if len(h.core.asked()) != 0 {
		t.Error("a status was verified")
	}
}

func TestStatusServerNeedsMessageAuthenticator(t *testing.T) {
	h := serve(t, laxClient(), Config{}) // whatever the client's setting
	n := gateway(t, "", h.address())
	n.send(encoded(t, layeh.New(layeh.CodeStatusServer, []byte(secret))))
	n.send(signed(t, layeh.New(layeh.CodeStatusServer, []byte(secret)), "another secret"))
	h.awaitDropped(t, missingMA, 1)
	h.awaitDropped(t, wrongMA, 1)
	n.silence()
}

func TestRadclientAsksForStatus(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	if out := radclient(t, h.address(), "status", secret, "Message-Authenticator=0x00"); !strings.Contains(out, "Received Access-Accept") {
		t.Errorf("ready:\n%s", out)
	}
	h.core.unready.Store(true)
	if out := radclient(t, h.address(), "status", secret, "Message-Authenticator=0x00"); !strings.Contains(out, "No reply") {
		t.Errorf("not ready:\n%s", out)
	}
}
