package radius

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"

	"watchword/tokens"
)

// watch begins to watch, until the test's end.
func (h *house) watch(t *testing.T, what Sighted) *Watch {
	t.Helper()
	w, err := h.Watch(what)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// sees waits for so many sights.
func sees(t *testing.T, w *Watch, n int) []Sight {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var all []Sight
	for len(all) < n {
		v, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("after %+v: %v", all, err)
		}
		all = append(all, v)
	}
	return all
}

func TestAWatcherSeesWhatHappensAndNothingSecret(t *testing.T) {
	core := asking(tokens.DialoguePIN)
	core.clients[0].Methods = []tokens.Method{tokens.MethodPAP, tokens.MethodCHAP}
	core.clients = append(core.clients, newClient("elsewhere", "127.9.0.0/16", secret, true))
	core.clients[0].Prefix = newClient("", "127.0.0.0/16", "", true).Prefix
	h := serve(t, core, Config{})
	w := h.watch(t, Sighted{})
	n := gateway(t, "", h.address())

	first := accessRequest(t, "code", "0815", secret)
	n.exchange(first, secret)
	n.exchange(first, secret)
	answer := unsigned(t, "code", goodCode, secret)
	answer.Set(rfc2865.State_Type, longState)
	rfc2865.NASIdentifier_SetString(answer, "gate 7")
	n.exchange(signed(t, answer, secret), secret)
	chap := unsigned(t, "dave", "", secret)
	chap.Del(rfc2865.UserPassword_Type)
	chap.Set(rfc2865.CHAPPassword_Type, make([]byte, 17))
	n.exchange(signed(t, chap, secret), secret)
	n.send(encoded(t, unsigned(t, "b\xffb", goodCode, secret)))
	h.awaitDropped(t, missingMA, 1)
	n.exchange(signed(t, layeh.New(layeh.CodeStatusServer, []byte(secret)), secret), secret)
	n.send([]byte("noise"))
	h.awaitDropped(t, malformed, 1)
	gateway(t, "127.7.0.1:0", h.address()).send(first)
	h.awaitDropped(t, unknownClient, 1)

	var got []string
	all := sees(t, w, 8)
	for _, v := range all {
		got = append(got, strings.TrimRight(fmt.Sprintf("%s %s %q %s %s %s %s %s", v.Client, v.Address, v.User, v.NAS, v.Method, v.Outcome, v.Reply, v.Cause), " "))
		if time.Since(v.Time) > time.Minute || v.Took < 0 || v.Took > time.Minute || v.Missed != 0 || v.Test {
			t.Errorf("%+v", v)
		}
	}
	want := []string{
		`vpn 127.0.0.1 "code"  pap challenge Access-Challenge`,
		`vpn 127.0.0.1 "code"  pap repeated Access-Challenge`,
		`vpn 127.0.0.1 "code" gate 7 pap accept Access-Accept`,
		`vpn 127.0.0.1 "dave"  chap reject Access-Reject`,
		`vpn 127.0.0.1 "b` + "\ufffd" + `b"  pap dropped  missing_message_authenticator`,
		`vpn 127.0.0.1 ""  status accept Access-Accept`,
		`vpn 127.0.0.1 ""   dropped  malformed`,
		` 127.7.0.1 ""   dropped  unknown_client`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{goodCode, "0815", secret, string(longState[:8]), "a5a5"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%q is shown: %s", secret, text)
		}
	}
}

func TestAWatcherSeesWhatWasAskedForAndNoOtherRealms(t *testing.T) {
	core := oneClient()
	lab := newClient("lab", "127.0.0.2/32", secret, true)
	lab.Realm = "lab"
	many := newClient("many", "127.0.0.3/32", secret, true)
	many.NameRule = tokens.NameRealm
	core.clients = append(core.clients, lab, many)
	core.clients[0].Prefix = newClient("", "127.0.0.0/30", "", true).Prefix
	h := serve(t, core, Config{})
	watchers := map[string]*Watch{
		"all":       h.watch(t, Sighted{}),
		"default":   h.watch(t, Sighted{Realm: tokens.DefaultRealm}),
		"lab":       h.watch(t, Sighted{Realm: "lab"}),
		"nowhere":   h.watch(t, Sighted{Realm: "nowhere"}),
		"client":    h.watch(t, Sighted{Client: "lab"}),
		"alice":     h.watch(t, Sighted{User: "ALICE"}),
		"alice lab": h.watch(t, Sighted{User: "alice@LAB"}),
		"last":      h.watch(t, Sighted{User: "last"}),
	}
	for _, q := range []struct{ from, user string }{
		{"127.0.0.1:0", "alice"}, {"127.0.0.2:0", "Alice"}, {"127.0.0.3:0", "alice"}, {"127.0.0.3:0", "alice@lab"}, {"127.0.0.3:0", `LAB\bob`}, {"127.0.0.3:0", "x@\x01"},
	} {
		gateway(t, q.from, h.address()).exchange(accessRequest(t, q.user, "000000", secret), secret)
	}
	gateway(t, "127.7.0.1:0", h.address()).send(accessRequest(t, "alice", "000000", secret))
	h.awaitDropped(t, unknownClient, 1)
	gateway(t, "127.0.0.1:0", h.address()).exchange(accessRequest(t, "last", goodCode, secret), secret)
	sees(t, watchers["last"], 1)
	for name, want := range map[string]string{
		"all": "vpn alice, lab Alice, many alice, many alice@lab, many LAB\\bob, many x@\x01,  , vpn last",
		// Of the client of all realms only what is of its own.
		"default": "vpn alice, many alice, vpn last",
		"lab":     "lab Alice", "nowhere": "", "client": "lab Alice",
		"alice": "vpn alice, lab Alice, many alice, many alice@lab", "alice lab": "many alice@lab",
	} {
		var got []string
		for range len(watchers[name].sights) {
			v := sees(t, watchers[name], 1)[0]
			got = append(got, v.Client+" "+v.User)
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s saw %q, want %q", name, got, want)
		}
	}
}

func TestASlowWatcherMissesAndKeepsNobody(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	w := h.watch(t, Sighted{})
	n := gateway(t, "", h.address())
	const beyond = 50
	for range watchBuffer + beyond {
		n.exchange(accessRequest(t, "alice", goodCode, secret), secret)
	}
	sees(t, w, watchBuffer)
	n.exchange(accessRequest(t, "alice", goodCode, secret), secret)
	if v := sees(t, w, 1)[0]; v.Missed != beyond {
		t.Errorf("missed %d", v.Missed)
	}
	n.exchange(accessRequest(t, "alice", goodCode, secret), secret)
	if v := sees(t, w, 1)[0]; v.Missed != 0 {
		t.Errorf("missed %d again", v.Missed)
	}
}

func TestWatchersAreBoundedAndEndWithTheServer(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	var all []*Watch
	for range maxWatchers {
		all = append(all, h.watch(t, Sighted{}))
	}
	if _, err := h.Watch(Sighted{}); !errors.Is(err, ErrWatchers) {
		t.Errorf("one too many: %v", err)
	}
	all[3].Close()
	all[3].Close()
	all[3] = h.watch(t, Sighted{})
	if err := h.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, w := range all {
		if _, err := w.Next(context.Background()); !errors.Is(err, ErrServerClosed) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := h.Watch(Sighted{}); !errors.Is(err, ErrServerClosed) {
		t.Errorf("after the end: %v", err)
	}
	never, err := New(oneClient(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := never.Watch(Sighted{})
	if err != nil {
		t.Fatal(err)
	}
	never.Shutdown(context.Background())
	if _, err := w.Next(context.Background()); !errors.Is(err, ErrServerClosed) {
		t.Errorf("of a server that never served: %v", err)
	}
}

func TestWhileNobodyWatchesNothingIsMade(t *testing.T) {
	var h hub
	r := newRequest()
	if c := r.packet.parse(accessRequest(t, "alice", goodCode, secret)); c != 0 {
		t.Fatal(c)
	}
	if n := testing.AllocsPerRun(100, func() { h.ended(r, "accept", codeAccessAccept, 0); h.dropped(r, wrongMA) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
