package tokens_test

import (
	"errors"
	"testing"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// A key row that was made or altered in the database opens nothing, on a node
// that has never seen the key and on one that has.
func TestAnAPIKeyRowAlteredInTheDatabaseOpensNothing(t *testing.T) {
	for name, alter := range map[string]func(k *tokens.APIKey){
		"scope raised":    func(k *tokens.APIKey) { k.Scope = "admin" },
		"realm widened":   func(k *tokens.APIKey) { k.Realm = "" },
		"put under an id": func(k *tokens.APIKey) { k.ID = "0011223344556677" },
		"MAC replaced":    func(k *tokens.APIKey) { k.MAC[0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			k, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "desk", Realm: "corp", Scope: "read"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Authenticate(ctx, text); err != nil {
				t.Fatalf("the key as made: %v", err)
			}
			was := k
			alter(&k)
			// As whoever writes to the database would: the old row out, another in.
			h.writeKeys(t, tokens.KeyWrite{Key: was, Delete: true}, tokens.KeyWrite{Key: k})
			if name == "put under an id" {
				text = "ww_" + k.ID + text[len("ww_")+len(was.ID):]
			}
			if p, err := h.Authenticate(ctx, text); !errors.Is(err, tokens.ErrUnknownKey) {
				t.Errorf("it is %+v, %v", p, err)
			}
		})
	}
}

// writeKeys writes key rows past the core.
func (h *house) writeKeys(t *testing.T, writes ...tokens.KeyWrite) {
	t.Helper()
	for _, w := range writes {
		chain, _, err := h.mem.MintChain(ctx)
		if err != nil {
			t.Fatal(err)
		}
		records, _ := audit.Append(audit.Head{Chain: chain}, []audit.Event{{Time: h.clock.now(), Action: "server.start"}})
		if err := h.mem.Commit(ctx, &tokens.Change{Keys: []tokens.KeyWrite{w}, Records: records}); err != nil {
			t.Fatal(err)
		}
	}
	// Any act has the node read its registry anew.
	if _, _, err := h.Users(ctx, h.admin, tokens.UserQuery{}); err != nil {
		t.Fatal(err)
	}
}
