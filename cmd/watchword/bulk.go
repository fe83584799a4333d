package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

// bulkActs are what can be done to many tokens at once.
var bulkActs = []string{"suspend", "resume", "lost", "revoke", "unassign", "expire", "tag", "untag", "note"}

// bulkFlags say what is to be done, and to which tokens.
type bulkFlags struct {
	file                      string
	user, state, kind, q, tag string
	batch                     int
	reason, note, expires     string
	tags                      []string
	dryRun, yes               bool
}

// bulkRequest is one of POST /v1/tokens/bulk.
type bulkRequest struct {
	Act     string          `json:"act"`
	Serials []string        `json:"serials,omitempty"`
	Select  *bulkSelection  `json:"select,omitempty"`
	DryRun  bool            `json:"dry_run,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Note    *string         `json:"note,omitempty"`
	Tags    []string        `json:"tags,omitempty"`
	Expires json.RawMessage `json:"expires,omitempty"` // a time, or null for never
}

// bulkSelection is every token of which all that is named holds.
type bulkSelection struct {
	User  string `json:"user,omitempty"`
	State string `json:"state,omitempty"`
	Type  string `json:"type,omitempty"`
	Q     string `json:"q,omitempty"`
	Tag   string `json:"tag,omitempty"`
	Batch int    `json:"batch,omitempty"`
}

func tokenBulk(c *client) *cobra.Command {
	var f bulkFlags
	cmd := &cobra.Command{
		Use:   "bulk ACT [SERIAL...]",
		Short: "Do the same to many tokens: shows what would happen, and asks",
		Long: `ACT is ` + strings.Join(bulkActs, ", ") + `.

Which tokens: named one by one, or in a file with a serial a line (- is standard
input); or selected by flags, all of which must hold. Each token goes through the
same rules as by itself, and has its own record in the audit.

On a terminal a dry run comes first: a table of what would happen to which, and the
question whether to go on. What is done then is done to the tokens in the table and
to no others. --dry-run ends there; --yes does not ask, and is needed without a
terminal. Exits with 1 if some were refused.`,
		Example: "  watchword token bulk suspend --tag contractor --reason 'contract ends' --dry-run\n" +
			"  watchword token bulk revoke --state lost --batch 3 --yes\n" +
			"  watchword token bulk tag 24680017 24680018 --tags berlin,spare\n" +
			"  watchword token bulk expire --file serials.txt --expires 2027-01-31",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, c, args[0], args[1:]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.file, "file", "", "file with a serial a line, or - for standard input")
	flags.StringVar(&f.user, "user", "", "only tokens of this user")
	flags.StringVar(&f.state, "state", "", "only tokens in this state")
	flags.StringVar(&f.kind, "type", "", "only tokens of this type: totp, hotp, yubico, fido, recovery or temporary")
	flags.StringVar(&f.q, "q", "", "only tokens with this in the serial or the user's name")
	flags.StringVar(&f.tag, "tag", "", "only tokens with this tag")
	flags.IntVar(&f.batch, "batch", 0, "only tokens of this import (see watchword import list)")
	flags.StringVar(&f.reason, "reason", "", "why, in words; for the audit")
	flags.StringVar(&f.note, "note", "", "what to note; with act note")
	flags.StringSliceVar(&f.tags, "tags", nil, "which tags; with acts tag and untag")
	flags.StringVar(&f.expires, "expires", "", "when, or never; with act expire")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would happen, do nothing")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	return cmd
}

func (f *bulkFlags) run(cmd *cobra.Command, c *client, act string, serials []string) error {
	what := act + " tokens"
	r, err := f.request(cmd, act, serials)
	if err != nil {
		return &failure{What: what, Why: err.Error(), Do: "see watchword token bulk --help"}
	}
	ask := !f.yes && !f.dryRun
	if ask && (!onTerminal(os.Stdin) || c.json) {
		return &failure{What: what, Why: "nobody can be asked", Do: "give --dry-run to see what would happen, or --yes"}
	}
	post := func(r *bulkRequest) (api.BulkReport, bool, error) {
		return get[api.BulkReport](cmd, c, call{what: what, method: http.MethodPost, path: pathTo("tokens", "bulk"), query: c.query(), body: r, slow: true})
	}
	if f.dryRun || ask {
		dry := *r
		dry.DryRun = true
		report, printed, err := post(&dry)
		if err != nil || printed {
			return err
		}
		changed := would(&report)
		if err := printBulk(cmd, &report); err != nil {
			return err
		}
		if err := say(cmd, "%d of %s would be changed, %d stay as they are, %d would be refused.",
			len(changed), plural(report.Matched, "token"), report.Unchanged, report.Refused); err != nil || f.dryRun {
			return err
		}
		if len(changed) == 0 {
			return nil
		}
		if !confirmCount(len(changed)) {
			return &failure{What: what, Why: "it was not confirmed", Do: "nothing was done"}
		}
		// What was shown is what is done, whatever else may have come to match.
		r.Select, r.Serials = nil, changed
	}
	report, printed, err := post(r)
	if err != nil {
		return err
	}
	if !printed {
		if err := printBulk(cmd, &report); err != nil {
			return err
		}
		if err := say(cmd, "%d of %s changed, %d stay as they are, %d refused.",
			report.Done, plural(report.Matched, "token"), report.Unchanged, report.Refused); err != nil {
			return err
		}
	}
	if report.Refused > 0 {
		return errNo
	}
	return nil
}

func (f *bulkFlags) request(cmd *cobra.Command, act string, serials []string) (*bulkRequest, error) {
	if !slices.Contains(bulkActs, act) {
		return nil, fmt.Errorf("%s is not one of %s", act, strings.Join(bulkActs, ", "))
	}
	r := &bulkRequest{Act: act, Serials: serials, Reason: f.reason, Tags: f.tags}
	if f.file != "" {
		named, err := readSerials(f.file)
		if err != nil {
			return nil, err
		}
		r.Serials = append(r.Serials, named...)
	}
	s := bulkSelection{User: f.user, State: f.state, Type: f.kind, Q: f.q, Tag: f.tag, Batch: f.batch}
	switch {
	case s != bulkSelection{} && len(r.Serials) > 0:
		return nil, errors.New("tokens are named and selected, too; do one of them")
	case s != bulkSelection{}:
		r.Select = &s
	case len(r.Serials) == 0:
		return nil, errors.New("no token is named or selected")
	}
	for _, need := range []struct{ flag, acts string }{{"tags", "tag untag"}, {"note", "note"}, {"expires", "expire"}} {
		given, wanted := cmd.Flags().Changed(need.flag), slices.Contains(strings.Fields(need.acts), act)
		switch {
		case given && !wanted:
			return nil, fmt.Errorf("--%s is not for %s", need.flag, act)
		case wanted && !given:
			return nil, fmt.Errorf("--%s is needed", need.flag)
		}
	}
	if act == "note" {
		r.Note = &f.note
	}
	if act == "expire" {
		when, err := parseExpiry(f.expires)
		if err != nil {
			return nil, errors.New("--expires is no day such as 2027-01-31, no time such as 2027-01-31T18:00:00+01:00, and not never")
		}
		if r.Expires, err = json.Marshal(when); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// readSerials reads a file with a serial a line. Empty lines are none.
func readSerials(path string) (serials []string, err error) {
	in := os.Stdin
	if path != "-" {
		if in, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("%s: %s", path, plainCause(err))
		}
		defer in.Close()
	}
	lines := bufio.NewScanner(io.LimitReader(in, 4<<20))
	for lines.Scan() {
		if serial := strings.TrimSpace(lines.Text()); serial != "" {
			serials = append(serials, serial)
		}
	}
	return serials, lines.Err()
}

// would are the tokens to which something would happen.
func would(r *api.BulkReport) (serials []string) {
	for _, i := range r.Items {
		if i.Outcome == api.BulkItemOutcomeWould {
			serials = append(serials, i.Serial)
		}
	}
	return serials
}

// maxShown is how many lines of a bulk act are printed.
const maxShown = 200

func printBulk(cmd *cobra.Command, r *api.BulkReport) error {
	t := newTable("SERIAL", "USER", "OUTCOME", "REASON")
	for _, i := range r.Items[:min(maxShown, len(r.Items))] {
		t.add(i.Serial, orDash(i.User), string(i.Outcome), orDash(i.Reason))
	}
	if more := len(r.Items) - len(t.rows); more > 0 {
		defer hint("%s more; --json lists all", plural(more, "token"))
	}
	return printList(cmd, t, "there is no such token")
}

// confirmCount asks for the number of tokens.
func confirmCount(n int) bool {
	fmt.Fprintf(os.Stderr, "Type %d to go on: ", n)
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	return strings.TrimSpace(line) == fmt.Sprint(n)
}
