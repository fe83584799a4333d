package tokens_test

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"watchword/tokens"
)

func attribute(name, value string) tokens.ReplyAttribute {
	return tokens.ReplyAttribute{Name: name, Value: value}
}

func TestWhatAClientMayAskAndIsGivenIsKept(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) {
		c.CheckReplies = func([]tokens.Reply) error { return nil }
	})
	put := func(o tokens.ClientOptions) error {
		_, err := h.PutClient(ctx, h.admin, tokens.NewClient{
			Name: "vpn7", Prefix: netip.MustParsePrefix("192.0.2.20/32"), Secret: []byte("a secret of some length"), Options: o,
		}, true)
		return err
	}
	for name, c := range map[string]struct{ put, held tokens.ClientOptions }{
		"in order": {
			tokens.ClientOptions{Dialogues: []tokens.Dialogue{tokens.DialoguePIN, tokens.DialogueNextCode}, Joined: []tokens.Dialogue{tokens.DialogueNewPIN}, Rate: 1_000_000},
			tokens.ClientOptions{Dialogues: []tokens.Dialogue{tokens.DialogueNextCode, tokens.DialoguePIN}, Joined: []tokens.Dialogue{tokens.DialogueNewPIN}, Rate: 1_000_000},
		},
		"groups are folded": {
			tokens.ClientOptions{Replies: []tokens.Reply{
				{Group: "Straße", Attributes: []tokens.ReplyAttribute{attribute("Class", "b"), attribute("Class", "a")}},
				{Attributes: []tokens.ReplyAttribute{attribute("Filter-Id", "<&>")}},
			}},
			tokens.ClientOptions{Replies: []tokens.Reply{
				{Group: "strasse", Attributes: []tokens.ReplyAttribute{attribute("Class", "b"), attribute("Class", "a")}},
				{Attributes: []tokens.ReplyAttribute{attribute("Filter-Id", "<&>")}},
			}},
		},
		"texts": {
			tokens.ClientOptions{Messages: map[string]string{"next_code": "Noch ein Code, später", "reject": strings.Repeat("x", 253), "new_pin": ""}},
			tokens.ClientOptions{Messages: map[string]string{"next_code": "Noch ein Code, später", "reject": strings.Repeat("x", 253), "new_pin": ""}},
		},
		"nothing": {tokens.ClientOptions{Dialogues: []tokens.Dialogue{}, Replies: []tokens.Reply{}, Messages: map[string]string{}}, tokens.ClientOptions{}},
	} {
		h.must(nil, put(c.put))
		got, ok := h.ClientFor(netip.MustParseAddr("192.0.2.20"))
		if !ok || !reflect.DeepEqual(got.ClientOptions, c.held) {
			t.Errorf("%s: %+v, want %+v", name, got.ClientOptions, c.held)
		}
	}
}

func TestWrongClientOptionsAreRefused(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) {
		c.CheckReplies = func(all []tokens.Reply) error {
			if all[0].Attributes[0].Name == "Colour" {
				return tokens.ErrInvalid
			}
			return nil
		}
	})
	one := func(group, name, value string) []tokens.Reply {
		return []tokens.Reply{{Group: group, Attributes: []tokens.ReplyAttribute{attribute(name, value)}}}
	}
	for says, o := range map[string]tokens.ClientOptions{
		`dialogue "colour"; it is pin, next_code or new_pin`: {Dialogues: []tokens.Dialogue{"colour"}},
		"dialogue pin is named twice":                        {Dialogues: []tokens.Dialogue{tokens.DialoguePIN, tokens.DialoguePIN}},
		`joined dialogue "pin"; it is next_code or new_pin`:  {Joined: []tokens.Dialogue{tokens.DialoguePIN}},
		"next_code is both a dialogue and a joined one":      {Dialogues: []tokens.Dialogue{tokens.DialogueNextCode}, Joined: []tokens.Dialogue{tokens.DialogueNextCode}},
		"a rate of -1 requests":                              {Rate: -1},
		"a rate of 1000001 requests":                         {Rate: 1_000_001},
		`there is no message "colour"`:                       {Messages: map[string]string{"colour": "red"}},
		"the message reject has 254 bytes":                   {Messages: map[string]string{"reject": strings.Repeat("x", 254)}},
		"the message code holds control characters":          {Messages: map[string]string{"code": "a\nb"}},
		"the message accept holds control characters":        {Messages: map[string]string{"accept": "\xff"}},
		"invalid":                                           {Replies: one("", "Colour", "red")},
		"the group of reply 1":                              {Replies: one("\x00", "Class", "red")},
		"two replies for everybody":                         {Replies: append(one("", "Class", "red"), one("", "Class", "blue")...)},
		"two replies for group staff":                       {Replies: append(one("staff", "Class", "red"), one("STAFF", "Class", "blue")...)},
		"the reply for group staff has no attribute":        {Replies: []tokens.Reply{{Group: "staff"}}},
		"attribute 1 of the reply for everybody: invalid":   {Replies: one("", "", "red")},
		"attribute 1 of the reply for group staff: invalid": {Replies: one("staff", "Filter Id", "red")},
		"the value of Class is longer than 512 bytes":       {Replies: one("", "Class", strings.Repeat("x", 513))},
		"the value of Class holds control characters":       {Replies: one("", "Class", "a\tb")},
		"the options of the client are more than 16384":     {Replies: []tokens.Reply{{Attributes: repeated(40, attribute("Class", strings.Repeat("x", 512)))}}},
	} {
		_, err := h.PutClient(ctx, h.admin, tokens.NewClient{
			Name: "vpn7", Prefix: netip.MustParsePrefix("192.0.2.20/32"), Secret: []byte("a secret of some length"), Options: o,
		}, true)
		if !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	if _, ok := h.ClientFor(netip.MustParseAddr("192.0.2.20")); ok {
		t.Error("the client was made")
	}
}

func repeated[T any](n int, item T) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = item
	}
	return list
}

func TestAClientOfManyRealmsHasRepliesForEverybodyAlone(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) {
		c.CheckReplies = func([]tokens.Reply) error { return nil }
	})
	put := func(rule tokens.NameRule, group string) error {
		_, err := h.PutClient(ctx, h.admin, tokens.NewClient{
			Name: "vpn7", Prefix: netip.MustParsePrefix("192.0.2.20/32"), Secret: []byte("a secret of some length"), NameRule: rule,
			Options: tokens.ClientOptions{Replies: []tokens.Reply{{Group: group, Attributes: []tokens.ReplyAttribute{attribute("Class", "a")}}}},
		}, true)
		return err
	}
	if err := put(tokens.NameRealm, "staff"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "a client for each realm") {
		t.Errorf("a reply for a group of which there is one in each realm: %v", err)
	}
	for rule, group := range map[tokens.NameRule]string{tokens.NameRealm: "", tokens.NameStrip: "staff", tokens.NamePlain: "staff"} {
		if err := put(rule, group); err != nil {
			t.Errorf("rule %s, group %q: %v", rule, group, err)
		}
	}
}

func TestAServerWithoutRADIUSTakesNoReplyAttributes(t *testing.T) {
	h := newHouse(t)
	_, err := h.PutClient(ctx, h.admin, tokens.NewClient{
		Name: "vpn7", Prefix: netip.MustParsePrefix("192.0.2.20/32"), Secret: []byte("a secret of some length"),
		Options: tokens.ClientOptions{Replies: []tokens.Reply{{Attributes: []tokens.ReplyAttribute{attribute("Class", "x")}}}},
	}, false)
	if !errors.Is(err, tokens.ErrInvalid) {
		t.Error(err)
	}
}
