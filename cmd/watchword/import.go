package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"watchword/api"
)

// importFlags are the flags of an import.
type importFlags struct {
	format, report       string
	partial, dryRun, all bool

	// Files that are sent before the seed file, the first three secret.
	pskFile, passwordFile, pgpKeyFile, pgpSignerFile, signer string

	// What the file may leave open.
	kind, hash, encoding, timeOrigin string
	digits, period                   int

	assign, createUsers, allowRSA15, allowHost bool
}

func importCommand(c *client) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Import a vendor's seed file",
		Long: `Sends a seed file to the server, which wraps each seed by the HSM as it comes and
keeps the file nowhere. - is standard input. The file is imported wholly or, where
it has bad records, only with --partial; tokens that exist are never touched.

The format is told from the content (docs/formats.md lists what is known), also
within a zip archive or a PGP message. Keys and passwords come from files: a
pre-shared key as hex digits, or raw with 16, 24 or 32 bytes. A newline at the end of
either is ignored. What the file does not say is chosen by --type, --hash, --digits,
--period, --encoding and --time-origin; what it says is never overruled.

Seeds that are encrypted to the transport key (watchword hsm transport-key) are
taken over inside the HSM, and the report says so of each.

Whom the file names as owners is kept as a hint. With --assign their tokens are
handed to them, all or none with the import; a record whose user is unknown (without
--create-users), disabled, or holds a token already is a bad one.`,
		Example: "  watchword import shipment.csv --dry-run\n  watchword import shipment.csv\n  watchword import tokens.pskc --psk-file transport.key\n" +
			"  watchword import c200.txt --type totp --period 60\n  watchword import export.csv --assign --create-users\n" +
			"  watchword import shipment.csv.gpg --pgp-key-file private.asc --password-file passphrase\n  watchword import shipment.csv --all --report report.csv",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, c, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "auto", "the file's format: auto, oath-csv, pskc, ...")
	flags.StringVar(&f.pskFile, "psk-file", "", "file with the pre-shared key that the seeds are encrypted with")
	flags.StringVar(&f.passwordFile, "password-file", "", "file with the password of the file, or the passphrase of the PGP key")
	flags.StringVar(&f.pgpKeyFile, "pgp-key-file", "", "file with the private PGP key that the file is encrypted to")
	flags.StringVar(&f.pgpSignerFile, "pgp-signer-file", "", "file with the public PGP key that must have signed the file")
	flags.StringVar(&f.signer, "signer", "", "file with the certificate whose signature a PSKC file must carry")
	flags.BoolVar(&f.partial, "partial", false, "import the good records of a file that has bad ones")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check everything, import nothing")
	flags.BoolVar(&f.all, "all", false, "list the records that were created, too")
	flags.StringVar(&f.report, "report", "", "new file for the report: NAME.csv or NAME.json")
	flags.StringVar(&f.kind, "type", "", "what the tokens are: totp or hotp")
	flags.StringVar(&f.hash, "hash", "", "their hash: sha1, sha256 or sha512")
	flags.IntVar(&f.digits, "digits", 0, "how long a code is: 6, 7 or 8")
	flags.IntVar(&f.period, "period", 0, "seconds of a time step")
	flags.StringVar(&f.encoding, "encoding", "", "how seeds are written: hex or base32")
	flags.StringVar(&f.timeOrigin, "time-origin", "", "what times in a SafeWord file count from, such as 1970-01-01")
	flags.BoolVar(&f.assign, "assign", false, "hand the tokens to the users whom the file names")
	flags.BoolVar(&f.createUsers, "create-users", false, "with --assign: make the users whom there are not")
	flags.BoolVar(&f.allowRSA15, "allow-rsa-1-5", false, "take seeds that are encrypted with RSA-1_5; answers about wrong ones help to decrypt others")
	flags.BoolVar(&f.allowHost, "allow-host-unwrap", false, "let seeds that the HSM cannot pad inside travel through the server's memory")
	cmd.AddCommand(importList(c), importShow(c), importUndo(c))
	return c.flags(cmd)
}

func (f *importFlags) run(cmd *cobra.Command, c *client, path string) error {
	what := "import " + path
	switch {
	case f.pskFile != "" && f.passwordFile != "":
		return &failure{What: what, Why: "--psk-file and --password-file exclude each other", Do: "a file is encrypted with one of them"}
	case f.createUsers && !f.assign:
		return &failure{What: what, Why: "--create-users makes users for what is assigned", Do: "give --assign, too"}
	}
	query, err := f.query(c)
	if err != nil {
		return &failure{What: what, Why: err.Error(), Do: "see watchword import --help"}
	}
	parts, err := f.parts()
	defer wipeParts(parts)
	if err != nil {
		return &failure{What: what, Why: err.Error(), Do: "name a file that can be read"}
	}
	file, name, size, err := openSeeds(path)
	if err != nil {
		return &failure{What: what, Why: plainCause(err), Do: "name a seed file, or - for standard input"}
	}
	defer file.Close()
	report, err := openReport(f.report)
	if err != nil {
		return &failure{What: what, Why: err.Error(), Do: "name a new file that ends in .csv or .json with --report"}
	}
	defer report.close()
	query.Set("name", name)
	r := call{what: what, method: http.MethodPost, path: pathTo("imports"), query: query, slow: true}
	stream, done := withProgress(file, size)
	defer done()
	r.stream, r.length, r.kind = stream, size, "application/octet-stream"
	if len(parts) > 0 {
		sendParts(&r, parts, name)
	}
	answer, printed, err := get[api.ImportReport](cmd, c, r)
	done()
	var refused *refusal
	if errors.As(err, &refused) && len(refused.problem.Report) > 0 && json.Unmarshal(refused.problem.Report, &answer) == nil {
		if werr := report.write(&answer); werr != nil {
			return werr
		}
		if c.json {
			return firstOf(printJSON(cmd.OutOrStdout(), refused.problem.Report), err)
		}
		return firstOf(printReport(cmd, &answer, false), err)
	}
	if err != nil {
		return err
	}
	if err := report.write(&answer); err != nil {
		return err
	}
	if !printed {
		if err := printReport(cmd, &answer, true); err != nil {
			return err
		}
	}
	if answer.DryRun && answer.Rejected > 0 && !f.partial {
		return &failure{What: what, Why: plural(answer.Rejected, "record") + " would keep the file from being imported", Do: "correct the file, or import the rest of it with --partial"}
	}
	return nil
}

// query is what the flags say that is no secret.
func (f *importFlags) query(c *client) (url.Values, error) {
	q := c.query("format", f.format, "type", f.kind, "hash", f.hash, "encoding", f.encoding)
	for _, flag := range []struct {
		name string
		on   bool
	}{
		{"dry_run", f.dryRun}, {"partial", f.partial}, {"all", f.all}, {"assign", f.assign}, {"create_users", f.createUsers},
		{"allow_rsa_1_5", f.allowRSA15}, {"allow_host_unwrap", f.allowHost},
	} {
		if flag.on {
			q.Set(flag.name, "true")
		}
	}
	for _, flag := range []struct {
		name  string
		value int
	}{{"digits", f.digits}, {"period", f.period}} {
		if flag.value != 0 {
			q.Set(flag.name, itoa(flag.value))
		}
	}
	if f.timeOrigin != "" {
		origin, err := time.Parse(time.DateOnly, f.timeOrigin)
		if err != nil {
			origin, err = time.Parse(time.RFC3339, f.timeOrigin)
		}
		if err != nil {
			return nil, errors.New("--time-origin is not a day such as 1970-01-01 (UTC), nor a time such as 1970-01-01T00:00:00Z")
		}
		q.Set("time_origin", origin.UTC().Format(time.RFC3339))
	}
	return q, nil
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
	return progressOf("importing", r, size)
}

func progressOf(what string, r io.Reader, size int64) (io.Reader, func()) {
	if !onTerminal(os.Stderr) {
		return struct{ io.Reader }{r}, func() {}
	}
	end := size
	if end > 0 {
		end++ // it is not done when the file is sent, but when the server has answered
	}
	p := &progress{r: r, bar: progressbar.NewOptions64(end,
		progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowBytes(true), progressbar.OptionSetDescription(what),
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

// filePart is a file that is sent before the seeds.
type filePart struct {
	name    string
	content []byte
}

// parts reads the files that the flags name.
func (f *importFlags) parts() (parts []filePart, err error) {
	for _, p := range []struct {
		name, path string
		limit      int
	}{
		{"psk", f.pskFile, 4 << 10}, {"password", f.passwordFile, 4 << 10}, {"pgp_key", f.pgpKeyFile, 256 << 10},
		{"pgp_signer", f.pgpSignerFile, 256 << 10}, {"signer", f.signer, 256 << 10},
	} {
		if p.path == "" {
			continue
		}
		content, err := readKeyFile(p.path, p.limit)
		if err != nil {
			return parts, err
		}
		parts = append(parts, filePart{p.name, content})
	}
	return parts, nil
}

func wipeParts(parts []filePart) {
	for _, p := range parts {
		clear(p.content)
	}
}

// sendParts makes the request one whose parts stand before the file. They are
// never in the URL, and wiped once they are sent.
func sendParts(r *call, parts []filePart, name string) {
	seeds := r.stream
	read, write := io.Pipe()
	form := multipart.NewWriter(write)
	r.stream, r.length, r.kind = read, -1, form.FormDataContentType()
	go func() {
		write.CloseWithError(func() error {
			for _, p := range parts {
				w, err := form.CreateFormField(p.name)
				if err != nil {
					return err
				}
				_, err = w.Write(p.content)
				if err != nil {
					return err
				}
			}
			w, err := form.CreateFormFile("file", name)
			if err != nil {
				return err
			}
			if _, err := io.Copy(w, seeds); err != nil {
				return err
			}
			return form.Close()
		}())
	}()
}

// readKeyFile reads a key or password as it is: the server knows what to do
// about newlines.
func readKeyFile(path string, limit int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, plainCause(err))
	}
	defer file.Close()
	buf := make([]byte, limit+1) // never grows, so that there is no copy to wipe
	n, err := io.ReadFull(file, buf)
	content := buf[:n]
	switch {
	case err == nil:
		err = fmt.Errorf("%s is larger than %d KiB, and so no key or password", path, limit>>10)
	case err == io.EOF:
		err = fmt.Errorf("%s is empty", path)
	case err == io.ErrUnexpectedEOF:
		return content, nil
	default:
		err = fmt.Errorf("%s: %s", path, plainCause(err))
	}
	clear(buf)
	return nil, err
}
