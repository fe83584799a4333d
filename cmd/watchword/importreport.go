package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/seeds"
)

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
	if r.Notes != nil {
		for _, note := range *r.Notes {
			hint("%s", note)
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
	err := say(cmd, "%s %s%s from %s; %s; %d rejected.", plural(r.Created, "token"), verb, batch, r.Format, existed(r.Duplicate), r.Rejected)
	if r.ThroughHsm > 0 {
		err = firstOf(err, say(cmd, "%s went from the file into the HSM and nowhere else.", plural(r.ThroughHsm, "seed")))
	}
	if r.ThroughHost > 0 {
		err = firstOf(err, say(cmd, "%s travelled through the server's memory, as was allowed.", plural(r.ThroughHost, "seed")))
	}
	return err
}

func existed(n int) string {
	if n == 1 {
		return "1 existed already"
	}
	return fmt.Sprintf("%d existed already", n)
}

// reportFile is the file that --report names; nil if it names none.
type reportFile struct {
	path string
	file *os.File
	csv  bool
	done bool
}

// openReport makes the file before anything is imported: a report that cannot be
// written is known then.
func openReport(path string) (*reportFile, error) {
	if path == "" {
		return nil, nil
	}
	r := &reportFile{path: path, csv: strings.HasSuffix(strings.ToLower(path), ".csv")}
	if !r.csv && !strings.HasSuffix(strings.ToLower(path), ".json") {
		return nil, errors.New("what --report names ends neither in .csv nor in .json")
	}
	var err error
	if r.file, err = createNew(path); err != nil {
		return nil, fmt.Errorf("%s: %s", path, plainCause(err))
	}
	return r, nil
}

// write writes the report in the form that the file's name tells.
func (r *reportFile) write(report *api.ImportReport) error {
	if r == nil {
		return nil
	}
	r.done = true
	text, err := json.Marshal(report)
	if err != nil {
		return err
	}
	if r.csv {
		// The two have the same members.
		var of seeds.Report
		if err = json.Unmarshal(text, &of); err == nil {
			err = of.WriteCSV(r.file)
		}
	} else {
		err = printJSON(r.file, text)
	}
	if err = firstOf(err, r.file.Close()); err != nil {
		return &failure{What: "write the report to " + r.path, Why: plainCause(err), Do: "what was imported stays imported; import the file again for another report"}
	}
	return nil
}

// close removes the file if there was nothing to report.
func (r *reportFile) close() {
	if r == nil || r.done {
		return
	}
	_ = r.file.Close()
	_ = os.Remove(r.path)
}
