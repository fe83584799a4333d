package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"watchword/api"
)

// importFlags are the flags of an import.
type importFlags struct {
	format, pskFile, passwordFile string
	partial, dryRun, all          bool
}

func importCommand(c *client) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Import a vendor's seed file",
		Long: `Sends a seed file to the server, which wraps each seed by the HSM as it comes and
keeps the file nowhere. - is standard input. The file is imported wholly or, where
it has bad records, only with --partial; tokens that exist are never touched.

The formats are told from the content: OATH CSV (serial,hexseed[,totp|hotp[,digits
[,period|counter[,sha1|sha256|sha512]]]]) and PSKC (RFC 6030), whose key or
password comes from a file: a key as hex digits, or raw with 16, 24 or 32 bytes.
A newline at the end of either is ignored.`,
		Example: "  watchword import shipment.csv --dry-run\n  watchword import shipment.csv\n  watchword import tokens.pskc --psk-file transport.key\n  gpg -d shipment.csv.gpg | watchword import -",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd, c, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "auto", "the file's format: auto, oath-csv or pskc")
	flags.StringVar(&f.pskFile, "psk-file", "", "file with the pre-shared key that the seeds are encrypted with")
	flags.StringVar(&f.passwordFile, "password-file", "", "file with the password that the seeds are encrypted with")
	flags.BoolVar(&f.partial, "partial", false, "import the good records of a file that has bad ones")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check everything, import nothing")
	flags.BoolVar(&f.all, "all", false, "list the records that were created, too")
	cmd.AddCommand(importList(c))
	return c.flags(cmd)
}

func (f *importFlags) run(cmd *cobra.Command, c *client, path string) error {
	what := "import " + path
	if f.pskFile != "" && f.passwordFile != "" {
		return &failure{What: what, Why: "--psk-file and --password-file exclude each other", Do: "a file is encrypted with one of them"}
	}
	file, name, size, err := openSeeds(path)
	if err != nil {
		return &failure{What: what, Why: plainCause(err), Do: "name a seed file, or - for standard input"}
	}
	defer file.Close()
	r := call{what: what, method: http.MethodPost, path: pathTo("imports"), query: c.query("format", f.format, "name", name), slow: true}
	for _, flag := range []struct {
		name string
		on   bool
	}{{"dry_run", f.dryRun}, {"partial", f.partial}, {"all", f.all}} {
		if flag.on {
			r.query.Set(flag.name, "true")
		}
	}
	stream, done := withProgress(file, size)
	defer done()
	r.stream, r.length, r.kind = stream, size, "application/octet-stream"
	if f.pskFile != "" || f.passwordFile != "" {
		if err := f.multipart(&r, name); err != nil {
			return &failure{What: what, Why: err.Error(), Do: "name a file that can be read"}
		}
	}
	report, printed, err := get[api.ImportReport](cmd, c, r)
	done()
	var refused *refusal
	if errors.As(err, &refused) && len(refused.problem.Report) > 0 && json.Unmarshal(refused.problem.Report, &report) == nil {
		if c.json {
			return firstOf(printJSON(cmd.OutOrStdout(), refused.problem.Report), err)
		}
		return firstOf(printReport(cmd, &report, false), err)
	}
	if err != nil {
		return err
	}
	if !printed {
		if err := printReport(cmd, &report, true); err != nil {
			return err
		}
	}
	if report.DryRun && report.Rejected > 0 && !f.partial {
		return &failure{What: what, Why: plural(report.Rejected, "record") + " would keep the file from being imported", Do: "correct the file, or import the rest of it with --partial"}
	}
	return nil
}

// openSeeds opens the file to import; size is -1 where it is not known.
func openSeeds(path string) (file *os.File, name string, size int64, err error) {
	if path == "-" {
		return os.Stdin, "stdin", -1, nil
	}
	if file, err = os.Open(path); err != nil {
		return nil, "", 0, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return file, filepath.Base(path), -1, nil
	default:
		return file, filepath.Base(path), info.Size(), nil
	}
	file.Close()
	return nil, "", 0, err
}

// withProgress shows on a terminal how much was read. done may be called twice.
func withProgress(r io.Reader, size int64) (io.Reader, func()) {
	if !onTerminal(os.Stderr) {
		return struct{ io.Reader }{r}, func() {}
	}
	end := size
	if end > 0 {
		end++ // it is not done when the file is sent, but when the server has answered
	}
	p := &progress{r: r, bar: progressbar.NewOptions64(end,
		progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowBytes(true), progressbar.OptionSetDescription("importing"),
		progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
	)}
	return p, func() { _ = p.bar.Finish() }
}

// progress is a reader whose bar says how far it is.
type progress struct {
	r   io.Reader
	bar *progressbar.ProgressBar
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	_ = p.bar.Add(n)
	if err == io.EOF {
		p.bar.Describe("waiting for the server")
	}
	return n, err
}

// multipart makes the request one whose parts psk or password stand before the
// file. They are never in the URL.
func (f *importFlags) multipart(r *call, name string) error {
	part, path := "psk", f.pskFile
	if f.passwordFile != "" {
		part, path = "password", f.passwordFile
	}
	secret, err := readKeyFile(path)
	if err != nil {
		return err
	}
	seeds := r.stream
	read, write := io.Pipe()
	form := multipart.NewWriter(write)
	r.stream, r.length, r.kind = read, -1, form.FormDataContentType()
	go func() {
		write.CloseWithError(func() error {
			w, err := form.CreateFormField(part)
			if err != nil {
				return err
			}
			_, err = w.Write(secret)
			clear(secret)
			if err != nil {
				return err
			}
			if w, err = form.CreateFormFile("file", name); err != nil {
				return err
			}
			if _, err := io.Copy(w, seeds); err != nil {
				return err
			}
			return form.Close()
		}())
	}()
	return nil
}

// readKeyFile reads a key or password as it is: the server knows what to do
// about newlines.
func readKeyFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, plainCause(err))
	}
	defer file.Close()
	secret, err := io.ReadAll(io.LimitReader(file, 4097))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %s", path, plainCause(err))
	case len(secret) == 0:
		return nil, fmt.Errorf("%s is empty", path)
	case len(secret) > 4096:
		return nil, fmt.Errorf("%s is larger than 4 KiB, and so no key or password", path)
	}
	return secret, nil
}

// shownRecords is how many records a report shows to people.
const shownRecords = 50

func printReport(cmd *cobra.Command, r *api.ImportReport, done bool) error {
	t := newTable("LINE", "SERIAL", "OUTCOME", "REASON")
	for i, record := range r.Records {
		if i == shownRecords {
			hint("%s more, which --json lists", plural(len(r.Records)-shownRecords, "record"))
			break
		}
		t.add(itoa(record.Line), orDash(record.Serial), string(record.Outcome), orDash(record.Reason))
	}
	if len(t.rows) > 0 {
		if err := t.print(cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	if !done {
		return nil
	}
	verb := "were created"
	if r.DryRun {
		verb = "would be created (dry run: nothing was imported)"
	} else if r.Created == 1 {
		verb = "was created"
	}
	batch := ""
	if r.Batch != nil {
		batch = fmt.Sprintf(" as import %d", *r.Batch)
	}
	return say(cmd, "%s %s%s from %s; %s; %d rejected.", plural(r.Created, "token"), verb, batch, r.Format, existed(r.Duplicate), r.Rejected)
}

func existed(n int) string {
	if n == 1 {
		return "1 existed already"
	}
	return fmt.Sprintf("%d existed already", n)
}

func importList(c *client) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the imports, newest first",
		Example: "  watchword import list\n  watchword import list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			imports, printed, err := list[api.Import](cmd, c, call{what: "list the imports", path: pathTo("imports"), query: c.query()}, limit)
			if err != nil || printed {
				return err
			}
			t := newTable("ID", "IMPORTED", "REALM", "FORMAT", "TOKENS", "DUPLICATE", "REJECTED", "BY", "FILE")
			for _, i := range imports {
				t.add(fmt.Sprint(i.Id), toMinute(i.Published), i.Realm, i.Format, itoa(i.Tokens), itoa(i.Duplicate), itoa(i.Rejected), i.Actor, i.Name)
			}
			return printList(cmd, t, "nothing was imported yet")
		},
	}
	limitFlag(cmd, &limit)
	return cmd
}
