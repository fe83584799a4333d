package tokens_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/tokens"
)

func TestWatchersAreShownTheirRealmAlone(t *testing.T) {
	h, _ := corpHouse(t)
	corp := h.key("corp", "admin")
	for _, c := range []struct {
		p    tokens.Principal
		ask  tokens.Watching
		want tokens.Watching
		err  error
	}{
		{h.admin, tokens.Watching{}, tokens.Watching{}, nil},
		{h.admin, tokens.Watching{Realm: "CORP", Client: "NAS", User: "Carol"}, tokens.Watching{Realm: "corp", Client: "nas", User: "carol"}, nil},
		{h.admin, tokens.Watching{Client: "none"}, tokens.Watching{}, tokens.ErrNotFound},
		{h.admin, tokens.Watching{User: "a\nb"}, tokens.Watching{}, tokens.ErrInvalid},
		{corp, tokens.Watching{}, tokens.Watching{Realm: "corp"}, nil},
		{corp, tokens.Watching{Client: "nas"}, tokens.Watching{Realm: "corp", Client: "nas"}, nil},
		{corp, tokens.Watching{Client: "localhost"}, tokens.Watching{}, tokens.ErrNotFound}, // it is another realm's
		{corp, tokens.Watching{Realm: "default"}, tokens.Watching{}, tokens.ErrForbidden},
		{h.key("", "helpdesk"), tokens.Watching{}, tokens.Watching{}, tokens.ErrForbidden},
	} {
		got, err := h.WatchClients(ctx, c.p, c.ask)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s watches %+v: %+v, %v", c.p.Actor(), c.ask, got, err)
		}
		if err == nil {
			r := h.last()
			if r.Action != "client.watch" || r.Outcome != "ok" || r.Actor != c.p.Actor() || r.Realm != c.want.Realm {
				t.Errorf("%s watches %+v, and the audit says %+v", c.p.Actor(), c.ask, r)
			}
		}
	}
}

func TestTheRightToWatchEndsWithTheKey(t *testing.T) {
	h, _ := corpHouse(t)
	k, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "eyes", Scope: "read", Expires: start.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Authenticate(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	w, err := h.WatchClients(ctx, p, tokens.Watching{})
	if err != nil {
		t.Fatal(err)
	}
	before := h.last()
	if err := h.MayWatch(ctx, p, w); err != nil {
		t.Errorf("while the key stands: %v", err)
	}
	if r := h.last(); r.ID != before.ID {
		t.Errorf("each look is audited: %+v", r)
	}
	if err := h.DeleteKey(ctx, h.admin, k.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.MayWatch(ctx, p, w); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("after it was deleted: %v", err)
	}
}

func TestATestOfAClientIsItsRealmsAdministratorsToMake(t *testing.T) {
	h, _ := corpHouse(t)
	h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: "proxy", Realm: "corp", Prefix: netip.MustParsePrefix("203.0.113.5/32"), Secret: []byte("secret-secret"), NameRule: tokens.NameRealm}, false))
	corp, lab := h.key("corp", "admin"), h.key("lab", "admin")
	for _, c := range []struct {
		p      tokens.Principal
		client string
		err    error
	}{
		{h.admin, "NAS", nil}, {h.admin, "proxy", nil}, {h.admin, "none", tokens.ErrNotFound}, {h.admin, "", tokens.ErrInvalid},
		{corp, "nas", nil}, {corp, "localhost", tokens.ErrNotFound},
		{corp, "proxy", tokens.ErrForbidden}, // the names of its users say the realm, which may be any
		{lab, "nas", tokens.ErrNotFound}, {lab, "proxy", tokens.ErrNotFound},
		{h.key("", "read"), "nas", tokens.ErrForbidden}, {h.key("", "helpdesk"), "nas", tokens.ErrForbidden},
	} {
		got, err := h.TestClient(ctx, c.p, tokens.ClientTest{Client: c.client, User: `CORP\carol`, Method: "chap"})
		if !errors.Is(err, c.err) || (err == nil) != (got != nil) {
			t.Errorf("%s tests %s: %v, %v", c.p.Actor(), c.client, got, err)
		}
		if err != nil {
			continue
		}
		if got.Name != strings.ToLower(c.client) || len(got.Plain) == 0 {
			t.Errorf("%+v", got.Client)
		}
		r := h.last()
		if r.Action != "client.test" || r.Outcome != "ok" || r.Actor != c.p.Actor() || r.Realm != "corp" || !strings.Contains(fmt.Sprint(r.Detail), `CORP\carol`) {
			t.Errorf("%s tests %s, and the audit says %+v", c.p.Actor(), c.client, r)
		}
	}
}

// counted is how often attempts ended so, by kind, client, outcome and reason.
func counted(s *tokens.Service) map[string]uint64 {
	all := map[string]uint64{}
	for _, n := range s.AttemptCounts() {
		all[fmt.Sprintf("%s %s %s %s", n.Kind, n.Client, n.Outcome, n.Reason)] += n.Count
	}
	return all
}

func TestEveryAttemptIsCountedByHowItEnded(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	right := d.code(h, 0)
	ask := func(p tokens.Principal, user, code string) {
		t.Helper()
		if _, err := h.Verify(ctx, p, tokens.Attempt{User: user, Code: code}); err != nil && !errors.Is(err, tokens.ErrInvalid) && !errors.Is(err, tokens.ErrForbidden) {
			t.Fatal(err)
		}
	}
	ask(h.vpn, "alice", right)
	ask(h.vpn, "alice", right)
	ask(h.vpn, "alice", "000000")
	for range 40 { // of most of which the audit has but a number
		ask(h.vpn, "nobody", "000000")
	}
	ask(h.vpn, "alice", "")
	ask(h.admin, "alice", "000000")
	ask(h.key("", "verify"), "alice", "000000")
	ask(h.key("", "read"), "alice", "000000")
	want := map[string]uint64{
		"client localhost accept accepted": 1, "client localhost reject replay": 1, "client localhost reject wrong_code": 1,
		"client localhost reject unknown_user": 40, "client localhost reject malformed": 1,
		"key  reject wrong_code": 2, "key  denied forbidden": 1,
	}
	if got := counted(h.Service); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestWhatClientsThatAreNoMoreDidIsOneCount(t *testing.T) {
	h := newHouse(t)
	for i := range 3 {
		name := fmt.Sprint("nas", i)
		h.must(h.PutClient(ctx, h.admin, tokens.NewClient{Name: name, Prefix: netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/32", i)), Secret: []byte("xyzzy5461")}, false))
		c, ok := h.ClientFor(netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i)))
		if !ok {
			t.Fatal(name)
		}
		h.must(h.Verify(ctx, c.Principal(), tokens.Attempt{User: "nobody", Code: "000000"}))
		if i > 0 {
			if err := h.DeleteClient(ctx, h.admin, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := map[string]uint64{"client nas0 reject unknown_user": 1, "client  reject unknown_user": 2}
	for range 2 {
		if got := counted(h.Service); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
}

func TestNoAttemptIsLostToTheCountOfMany(t *testing.T) {
	h := newHouse(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				if _, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: fmt.Sprint("nobody", i), Code: "000000"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); all.Wait() }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		default:
			h.AttemptCounts()
		}
	}
	if n := counted(h.Service)["client localhost reject unknown_user"]; n != 400 {
		t.Errorf("%d of 400", n)
	}
}
