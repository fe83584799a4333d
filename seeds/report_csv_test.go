package seeds

import (
	"bytes"
	"encoding/csv"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"watchword/hsm"
	"watchword/tokens"
)

func TestReportInCSV(t *testing.T) {
	r := Report{Omitted: 3, Records: []Outcome{
		{Line: 4, Serial: "A1", Outcome: tokens.OutcomeRejected, Reason: `column 2 (hexseed): "no", it is not`, User: "alice@example.com"},
		{Line: 7, Key: 2, Serial: "=1+1", Outcome: tokens.OutcomeDuplicate, Reason: "it exists", User: "@SUM(A1)"},
		{Key: 3, Outcome: tokens.OutcomeCreated, Path: hsm.PathHSM},
	}}
	var out strings.Builder
	if err := r.WriteCSV(&out); err != nil {
		t.Fatal(err)
	}
	want := "line,key,serial,outcome,reason,user,path\r\n" +
		`4,,"A1","rejected","column 2 (hexseed): ""no"", it is not","alice@example.com",` + "\r\n" +
		`7,2,"'=1+1","duplicate","it exists","'@SUM(A1)",` + "\r\n" +
		`,3,,"created",,,"hsm"` + "\r\n" +
		`,,,,"3 more records not listed here",,` + "\r\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if err := r.WriteCSV(broken{}); !errors.Is(err, errNoPaper) {
		t.Errorf("a writer that fails: %v", err)
	}
}

var errNoPaper = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errNoPaper }

// Whatever a file names its serials and users, a spreadsheet reads the report's
// texts back as texts.
func TestReportInCSVIsInert(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.RuneFrom([]rune("=+-@\t\r\n ;,'\"a1\u00a0\uff1d")))
		r := Report{Records: []Outcome{{Line: 1, Serial: text.Draw(t, "serial"), Outcome: tokens.OutcomeCreated, Reason: text.Draw(t, "reason"), User: text.Draw(t, "user")}}}
		var out bytes.Buffer
		if err := r.WriteCSV(&out); err != nil {
			t.Fatal(err)
		}
		o := r.Records[0]
		rows, err := csv.NewReader(bytes.NewReader(out.Bytes())).ReadAll()
		if err != nil {
			t.Fatalf("%q: %v", out.Bytes(), err)
		}
		for i, want := range []string{"1", "", o.Serial, "created", o.Reason, o.User, ""} {
			got := rows[1][i]
			if first := strings.TrimLeft(got, " \u00a0"); first != "" && strings.ContainsRune("=+-@\t\r\n\uff1d", []rune(first)[0]) {
				t.Fatalf("%q is a formula", got)
			}
			// A CSV reader makes LF of a CRLF within quotes.
			if want = strings.ReplaceAll(want, "\r\n", "\n"); got != want && got != "'"+want {
				t.Fatalf("%q became %q", want, got)
			}
			if i > 1 && got != "" && !strings.Contains(strings.ReplaceAll(out.String(), "\r\n", "\n"), `"`+strings.ReplaceAll(got, `"`, `""`)+`"`) {
				t.Fatalf("%q is not in quotes: a spreadsheet that separates by semicolons may split it", got)
			}
		}
	})
}

func TestReportNamesTheUserOfEachRecord(t *testing.T) {
	file := "upn,serial number,secret key,time interval,manufacturer,model\n" +
		"helga@example.com,E1,GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ,30,ACME,One\nbad@example.com,E2,,30,ACME,One\n"
	r, err := importText(newShelf(t), file, Options{Partial: true, All: true})
	if err != nil || !r.Published {
		t.Fatalf("%+v, %v", r, err)
	}
	users := []string{}
	for _, o := range r.Records {
		users = append(users, o.Serial+"="+o.User)
	}
	if !slices.Equal(users, []string{"E2=bad@example.com", "E1=helga@example.com"}) {
		t.Errorf("%v", users)
	}
}
