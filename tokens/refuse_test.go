package tokens_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"watchword/tokens"
)

// Whatever is refused is audited as refused.
func TestWhatIsRefusedIsAudited(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	keys, err := h.Keys(ctx, h.admin)
	if err != nil {
		t.Fatal(err)
	}
	client := func(name, prefix string) tokens.NewClient {
		return tokens.NewClient{Name: name, Prefix: netip.MustParsePrefix(prefix), Secret: []byte("sixteen or more chars")}
	}
	for _, c := range []struct {
		action, reason string
		do             func() error
	}{
		{"user.add", "exists", func() error { _, err := h.AddUser(ctx, h.admin, "", "Alice"); return err }},
		{"user.show", "not_found", func() error { _, _, err := h.ShowUser(ctx, h.admin, "", "bob"); return err }},
		{"user.why", "not_found", func() error { _, err := h.Why(ctx, h.admin, "", "bob", 1); return err }},
		{"user.disable", "not_found", func() error { _, err := h.SetUserState(ctx, h.admin, "", "bob", tokens.UserDisabled); return err }},
		{"token.show", "not_found", func() error { _, err := h.ShowToken(ctx, h.admin, "", "T2"); return err }},
		{"client.put", "exists", func() error {
			_, err := h.PutClient(ctx, h.admin, client("localhost", "192.0.2.1/32"), false)
			return err
		}},
		{"client.put", "exists", func() error { _, err := h.PutClient(ctx, h.admin, client("nas", "127.0.0.1/32"), false); return err }},
		{"client.delete", "not_found", func() error { return h.DeleteClient(ctx, h.admin, "nas") }},
		{"key.delete", "not_found", func() error { return h.DeleteKey(ctx, h.admin, "0123") }},
		{"key.delete", "not_found", func() error { return h.DeleteKey(ctx, h.admin, "ww_0123456789abcdef_secret-of-a-key") }},
		{"key.delete", "state", func() error { return h.DeleteKey(ctx, h.admin, keys[0].ID) }},
	} {
		if err := c.do(); err == nil || errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("%s: %v", c.action, err)
		}
		if r := h.last(); r.Action != c.action || r.Outcome != "refused" || r.Reason != c.reason {
			t.Errorf("%s: the last record is %s %s %s", c.action, r.Action, r.Outcome, r.Reason)
		}
		if strings.Contains(fmt.Sprint(h.last(), c.do()), "secret-of-a-key") {
			t.Errorf("%s: the audit or the error holds what may be a key", c.action)
		}
	}
}
