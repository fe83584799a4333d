// Command watchword-station is the enrolment station for FIDO keys. It is a client of
// Watchword's API, with an API key of scope station, and the only program here that
// links libfido2.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK    = 0 // done
	exitNo    = 1 // keys were set aside
	exitError = 2 // it cannot go on
)

// errAside means that keys were set aside, which was told.
var errAside = errors.New("keys were set aside")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errAside):
		return exitNo
	}
	fmt.Fprintln(os.Stderr, "watchword-station: "+clean(err.Error()))
	return exitError
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "watchword-station",
		Short: "Enrol FIDO keys one after another",
		Long: `An administrator plugs in keys one after another; each is identified, given a PIN,
attested, enrolled for a user or as stock, and labelled.

  WATCHWORD_URL           where the server is (http://127.0.0.1:8080)
  WATCHWORD_API_KEY_FILE  file with an API key of scope station (./station.key)
  WATCHWORD_REALM         realm that is meant where --realm does not say
  WATCHWORD_CA_FILE       PEM file with the authority that signed the server's certificate

Exit codes: 0 done, 1 keys were set aside, 2 an error.`,
		Example:       "  watchword key add station --scope station --realm default --out station.key\n  watchword-station list\n  watchword-station enrol --users users.txt --labels labels.csv\n  watchword-station enrol --stock 50 --labels labels.csv",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(listCommand(), enrolCommand(), pinCommand(), credentialsCommand(), resetCommand(), demoKeyCommand())
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	return root
}

// clean takes the control characters out of what others have written: keys name
// themselves as they like.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
