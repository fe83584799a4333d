package tokens_test

import (
	"slices"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

func TestWhatComesOfARecordIsNoticed(t *testing.T) {
	event := func(action, outcome, reason string, detail ...string) audit.Record {
		r := audit.Record{Chain: 3, Seq: 9, Event: audit.Event{Time: time.Unix(1_700_000_000, 0), Action: action, Outcome: outcome, Reason: reason, User: "alice", Actor: "system"}}
		for i := 0; i < len(detail); i += 2 {
			r.Detail = append(r.Detail, audit.Field{Name: detail[i], Value: detail[i+1]})
		}
		return r
	}
	seen := map[string]bool{}
	for _, c := range []struct {
		r    audit.Record
		want string
	}{
		{event("token.lost", "ok", ""), tokens.NoticeTokenLost},
		{event("token.lost", "denied", "forbidden"), ""},
		{event("verify", "reject", "wrong_code"), ""},
		{event("verify", "reject", "wrong_code", "locked", "true"), tokens.NoticeUserLocked},
		{event("token.resync", "refused", "wrong_code", "locked", "true"), tokens.NoticeUserLocked},
		{event("user.edit", "ok", "", "locked", "true"), ""},
		{event("verify", "reject", "tampered"), tokens.NoticeTampering},
		{event("verify", "reject", "cloned"), tokens.NoticeTampering},
		{event("verify", "challenge", "pin_first", "first", "tampered"), tokens.NoticeTampering},
		{event("verify", "challenge", "pin_first", "first", "wrong_pin"), ""},
		{event("audit.verify", "ok", "", "intact", "false"), tokens.NoticeTampering},
		{event("audit.verify", "ok", "", "intact", "true"), ""},
		{event("import.transport", "refused", ""), tokens.NoticeTampering},
		{event("import.publish", "ok", ""), tokens.NoticeImported},
		{event("import.publish", "refused", "state"), ""},
		{event("policy.put", "ok", ""), tokens.NoticePolicyChanged},
		{event("policy.link.delete", "ok", ""), tokens.NoticePolicyChanged},
		{event("policy.simulate", "ok", ""), ""},
		{event("realm.rules.put", "ok", ""), tokens.NoticePolicyChanged},
		{event("fido.mds.import", "ok", ""), tokens.NoticeFIDOStatus},
		{event("fido.mds.import", "ok", "", "unchanged", "true"), ""},
		{event("fido.show", "ok", "", "of", "metadata"), ""},
		{event("fido.show", "ok", "", "of", "status report"), tokens.NoticeFIDOStatus},
		{event("role.grant", "ok", ""), tokens.NoticeRoleChanged},
		{event("role.revoke", "ok", ""), tokens.NoticeRoleChanged},
		{event("role.list", "ok", ""), ""},
		{event("key.add", "ok", ""), tokens.NoticeKeyChanged},
		{event("key.enrol", "ok", ""), ""}, // a FIDO key
		{event("sink.failing", "error", ""), tokens.NoticeSinkFailing},
		{event("sink.failing", "ok", ""), ""},
		{event("sink.stop", "error", ""), tokens.NoticeSinkFailing},
	} {
		all := tokens.Sink{ID: "77", Kind: tokens.SinkWebhook}
		n, ok := all.Notice(&c.r)
		if ok != (c.want != "") || n.Type != c.want {
			t.Errorf("%s %s %s: %q", c.r.Action, c.r.Outcome, c.r.Reason, n.Type)
		}
		if !ok {
			continue
		}
		seen[n.Type] = true
		if n.ID != "msg_77_3_9" || !n.Time.Equal(c.r.Time) || n.Data.Action != c.r.Action || n.Data.User != "alice" {
			t.Errorf("%+v", n)
		}
		some := tokens.Sink{ID: "77", Kind: tokens.SinkWebhook, Events: []string{c.want}}
		if _, ok := some.Notice(&c.r); !ok {
			t.Errorf("%s is asked for, and not told", c.want)
		}
		others := slices.DeleteFunc(slices.Clone(tokens.NoticeTypes), func(s string) bool { return s == c.want })
		some.Events = others
		if _, ok := some.Notice(&c.r); ok {
			t.Errorf("%s is not asked for, and told", c.want)
		}
	}
	for _, kind := range tokens.NoticeTypes {
		if !seen[kind] {
			t.Errorf("%s comes of nothing", kind)
		}
	}
}

func TestANoticeStaysSmall(t *testing.T) {
	r := audit.Record{Event: audit.Event{Action: "token.lost", Outcome: "ok"}}
	for range 1000 {
		r.Detail = append(r.Detail, audit.Field{Name: "a name", Value: "a value of some length"})
	}
	k := tokens.Sink{}
	n, _ := k.Notice(&r)
	if len(n.Data.Detail) == 0 || len(n.Data.Detail) > 200 {
		t.Errorf("%d details", len(n.Data.Detail))
	}
}

// A hundred failures in a row lock a user: the record of the last one says so, and
// no other.
func TestTheFailureThatLocksSaysSo(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Throttle = tokens.DefaultThrottle(); c.Throttle.LockAt = 3 })
	d := totp("L1")
	h.ship("", d)
	h.must(h.AddUser(ctx, h.admin, "", "alice"))
	h.must(h.Assign(ctx, h.admin, "", "L1", "alice"))
	for range 4 {
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: "000000"}); err != nil || r.Accept {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	var locked []int64
	for _, r := range h.records("verify", "") {
		if slices.Contains(r.Detail, audit.Field{Name: "locked", Value: "true"}) {
			locked = append(locked, r.Seq)
		}
	}
	if len(locked) != 1 {
		t.Errorf("%d records say that alice was locked", len(locked))
	}
}
