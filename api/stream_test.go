package api

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

// bulkAt asks a served server for a bulk act.
func bulkAt(t *testing.T, addr string) (*http.Response, []byte, error) {
	t.Helper()
	r, err := http.NewRequest("POST", "http://"+addr+"/v1/tokens/bulk", strings.NewReader(`{"act":"lost","serials":["A1"]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testKey)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer, body, err
}

// An answer that fails when part of it is out breaks off, so that no client takes
// it for whole; one that fails before is an error like any other.
func TestAnAnswerThatFailsInTheMiddleDoesNotEndWell(t *testing.T) {
	var n int
	fault := fmt.Errorf("%w: the database went away", tokens.ErrUnavailable)
	core := &scripted{bulk: func(f func(tokens.BulkItem) error) error {
		for i := range n {
			if err := f(tokens.BulkItem{Serial: fmt.Sprint("A", i), Outcome: tokens.BulkDone}); err != nil {
				return err
			}
		}
		return fault
	}}
	addr := serve(t, newServer(t, core))
	for _, n = range []int{0, 10, 10_000} {
		answer, body, err := bulkAt(t, addr)
		if n < 100 {
			var p Problem
			if err != nil || json.Unmarshal(body, &p) != nil || answer.StatusCode != 503 || p.Status != 503 {
				t.Errorf("after %d items: %v %d %s", n, err, answer.StatusCode, body)
			}
			continue
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || answer.StatusCode != 200 || len(body) == 0 || json.Valid(body) || bytes.Contains(body, []byte("database")) {
			t.Errorf("after %d items: %v %d, %d bytes", n, err, answer.StatusCode, len(body))
		}
	}
	panics := &scripted{bulk: func(f func(tokens.BulkItem) error) error {
		for range 10_000 {
			if err := f(tokens.BulkItem{Serial: "A1", Outcome: tokens.BulkDone}); err != nil {
				return err
			}
		}
		panic("odd")
	}}
	if answer, body, err := bulkAt(t, serve(t, newServer(t, panics))); !errors.Is(err, io.ErrUnexpectedEOF) || json.Valid(body) {
		t.Errorf("a panic: %v %d, %d bytes", err, answer.StatusCode, len(body))
	}
}

// A long answer outlasts every timeout of other requests, and is not held in memory.
func TestALongAnswerIsNeitherCutOffNorHeldInMemory(t *testing.T) {
	const rows = 300_000
	core := &scripted{bulk: func(f func(tokens.BulkItem) error) error {
		for i := range rows {
			if i == rows/2 {
				time.Sleep(400 * time.Millisecond)
			}
			if err := f(tokens.BulkItem{Serial: fmt.Sprintf("A%09d", i), User: strings.Repeat("u", 100), Outcome: tokens.BulkDone}); err != nil {
				return err
			}
		}
		return nil
	}}
	addr := serve(t, newServer(t, core, func(c *Config) { c.Timeout = 100 * time.Millisecond }))
	held := watchHeap(func() {
		r, err := http.NewRequest("POST", "http://"+addr+"/v1/tokens/bulk", strings.NewReader(`{"act":"lost","serials":["A1"]}`))
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Authorization", "Bearer "+testKey)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		defer answer.Body.Close()
		if size, err := io.Copy(io.Discard, answer.Body); err != nil || size < rows*150 {
			t.Errorf("%d bytes, %v", size, err)
		}
	})
	if held > 24<<20 {
		t.Errorf("%d MB held for an answer of %d MB", held>>20, rows*150>>20)
	}
}

// A reader who stands still is given up, and with it what is being done for it.
func TestAReaderWhoStandsStillIsGivenUp(t *testing.T) {
	ended := make(chan error, 1)
	core := &scripted{bulk: func(f func(tokens.BulkItem) error) error {
		for {
			if err := f(tokens.BulkItem{Serial: "A1", User: strings.Repeat("u", 1000), Outcome: tokens.BulkDone}); err != nil {
				ended <- err
				return err
			}
		}
	}}
	addr := serve(t, newServer(t, core, func(c *Config) { c.Timeout = 200 * time.Millisecond }))
	body := `{"act":"lost","serials":["A1"]}`
	conn := dial(t, addr, fmt.Sprintf("POST /v1/tokens/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", testKey, len(body), body))
	defer conn.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, errGone) { // and so the log says nothing of it
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it is still being written to")
	}
}

// A body that does not come is not waited for, though the act may take its time.
func TestABodyThatDoesNotComeIsGivenUp(t *testing.T) {
	addr := serve(t, newServer(t, &scripted{}, func(c *Config) { c.Timeout = 200 * time.Millisecond }))
	conn := dial(t, addr, fmt.Sprintf("POST /v1/tokens/bulk HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{\"act\"", testKey))
	started := time.Now()
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || time.Since(started) > 10*time.Second {
		t.Errorf("after %v: %v %s", time.Since(started), err, answer)
	}
}

func TestABulkActReachesTheCore(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	w := do(h, "POST", "/v1/tokens/bulk", `{"act":"revoke","serials":["A1","A2"],"reason":"recalled"}`)
	want := `{"items":[{"outcome":"done","reason":"","serial":"A1","user":"alice"},{"outcome":"refused","reason":"token A2 is \"imported\"","serial":"A2","user":""}],"matched":2,"done":1,"unchanged":0,"refused":1}`
	if w.Code != 200 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	r := core.arg.(tokens.BulkRequest)
	if r.Act != "revoke" || fmt.Sprint(r.Serials) != "[A1 A2]" || r.Reason != "recalled" || r.DryRun || r.Select != (tokens.TokenQuery{}) {
		t.Errorf("%+v", r)
	}
	do(h, "POST", "/v1/tokens/bulk?realm=corp", `{"act":"expire","select":{"user":"alice","state":"active","type":"totp","q":"24","tag":"old","batch":3},"expires":"2027-01-01T00:00:00Z","dry_run":true}`)
	r = core.arg.(tokens.BulkRequest)
	if sel := (tokens.TokenQuery{Realm: "corp", Owner: "alice", State: "active", Type: "totp", Q: "24", Tag: "old", Batch: 3}); r.Select != sel || r.Realm != "corp" || !r.DryRun || r.Expires.Year() != 2027 {
		t.Errorf("%+v", r)
	}
	core.bulk = func(func(tokens.BulkItem) error) error { return nil }
	if w := do(h, "POST", "/v1/tokens/bulk", `{"act":"lost","select":{"q":"nothing"}}`); w.Body.String() != `{"items":[],"matched":0,"done":0,"unchanged":0,"refused":0}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestActsSayWhatToTellTheUser(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	for _, c := range []call{
		{"POST", "/v1/tokens/A1/assign", `{"user":"alice"}`, 200, ""},
		{"POST", "/v1/tokens/A1/resume", `{"reason":"found"}`, 200, ""},
		{"POST", "/v1/tokens/A1/resync", `{"code1":"1","code2":"2"}`, 200, ""},
		{"POST", "/v1/tokens/A1/lost", `{"temporary":{}}`, 200, ""},
		{"POST", "/v1/tokens/A1/replace", `{"by":"A2"}`, 200, ""},
		{"POST", "/v1/users/alice/unlock", "", 200, ""},
		{"PUT", "/v1/users/alice/pin", `{"pin":"4711"}`, 200, ""},
		{"POST", "/v1/users/alice/recovery", "", 201, ""},
	} {
		for _, err := range []error{nil, tokens.ErrNotFound} {
			core.err = err
			w := do(h, c.method, c.path, c.body)
			var got struct{ Say string }
			if json.Unmarshal(w.Body.Bytes(), &got) != nil || len(got.Say) < 10 {
				t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
			}
		}
	}
	core.err = tokens.ErrNotFound
	if w := do(h, "GET", "/v1/tokens/A1", ""); strings.Contains(w.Body.String(), `"say"`) {
		t.Errorf("looking is no act: %s", w.Body)
	}
}

func TestTheCredentialReportIsSafeInASpreadsheet(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	w := do(h, "GET", "/v1/reports/credentials?format=csv&unowned=true&unused_days=30&find=sha1&realm=corp", "")
	if w.Header().Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Errorf("%v", w.Header())
	}
	rows, err := csv.NewReader(w.Body).ReadAll()
	if err != nil || len(rows) != 4 {
		t.Fatalf("%v %q", err, rows)
	}
	for i, want := range [][]string{
		{"realm", "user", "display", "user_state", "locked", "failures", "pin", "serial", "type", "algorithm", "digits", "period", "state", "assigned", "last_used", "drift_seconds", "expires", "attestation", "model", "batch", "tags", "findings"},
		{"default", "alice", "'\uff1d1+1", "enabled", "true", "3", "due", "'-A1", "totp", "sha1", "6", "30", "active", "2025-11-03T09:10:02.482913Z", "2025-11-03T09:10:02.482913Z", "-60", "2025-11-03T09:10:02.482913Z", "basic", `"C", 200`, "3", "berlin spare", "sha1 expired"},
		{"default", "bob", "", "disabled", "false", "0", "none", "", "", "", "", "", "", "", "", "", "", "", "", "", "", ""},
	} {
		if !slices.Equal(rows[i], want) {
			t.Errorf("row %d:\n%q\n%q", i, rows[i], want)
		}
	}
	if q := core.arg.(tokens.ReportQuery); q != (tokens.ReportQuery{Realm: "corp", Unowned: true, Unused: 720 * time.Hour, Find: tokens.FindSHA1}) {
		t.Errorf("%+v", q)
	}
	// Each of a row's members is a column.
	var row struct{ Items []map[string]any }
	if err := json.Unmarshal(do(h, "GET", "/v1/reports/credentials", "").Body.Bytes(), &row); err != nil || len(row.Items) != 3 || len(row.Items[0]) != len(rows[0]) {
		t.Errorf("%v %v", err, row)
	}
	core.report = func(f func(tokens.ReportRow) error) error {
		for range 10_000 {
			if err := f(tokens.ReportRow{Realm: "default", User: "alice"}); err != nil {
				return err
			}
		}
		return tokens.ErrUnavailable
	}
	addr := serve(t, newServer(t, core))
	for _, format := range []string{"csv", "json"} {
		r, err := http.NewRequest("GET", "http://"+addr+"/v1/reports/credentials?format="+format, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+testKey)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(answer.Body); !errors.Is(err, io.ErrUnexpectedEOF) || len(body) < streamBuffer {
			t.Errorf("%s that fails in the middle: %v, %d bytes", format, err, len(body))
		}
		answer.Body.Close()
	}
}
