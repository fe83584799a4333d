package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"watchword/hsm"
	"watchword/seeds"
)

// pgpOptions are the flags of hsm pgp-key.
type pgpOptions struct {
	bits      int
	another   bool
	name, out string
	json      bool
}

func hsmPGPKey() *cobra.Command {
	var f serverFlags
	var o pgpOptions
	cmd := &cobra.Command{
		Use:   "pgp-key",
		Short: "Make the PGP key that vendors encrypt files to, and write its public key",
		Long: `Makes an RSA key pair in the HSM, unless there is one, and writes it as a PGP
public key (armoured) to send to the vendor. A file that the vendor encrypts to it
is imported without any key given: the HSM opens its session key. The private key
is never outside the HSM; what the file holds is in the server's memory while it is
imported, as with any file (with 'watchword hsm transport-key' it is not).

The key can do nothing but decrypt; the HSM's audit key is the primary key that
certifies it, so the vendor's program must know ECDSA (GnuPG since 2.1). Whoever can
put another public key in the place of yours reads the seeds: let the vendor compare
the fingerprint with the one that is printed, over the telephone.

Asked again, it writes the same key. With --new another one is made; what was
encrypted to an older one can still be imported. Back up the HSM's token and the
database again after a key was made: with an older token the server does not start.
Nodes that run know the key after their next start.`,
		Example: "  watchword hsm pgp-key --name 'Example Corp'\n  watchword hsm pgp-key --new --bits 4096 --out for-the-vendor.asc",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, _, err := f.load(cmd)
			if err != nil {
				return err
			}
			// As for the server: a core dump would hold the PIN.
			if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
				return fmt.Errorf("switch core dumps off: %w", err)
			}
			r, err := pgpKey(cmd.Context(), config, &o)
			if err != nil {
				return err
			}
			if o.json {
				text, err := json.Marshal(r)
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), text)
			}
			return r.print(cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "YAML file with the configuration (or WATCHWORD_CONFIG)")
	flags.StringVar(&f.dataDir, "data-dir", "", "data directory (default ./var)")
	flags.StringVar(&f.database, "database", "", "sqlite:PATH or postgres://... (default SQLite in the data directory)")
	flags.IntVar(&o.bits, "bits", 0, "size of a new key: 2048, 3072 or 4096 (default 3072)")
	flags.BoolVar(&o.another, "new", false, "make another key, even if there is one")
	flags.StringVar(&o.name, "name", "Watchword", "how the public key calls you, in up to 40 characters")
	flags.StringVar(&o.out, "out", "", "new file for the public key (default pgp-VERSION.asc in the data directory)")
	flags.BoolVar(&o.json, "json", false, "print what was done as JSON")
	return cmd
}

const makePGPKey = "make a PGP key"

// pgpResult is what hsm pgp-key tells.
type pgpResult struct {
	Version     uint32 `json:"version"`
	Made        bool   `json:"made"` // and was not there before
	Bits        int    `json:"bits"`
	Fingerprint string `json:"fingerprint"` // 40 hex digits, as gpg shows it
	PublicKey   string `json:"public_key"`  // file
}

// pgpKey makes the key, or finds it, and writes its public key.
func pgpKey(ctx context.Context, c *Config, o *pgpOptions) (r *pgpResult, err error) {
	if err := o.check(c); err != nil {
		return nil, err
	}
	a := &appliance{config: c, log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	slog.SetDefault(a.log)
	defer func() {
		if err = firstOf(err, a.closeInTime()); err != nil {
			r = nil
		}
		var f *failure
		if errors.As(err, &f) && f.What == "start the server" {
			f.What = makePGPKey
		}
	}()
	if err := a.openCore(ctx); err != nil {
		return nil, err
	}
	r = &pgpResult{}
	if keys := a.keys.PGPKeys(); len(keys) == 0 || o.another {
		if r.Version, err = a.core.MakePGPKey(ctx, a.keys, o.bits); err != nil {
			return nil, hsmFailure(makePGPKey, err)
		}
		r.Made = true
		if c.HSM.Module == "" {
			if err := a.dir.sync(); err != nil {
				return nil, err
			}
		}
	} else if bits := keys[0].Public.N.BitLen(); o.bits != 0 && o.bits != bits {
		return nil, &failure{What: makePGPKey, Why: fmt.Sprintf("there is one already, version %d, of %d bits", keys[0].Version, bits), Do: "make another one with --new, or leave --bits out"}
	}
	key := a.keys.PGPKeys()[0]
	r.Version, r.Bits = key.Version, key.Public.N.BitLen()
	// A vendor's clock that is a little behind must not refuse it.
	public, err := seeds.IssuePGP(ctx, a.keys, key, o.name, time.Now().Add(-time.Hour))
	if err != nil {
		return nil, hsmFailure("certify the PGP key", err)
	}
	r.Fingerprint = fmt.Sprintf("%X", public.Fingerprint)
	r.PublicKey, err = writePublic("the public key", o.out, filepath.Join(c.DataDir, fmt.Sprintf("pgp-%d.asc", key.Version)), public.Armoured)
	return r, err
}

// check refuses what can be refused before anything is opened.
func (o *pgpOptions) check(c *Config) error {
	switch o.bits {
	case 0, 2048, hsm.TransportBits, 4096:
	default:
		return &failure{What: makePGPKey, Why: fmt.Sprintf("%d bits are not possible", o.bits), Do: "ask for --bits 2048, 3072 or 4096"}
	}
	if err := seeds.CheckPGPName(o.name); err != nil {
		return &failure{What: makePGPKey, Why: err.Error(), Do: "give another --name"}
	}
	return checkPlaces(c, makePGPKey, map[string]string{"--out": o.out})
}

func (r *pgpResult) print(cmd *cobra.Command) error {
	err := say(cmd, "PGP key %d (RSA, %d bits) is in the HSM; its public key is in %s.", r.Version, r.Bits, r.PublicKey)
	err = firstOf(err, say(cmd, "Fingerprint, for the vendor to compare: %s", inFours(r.Fingerprint)))
	if r.Made {
		err = firstOf(err, say(cmd, "Back up the HSM's token and the database again: with an older token the server does not start."))
	}
	return err
}

// inFours sets digits apart in groups of four, as people read them out.
func inFours(digits string) string {
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(d)
	}
	return b.String()
}
