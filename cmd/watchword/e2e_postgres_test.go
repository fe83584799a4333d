package main

import (
	"os/exec"
	"strings"
	"testing"

	"watchword/tokens/storetest"
)

// newDatabase makes an empty PostgreSQL database.
func newDatabase(t testing.TB) string {
	t.Helper()
	return storetest.Postgres(t)
}

// psql runs a query in the database that a URL names, and answers its rows.
func psql(t testing.TB, url, query string) string {
	t.Helper()
	out, err := exec.Command("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", query).CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}
