package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"watchword/hsm"
)

func hsmCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "hsm",
		Short: "Make keys in the HSM, while the server is stopped",
		Long: `Works on the data directory, the database and the HSM themselves, as the server
does, and so in its place: stop it first.`,
		Example: "  watchword hsm transport-key\n  watchword hsm pgp-key",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(hsmTransportKey(), hsmPGPKey())
	return c
}

// inPlace are the flags of what works in the server's place.
func (f *serverFlags) inPlace(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "YAML file with the configuration (or WATCHWORD_CONFIG)")
	flags.StringVar(&f.dataDir, "data-dir", "", "data directory (default ./var)")
	flags.StringVar(&f.database, "database", "", "sqlite:PATH or postgres://... (default SQLite in the data directory)")
}

// inPlace opens what a server opens, without its listeners, for as long as do
// takes. what names it in errors.
func inPlace(ctx context.Context, c *Config, what string, do func(*appliance) error) (err error) {
	// As for the server: a core dump would hold the PIN.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	a := &appliance{config: c, log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	slog.SetDefault(a.log)
	defer func() {
		err = firstOf(err, a.closeInTime())
		var f *failure
		if errors.As(err, &f) && f.What == "start the server" {
			f.What = what
		}
	}()
	if err := a.openCore(ctx); err != nil {
		return err
	}
	return do(a)
}

// keepToken makes durable what SoftHSM has written, where that is the HSM.
func (a *appliance) keepToken() error {
	if a.config.HSM.Module != "" {
		return nil
	}
	return a.dir.sync()
}

// checkBits refuses sizes that a new key cannot have; 0 is the usual one.
func checkBits(what string, bits int) error {
	switch bits {
	case 0, 2048, hsm.TransportBits, 4096:
		return nil
	}
	return &failure{What: what, Why: fmt.Sprintf("%d bits are not possible", bits), Do: "ask for --bits 2048, 3072 or 4096"}
}

// anotherSize is the error of a size that the key that is there does not have.
func anotherSize(what string, version uint32, bits int) error {
	return &failure{What: what, Why: fmt.Sprintf("there is one already, version %d, of %d bits", version, bits), Do: "make another one with --new, or leave --bits out"}
}

// checkPlaces refuses files that exist, by their flags, and a data directory that
// does not.
func checkPlaces(c *Config, what string, files map[string]string) error {
	for flag, path := range files {
		if path == "" {
			continue
		}
		if _, err := os.Lstat(path); err == nil {
			return &failure{What: what, Why: path + ": there is such a file", Do: "name a new file with " + flag}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return &failure{What: what, Why: path + ": " + plainCause(err), Do: "name a new file with " + flag}
		}
	}
	d := &dataDir{path: c.DataDir}
	if _, err := d.readMarker(); errors.Is(err, fs.ErrNotExist) {
		return &failure{What: what, Why: c.DataDir + " is no data directory yet", Do: "start the server on it once, and stop it, or name another directory with --data-dir"}
	} else if err != nil {
		return err
	}
	return nil
}

// writePublic writes what vendors get to a new file, or where none is named to the
// usual one.
func writePublic(what, path, usual string, text []byte) (string, error) {
	if path == "" {
		if err := writeWhole(usual, text); err != nil {
			return "", dirFailure(filepath.Dir(usual), err)
		}
		return usual, nil
	}
	file, err := createNew(path)
	if err == nil {
		_, err = file.Write(text)
		err = firstOf(err, file.Sync(), file.Close())
	}
	if err != nil {
		return "", &failure{What: "write " + what + " to " + path, Why: plainCause(err), Do: "the key is made: call this again without --new"}
	}
	return path, nil
}
