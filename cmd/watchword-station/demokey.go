package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"watchword/webauthn/softkey"
)

// demoKeys say what the keys of a demonstration are like. They have no model to
// choose: their AAGUID says that they are software.
type demoKeys struct {
	count  int
	dir    string // where to put links to the keys; may be empty
	root   string // file to write the attestation root to; may be empty
	serial string
	old    bool
	touch  bool
}

// mostDemoKeys is how many of them one command plugs in.
const mostDemoKeys = 99

func demoKeyCommand() *cobra.Command {
	var d demoKeys
	cmd := &cobra.Command{
		Use:   "demo-key",
		Short: "Plug in security keys made of software, to try things out",
		Long: `demo-key is a FIDO2 key without hardware: a pseudo-terminal that speaks as a
key does over USB. What opens a key by its path can use it: fido2-token,
fido2-cred and fido2-assert, and this station, which finds keys by the links in a
directory (--keys). It prints its path and works until it is interrupted, which is
pulling it out. Then its credentials, its PIN and its attestation root are gone:
nothing is stored.

It protects nothing, as its private keys lie in plain memory. So it says what it
is: its model (AAGUID) is ` + softkey.DefaultAAGUID + `, and its attestation
leads to a root that it makes for itself when it starts. A server that trusts that
root trusts a program: let no real one do it.`,
		Example: "  watchword-station demo-key --keys keys --count 3 --root demo-root.pem\n  watchword fido roots set demo-root.pem\n  watchword-station enrol --keys keys --stock 3 --labels labels.csv",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			orEnv(&d.dir, "WATCHWORD_STATION_KEYS", "")
			return d.run(c.Context(), c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	cmd.Flags().IntVar(&d.count, "count", 1, fmt.Sprintf("how many keys, up to %d", mostDemoKeys))
	cmd.Flags().StringVar(&d.dir, "keys", "", "put a link to each key into this directory, for the station (default $WATCHWORD_STATION_KEYS)")
	cmd.Flags().StringVar(&d.root, "root", "", "write the root of their attestation to this file, in PEM")
	cmd.Flags().StringVar(&d.serial, "serial", "", "serial number, told in enterprise attestation; of several keys each has its number behind it")
	cmd.Flags().BoolVar(&d.old, "ctap20", false, "older keys: CTAP 2.0, without settings")
	cmd.Flags().BoolVar(&d.touch, "touch", false, "wait for Enter where a key waits to be touched")
	return cmd
}

// run plugs the keys in until the context ends.
func (d *demoKeys) run(ctx context.Context, in io.Reader, out, notes io.Writer) (err error) {
	if d.count < 1 || d.count > mostDemoKeys {
		return fmt.Errorf("plug in demo keys: --count %d: want 1 to %d", d.count, mostDemoKeys)
	}
	vendor, err := softkey.NewVendor("Watchword Software Keys")
	if err != nil {
		return err
	}
	if d.root != "" {
		if err := os.WriteFile(d.root, vendor.RootPEM(), 0o644); err != nil {
			return fmt.Errorf("write the demo keys' root: %w", err)
		}
	}
	if d.dir != "" {
		if err := os.MkdirAll(d.dir, 0o700); err != nil {
			return fmt.Errorf("make a directory for demo keys: %w", err)
		}
	}
	options := softkey.Options{Vendor: vendor, Serial: d.serial, CTAP20: d.old}
	if d.touch {
		options.Touch = touches(in, notes)
	}
	for n := 1; n <= d.count; n++ {
		if d.serial != "" && d.count > 1 {
			options.Serial = fmt.Sprintf("%s-%d", d.serial, n)
		}
		pull, path, err := plugIn(options, d.dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pull()) }()
		if _, err := fmt.Fprintln(out, path); err != nil {
			return err
		}
	}
	root := sha256.Sum256(vendor.Root().Raw)
	fmt.Fprintf(notes, "Plugged in: %d of AAGUID %s, attested under the root with SHA-256 %s.\nThis is software and protects nothing. Interrupt (Ctrl-C) to pull out.\n",
		d.count, softkey.DefaultAAGUID, hex.EncodeToString(root[:]))
	<-ctx.Done()
	return nil
}

// plugIn plugs a key in, and pull pulls it out.
func plugIn(o softkey.Options, dir string) (pull func() error, path string, err error) {
	k, err := softkey.New(o)
	if err != nil {
		return nil, "", err
	}
	port, err := softkey.Plug(k)
	if err != nil {
		return nil, "", err
	}
	if dir == "" {
		return port.Close, port.Path(), nil
	}
	link, err := linkTo(port.Path(), dir)
	if err != nil {
		return nil, "", errors.Join(err, port.Close())
	}
	return func() error {
		var failed error
		if to, err := os.Readlink(link); err == nil && to == port.Path() {
			failed = os.Remove(link)
		}
		return errors.Join(failed, port.Close())
	}, port.Path(), nil
}

// linkTo makes a link to a key: key-001 or the first name after it that is free,
// or was left by a key that is no more.
func linkTo(path, dir string) (link string, err error) {
	for n := 1; n < 1000; n++ {
		link = filepath.Join(dir, fmt.Sprintf("key-%03d", n))
		to, err := os.Readlink(link)
		if err == nil {
			// Its terminal is gone, or was given to this key.
			if _, err := os.Stat(link); errors.Is(err, fs.ErrNotExist) || to == path {
				if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return "", fmt.Errorf("link to a demo key: %w", err)
				}
			}
		}
		if err = os.Symlink(path, link); !errors.Is(err, fs.ErrExist) {
			if err != nil {
				err = fmt.Errorf("link to a demo key: %w", err)
			}
			return link, err
		}
	}
	return "", fmt.Errorf("link to a demo key: there are a thousand in %s; remove those that nobody uses", dir)
}

// touches are the lines that are typed while keys wait, one for each touch, and
// for the key that waits longest; "no" declines. When there is nothing more to
// read, nobody touches any more.
func touches(in io.Reader, notes io.Writer) func(context.Context) bool {
	var mu sync.Mutex
	var waiting []chan bool // each takes one answer
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(in); s.Scan(); {
			mu.Lock()
			if len(waiting) > 0 {
				waiting[0] <- strings.TrimSpace(s.Text()) != "no"
				waiting = waiting[1:]
			}
			mu.Unlock()
		}
	}()
	return func(ctx context.Context) bool {
		answer := make(chan bool, 1)
		mu.Lock()
		waiting = append(waiting, answer)
		mu.Unlock()
		fmt.Fprintln(notes, "A demo key waits for a touch: press Enter, or type no.")
		select {
		case yes := <-answer:
			return yes
		case <-ctx.Done():
		case <-ended:
		}
		mu.Lock()
		defer mu.Unlock()
		waiting = slices.DeleteFunc(waiting, func(c chan bool) bool { return c == answer })
		select { // the last line, or one that came together with the end
		case yes := <-answer:
			return yes
		default:
			return false
		}
	}
}
