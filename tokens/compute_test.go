package tokens

import (
	"testing"
	"time"
)

// What Recall answered is shared with other batches: a PIN that is changed, and whose
// commit may yet fail, must not show there.
func TestAChangedPINLeavesTheUserThatWasRecalledAlone(t *testing.T) {
	s := &Service{cfg: Config{Now: time.Now}}
	recalled := &User{ID: 7, PINMAC: []byte("old"), PINDue: true}
	sub := &Subject{User: recalled}
	x := &trial{pending: &pending{}, subject: sub, user: recalled}
	v := &verdict{accept: true, token: &Token{}, rekeyed: &rekeyed{user: User{ID: 7, PINMAC: []byte("new")}}}
	var w write
	s.rebound(&w, &judged{}, x, v, at)
	if string(recalled.PINMAC) != "old" || !recalled.PINDue {
		t.Errorf("it has PIN %q, due %v", recalled.PINMAC, recalled.PINDue)
	}
	if string(sub.User.PINMAC) != "new" || sub.User.PINDue || w.user == nil || string(w.user.PINMAC) != "new" {
		t.Errorf("the next attempt is judged by PIN %q, due %v; %+v is written", sub.User.PINMAC, sub.User.PINDue, w.user)
	}
}
