package store

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/lib/pq"

	"watchword/tokens"
)

// batchCall runs the function that the schema defines: see migrations.
var batchCall = "SELECT watchword_batch(" + dollars(38) + ")"

func dollars(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.Join(list, ", ")
}

// flush is a transaction that changes nothing and is durable only when all before it
// are: by itself it would need no place in PostgreSQL's log, but for this message.
const flush = `SELECT pg_logical_emit_message(true, 'watchword', '')`

// commitHot makes the change in one round trip: a statement by itself is a
// transaction. Where another change may follow before this one is durable, it is made
// durable in a second one, on the same connection: a server that was restarted
// between, and may not have the change any more, has closed that.
func (db *postgresDB) commitHot(ctx context.Context, p *plan) error {
	early := p.Made != nil
	// Before the goroutine: the caller may use the change again once we return.
	args, basis := batchArgs(p, early), &tokens.Change{Recalled: p.Recalled, Read: p.Read}
	made, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.withHot(ctx, func(c *hotConn) error {
			if !db.known.holds(basis) {
				return &tokens.ConflictError{}
			}
			if err := c.exec(batchCall, args); err != nil || !early {
				return raised(err)
			}
			close(made)
			return c.exec(db.flush, nil)
		})
	}()
	end := func() error {
		select {
		case err := <-done:
			return db.suspect(err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if early {
		select {
		case <-made:
		case err := <-done:
			done <- err
		case <-ctx.Done():
		}
		select {
		case <-made:
			db.settle(p, nil)
			p.Made()
			err := end()
			if err != nil {
				db.known.empty() // who knows what stays
			}
			return err
		default:
		}
	}
	err := end()
	db.settle(p, err)
	return err
}

// confirm looks at what a batch was decided on that has nothing to commit.
func (db *postgresDB) confirm(ctx context.Context, c *tokens.Change) error {
	if c.Recalled == 0 {
		return nil
	}
	return db.commitHot(ctx, &plan{Change: &tokens.Change{Recalled: c.Recalled, Basis: c.Basis}})
}

func (db *postgresDB) core(s *session, p *plan) error {
	if !db.known.holds(p.Change) {
		return &tokens.ConflictError{}
	}
	args := batchArgs(p, false)
	values := make([]any, len(args))
	for i := range args {
		values[i] = args[i].Value
	}
	_, err := s.exec(batchCall, values...)
	return raised(err)
}

var movedIDs = regexp.MustCompile(`^users\{([0-9,]*)\} tokens\{([0-9,]*)\}$`)

// raised turns what the function raises into the store's errors.
func raised(err error) error {
	var p *pq.Error
	if !errors.As(err, &p) {
		return err
	}
	switch p.Code {
	case "WW001":
		m := movedIDs.FindStringSubmatch(p.Detail)
		if m == nil {
			return fmt.Errorf("%w", &tokens.ConflictError{})
		}
		return &tokens.ConflictError{UserIDs: numbers(m[1]), TokenIDs: numbers(m[2])}
	case "WW002":
		return fmt.Errorf("%w", tokens.ErrChainMoved)
	case "WW004":
		return &tokens.ConflictError{}
	case "WW003":
		return &tokens.SpentError{Hashes: hashes(p.Detail)}
	}
	if collided(err) {
		return &tokens.ConflictError{}
	}
	return err
}

func numbers(list string) []int64 {
	var ids []int64
	for s := range strings.SplitSeq(list, ",") {
		if id, err := strconv.ParseInt(s, 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func hashes(list string) [][32]byte {
	var all [][32]byte
	for s := range strings.SplitSeq(list, ",") {
		var h [32]byte
		if n, err := hex.Decode(h[:], []byte(s)); err == nil && n == len(h) {
			all = append(all, h)
		}
	}
	return all
}

// batchArgs are the arguments of the function, in its order.
func batchArgs(p *plan, early bool) []driver.NamedValue {
	b := &p.Basis
	w := wire{values: make([]driver.NamedValue, 0, 38)}
	w.add(early)
	w.add(p.Recalled != 0)
	w.add(b.Generation)
	w.add(b.From)
	w.add(b.Until)
	w.ints(len(b.Users), func(i int) int64 { return b.Users[i].UserID })
	w.ints(len(b.Users), func(i int) int64 { return b.Users[i].Version })
	w.texts(len(b.Strangers), func(i int) string { return b.Strangers[i].Realm })
	w.texts(len(b.Strangers), func(i int) string { return b.Strangers[i].User })

	l := p.links
	w.ints(len(l), func(i int) int64 { return l[i].chain })
	w.ints(len(l), func(i int) int64 { return l[i].first })
	w.ints(len(l), func(i int) int64 { return l[i].last })
	w.blobs(len(l), func(i int) []byte { return l[i].hash[:] })

	u := p.standings
	w.ints(len(u), func(i int) int64 { return u[i].UserID })
	w.ints(len(u), func(i int) int64 { return u[i].Expect })
	w.sameInts(len(u), func(i int) int64 { return int64(u[i].Next.Failures) })
	w.sameBools(len(u), func(i int) bool { return u[i].Next.Locked })
	w.sameTexts(len(u), func(i int) string { return encodeThrottle(u[i].Next.Throttle) })

	m := p.owned
	w.ints(len(m), func(i int) int64 { return m[i].TokenID })
	w.ints(len(m), func(i int) int64 { return m[i].Last })
	w.sameInts(len(m), func(i int) int64 { return int64(m[i].Drift) })
	w.sameInts(len(m), func(i int) int64 { return m[i].UsedAt })

	r := p.Records
	numbered := len(r) // by the function, where there is one chain
	if len(l) == 1 {
		numbered = 0
	}
	w.sameInts(len(r), func(i int) int64 { return r[i].Chain })
	w.ints(numbered, func(i int) int64 { return r[i].Seq })
	w.sameInts(len(r), func(i int) int64 { return r[i].Time.UnixMicro() })
	w.sameTexts(len(r), func(i int) string { return r[i].Action })
	w.sameTexts(len(r), func(i int) string { return r[i].Outcome })
	w.sameTexts(len(r), func(i int) string { return r[i].Realm })
	w.sameTexts(len(r), func(i int) string { return r[i].User })
	w.sameTexts(len(r), func(i int) string { return r[i].Serial })
	w.sameTexts(len(r), func(i int) string { return r[i].Actor })
	w.sameTexts(len(r), func(i int) string { return r[i].Client })
	w.sameTexts(len(r), func(i int) string { return r[i].Source })
	w.sameTexts(len(r), func(i int) string { return r[i].Reason })
	w.sameTexts(len(r), func(i int) string { return encodeDetail(r[i].Detail) })
	w.blobs(len(r), func(i int) []byte { return r[i].Hash[:] })

	w.blobs(len(p.spends), func(i int) []byte { return p.spends[i].Hash[:] })
	w.sameInts(len(p.spends), func(i int) int64 { return micros(p.spends[i].Expires) })
	return w.values
}

// arrays writes PostgreSQL's array literals.
type arrays struct{ values []any }

// of adds one array of n elements for each column.
func (a *arrays) of(n int, columns ...func(i int) any) {
	for _, column := range columns {
		b := make([]byte, 0, 2+16*n)
		b = append(b, '{')
		for i := range n {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendElement(b, column(i))
		}
		a.values = append(a.values, string(append(b, '}')))
	}
}

func appendElement(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "NULL"...)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case bool:
		return strconv.AppendBool(b, v)
	case []byte:
		const digits = "0123456789abcdef"
		b = append(b, `"\\x`...)
		for _, c := range v {
			b = append(b, digits[c>>4], digits[c&15])
		}
		return append(b, '"')
	case string:
		b = append(b, '"')
		for i := range len(v) {
			if v[i] == '"' || v[i] == '\\' {
				b = append(b, '\\')
			}
			b = append(b, v[i])
		}
		return append(b, '"')
	}
	panic(fmt.Sprintf("store: no array of %T", v))
}
