package station

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Journal is the file of a batch: what became of each key, line by line, each durable
// before the next step. It holds no PIN. Whoever opens it again goes on where the batch
// ended, whatever ended it.
type Journal struct {
	file *os.File
	id   string // another one for each journal
	good int64  // how long the file is, in whole lines

	Number int             // of the last key
	Done   map[string]bool // users who have got their key; "" for stock
	Stock  int             // keys of stock that were enrolled
	Aside  []Record        // keys, or users, that were set aside
	Open   *Record         // a key of which nobody knows whether the server enrolled it
}

// Record is a line of the journal.
type Record struct {
	Time    time.Time `json:"time"`
	What    string    `json:"what"` // batch, made, done, aside, skip, left
	Number  int       `json:"number,omitempty"`
	User    string    `json:"user,omitempty"`
	For     string    `json:"for,omitempty"` // batch: users or stock, at which server
	ID      string    `json:"id,omitempty"`  // batch
	Model   string    `json:"model,omitempty"`
	AAGUID  string    `json:"aaguid,omitempty"`
	Serial  string    `json:"serial,omitempty"`
	Reason  string    `json:"reason,omitempty"`  // aside, skip
	Left    string    `json:"left,omitempty"`    // left: what is on the key, and what to do about it
	Finish  *finish   `json:"finish,omitempty"`  // made: what the server was to be sent
	Labeled bool      `json:"labeled,omitempty"` // made: there is a label to write, whose PIN waits
}

// begins is how every line does.
const begins = `{"time":`

// The kinds of records.
const (
	whatBatch = "batch"
	whatMade  = "made"
	whatDone  = "done"
	whatAside = "aside"
	whatSkip  = "skip"
	whatLeft  = "left"
)

// OpenJournal opens a batch's journal, or begins one. of says what the batch is, and
// must be the same each time.
func OpenJournal(path, of string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	j := &Journal{file: f, Done: map[string]bool{}}
	if err := j.read(of); err != nil {
		return nil, errors.Join(fmt.Errorf("the journal %s: %w", path, err), f.Close())
	}
	return j, nil
}

func (j *Journal) read(of string) error {
	if err := syscall.Flock(int(j.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.New("another station works with it")
	}
	first := true
	lines := bufio.NewReader(j.file)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// A line that was being written when the power went is none. What is none of
			// a journal is somebody's file, and stays.
			if !strings.HasPrefix(begins, string(line[:min(len(line), len(begins))])) {
				return fmt.Errorf("line %d is not one of a journal; give another file with --journal", n)
			}
			break
		} else if err != nil {
			return err
		}
		var r Record
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			return fmt.Errorf("line %d is not one of a journal; give another file with --journal", n)
		}
		if first && (r.What != whatBatch || r.For != of) {
			return fmt.Errorf("it is of another batch (%s); give another file with --journal", r.For)
		}
		first = false
		j.take(r)
		j.good += int64(len(line))
	}
	if err := j.cut(); err != nil {
		return err
	}
	if first {
		return errors.Join(j.write(Record{What: whatBatch, For: of, ID: rand.Text()}), syncDirectory(j.file.Name()))
	}
	return nil
}

// cut ends the file after its last whole line.
func (j *Journal) cut() error {
	if err := j.file.Truncate(j.good); err != nil {
		return err
	}
	_, err := j.file.Seek(j.good, io.SeekStart)
	return err
}

// syncDirectory makes durable that a file is there.
func syncDirectory(file string) error {
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// take notes what a record says.
func (j *Journal) take(r Record) {
	j.Number = max(j.Number, r.Number)
	switch r.What {
	case whatBatch:
		j.id = r.ID
	case whatMade:
		j.Open = &r
	case whatDone:
		j.Open = nil
		if r.User != "" {
			j.Done[r.User] = true
		} else {
			j.Stock++
		}
	case whatAside, whatSkip:
		if j.Open != nil && j.Open.Number == r.Number {
			j.Open = nil
		}
		j.Aside = append(j.Aside, r)
	case whatLeft:
		if n := len(j.Aside); n > 0 {
			j.Aside[n-1].Left = r.Left
		}
	}
}

// write makes a record durable.
func (j *Journal) write(r Record) error {
	r.Time = time.Now().UTC().Truncate(time.Second)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = j.file.Write(append(line, '\n'))
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil { // half a line would spoil the next one
		return fmt.Errorf("write the journal: %w", errors.Join(err, j.cut()))
	}
	j.good += int64(len(line)) + 1
	j.take(r)
	return nil
}

// Close closes the journal.
func (j *Journal) Close() error { return j.file.Close() }
