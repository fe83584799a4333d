//go:build !sqlite_fts5

package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"watchword/tokens"
	"watchword/tokens/store"
)

// Whoever builds Watchword without the tag is told so, before anything is written.
// TestABuildWithoutSearchSaysSo runs this.
func TestWithoutSearchNothingIsOpened(t *testing.T) {
	db, err := store.Open(context.Background(), sqliteURL(t), store.Options{})
	if db != nil || !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "-tags sqlite_fts5") {
		t.Errorf("opening says %v", err)
	}
}
