// Command watchword is the OTP appliance: its server, and the commands that
// speak to one over HTTP.
package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
)

// The exit codes. Scripts rely on them.
const (
	exitOK    = 0 // done; verify: accept; audit verify: intact
	exitNo    = 1 // the answer is no: verify: reject; audit verify: not intact
	exitError = 2 // there was no answer
	exitPIN   = 3 // serve: the HSM refused the PIN, and trying again would lock it
)

// errNo is an answer that is no. It was printed where it belongs.
var errNo = errors.New("no")

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errNo):
		return exitNo
	}
	printError(err)
	if refused := new(refusal); errors.As(err, &refused) {
		_ = told(nil, refused.problem.Say)
	}
	if errors.Is(err, errPINRefused) {
		return exitPIN
	}
	return exitError
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "watchword",
		Short: "An OTP appliance: is this code really theirs?",
		Long: `Watchword takes a vendor's seed file, puts every seed under an HSM, hands tokens
to people, and from then on answers VPNs and applications over RADIUS and HTTP.

'watchword serve' is the server, and 'watchword hsm' works in its place while it
is stopped. All other commands speak to a server over HTTP, with an API key; a new
server writes the first key to admin.key in its data directory.

  WATCHWORD_URL           where the server is (http://127.0.0.1:8080)
  WATCHWORD_API_KEY_FILE  file with the API key (./var/admin.key)
  WATCHWORD_SESSION_FILE  file with the session of 'watchword login' (beside the key's)
  WATCHWORD_REALM         realm that is meant where --realm does not say
  WATCHWORD_CA_FILE       PEM file with the authority that signed its certificate

Exit codes: 0 done, 1 the answer is no (reject, not intact), 2 an error.`,
		Example:       "  watchword serve\n  watchword import shipment.csv\n  watchword verify alice 755224",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &failure{What: c.CommandPath(), Why: err.Error(), Do: "see " + c.CommandPath() + " --help"}
	})
	c := &client{}
	root.AddCommand(
		serveCommand(), configCommand(), versionCommand(), completionCommand(),
		importCommand(c), userCommand(c), whyCommand(c), tokenCommand(c),
		loginCommand(c), logoutCommand(c), whoamiCommand(c), sessionCommand(c), roleCommand(c),
		verifyCommand(c), statementCommand(c), auditCommand(c), sinkCommand(c), clientCommand(c), radiusCommand(c), keyCommand(c),
		fidoCommand(c), realmCommand(c), policyCommand(c), reportCommand(c), applyCommand(c), exportCommand(c),
		hsmCommand(),
	)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	for _, sub := range root.Commands() {
		explainArgs(sub)
	}
	return root
}

// explainArgs makes wrong arguments an error in our words, on every command.
func explainArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return &failure{What: c.CommandPath(), Why: err.Error(), Do: "the usage is: " + c.UseLine()}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		explainArgs(sub)
	}
}
