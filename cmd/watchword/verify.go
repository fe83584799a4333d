package main

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
)

func verifyCommand(c *client) *cobra.Command {
	var s statementFlags
	cmd := &cobra.Command{
		Use:   "verify USER CODE",
		Short: "Check a code: exits 0 on accept, 1 on reject, 2 on error",
		Long: `Asks whether a code is really the user's. The code is the PIN, if there is one,
followed by the OTP. A code that was accepted is consumed. With - as CODE it is
read from standard input, where others cannot see it.

With --statement an accept comes with a signed statement of it for an application,
which is printed in a line of its own (see watchword statement).`,
		Example: "  watchword verify alice 755224\n  watchword verify alice 755224 --statement https://wiki.example.org --ttl 10m\n  oathtool --totp 3132333435363738393031323334353637383930 | watchword verify alice -",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			code := args[1]
			if code == "-" {
				var err error
				if code, err = readCode(); err != nil {
					return &failure{What: "verify " + args[0], Why: err.Error(), Do: "type the code, or pipe it in"}
				}
			}
			wanted, err := s.request(cmd)
			if err != nil {
				return &failure{What: "verify " + args[0], Why: err.Error()}
			}
			r, printed, err := get[api.VerifyResult](cmd, c, call{
				what: "verify " + args[0], method: http.MethodPost, path: pathTo("verify"), query: nil,
				body: api.VerifyRequest{User: args[0], Code: code, Realm: ptr(c.realm), Statement: wanted},
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
				if r.Statement != nil {
					if err := say(cmd, "%s", *r.Statement); err != nil {
						return err
					}
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
	s.add(cmd)
	return c.flags(cmd)
}

// statementFlags say what statement is wanted with an accept.
type statementFlags struct {
	audience, nonce string
	ttl             time.Duration
}

func (f *statementFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.audience, "statement", "", "with an accept, a signed statement of it for this audience")
	cmd.Flags().StringVar(&f.nonce, "nonce", "", "text that is to stand in the statement")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 0, "how long the statement is good, at most 1h (default 5m)")
}

// request is nil where no statement is wanted.
func (f *statementFlags) request(cmd *cobra.Command) (*api.StatementRequest, error) {
	if f.audience == "" {
		for _, name := range []string{"statement", "nonce", "ttl"} {
			if cmd.Flags().Changed(name) {
				return nil, errors.New("--nonce and --ttl need --statement, which names an audience")
			}
		}
		return nil, nil
	}
	r := &api.StatementRequest{Audience: f.audience, Nonce: ptr(f.nonce)}
	if cmd.Flags().Changed("ttl") {
		if f.ttl < time.Second {
			return nil, errors.New("--ttl is below 1s")
		}
		seconds := int(f.ttl / time.Second)
		r.Ttl = &seconds
	}
	return r, nil
}

// readCode reads a line from standard input, unseen on a terminal.
func readCode() (string, error) {
	if onTerminal(os.Stdin) {
		code, err := askSecret("Code: ")
		return string(code), err
	}
	return readLineFrom(os.Stdin)
}

// readLineFrom reads a line of what is piped in.
func readLineFrom(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 16<<10)).ReadString('\n')
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
