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

func radiusTest(c *client) *cobra.Command {
	var t trialFlags
	cmd := &cobra.Command{
		Use:   "test CLIENT",
		Short: "Make a request in a client's place: exits 0 on accept, 1 on reject, 2 on error",
		Long: `Has the server make the packet that a RADIUS client would send, under its secret,
take it the whole way but for the network, and look at the reply as a correct
client does. So it shows what users of that client are answered, questions and
attributes too, without the gateway.

The code is asked for, or read from --code-file or standard input; each answer to
a question of the server is a line more. A code that is right is consumed, and one
that is wrong counts. Without --user it is a Status-Server, which asks whether the
server is there.`,
		Example: "  watchword radius test vpn\n  watchword radius test vpn --user alice\n  oathtool --totp 3132333435363738393031323334353637383930 | watchword radius test vpn --user alice --method mschapv2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t.what = "test RADIUS client " + args[0]
			t.path = pathTo("clients", args[0], "test")
			return t.run(cmd, c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.user, "user", "", "whose request it is, as the gateway would send the name")
	f.StringVar(&t.method, "method", "", "how the code is shown: pap, chap, mschap or mschapv2 (default pap)")
	f.StringVar(&t.codeFile, "code-file", "", "file whose first line is the code, and whose next ones are further answers")
	f.StringVar(&t.nas, "nas", "", "NAS-Identifier (default the client's name)")
	f.StringVar(&t.caller, "caller", "", "Calling-Station-Id, where the person is")
	return cmd
}

// trialFlags are a request in a client's place.
type trialFlags struct {
	user, method, codeFile, nas, caller string

	what, path string
	lines      *bufio.Reader // of what is not asked for at a terminal
}

// maxQuestions bounds how many questions are answered.
const maxQuestions = 10

func (t *trialFlags) run(cmd *cobra.Command, c *client) error {
	if t.user == "" && (t.method != "" || t.codeFile != "") {
		return &failure{What: t.what, Why: "--method and --code-file need --user"}
	}
	in := api.ClientTest{User: ptr(t.user), Nas: ptr(t.nas), Caller: ptr(t.caller)}
	if t.method != "" {
		m := api.ClientTestMethod(t.method)
		in.Method = &m
	}
	if t.user != "" {
		stop, err := t.open()
		if err != nil {
			return &failure{What: t.what, Why: err.Error(), Do: "see --code-file"}
		}
		defer stop()
		code, err := t.next("Code: ")
		if err != nil {
			return &failure{What: t.what, Why: err.Error(), Do: "type the code, or pipe it in"}
		}
		in.Code = &code
	}
	for range maxQuestions {
		got, printed, err := get[api.ClientTested](cmd, c, call{what: t.what, method: http.MethodPost, path: t.path, body: in})
		if err != nil {
			return err
		}
		if !printed {
			if err := showTested(cmd, &got); err != nil {
				return err
			}
		}
		switch {
		case got.Refused != nil:
			return &failure{What: t.what, Why: *got.Refused, Do: "a correct client discards such a reply: it is a fault of the server"}
		case got.Outcome == api.ClientTestedOutcomeAccept:
			return nil
		case got.Outcome == api.ClientTestedOutcomeReject:
			return errNo
		case got.Outcome != api.ClientTestedOutcomeChallenge:
			return unanswered(t.what, &got)
		}
		answer, err := t.next("Answer: ")
		if err != nil {
			return &failure{What: t.what, Why: "the question was not answered: " + err.Error(), Do: "each answer is a line more behind the code"}
		}
		in.Code, in.State = &answer, got.State
	}
	return &failure{What: t.what, Why: fmt.Sprintf("the server asked %d questions", maxQuestions)}
}

// open prepares where codes come from.
func (t *trialFlags) open() (stop func(), err error) {
	if t.codeFile != "" {
		f, err := os.Open(t.codeFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %s", t.codeFile, plainCause(err))
		}
		t.lines = bufio.NewReader(io.LimitReader(f, 16<<10))
		return func() { f.Close() }, nil
	}
	if !onTerminal(os.Stdin) {
		t.lines = bufio.NewReader(io.LimitReader(os.Stdin, 16<<10))
	}
	return func() {}, nil
}

// next is the next code or answer.
func (t *trialFlags) next(prompt string) (string, error) {
	if t.lines == nil {
		code, err := askSecret(prompt)
		return string(code), err
	}
	line, err := t.lines.ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("there is no line more")
	}
	return strings.TrimRight(line, "\r\n"), err
}

func showTested(cmd *cobra.Command, got *api.ClientTested) error {
	if got.Reply == nil {
		return nil
	}
	if err := say(cmd, "%s in %.1f ms", *got.Reply, got.TookMs); err != nil {
		return err
	}
	for _, a := range got.Attributes {
		if err := say(cmd, "%s = %s", clean(a.Name), clean(a.Value)); err != nil {
			return err
		}
	}
	return nil
}

// unanswered says why there was no reply.
func unanswered(what string, got *api.ClientTested) error {
	switch got.Outcome {
	case api.ClientTestedOutcomeShed:
		return &failure{What: what, Why: "no reply: there is too much to do at once", Do: "try again"}
	case api.ClientTestedOutcomeFault:
		return &failure{What: what, Why: "no reply: HSM or database cannot answer", Do: "see what /readyz says, and the server's log"}
	}
	f := &failure{What: what, Why: "no reply"}
	if got.Says != nil {
		f.Why += ": " + *got.Says
	}
	if got.Do != nil {
		f.Do = *got.Do
	}
	return f
}
