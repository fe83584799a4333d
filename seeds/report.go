package seeds

import (
	"fmt"

	"watchword/hsm"
	"watchword/tokens"
)

// maxListed is how many records of a kind a report lists at most.
const maxListed = 10000

// Report says what an import did, or with DryRun what it would have done. It
// holds no seed.
type Report struct {
	Format   string `json:"format"`   // name of the format
	Detected string `json:"detected"` // how the format was told
	Name     string `json:"name"`     // of the file, as it was given
	SHA256   string `json:"sha256"`   // of the file, hex
	Bytes    int64  `json:"bytes"`    // size of the file
	DryRun   bool   `json:"dry_run"`
	Partial  bool   `json:"partial"`

	Published bool   `json:"published"`       // the created tokens are there
	Batch     int64  `json:"batch,omitempty"` // the batch that they came in, if published
	Message   string `json:"message"`         // the result in a sentence

	Created   int `json:"created"`
	Duplicate int `json:"duplicate"`
	Rejected  int `json:"rejected"`

	// Of the created tokens, those whose seeds came encrypted to the transport key:
	// how many the HSM took over inside, and how many travelled through the server's
	// memory.
	ThroughHSM  int `json:"through_hsm"`
	ThroughHost int `json:"through_host"`

	// Records lists the rejected records first and then the duplicates, each in
	// the file's order, and with Options.All the created ones too: 10,000 of
	// either kind at most. Omitted counts those that were left off.
	Records []Outcome `json:"records"`
	Omitted int       `json:"omitted"`

	Notes []string `json:"notes,omitempty"` // what else is worth knowing of the file
}

// Outcome is what became of one record.
type Outcome struct {
	Line    int            `json:"line"`             // in the file, from 1
	Key     int            `json:"key,omitempty"`    // number of the key package, from 1, in formats that have them
	Serial  string         `json:"serial,omitempty"` // empty if it could not be read
	User    string         `json:"user,omitempty"`   // whom the file names as the owner
	Outcome tokens.Outcome `json:"outcome"`
	Reason  string         `json:"reason,omitempty"` // why it was not created

	// Path says how a seed that came encrypted to the transport key travelled:
	// "hsm" or "host". Empty for other seeds, and where nothing was created.
	Path hsm.TransportPath `json:"path,omitempty"`
}

// tally collects outcomes while an import goes on.
type tally struct {
	all                bool
	created, dup, bad  int
	inside, host       int // of those created
	rejected, others   []Outcome
	leftBad, leftOther int
}

func (t *tally) add(o Outcome) {
	switch o.Outcome {
	case tokens.OutcomeRejected:
		t.bad++
		if len(t.rejected) < maxListed {
			t.rejected = append(t.rejected, o)
		} else {
			t.leftBad++
		}
		return
	case tokens.OutcomeDuplicate:
		t.dup++
	default:
		t.created++
		switch o.Path {
		case hsm.PathHSM:
			t.inside++
		case hsm.PathHost:
			t.host++
		}
	}
	// A created one is listed too if the file turns out to be refused.
	if len(t.others) < maxListed {
		t.others = append(t.others, o)
	} else if t.all || o.Outcome != tokens.OutcomeCreated {
		t.leftOther++
	}
}

// fill writes the counts, the list and the sentence into r. refused says that
// bad records kept the whole file out.
func (t *tally) fill(r *Report, refused bool) {
	total := t.created + t.dup + t.bad
	r.Created, r.Duplicate, r.Rejected = t.created, t.dup, t.bad
	r.Records = t.rejected
	if refused {
		r.Created, r.Duplicate, r.Rejected = 0, 0, total
		for _, o := range t.others {
			o.Outcome, o.Path = tokens.OutcomeRejected, ""
			o.Reason = "nothing is wrong with it, but the file has bad records and is imported wholly or not at all"
			r.Records = append(r.Records, o)
		}
		r.Omitted = total - len(r.Records)
	} else {
		r.ThroughHSM, r.ThroughHost = t.inside, t.host
		for _, o := range t.others {
			if t.all || o.Outcome != tokens.OutcomeCreated {
				r.Records = append(r.Records, o)
			}
		}
		r.Omitted = t.leftBad + t.leftOther
	}
	if r.Records == nil {
		r.Records = []Outcome{} // a list in JSON, never null
	}
	r.Message = message(r, t.bad, total, refused)
}

func message(r *Report, bad, total int, refused bool) string {
	was, is := "was", ""
	if r.DryRun {
		was, is = "would be", " (dry run)"
	}
	switch {
	case refused:
		return fmt.Sprintf("Nothing %s imported%s: %s bad. Correct the file, or import the rest of it with --partial.", was, is, ofRecords(bad, total))
	case r.Created == 0 && bad == 0:
		return fmt.Sprintf("Nothing new%s: the %s of this file exist already.", is, count(r.Duplicate, "serial"))
	case r.Created == 0:
		return fmt.Sprintf("Nothing %s imported%s: %s bad, %s exist already.", was, is, ofRecords(bad, total), count(r.Duplicate, "serial"))
	}
	text := count(r.Created, "token") + " imported" + is
	if r.DryRun {
		text = count(r.Created, "token") + " would be imported" + is
	}
	if r.Duplicate > 0 {
		text += fmt.Sprintf("; %s existed already, and those tokens are not touched", count(r.Duplicate, "serial"))
	}
	if r.ThroughHSM > 0 {
		text += fmt.Sprintf("; %s went from the file into the HSM and nowhere else", count(r.ThroughHSM, "seed"))
	}
	if r.ThroughHost > 0 {
		text += fmt.Sprintf("; %s travelled through the server's memory, as was allowed", count(r.ThroughHost, "seed"))
	}
	if bad > 0 {
		text += fmt.Sprintf("; %s bad and left out", ofRecords(bad, total))
	}
	return text + "."
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func ofRecords(n, total int) string {
	if n == 1 {
		return fmt.Sprintf("1 of %s is", count(total, "record"))
	}
	return fmt.Sprintf("%d of %s are", n, count(total, "record"))
}
