//go:build sqlite_fts5

package store_test

import (
	"os/exec"
	"strings"
	"testing"
)

func TestABuildWithoutSearchSaysSo(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds SQLite once more")
	}
	out, err := exec.Command("go", "test", "-tags=", "-vet=off", "-count=1", "-v", "-run=^TestWithoutSearchNothingIsOpened$", ".").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutSearchNothingIsOpened") {
		t.Errorf("%v\n%s", err, out)
	}
}
