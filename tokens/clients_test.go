package tokens_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"watchword/tokens"
)

// gateway is a client to put, with a secret or without.
func gateway(secret string, requireMA bool) tokens.NewClient {
	n := tokens.NewClient{Name: "vpn", Prefix: netip.MustParsePrefix("192.0.2.20/32"), RequireMA: requireMA}
	if secret != "" {
		n.Secret = []byte(secret)
	}
	return n
}

// secretOf is what a client's packets are hidden under.
func (h *house) secretOf(addr string) string {
	h.Helper()
	c, ok := h.ClientFor(netip.MustParseAddr(addr))
	if !ok {
		h.Fatalf("no client asks from %s", addr)
	}
	return string(c.Plain)
}

func TestAClientKeepsItsSecretWhereNoneIsNamed(t *testing.T) {
	h := newHouse(t)
	if _, err := h.PutClient(ctx, h.admin, gateway("", true), true); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a client without a secret: %v", err)
	}
	h.must(h.PutClient(ctx, h.admin, gateway("a secret of some length", true), true))
	if _, err := h.PutClient(ctx, h.admin, gateway("", false), false); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a client to add without a secret: %v", err)
	}
	next := gateway("", false)
	next.Prefix, next.NameRule = netip.MustParsePrefix("192.0.2.32/28"), tokens.NameStrip
	next.Options.Methods = []tokens.Method{tokens.MethodPAP, tokens.MethodCHAP}
	c, err := h.PutClient(ctx, h.admin, next, true)
	if err != nil || c.SecretSize != 23 || len(c.Secret) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	// It is bound to the columns of now.
	if got := h.secretOf("192.0.2.33"); got != "a secret of some length" {
		t.Error("the secret is another")
	}
	if _, ok := h.ClientFor(netip.MustParseAddr("192.0.2.20")); ok {
		t.Error("the old address still asks")
	}
}

func TestAClientThatIsSoAlreadyStaysAsItIs(t *testing.T) {
	h := newHouse(t)
	first, err := h.PutClient(ctx, h.admin, gateway("a secret of some length", true), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"", "a secret of some length"} {
		again, err := h.PutClient(ctx, h.admin, gateway(secret, true), true)
		if err != nil || !again.Created.Equal(first.Created) {
			t.Errorf("%+v, %v", again, err)
		}
		if r := h.last(); r.Action != "client.put" || r.Reason != "unchanged" {
			t.Errorf("the audit says %+v", r)
		}
	}
	if _, err := h.PutClient(ctx, h.admin, gateway("a secret of some length", true), false); !errors.Is(err, tokens.ErrExists) {
		t.Errorf("added twice: %v", err)
	}
}

func TestAComparisonOfAClientChangesNothing(t *testing.T) {
	h := newHouse(t)
	compare := func(n tokens.NewClient, want ...string) {
		t.Helper()
		c, got, err := h.CompareClient(ctx, h.admin, n)
		if err != nil || !slices.Equal(got, want) || len(c.Secret) != 0 {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	compare(gateway("a secret of some length", true), "client")
	if _, ok := h.ClientFor(netip.MustParseAddr("192.0.2.20")); ok {
		t.Fatal("a comparison made a client")
	}
	h.must(h.PutClient(ctx, h.admin, gateway("a secret of some length", true), true))
	compare(gateway("a secret of some length", true))
	compare(gateway("", true))
	compare(gateway("a secret of same length", true), "secret")
	other := gateway("", false)
	other.Prefix, other.NameRule = netip.MustParsePrefix("192.0.2.21/32"), tokens.NameStrip
	other.Options.UnsignedProxyState = true
	compare(other, "prefix", "require_message_authenticator", "name_rule", "options")
	secret := []byte("a secret to be wiped")
	other.Secret = secret
	compare(other, "prefix", "require_message_authenticator", "name_rule", "options", "secret")
	if secret[0] != 0 {
		t.Error("the secret stays in the caller's memory")
	}
	r := h.last()
	if r.Action != "client.put" || r.Reason != "unchanged" || r.Detail[len(r.Detail)-1].Name != "dry_run" {
		t.Errorf("the audit says %+v", r)
	}
	if got := h.secretOf("192.0.2.20"); got != "a secret of some length" {
		t.Error("a comparison changed the secret")
	}
}

// TestAKeptSecretIsTheNewestOne has some change a client without naming its secret
// while another one changes just that.
func TestAKeptSecretIsTheNewestOne(t *testing.T) {
	h := newHouse(t)
	h.must(h.PutClient(ctx, h.admin, gateway("secret number zero", true), true))
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				if _, err := h.PutClient(ctx, h.admin, gateway("", i%2 == 0), true); err != nil && !errors.Is(err, tokens.ErrUnavailable) {
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	for i := range 50 {
		secret := fmt.Sprintf("secret number %d", i)
		h.must(h.PutClient(ctx, h.admin, gateway(secret, true), true))
		if got := h.secretOf("192.0.2.20"); got != secret {
			t.Errorf("after %q was put, it is %q", secret, got)
		}
	}
	close(done)
	all.Wait()
	if got := h.secretOf("192.0.2.20"); got != "secret number 49" {
		t.Errorf("in the end it is %q", got)
	}
}

func TestARealmWithNothingButRulesIsListed(t *testing.T) {
	h := newHouse(t)
	rules := tokens.DefaultRules()
	rules.MaxTokens = 3
	h.must(h.SetRules(ctx, h.admin, "Later", 0, rules))
	h.must(h.SetRules(ctx, h.admin, tokens.AnyRealm, 0, rules))
	names := func() (list []string) {
		all, err := h.Realms(ctx, h.admin)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			list = append(list, r.Name)
		}
		return list
	}
	if got := names(); !slices.Contains(got, "later") || slices.Contains(got, "") {
		t.Errorf("%q", got)
	}
	h.must(h.DropRules(ctx, h.admin, "later"))
	if got := names(); slices.Contains(got, "later") {
		t.Errorf("after its rules were dropped: %q", got)
	}
}
