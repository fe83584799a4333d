package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"watchword/hsm"
)

// transportOptions are the flags of hsm transport-key.
type transportOptions struct {
	bits, days  int
	another     bool
	name        string
	out, issuer string
	json        bool
}

func hsmTransportKey() *cobra.Command {
	var f serverFlags
	var o transportOptions
	cmd := &cobra.Command{
		Use:   "transport-key",
		Short: "Make the RSA key that vendors encrypt seeds to, and its certificate",
		Long: `Makes an RSA key pair in the HSM, unless there is one, and writes a certificate of
it to send to the vendor. Seeds that the vendor encrypts to it are unwrapped in the
HSM and nowhere else. Ask for PSKC (RFC 6030) with RSA-OAEP, SHA-1 in OAEP and in
MGF1 (rsa-oaep-mgf1p of XML Encryption), which every HSM has.

The key can do nothing but unwrap, so it does not sign its certificate: the HSM's
audit key does, whose own certificate is written beside it. Whoever can put another
certificate in the place of yours reads the seeds: let the vendor compare the
fingerprint with the one that is printed, over the telephone.

Each call writes another certificate, of the same key. With --new another key is
made; what was encrypted to an older one can still be imported. Back up the HSM's
token and the database again after a key was made: with an older token the server
does not start. Nodes that run know the key after their next start.`,
		Example: "  watchword hsm transport-key --name 'Example Corp'\n  watchword hsm transport-key --new --bits 4096 --out for-the-vendor.pem",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, _, err := f.load(cmd)
			if err != nil {
				return err
			}
			r, err := transportKey(cmd.Context(), config, &o)
			if err != nil {
				return err
			}
			if o.json {
				return r.printJSON(cmd)
			}
			return r.print(cmd)
		},
	}
	flags := cmd.Flags()
	f.inPlace(cmd)
	flags.IntVar(&o.bits, "bits", 0, "size of a new key: 2048, 3072 or 4096 (default 3072)")
	flags.BoolVar(&o.another, "new", false, "make another key, even if there is one")
	flags.StringVar(&o.name, "name", "Watchword", "how the certificate calls you, in up to 40 characters")
	flags.IntVar(&o.days, "days", 1826, "for how many days the certificate is good")
	flags.StringVar(&o.out, "out", "", "new file for the certificate (default transport-VERSION.pem in the data directory)")
	flags.StringVar(&o.issuer, "issuer", "", "new file for its issuer's certificate (default transport-VERSION-issuer.pem in the data directory)")
	flags.BoolVar(&o.json, "json", false, "print what was done as JSON")
	return cmd
}

const makeTransportKey = "make a transport key"

// transportResult is what hsm transport-key tells.
type transportResult struct {
	Version     uint32    `json:"version"`
	Made        bool      `json:"made"` // and was not there before
	Bits        int       `json:"bits"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the public key, in hex
	Certificate string    `json:"certificate"` // file
	Issuer      string    `json:"issuer"`      // file
	Until       time.Time `json:"valid_until"`
}

// transportKey makes the key, or finds it, and writes its certificates.
func transportKey(ctx context.Context, c *Config, o *transportOptions) (r *transportResult, err error) {
	if err := o.check(c); err != nil {
		return nil, err
	}
	r = &transportResult{}
	err = inPlace(ctx, c, makeTransportKey, func(a *appliance) error { return r.issue(ctx, a, o) })
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *transportResult) issue(ctx context.Context, a *appliance, o *transportOptions) (err error) {
	if keys := a.keys.TransportKeys(); len(keys) == 0 || o.another {
		if r.Version, err = a.core.MakeTransportKey(ctx, a.keys, o.bits); err != nil {
			return hsmFailure(makeTransportKey, err)
		}
		r.Made = true
		if err := a.keepToken(); err != nil {
			return err
		}
	} else if bits := keys[0].Public.N.BitLen(); o.bits != 0 && o.bits != bits {
		return anotherSize(makeTransportKey, keys[0].Version, bits)
	}
	key := a.keys.TransportKeys()[0]
	from := time.Now()
	r.Version, r.Bits, r.Until = key.Version, key.Public.N.BitLen(), from.AddDate(0, 0, o.days).UTC().Truncate(time.Second)
	// A clock that is a little behind must not refuse it.
	certificate, err := hsm.IssueTransport(ctx, a.keys, key, o.name, from.Add(-time.Hour), r.Until)
	if err != nil {
		return hsmFailure("make the transport key's certificate", err)
	}
	r.Fingerprint = fmt.Sprintf("%x", certificate.Fingerprint)
	if r.Certificate, err = writeCertificate(o.out, filepath.Join(a.config.DataDir, fmt.Sprintf("transport-%d.pem", key.Version)), certificate.Certificate); err != nil {
		return err
	}
	r.Issuer, err = writeCertificate(o.issuer, filepath.Join(a.config.DataDir, fmt.Sprintf("transport-%d-issuer.pem", key.Version)), certificate.Issuer)
	return err
}

// check refuses what can be refused before anything is opened.
func (o *transportOptions) check(c *Config) error {
	if err := checkBits(makeTransportKey, o.bits); err != nil {
		return err
	}
	if o.days < 1 || o.days > 20*366 {
		return &failure{What: makeTransportKey, Why: fmt.Sprintf("a certificate is not good for %d days", o.days), Do: "ask for --days 1 to 7320"}
	}
	if err := hsm.CheckIssuerName(o.name); err != nil {
		return &failure{What: makeTransportKey, Why: err.Error(), Do: "give another --name"}
	}
	return checkPlaces(c, makeTransportKey, map[string]string{"--out": o.out, "--issuer": o.issuer})
}

// writeCertificate writes a certificate to a new file, or where none is named to
// the usual one.
func writeCertificate(path, usual string, der []byte) (string, error) {
	return writePublic("a certificate", path, usual, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (r *transportResult) printJSON(cmd *cobra.Command) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return printJSON(cmd.OutOrStdout(), text)
}

func (r *transportResult) print(cmd *cobra.Command) error {
	err := say(cmd, "Transport key %d (RSA, %d bits) is in the HSM; its certificate, good until %s, is in %s, and its issuer's in %s.",
		r.Version, r.Bits, toMinute(r.Until), r.Certificate, r.Issuer)
	err = firstOf(err, say(cmd, "SHA-256 of the public key, for the vendor to compare: %s", r.Fingerprint))
	if r.Made {
		err = firstOf(err, say(cmd, "Back up the HSM's token and the database again: with an older token the server does not start."))
	}
	return err
}
