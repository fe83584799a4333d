package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"watchword/tokens"
)

// undoing is a database in which an import is undone just before a token of it is
// noted on.
type undoing struct{ *editor }

func (d *undoing) Commit(ctx context.Context, c *tokens.Change) error {
	if len(c.Notes) > 0 {
		return fmt.Errorf("%w: token %d", tokens.ErrNotFound, c.Notes[0].TokenID)
	}
	return d.editor.Commit(ctx, c)
}

func TestANoteOnATokenThatIsGoneByThenIsRefusedAndAudited(t *testing.T) {
	h := newHouse(t)
	h.ship("", totp("T1"))
	other := h.node(&firsts{}, func(c *tokens.Config) { c.Database = &undoing{h.db} })
	if _, err := other.Annotate(ctx, h.admin, "", "T1", tokens.NoteEdit{Add: []string{"blue"}}); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	if r := h.last(); r.Action != "token.note" || r.Outcome != "refused" || r.Reason != "not_found" || r.Serial != "T1" {
		t.Errorf("audited as %+v", r)
	}
	h.intact()
}
