package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

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
	f.inPlace(cmd)
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
	r = &pgpResult{}
	err = inPlace(ctx, c, makePGPKey, func(a *appliance) error { return r.issue(ctx, a, o) })
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *pgpResult) issue(ctx context.Context, a *appliance, o *pgpOptions) (err error) {
	if keys := a.keys.PGPKeys(); len(keys) == 0 || o.another {
		if r.Version, err = a.core.MakePGPKey(ctx, a.keys, o.bits); err != nil {
			return hsmFailure(makePGPKey, err)
		}
		r.Made = true
		if err := a.keepToken(); err != nil {
			return err
		}
	} else if bits := keys[0].Public.N.BitLen(); o.bits != 0 && o.bits != bits {
		return anotherSize(makePGPKey, keys[0].Version, bits)
	}
	key := a.keys.PGPKeys()[0]
	r.Version, r.Bits = key.Version, key.Public.N.BitLen()
	// A vendor's clock that is a little behind must not refuse it.
	public, err := seeds.IssuePGP(ctx, a.keys, key, o.name, time.Now().Add(-time.Hour))
	if err != nil {
		return hsmFailure("certify the PGP key", err)
	}
	r.Fingerprint = fmt.Sprintf("%X", public.Fingerprint)
	r.PublicKey, err = writePublic("the public key", o.out, filepath.Join(a.config.DataDir, fmt.Sprintf("pgp-%d.asc", key.Version)), public.Armoured)
	return err
}

// check refuses what can be refused before anything is opened.
func (o *pgpOptions) check(c *Config) error {
	if err := checkBits(makePGPKey, o.bits); err != nil {
		return err
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
