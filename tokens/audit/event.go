// Package audit holds what happened: events, the hash chain that makes an edit
// or a gap visible, and the checkpoints that sign its heads.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"sort"
	"strings"
	"time"
	"unicode/utf8"
)

// Event is one thing that happened, or was refused. It never holds a code, a
// PIN, a seed, a secret or a key.
type Event struct {
	Time    time.Time // UTC, whole microseconds
	Action  string    // what was done: verify, token.assign, import.publish, ...
	Outcome string    // accept, reject, ok, denied, error
	Realm   string    // realm of the object
	User    string    // user name, folded; empty if none
	Serial  string    // token serial; empty if none
	Actor   string    // who asked: "key:ID", "client:NAME", "system"
	Client  string    // RADIUS client or API key that the request came through
	Source  string    // network address it came from
	Reason  string    // one of the Reason constants of the room that wrote it, or a sentence
	Detail  []Field   // further facts, in the order written

	// Policy are the ids of the policies that decided, divided by commas. Append makes
	// it the last field of Detail, FieldPolicy, and it is empty from then on.
	Policy string
}

// FieldPolicy names the field of Detail that says which policies decided.
const FieldPolicy = "policy"

// Field is one named fact of an event.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Record is an event in its place in a chain.
type Record struct {
	ID    int64 // given by the store; not hashed; orders a listing
	Chain int64 // the chain: one for each server start
	Seq   int64 // from 1, without a gap
	Event
	Hash [sha256.Size]byte // Sum of the record before it, and this one
}

// Policies are the ids of the policies that decided; none where none was asked.
func (r *Record) Policies() []string {
	if n := len(r.Detail); n > 0 && r.Detail[n-1].Name == FieldPolicy {
		return strings.Split(r.Detail[n-1].Value, ",")
	}
	return nil
}

// Head is the end of a chain: a record's place and hash.
type Head struct {
	Chain int64
	Seq   int64
	Hash  [sha256.Size]byte
}

// Sum is the hash of event e at place seq of a chain whose record before has
// hash prev (zeros for the first): SHA-256 over prev, chain, seq, and each
// field preceded by its length.
func Sum(prev [sha256.Size]byte, chain, seq int64, e *Event) [sha256.Size]byte {
	b := make([]byte, 0, 512)
	b = append(b, "watchword-audit-1\x00"...)
	b = append(b, prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(chain))
	b = binary.BigEndian.AppendUint64(b, uint64(seq))
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixMicro()))
	for _, s := range [...]string{e.Action, e.Outcome, e.Realm, e.User, e.Serial, e.Actor, e.Client, e.Source, e.Reason} {
		b = appendString(b, s)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Detail)))
	for _, f := range e.Detail {
		b = appendString(b, f.Name)
		b = appendString(b, f.Value)
	}
	return sha256.Sum256(b)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// Append places events at the end of the chain that ends in head: it answers
// their records and the chain's new head. It is pure; the caller stores the
// records and keeps the head only if that succeeded. A record comes back from
// any database as it was hashed, for what some could not keep is replaced.
func Append(head Head, events []Event) ([]Record, Head) {
	records := make([]Record, len(events))
	for i := range events {
		e := events[i]
		e.Time = e.Time.UTC().Truncate(time.Microsecond)
		if e.Policy != "" {
			e.Detail = append(e.Detail[:len(e.Detail):len(e.Detail)], Field{FieldPolicy, e.Policy}) // the caller's stays as it is
			e.Policy = ""
		}
		e.clean()
		head.Seq++
		head.Hash = Sum(head.Hash, head.Chain, head.Seq, &e)
		records[i] = Record{Chain: head.Chain, Seq: head.Seq, Event: e, Hash: head.Hash}
	}
	return records, head
}

// clean replaces what is not UTF-8, and NUL: both may come from people's input,
// and neither can be stored as text everywhere.
func (e *Event) clean() {
	for _, s := range [...]*string{&e.Action, &e.Outcome, &e.Realm, &e.User, &e.Serial, &e.Actor, &e.Client, &e.Source, &e.Reason} {
		*s = cleanString(*s)
	}
	for i, f := range e.Detail {
		if c := (Field{cleanString(f.Name), cleanString(f.Value)}); c != f {
			e.Detail = append([]Field(nil), e.Detail...) // the caller's stays as it is
			e.Detail[i] = c
		}
	}
}

func cleanString(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// CutDigest is what a cut signs: SHA-256 over the last record of each chain that was
// ever removed, ordered by chain, and the ID of the last one of all.
func CutDigest(heads []Head, last int64) [sha256.Size]byte {
	sum := CheckpointDigest(heads)
	b := append([]byte("watchword-cut-1\x00"), sum[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(last)))
}

// CheckpointDigest is what a checkpoint signs: SHA-256 over all heads, ordered
// by chain.
func CheckpointDigest(heads []Head) [sha256.Size]byte {
	heads = append([]Head(nil), heads...)
	sort.Slice(heads, func(i, j int) bool { return heads[i].Chain < heads[j].Chain })
	b := []byte("watchword-checkpoint-1\x00")
	for _, h := range heads {
		b = binary.BigEndian.AppendUint64(b, uint64(h.Chain))
		b = binary.BigEndian.AppendUint64(b, uint64(h.Seq))
		b = append(b, h.Hash[:]...)
	}
	return sha256.Sum256(b)
}
