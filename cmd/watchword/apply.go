package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func applyCommand(c *client) *cobra.Command {
	var path, secrets string
	var dry, exitCode, yes, prune bool
	cmd := &cobra.Command{
		Use:   "apply -f DIR",
		Short: "Bring realms, RADIUS clients, policies, roles, FIDO rules and sinks to what files say",
		Long: `Reads a YAML file, or all .yaml, .yml and .cedar files of a directory, shows how what is
live differs, asks, and makes it so. What the files do not mention stays as it is; with
--prune, what is of a kind that they mention is deleted. To apply the same again changes
nothing, and after an error goes on where it stopped.

Documents are of kind Realm, Client, Policies, Role, FIDORules, FIDORoots and Sink; they
are applied in this order, the policies in one version or not at all. What is wrong with
a file is said with its place before anything is done. 'watchword export' writes such
files.

The secret of a RADIUS client is the only line of the file that secret_file names, or of
NAME.secret in --secret-dir; a webhook's of NAME.whsec, and the key of a syslog sink's
certificate is in NAME.key. Without, each keeps what it has.`,
		Example: "  watchword apply -f site --dry-run\n  watchword apply -f site --yes\n  watchword apply -f site --prune --dry-run --exit-code",
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVarP(&path, "file", "f", "", "the file, or the directory with the files")
	f.StringVar(&secrets, "secret-dir", "", "directory with secrets: of RADIUS clients NAME.secret, of webhooks NAME.whsec, of syslog sinks NAME.key")
	f.BoolVar(&dry, "dry-run", false, "show the differences; change nothing")
	f.BoolVar(&exitCode, "exit-code", false, "with --dry-run: exit with 1 if there are differences")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.BoolVar(&prune, "prune", false, "delete what is live, of a kind that the files mention, and not in them")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if path == "" || exitCode && !dry {
			why := "-f is needed"
			if path != "" {
				why = "--exit-code goes with --dry-run"
			}
			return &failure{What: "apply", Why: why, Do: "see watchword apply --help"}
		}
		w, err := readWanted(path, secrets)
		if err != nil {
			return notApplied(err)
		}
		quiet := *c
		quiet.json = false
		p := &planner{cmd: cmd, c: &quiet, w: w, prune: prune}
		if err := p.plan(); err != nil {
			return notApplied(err)
		}
		return p.apply(c.json, dry, exitCode, yes)
	}
	return c.flags(cmd)
}

// notApplied is an error before anything was done.
func notApplied(err error) error {
	var known *failure
	var refused *refusal
	if errors.As(err, &known) || errors.As(err, &refused) {
		return err
	}
	return &failure{What: "apply", Why: err.Error(), Do: "nothing was changed"}
}

// apply tells the differences, and makes them go.
func (p *planner) apply(asJSON, dry, exitCode, yes bool) error {
	out := p.cmd.OutOrStdout()
	var all []*difference
	for _, s := range p.steps {
		all = append(all, s.diffs...)
	}
	if !asJSON {
		if err := tellDifferences(out, all); err != nil {
			return err
		}
	}
	for _, k := range p.kept {
		hint("kept: %s", k)
	}
	switch {
	case dry || len(all) == 0:
		if asJSON {
			if err := p.answer(out, all, dry); err != nil {
				return err
			}
		} else if len(all) == 0 {
			hint("there is no difference")
		}
		if dry && exitCode && len(all) > 0 {
			return errNo
		}
		return nil
	case !yes && (asJSON || !onTerminal(os.Stdin)):
		return &failure{What: "apply", Why: "nobody can be asked here, and nothing was changed", Do: "use --yes to change without asking, or --dry-run to look"}
	case !yes:
		ok, err := askYes("Make " + plural(len(all), "change") + "? [y/N] ")
		if err != nil || !ok {
			hint("nothing was changed")
			return errors.Join(err, errNo)
		}
	}
	failed := p.run()
	if asJSON {
		if err := p.answer(out, all, false); err != nil {
			return err
		}
		return failed
	}
	done := 0
	for _, d := range all {
		if d.State == "done" {
			done++
		}
	}
	if failed == nil {
		return say(p.cmd, "%s made.", plural(done, "change"))
	}
	hint("%d of %s made, before this error:", done, plural(len(all), "change"))
	for _, d := range all {
		if d.State != "done" {
			hint("%s: %s %s %s", d.State, d.Does, d.Kind, d.Name)
		}
	}
	hint("what was made stays; to apply again goes on from there")
	return failed
}

// run does the steps up to the first that fails.
func (p *planner) run() error {
	var failed error
	for _, s := range p.steps {
		state := "not done"
		if failed == nil {
			state = "done"
			if _, err := p.c.do(p.cmd.Context(), s.call); err != nil {
				failed, state = err, "failed"
			}
		}
		for _, d := range s.diffs {
			d.State = state
		}
	}
	return failed
}

func (p *planner) answer(out io.Writer, all []*difference, dry bool) error {
	if all == nil {
		all = []*difference{}
	}
	body, err := json.Marshal(map[string]any{"dry_run": dry, "changes": all})
	if err != nil {
		return err
	}
	return printJSON(out, body)
}

// askYes asks for a y.
func askYes(question string) (bool, error) {
	fmt.Fprint(os.Stderr, question)
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 1<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

// tellDifferences prints them as people read them: what comes, what goes, what is other.
func tellDifferences(out io.Writer, all []*difference) error {
	signs := map[string]string{"add": "+", "change": "~", "delete": "-"}
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "%s %s %s\n", signs[d.Does], d.Kind, clean(d.Name))
		for _, f := range d.Fields {
			switch {
			case strings.Contains(f.From+f.To, "\n") || f.Name == "text":
				fmt.Fprintf(&b, "    %s:\n", clean(f.Name))
				for _, line := range lineDifference(f.From, f.To) {
					b.WriteString("    " + clean(line) + "\n")
				}
			case d.Does == "add":
				fmt.Fprintf(&b, "    %s: %s\n", clean(f.Name), orDash(clean(f.To)))
			default:
				fmt.Fprintf(&b, "    %s: %s -> %s\n", clean(f.Name), orDash(clean(f.From)), orDash(clean(f.To)))
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// maxCompared bounds the table of lineDifference.
const maxCompared = 4 << 20

// lineDifference tells how one text becomes another: lines that stay behind two spaces,
// those that go behind "- ", those that come behind "+ ".
func lineDifference(from, to string) []string {
	a, b := textLines(from), textLines(to)
	var out []string
	if len(a)*len(b) > maxCompared {
		for _, line := range a {
			out = append(out, "- "+line)
		}
		for _, line := range b {
			out = append(out, "+ "+line)
		}
		return out
	}
	// common[i][j] is how many lines a[i:] and b[j:] have in common, in order.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if common[i][j] = max(common[i+1][j], common[i][j+1]); a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, "  "+a[i])
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	return out
}

func textLines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}
