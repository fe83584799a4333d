package store

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"watchword/hsm"
	"watchword/tokens"
	"watchword/tokens/audit"
)

// micros is a time as stored: Unix microseconds, zero for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// nullID is a reference as stored: zero is none.
func nullID(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}

// nullBytes keeps "no bytes" one thing, NULL.
func nullBytes(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// nullText is a text as stored that most rows do not have.
func nullText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func encodeThrottle(list []tokens.ClientFailures) string {
	if len(list) == 0 {
		return ""
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic("store: " + err.Error()) // strings and numbers always encode
	}
	return string(b)
}

func decodeThrottle(s string) ([]tokens.ClientFailures, error) {
	if s == "" {
		return nil, nil
	}
	var list []tokens.ClientFailures
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, fmt.Errorf("a user's throttle is not readable JSON")
	}
	return list, nil
}

func encodeDetail(fields []audit.Field) string {
	if len(fields) == 0 {
		return ""
	}
	size := 2
	for _, f := range fields {
		if !verbatim(f.Name) || !verbatim(f.Value) {
			b, err := json.Marshal(fields)
			if err != nil {
				panic("store: " + err.Error())
			}
			return string(b)
		}
		size += len(f.Name) + len(f.Value) + 24
	}
	b := make([]byte, 0, size)
	for i, f := range fields {
		b = append(b, "[,"[min(i, 1)])
		b = append(append(append(b, `{"name":"`...), f.Name...), `","value":"`...)
		b = append(append(b, f.Value...), `"}`...)
	}
	return string(append(b, ']'))
}

// verbatim says whether s stands in JSON as it is.
func verbatim(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

func decodeDetail(s string) ([]audit.Field, error) {
	if s == "" {
		return nil, nil
	}
	var fields []audit.Field
	if err := json.Unmarshal([]byte(s), &fields); err != nil {
		return nil, fmt.Errorf("an audit record's detail is not readable JSON")
	}
	return fields, nil
}

// fields reads a row column by column, in the order of the query. Both drivers
// answer only int64, bool, string, []byte and nil, for NULL, which reads as
// zero.
type fields struct {
	values []driver.Value
	into   []any
	next   int
	err    error
}

func newFields(columns int) *fields {
	f := &fields{values: make([]driver.Value, columns), into: make([]any, columns)}
	for i := range f.values {
		f.into[i] = (*any)(&f.values[i])
	}
	return f
}

func (f *fields) scan(rows *sql.Rows) error {
	f.next = 0
	f.err = nil
	return rows.Scan(f.into...)
}

func (f *fields) take() any {
	v := f.values[f.next]
	f.next++
	return v
}

func (f *fields) bad(v any, want string) {
	if f.err == nil {
		f.err = fmt.Errorf("column %d holds %T, not %s", f.next, v, want)
	}
}

func (f *fields) int() int64 {
	switch v := f.take().(type) {
	case nil:
		return 0
	case int64:
		return v
	case bool:
		if v {
			return 1
		}
		return 0
	case []byte:
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			f.bad(v, "a number")
		}
		return n
	default:
		f.bad(v, "a number")
		return 0
	}
}

func (f *fields) bool() bool { return f.int() != 0 }

func (f *fields) str() string {
	switch v := f.take().(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	default:
		f.bad(v, "text")
		return ""
	}
}

// bytes answers a copy of its own: nil for NULL and for no bytes.
func (f *fields) bytes() []byte {
	switch v := f.take().(type) {
	case nil:
		return nil
	case []byte:
		if len(v) == 0 {
			return nil
		}
		return v
	case string:
		return []byte(v)
	default:
		f.bad(v, "bytes")
		return nil
	}
}

func (f *fields) time() time.Time { return fromMicros(f.int()) }

func (f *fields) digest() (d [32]byte) {
	b := f.bytes()
	if len(b) != 0 && copy(d[:], b) != len(d) {
		f.bad(b, "32 bytes")
	}
	return d
}

// userColumns and standingColumns are what user and standing read.
const (
	userColumns     = `u.id, u.realm, u.name, u.key, u.state, u.pin_salt, u.pin_mac, u.pin_due, u.created`
	standingColumns = `s.version, s.failures, s.locked, s.throttle`
	userWidth       = 9
	standingWidth   = 4
)

func (f *fields) user() tokens.User {
	return tokens.User{
		ID: f.int(), Realm: f.str(), Name: f.str(), Key: f.str(), State: tokens.UserState(f.str()),
		PINSalt: f.bytes(), PINMAC: f.bytes(), PINDue: f.bool(), Created: f.time(),
	}
}

func (f *fields) standing() tokens.Standing {
	s := tokens.Standing{Version: f.int(), Failures: int(f.int()), Locked: f.bool()}
	var err error
	if s.Throttle, err = decodeThrottle(f.str()); err != nil && f.err == nil {
		f.err = err
	}
	return s
}

// tokenColumns is what token reads: of the token t, its owner o and its motion
// m, which is missing until the token first changes. ownedColumns is the same
// where the owner is the user u.
const (
	tokenColumns = tokenBefore + `o.key` + tokenAfter
	ownedColumns = tokenBefore + `u.key` + tokenAfter
	tokenBefore  = `t.id, t.realm, t.serial, t.type, t.algorithm, t.digits, t.period, t.state, t.owner_id, `
	tokenAfter   = `, t.model, t.batch, t.created, t.mechanism, t.kek, t.hash, t.seed_len, t.blob, t.binding, t.public_id, t.private_mac, t.credential,
		t.expires, t.passcodes, t.uses,
		coalesce(m.version, 1), coalesce(m.last, t.last0), coalesce(m.drift, t.drift0), coalesce(m.used_at, 0)`
	tokenWidth = 29
)

func (f *fields) token() tokens.Token {
	return tokens.Token{
		ID: f.int(), Realm: f.str(), Serial: f.str(), Type: tokens.Type(f.str()), Algorithm: hsm.Hash(f.int()),
		Digits: int(f.int()), Period: int(f.int()), State: tokens.State(f.str()), OwnerID: f.int(), Owner: f.str(),
		Model: f.str(), Batch: f.int(), Created: f.time(),
		Wrapped: hsm.Wrapped{
			Mechanism: f.str(), KEK: uint32(f.int()), Hash: hsm.Hash(f.int()), SeedLen: uint16(f.int()), Blob: f.bytes(),
		},
		Binding: f.bytes(), PublicID: f.str(), PrivateMAC: f.bytes(), Credential: f.credential(),
		Expires: f.time(), Passcodes: f.passcodes(), Uses: int(f.int()),
		Motion: tokens.Motion{Version: f.int(), Last: f.int(), Drift: int(f.int()), UsedAt: f.int()},
	}
}

// credential is a FIDO token's. One that is damaged is none: the token's binding
// tells that the row was altered, and it is no other token's concern.
func (f *fields) credential() *tokens.Credential {
	b := f.bytes()
	if b == nil {
		return nil
	}
	c, err := tokens.DecodeCredential(b)
	if err != nil {
		return nil
	}
	return c
}

const (
	batchColumns = `id, realm, name, format, sha256, actor, created, published, tokens, rejected, duplicate, undone, removed`
	batchWidth   = 13
)

func (f *fields) batch() tokens.Batch {
	return tokens.Batch{
		ID: f.int(), Realm: f.str(), Name: f.str(), Format: f.str(), SHA256: f.str(), Actor: f.str(),
		Created: f.time(), Published: f.time(),
		Tokens: int(f.int()), Rejected: int(f.int()), Duplicate: int(f.int()),
		Undone: f.time(), Removed: int(f.int()),
	}
}

const (
	recordColumns = `id, chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source, reason,
		detail, hash`
	recordWidth = 15
)

func (f *fields) record() audit.Record {
	r := audit.Record{ID: f.int(), Chain: f.int(), Seq: f.int()}
	r.Event = audit.Event{
		Time:   time.UnixMicro(f.int()).UTC(), // not fromMicros: this is hashed, and 1970 is a time
		Action: f.str(), Outcome: f.str(), Realm: f.str(), User: f.str(), Serial: f.str(), Actor: f.str(),
		Client: f.str(), Source: f.str(), Reason: f.str(),
	}
	var err error
	if r.Detail, err = decodeDetail(f.str()); err != nil && f.err == nil {
		f.err = err
	}
	r.Hash = f.digest()
	return r
}

// list reads all rows of a query of so many columns.
func list[T any](rows *sql.Rows, err error, columns int, read func(*fields) T) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	f := newFields(columns)
	var all []T
	for rows.Next() {
		if err := f.scan(rows); err != nil {
			return nil, err
		}
		all = append(all, read(f))
		if f.err != nil {
			return nil, f.err
		}
	}
	return all, rows.Err()
}
