package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestAPostgreSQLDumpAndTheTokenMakeAWholeServer runs the commands of
// docs/backup.md; testdata/backup.txt does so for SQLite.
func TestAPostgreSQLDumpAndTheTokenMakeAWholeServer(t *testing.T) {
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	database, elsewhere := newDatabase(t), newDatabase(t)
	n := startNode(t, nodeOptions{database: database})
	list := newTokens("DUMP", 3, true)
	n.equip(list...)
	code := list[0].press()
	if got := n.verify(list[0].user, code); got != sawAccept {
		t.Fatal(got)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.Mkdir(backup, 0o700); err != nil {
		t.Fatal(err)
	}
	dump := filepath.Join(backup, "watchword.dump")
	run("pg_dump", "--format=custom", "--file="+dump, database)
	for _, name := range []string{softHSMDir, pinFile, markerFile, adminKeyFile, secretFile} {
		run("cp", "-a", filepath.Join(n.dir, name), backup)
	}
	n.kill()

	run("pg_restore", "--no-owner", "--exit-on-error", "--dbname="+elsewhere, dump)
	m := startNode(t, nodeOptions{database: elsewhere, dir: backup})
	m.wantIntactAudit()
	if got := m.verify(list[0].user, code); got != sawReject {
		t.Errorf("a code that was used before the backup: %s", got)
	}
	for _, k := range list {
		if got := m.verify(k.user, k.press()); got != sawAccept {
			t.Errorf("the next code of %s: %s", k.serial, got)
		}
	}
}
