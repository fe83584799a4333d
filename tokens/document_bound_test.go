package tokens

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// emptyCabinet is a database without documents, but for one.
type emptyCabinet struct {
	Database
	asked int
}

func (c *emptyCabinet) Document(_ context.Context, name string) (Document, error) {
	if c.asked++; name == "rules/corp" {
		return Document{Name: name, Version: 3}, nil
	}
	return Document{}, fmt.Errorf("%w: document %s", ErrNotFound, name)
}

// Whoever may name any realm, as an application's key for all of them may, fills no
// memory by naming those that there are not.
func TestDocumentsThatThereAreNotFillNoMemory(t *testing.T) {
	db := &emptyCabinet{}
	s, known := &Service{db: db}, &documents{}
	ctx := context.Background()
	for i := range 3 * maxAbsent {
		if _, err := s.document(ctx, known, fmt.Sprintf("rules/realm%d", i)); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := len(known.read); n > maxAbsent {
		t.Errorf("%d documents that there are not are remembered", n)
	}
	// Those that there are are remembered all the same.
	for range 3 {
		if d, err := s.document(ctx, known, "rules/corp"); err != nil || d.Version != 3 {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if db.asked != 3*maxAbsent+1 {
		t.Errorf("the database was asked %d times", db.asked)
	}
}
