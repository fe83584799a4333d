package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// SoftHSM writes its token.object anew at every login: it empties the file, lets
// go of its lock on it, and only then writes (seen with SoftHSM 2.6.1). Whoever
// reads in between sees a token without a name; and if the process is killed or
// the power fails in between, the token is gone, and every seed with it. So
// servers open one SoftHSM token one after another, and once a login succeeded
// the file is kept beside, to be put back should it ever be found cut short.

// keptDir holds the copies, in SoftHSM's folder.
const keptDir = "kept"

// softTokens are the token files of a SoftHSM folder, and where each is kept.
func softTokens(dir string) (map[string]string, error) {
	folders, err := os.ReadDir(filepath.Join(dir, "tokens"))
	if err != nil {
		return nil, err
	}
	tokens := map[string]string{}
	for _, f := range folders {
		if f.IsDir() {
			tokens[filepath.Join(dir, "tokens", f.Name(), "token.object")] = filepath.Join(dir, keptDir, f.Name()+".token.object")
		}
	}
	return tokens, nil
}

// healSoftTokens puts back what was found cut short.
func healSoftTokens(dir string, log *slog.Logger) error {
	tokens, err := softTokens(dir)
	if err != nil {
		return err
	}
	for file, copied := range tokens {
		kept, err := os.ReadFile(copied)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		now, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if whole(now, kept) {
			continue
		}
		if err := writeWhole(file, kept); err != nil {
			return fmt.Errorf("put %s back: %w", file, err)
		}
		log.Warn("SoftHSM had left its token cut short, as when a process is killed at a login; it was put back from its copy", "file", file)
	}
	return nil
}

// turnSoftTokens prepares for a turnover of the module, which logs in anew, as
// openHSM does for a start: alone among the servers on the data directory, with a
// token file that another one may have left cut short, and with a copy of it.
func turnSoftTokens(d *dataDir, dir string, log *slog.Logger) (turned func(), err error) {
	leave, err := d.guard()
	if err != nil {
		return nil, err
	}
	if err := firstOf(healSoftTokens(dir, log), keepSoftTokens(dir)); err != nil {
		return nil, firstOf(err, leave())
	}
	return func() {
		if err := firstOf(keepSoftTokens(dir), leave()); err != nil {
			log.Warn("no new copy of the SoftHSM token was kept; the one before stays", "cause", err)
		}
	}, nil
}

// keepSoftTokens copies the token files of a token that was just logged in to.
func keepSoftTokens(dir string) error {
	tokens, err := softTokens(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, keptDir), 0o700); err != nil {
		return err
	}
	for file, copied := range tokens {
		now, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		kept, err := os.ReadFile(copied)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		// Another server's own recovery may be writing it at this moment.
		if len(now) == 0 || !whole(now, kept) || bytes.Equal(now, kept) {
			continue
		}
		if err := writeWhole(copied, now); err != nil {
			return err
		}
	}
	return nil
}

// whole says whether a token file is not cut short: SoftHSM never makes it
// shorter than it was, and a file that a power failure took is short or zeros.
func whole(now, kept []byte) bool {
	return len(now) >= len(kept) && len(bytes.Trim(now, "\x00")) > 0
}
