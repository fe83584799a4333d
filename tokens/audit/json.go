package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// micros is how the formats write a time: RFC 3339 in UTC, always with six digits,
// so that nothing that is hashed is lost.
const micros = "2006-01-02T15:04:05.000000Z"

// AppendJSON appends the record as one JSON object in one line, without a line
// feed. It holds all that the hash is over, so that whoever has all lines of a chain
// can check it: Sum of the hash of the line before, and this one.
//
//	chain   number, one for each server start
//	seq     number, from 1 in each chain, without a gap
//	time    text, RFC 3339 in UTC with microseconds
//	action, outcome, realm, user, serial, actor, client, source, reason   text, may be empty
//	detail  list of {"name": text, "value": text}, in the order that is hashed
//	hash    text, 64 hexadecimal digits
//
// The names are those of the audit in the API.
func (r *Record) AppendJSON(b []byte) []byte {
	b = append(b, `{"chain":`...)
	b = strconv.AppendInt(b, r.Chain, 10)
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, r.Seq, 10)
	b = append(b, `,"time":"`...)
	b = r.Time.UTC().AppendFormat(b, micros)
	b = append(b, '"')
	for _, f := range r.texts() {
		b = append(append(append(b, `,"`...), f.Name...), `":`...)
		b = appendQuoted(b, f.Value)
	}
	b = append(b, `,"detail":[`...)
	for i, f := range r.Detail {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendQuoted(append(b, `{"name":`...), f.Name)
		b = appendQuoted(append(b, `,"value":`...), f.Value)
		b = append(b, '}')
	}
	b = append(b, `],"hash":"`...)
	b = hex.AppendEncode(b, r.Hash[:])
	return append(b, `"}`...)
}

// texts are the texts of an event under the names that the formats give them, in
// the order in which they are hashed.
func (e *Event) texts() [9]Field {
	return [...]Field{
		{"action", e.Action},
		{"outcome", e.Outcome},
		{"realm", e.Realm},
		{"user", e.User},
		{"serial", e.Serial},
		{"actor", e.Actor},
		{"client", e.Client},
		{"source", e.Source},
		{"reason", e.Reason},
	}
}

// appendQuoted appends a text as JSON writes it (RFC 8259 section 7).
func appendQuoted(b []byte, s string) []byte {
	if s == "" {
		return append(b, `""`...)
	}
	var w bytes.Buffer
	enc := json.NewEncoder(&w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("audit: " + err.Error()) // a text always encodes
	}
	return append(b, bytes.TrimSuffix(w.Bytes(), []byte("\n"))...)
}

var errLine = errors.New("this is not a line of the audit")

// ParseJSON reads what AppendJSON wrote, or an item of the audit as the API lists it.
func ParseJSON(line []byte) (Record, error) {
	var in struct {
		Chain, Seq                           *int64
		Time                                 time.Time
		Action, Outcome, Realm, User, Serial string
		Actor, Client, Source, Reason, Hash  string
		Detail                               []Field
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if err := d.Decode(&in); err != nil {
		return Record{}, fmt.Errorf("%w: %w", errLine, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Record{}, fmt.Errorf("%w: something follows the object", errLine)
	}
	hash, err := hex.DecodeString(in.Hash)
	if in.Chain == nil || in.Seq == nil || in.Time.IsZero() || err != nil || len(hash) != len(Record{}.Hash) {
		return Record{}, fmt.Errorf("%w: chain, seq, time or hash is missing, or none", errLine)
	}
	r := Record{Chain: *in.Chain, Seq: *in.Seq, Hash: [32]byte(hash), Event: Event{
		Time: in.Time.UTC(), Action: in.Action, Outcome: in.Outcome, Realm: in.Realm, User: in.User, Serial: in.Serial,
		Actor: in.Actor, Client: in.Client, Source: in.Source, Reason: in.Reason,
	}}
	if len(in.Detail) > 0 {
		r.Detail = in.Detail
	}
	return r, nil
}
