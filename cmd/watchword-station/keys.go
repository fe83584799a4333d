package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"watchword/webauthn/station"
)

// keyFlags say where keys are found.
type keyFlags struct {
	dir   string
	noUSB bool
}

func (f *keyFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "keys", "", "also take what the links in this directory point to as keys (default $WATCHWORD_STATION_KEYS)")
	c.Flags().BoolVar(&f.noUSB, "no-usb", false, "do not look for keys on USB")
}

func (f *keyFlags) watcher() *station.Watcher {
	orEnv(&f.dir, "WATCHWORD_STATION_KEYS", "")
	return &station.Watcher{Dir: f.dir, USB: !f.noUSB}
}

// oneKey opens the key at a path, or where none is named the only one there is.
func (f *keyFlags) oneKey(path string) (*station.Device, error) {
	if path == "" {
		list, err := f.watcher().Now()
		switch {
		case err != nil:
			return nil, err
		case len(list) == 0:
			return nil, errors.New("there is no key; plug one in")
		case len(list) > 1:
			return nil, fmt.Errorf("there are %d keys; name the device, as 'watchword-station list' shows it, or leave one plugged in", len(list))
		}
		path = list[0].Path
	}
	return station.Open(path)
}

// askPIN reads a PIN from a file, or from the terminal, where it is not shown.
func askPIN(file, prompt string) (*station.Secret, error) {
	if file == "-" {
		return station.ReadSecret(os.Stdin)
	}
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("the PIN: %w", err)
		}
		defer f.Close()
		return station.ReadSecret(f)
	}
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, errors.New("a PIN is needed; name a file that holds it, with --pin-file")
	}
	fmt.Fprint(os.Stderr, prompt)
	// term.ReadPassword would answer a buffer that grew, with copies left behind.
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	if err := hideTyping(fd); err != nil {
		return nil, err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(ended)
	defer func() {
		_ = term.Restore(fd, before)
		fmt.Fprintln(os.Stderr)
	}()
	type typed struct {
		pin *station.Secret
		err error
	}
	done := make(chan typed, 1)
	go func() {
		pin, err := station.ReadSecret(os.Stdin)
		done <- typed{pin, err}
	}()
	select {
	case t := <-done:
		return t.pin, t.err
	case <-ended:
		return nil, errors.New("it was broken off")
	}
}

// newPIN asks for a PIN twice where it is typed.
func newPIN(file string) (*station.Secret, error) {
	pin, err := askPIN(file, "New PIN: ")
	if err != nil || file != "" {
		return pin, err
	}
	again, err := askPIN(file, "The same again: ")
	if err != nil {
		pin.Wipe()
		return nil, err
	}
	defer again.Wipe()
	if !bytes.Equal(pin.Bytes(), again.Bytes()) {
		pin.Wipe()
		return nil, errors.New("the two are not the same")
	}
	return pin, nil
}

func pinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "pin",
		Short:   "Set or change the PIN of a key, and see how often it can be tried",
		Example: "  watchword-station pin set\n  watchword-station pin retries",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(pinSet(false), pinSet(true), pinRetries())
	return cmd
}

func pinSet(change bool) *cobra.Command {
	var f keyFlags
	var newFile, oldFile string
	var force bool
	var least int
	cmd := &cobra.Command{Use: "set [DEVICE]", Short: "Give a key its first PIN", Args: cobra.MaximumNArgs(1),
		Example: "  watchword-station pin set\n  watchword-station pin set --pin-file pin.txt --force-change --min-pin 6"}
	if change {
		cmd.Example = "  watchword-station pin change\n  watchword-station pin change --old-pin-file old.txt --pin-file new.txt"
		cmd.Use, cmd.Short = "change [DEVICE]", "Give a key another PIN"
		cmd.Flags().StringVar(&oldFile, "old-pin-file", "", "file with the PIN so far; - is standard input")
	}
	f.add(cmd)
	cmd.Flags().StringVar(&newFile, "pin-file", "", "file with the new PIN; - is standard input")
	cmd.Flags().BoolVar(&force, "force-change", false, "have the key want another PIN at first use")
	cmd.Flags().IntVar(&least, "min-pin", 0, "least length of PINs from now on")
	cmd.RunE = func(c *cobra.Command, args []string) error {
		d, err := f.oneKey(strings.Join(args, ""))
		if err != nil {
			return err
		}
		defer d.Close()
		var old *station.Secret
		if change {
			if old, err = askPIN(oldFile, "PIN so far: "); err != nil {
				return err
			}
			defer old.Wipe()
		}
		pin, err := newPIN(newFile)
		if err != nil {
			return err
		}
		defer pin.Wipe()
		if err := d.SetPIN(pin, old); err != nil {
			return err
		}
		if least > 0 {
			if err := d.SetMinPIN(least, pin); err != nil {
				return fmt.Errorf("the PIN is set, but: %w", err)
			}
		}
		if force {
			if err := d.ForcePINChange(pin); err != nil {
				return fmt.Errorf("the PIN is set, but: %w", err)
			}
		}
		fmt.Fprintln(c.OutOrStdout(), "The PIN is set.")
		return nil
	}
	return cmd
}

func pinRetries() *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{
		Use: "retries [DEVICE]", Short: "Say how often the PIN can be tried before it is blocked", Args: cobra.MaximumNArgs(1),
		Example: "  watchword-station pin retries\n  watchword-station pin retries /dev/hidraw3",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := f.oneKey(strings.Join(args, ""))
			if err != nil {
				return err
			}
			defer d.Close()
			i, err := d.Info()
			if err != nil {
				return err
			}
			if i.Retries < 0 {
				return errors.New("the key has no PIN")
			}
			fmt.Fprintln(c.OutOrStdout(), i.Retries)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func resetCommand() *cobra.Command {
	var f keyFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "reset [DEVICE]",
		Short: "Make a key as it left the factory: all credentials and the PIN go",
		Long: `Makes a key as it left the factory: its credentials and its PIN go, for good. Most keys
allow it within ten seconds of being plugged in only, and want to be touched.`,
		Example: "  watchword-station reset --yes\n  watchword-station reset --yes /dev/hidraw3",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !yes {
				return errors.New("all credentials on the key go, for good; say --yes if that is meant")
			}
			d, err := f.oneKey(strings.Join(args, ""))
			if err != nil {
				return err
			}
			defer d.Close()
			fmt.Fprintln(os.Stderr, "Touch the key.")
			if err := d.Reset(c.Context()); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "The key is as it left the factory.")
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "it is meant")
	return cmd
}
