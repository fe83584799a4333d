package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func verifyCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify USER CODE",
		Short: "Check a code: exits 0 on accept, 1 on reject, 2 on error",
		Long: `Asks whether a code is really the user's. The code is the PIN, if there is one,
followed by the OTP. A code that was accepted is consumed. With - as CODE it is
read from standard input, where others cannot see it.`,
		Example: "  watchword verify alice 755224\n  oathtool --totp 3132333435363738393031323334353637383930 | watchword verify alice -",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			code := args[1]
			if code == "-" {
				var err error
				if code, err = readCode(); err != nil {
					return &failure{What: "verify " + args[0], Why: err.Error(), Do: "type the code, or pipe it in"}
				}
			}
			r, printed, err := get[api.VerifyResult](cmd, c, call{
				what: "verify " + args[0], method: http.MethodPost, path: pathTo("verify"), query: nil,
				body: api.VerifyRequest{User: args[0], Code: code, Realm: ptr(c.realm)},
			})
			if err != nil {
				return err
			}
			if !printed {
				line := string(r.Result)
				if r.Serial != nil {
					line += " " + *r.Serial
				}
				if err := say(cmd, "%s", line); err != nil {
					return err
				}
			}
			switch r.Result {
			case api.VerdictAccept:
				return nil
			case api.VerdictReject:
				return errNo
			}
			return &failure{What: "verify " + args[0], Why: "the answer is neither accept nor reject", Do: "see that --url names a Watchword server of this version"}
		},
	}
	return c.flags(cmd)
}

// readCode reads a line from standard input, unseen on a terminal.
func readCode() (string, error) {
	if onTerminal(os.Stdin) {
		code, err := askSecret("Code: ")
		return string(code), err
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 4096)).ReadString('\n')
	if err == io.EOF {
		err = nil
	}
	return strings.TrimRight(line, "\r\n"), err
}

// ptr is nil for an empty text.
func ptr(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
