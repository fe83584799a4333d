package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

// turnoverDir tells a copy of this test program to do nothing but turnovers on
// the SoftHSM token in a data directory.
const turnoverDir = "WATCHWORD_TEST_TURNOVER_DIR"

// softTokenIn opens the token in a data directory as a server does.
func softTokenIn(t *testing.T, dir string, log *slog.Logger) (*pkcs11.Keystore, *dataDir) {
	t.Helper()
	d, err := openDataDir(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	leave, err := d.guard()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := openSoftHSM(context.Background(), d, pkcs11.Config{Turnover: 20, Logger: log}, log)
	if err := firstOf(err, leave()); err != nil {
		t.Fatal(err)
	}
	return keys, d
}

// TestATokenSurvivesAKillDuringATurnover kills a process that logs in over and
// over, at a moment when SoftHSM may have emptied the token's file.
func TestATokenSurvivesAKillDuringATurnover(t *testing.T) {
	if dir := os.Getenv(turnoverDir); dir != "" {
		turnOverForEver(t, dir)
		return
	}
	dir := filepath.Join(t.TempDir(), "var")
	// The token is made in another process too: this one's SoftHSM then never
	// sees what a killed process leaves behind before it is healed.
	records := filepath.Join(t.TempDir(), "records")
	turns := 0
	for i := range 12 {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), turnoverDir+"="+dir, turnoverDir+"_RECORDS="+records)
		out := filepath.Join(t.TempDir(), fmt.Sprint("out", i))
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		child.Stdout, child.Stderr = f, f
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- child.Wait() }()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if text, _ := os.ReadFile(out); len(text) > 0 || time.Now().After(deadline) {
				break
			}
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		select {
		case <-ended:
			text, _ := os.ReadFile(out)
			t.Fatalf("start %d failed: %s", i, text)
		default:
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
		f.Close()
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		turns += len(text)
		for _, c := range text {
			if c != '.' {
				t.Fatalf("start %d: %s", i, text)
			}
		}
	}
	if turns < 12 {
		t.Errorf("%d turnovers in all", turns)
	}
	// And once for certain at the worst moment.
	files, err := filepath.Glob(filepath.Join(dir, softHSMDir, "tokens", "*", "token.object"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.Truncate(files[0], 0); err != nil {
		t.Fatal(err)
	}
	keys, d := softTokenIn(t, dir, slog.New(slog.DiscardHandler))
	defer d.close()
	defer keys.Close()
	if err := keys.Attach(t.Context(), readRecords(t, records)); err != nil {
		t.Error(err)
	}
}

// turnOverForEver prints a dot for each turnover.
func turnOverForEver(t *testing.T, dir string) {
	keys, _ := softTokenIn(t, dir, slog.New(dots{}))
	records := os.Getenv(turnoverDir + "_RECORDS")
	if _, err := os.Stat(records); err == nil {
		if err := keys.Attach(t.Context(), readRecords(t, records)); err != nil {
			t.Fatal(err)
		}
	} else {
		text, err := json.Marshal(hsmtest.Provision(t, keys))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(records, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seed := []hsm.Seed{{Hash: hsm.SHA1, Bytes: make([]byte, 20)}}
	for {
		if _, err := keys.Wrap(t.Context(), seed); err != nil {
			t.Fatal(err)
		}
	}
}

func readRecords(t *testing.T, file string) []hsm.KeyRecord {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var records []hsm.KeyRecord
	if err := json.Unmarshal(text, &records); err != nil {
		t.Fatal(err)
	}
	return records
}

// dots prints a dot for each turnover that is logged, and all that is worse.
type dots struct{ slog.Handler }

func (dots) Enabled(context.Context, slog.Level) bool { return true }

func (dots) Handle(_ context.Context, r slog.Record) error {
	switch {
	case r.Message == "hsm: module started anew to free memory":
		fmt.Print(".")
	case r.Level >= slog.LevelError:
		fmt.Print(r.Message)
	}
	return nil
}

func (h dots) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h dots) WithGroup(string) slog.Handler      { return h }
