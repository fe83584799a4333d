package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"watchword/webauthn/station"
)

// enrolFlags are those of enrol.
type enrolFlags struct {
	keys    keyFlags
	server  serverFlags
	order   station.Order
	users   string
	pins    string
	pinFile string
	labels  string
	journal string
	endless bool
	json    bool
}

func enrolCommand() *cobra.Command {
	var f enrolFlags
	cmd := &cobra.Command{
		Use:   "enrol (--user NAME | --users FILE | --stock N)",
		Short: "Enrol keys one after another, for users or as stock",
		Long: `Waits for keys, and enrols each as it is plugged in: for the next user, or as stock,
which is assigned to somebody later ('watchword token assign SERIAL USER'), and then
waits until its owner signs in with it.

The PIN is random by default, another one for each key, and stands in the file of the
labels and nowhere else. What keys are refused is said, with the reason, and the next
user's key is waited for; nothing is left of it at the server, and as little as possible
on the key.

The journal says what became of each key. Whoever names it again goes on where the
batch ended; without --journal it is watchword-station.journal here.`,
		Example: "  watchword-station enrol --user alice --labels alice.csv\n  watchword-station enrol --users users.txt --labels labels.csv --attestation enterprise --force-pin-change\n  watchword-station enrol --stock 50 --labels stock.csv --passkey --reset",
		Args:    cobra.NoArgs,
		RunE:    f.run,
	}
	f.keys.add(cmd)
	f.server.add(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&f.order.Users, "user", nil, "a user to enrol a key for; may be repeated")
	flags.StringVar(&f.users, "users", "", "file of users, one a line; - is standard input")
	flags.IntVar(&f.order.Stock, "stock", 0, "so many keys of stock")
	flags.BoolVar(&f.endless, "stock-endless", false, "keys of stock until it is broken off")
	flags.StringVar(&f.order.RPID, "rp", "", "relying party (default: the server's first)")
	flags.BoolVar(&f.order.Passkey, "passkey", false, "the credential is found without a user name; it takes one of the key's places")
	flags.StringVar(&f.order.Attestation, "attestation", "", "direct, or enterprise, which names the key's serial number where it was ordered so")
	flags.StringVar(&f.pins, "pin", "random", "random, given (one for all: it is asked for), kept (they have it: it is asked for) or none")
	flags.StringVar(&f.pinFile, "pin-file", "", "file with the PIN that is given or kept; - is standard input")
	flags.IntVar(&f.order.PINLength, "pin-length", 0, "digits of random PINs (default 8)")
	flags.IntVar(&f.order.MinPIN, "min-pin", 0, "least length of the PINs that people choose, where the key can")
	flags.BoolVar(&f.order.ForceChange, "force-pin-change", false, "the key wants another PIN at first use, where it can")
	flags.BoolVar(&f.order.AlwaysUV, "always-uv", false, "the key asks for its PIN whatever it is used for, where it can")
	flags.BoolVar(&f.order.Reset, "reset", false, "reset each key first, whatever it holds")
	flags.StringVar(&f.labels, "labels", "", "CSV file for labels, to which a line is added for each key")
	flags.StringVar(&f.journal, "journal", "watchword-station.journal", "file of what became of each key")
	flags.BoolVar(&f.json, "json", false, "print what happens as JSON, an object a line")
	return cmd
}

func (f *enrolFlags) run(cmd *cobra.Command, _ []string) (err error) {
	o := &f.order
	o.PINs = station.PINs(f.pins)
	if err := f.readUsers(); err != nil {
		return err
	}
	ways := 0
	for _, is := range []bool{len(o.Users) > 0, o.Stock > 0, f.endless} {
		if is {
			ways++
		}
	}
	if ways != 1 || o.Stock < 0 {
		return errors.New("say for whom: --user or --users, --stock N, or --stock-endless")
	}
	if err := o.Check(f.labels != ""); err != nil {
		return err
	}
	server, err := f.server.open()
	if err != nil {
		return err
	}
	s := &station.Station{Server: server, Order: *o}
	if o.PINs == station.PINGiven || o.PINs == station.PINKept {
		prompt := newPIN
		if o.PINs == station.PINKept {
			prompt = func(file string) (*station.Secret, error) { return askPIN(file, "PIN of the keys: ") }
		}
		if s.Given, err = prompt(f.pinFile); err != nil {
			return err
		}
		defer s.Given.Wipe()
	} else if f.pinFile != "" {
		return errors.New("--pin-file goes with --pin given or --pin kept")
	}
	of := "users"
	if len(o.Users) == 0 {
		of = "stock"
	}
	of += " at " + server.URL
	if server.Realm != "" {
		of += " in " + server.Realm
	}
	if s.Journal, err = station.OpenJournal(f.journal, of); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Journal.Close()) }()
	if f.labels != "" {
		if s.Labels, err = station.OpenLabels(f.labels, o.PINs == station.PINRandom); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Labels.Close()) }()
	}
	before := len(s.Journal.Aside)
	if f.json {
		out := json.NewEncoder(cmd.OutOrStdout())
		s.Tell = func(e station.Event) { _ = out.Encode(e) } // whoever reads it may go away
	} else {
		s.Tell = newBoard(cmd.OutOrStdout(), len(o.Users), o.Stock).tell
	}
	if err := s.Run(cmd.Context(), f.keys.watcher()); err != nil {
		return err
	}
	if len(s.Journal.Aside) > before {
		return errAside
	}
	return nil
}

// readUsers reads the file of users.
func (f *enrolFlags) readUsers() error {
	if f.users == "" {
		return nil
	}
	var r io.Reader = os.Stdin
	if f.users != "-" {
		file, err := os.Open(f.users)
		if err != nil {
			return fmt.Errorf("the users: %w", err)
		}
		defer file.Close()
		r = file
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" && !slices.Contains(f.order.Users, name) {
			f.order.Users = append(f.order.Users, name)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the users: %w", err)
	}
	if len(f.order.Users) == 0 {
		return fmt.Errorf("there are no users in %s", f.users)
	}
	return nil
}
