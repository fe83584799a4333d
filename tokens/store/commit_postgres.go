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

// commitCall runs the function that the schema defines: see migrations.
var (
	commitCall   = "SELECT watchword_commit(" + dollars(27) + ")"
	spendingCall = "SELECT watchword_commit_spending(" + dollars(29) + ")"
)

func dollars(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.Join(list, ", ")
}

// commitHot makes the change in one round trip: a statement by itself is a
// transaction.
func (db *postgresDB) commitHot(ctx context.Context, p *plan) error {
	// Before the goroutine: the caller may use the change again once we return.
	call, values, err := commitArgs(p)
	if err != nil {
		return err
	}
	args := make([]driver.NamedValue, len(values))
	for i, v := range values {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	_, err = onHot(ctx, db, func(c *hotConn) (struct{}, error) {
		return struct{}{}, c.exec(call, args)
	})
	return raised(err)
}

func (db *postgresDB) core(s *session, p *plan) error {
	call, args, err := commitArgs(p)
	if err != nil {
		return err
	}
	_, err = s.exec(call, args...)
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

// commitArgs are the call of a function and its arguments: one array for each
// column.
func commitArgs(p *plan) (string, []any, error) {
	call, a := commitCall, arrays{}
	if len(p.spends) > 0 {
		call = spendingCall
		a.of(len(p.spends),
			func(i int) any { return p.spends[i].Hash[:] },
			func(i int) any { return micros(p.spends[i].Expires) })
	}
	a.of(len(p.links),
		func(i int) any { return p.links[i].chain },
		func(i int) any { return p.links[i].first },
		func(i int) any { return p.links[i].last },
		func(i int) any { return p.links[i].hash[:] })
	a.of(len(p.standings),
		func(i int) any { return p.standings[i].UserID },
		func(i int) any { return p.standings[i].Expect },
		func(i int) any { return int64(p.standings[i].Next.Failures) },
		func(i int) any { return p.standings[i].Next.Locked },
		func(i int) any { return encodeThrottle(p.standings[i].Next.Throttle) })
	a.of(len(p.owned),
		func(i int) any { return p.owned[i].TokenID },
		func(i int) any { return p.owned[i].Last },
		func(i int) any { return int64(p.owned[i].Drift) },
		func(i int) any { return p.owned[i].UsedAt })
	r := p.Records
	a.of(len(r),
		func(i int) any { return r[i].Chain },
		func(i int) any { return r[i].Seq },
		func(i int) any { return r[i].Time.UnixMicro() },
		func(i int) any { return r[i].Action },
		func(i int) any { return r[i].Outcome },
		func(i int) any { return r[i].Realm },
		func(i int) any { return r[i].User },
		func(i int) any { return r[i].Serial },
		func(i int) any { return r[i].Actor },
		func(i int) any { return r[i].Client },
		func(i int) any { return r[i].Source },
		func(i int) any { return r[i].Reason },
		func(i int) any { return encodeDetail(r[i].Detail) },
		func(i int) any { return r[i].Hash[:] })
	return call, a.values, nil
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
