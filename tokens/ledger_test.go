package tokens

import (
	"context"
	"errors"
	"testing"
	"time"

	"watchword/tokens/audit"
)

// forgetful is a database that makes a change before it is durable, and may lose it
// then, as one does that is restarted.
type forgetful struct {
	Store
	Journal
	stored []audit.Head
	loses  bool
}

func (f *forgetful) end() audit.Head { return f.stored[len(f.stored)-1] }

func (f *forgetful) Commit(_ context.Context, c *Change) error {
	last := c.Records[len(c.Records)-1]
	if c.Records[0].Seq != f.end().Seq+1 {
		return ErrChainMoved
	}
	if c.Made != nil {
		c.Made()
	}
	if f.loses {
		return ErrUnavailable
	}
	f.stored = append(f.stored, audit.Head{Chain: last.Chain, Seq: last.Seq, Hash: last.Hash})
	return nil
}

func (f *forgetful) Heads(context.Context) ([]audit.Head, error) {
	return []audit.Head{f.end()}, nil
}

// TestTheChainGoesOnWhereAChangeWasMadeAndLost: nobody was told of it, so that it is no
// record that is missing. One that was durable is.
func TestTheChainGoesOnWhereAChangeWasMadeAndLost(t *testing.T) {
	f := &forgetful{stored: []audit.Head{{Chain: 7}}}
	l := &ledger{store: f, journal: f, head: audit.Head{Chain: 7}}
	commit := func() error {
		return l.commit(t.Context(), &Change{Made: func() {}}, []audit.Event{{Time: time.Now(), Action: "verify"}})
	}
	for range 3 {
		for range 2 {
			if err := commit(); err != nil {
				t.Fatal(err)
			}
		}
		f.loses = true
		if err := commit(); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		f.loses = false
	}
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	if got := l.end(); got != f.end() || got.Seq != 7 || len(l.tried) != 0 {
		t.Errorf("the chain ends at %+v, with %d heads in doubt; stored is %+v", got, len(l.tried), f.end())
	}
	f.stored = f.stored[:len(f.stored)-1]
	for range 2 {
		if err := commit(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("behind a durable record that is gone: %v", err)
		}
	}
}
