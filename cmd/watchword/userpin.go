package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

func userPIN(c *client) *cobra.Command {
	var file string
	var remove, change bool
	cmd := &cobra.Command{
		Use:   "pin NAME",
		Short: "Set or remove a user's PIN",
		Long: `Sets the PIN, read from the terminal or from a file (- is standard input), never
from the command line, where others could see it. From then on a code is the PIN
followed by the OTP.

With --change nothing is accepted until the user has changed it, on a page of your
own that asks POST /v1/pin, or with 'watchword user change-pin'. The rules of the
realm say what may be a PIN, and may ask for that always (see watchword realm rules).`,
		Example: "  watchword user pin alice\n  watchword user pin alice --pin-file pin.txt --change\n  watchword user pin alice --remove",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := call{what: "set the PIN of " + args[0], method: http.MethodPut, path: pathTo("users", args[0], "pin"), query: c.query()}
			switch {
			case remove && file != "":
				return &failure{What: r.what, Why: "--pin-file and --remove exclude each other"}
			case remove && change:
				return &failure{What: r.what, Why: "--change and --remove exclude each other"}
			case remove:
				r.what, r.method = "remove the PIN of "+args[0], http.MethodDelete
			default:
				pin, err := readPIN(file)
				if err != nil {
					return &failure{What: r.what, Why: err.Error(), Do: "type it at the terminal, or name a file whose only line it is with --pin-file"}
				}
				body := map[string]any{"pin": pin}
				if change {
					body["change"] = true
				}
				r.body = body
			}
			u, printed, err := get[api.User](cmd, c, r)
			if err != nil || printed {
				return err
			}
			sentence := "%s has a PIN: a code is the PIN followed by the OTP."
			switch {
			case remove:
				sentence = "%s has no PIN: a code is the OTP alone."
			case u.PinDue:
				sentence = "%s has a PIN that must be changed before anything is accepted."
			}
			return told(say(cmd, sentence, u.Name), u.Say)
		},
	}
	cmd.Flags().StringVar(&file, "pin-file", "", "file whose only line is the PIN, or - for standard input")
	cmd.Flags().BoolVar(&change, "change", false, "it must be changed at first use")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove the PIN")
	return cmd
}

func readPIN(file string) (string, error) {
	switch {
	case file == "-":
		pin, err := readLineFrom(os.Stdin)
		if err == nil && pin == "" {
			err = errors.New("the PIN is empty")
		}
		return pin, err
	case file != "":
		return readLine(file)
	case !onTerminal(os.Stdin):
		return "", fmt.Errorf("standard input is no terminal")
	}
	return askNewPIN()
}

// askNewPIN reads a PIN twice, unseen.
func askNewPIN() (string, error) {
	first, err := askSecret("New PIN: ")
	if err != nil {
		return "", err
	}
	second, err := askSecret("Again: ")
	switch {
	case err != nil:
		return "", err
	case len(first) == 0:
		return "", fmt.Errorf("the PIN is empty")
	case string(first) != string(second):
		return "", fmt.Errorf("the two PINs differ")
	}
	return string(first), nil
}

func userChangePIN(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "change-pin NAME",
		Short: "Let users change their own PIN: exits 0 if it is changed, 1 on reject",
		Long: `Asks for the code as it is typed to sign in, the PIN that was and the OTP behind it,
and for the new PIN. A right code is consumed; anything else is a reject like any
other, and changes nothing. Without a terminal both are read from standard input, a
line each.`,
		Example: "  watchword user change-pin alice\n  watchword user change-pin alice < two-lines",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "change the PIN of " + args[0]
			code, pin, err := readPINChange()
			if err != nil {
				return &failure{What: what, Why: err.Error(), Do: "type them at the terminal, or pipe in two lines: the code, and the new PIN"}
			}
			body := map[string]string{"user": args[0], "code": code, "new_pin": pin}
			if c.realm != "" {
				body["realm"] = c.realm
			}
			v, printed, err := get[api.PinChanged](cmd, c, call{what: what, method: http.MethodPost, path: pathTo("pin"), body: body})
			if err != nil {
				return err
			}
			switch {
			case v.Result == api.VerdictReject:
				if !printed {
					err = say(cmd, "reject")
				}
				return firstOf(err, errNo)
			case v.Result != api.VerdictAccept:
				return &failure{What: what, Why: "the answer is neither accept nor reject", Do: "see that --url names a Watchword server of this version"}
			case printed:
				return nil
			}
			return say(cmd, "%s has a new PIN.", args[0])
		},
	}
}

func readPINChange() (code, pin string, err error) {
	if onTerminal(os.Stdin) {
		typed, err := askSecret("PIN and code as now: ")
		if err != nil {
			return "", "", err
		}
		pin, err := askNewPIN()
		return string(typed), pin, err
	}
	in := bufio.NewReader(io.LimitReader(os.Stdin, 16<<10))
	for _, line := range []*string{&code, &pin} {
		text, err := in.ReadString('\n')
		if err != nil && err != io.EOF {
			return "", "", err
		}
		if *line = strings.TrimRight(text, "\r\n"); *line == "" {
			return "", "", errors.New("standard input has not two lines")
		}
	}
	return code, pin, nil
}
