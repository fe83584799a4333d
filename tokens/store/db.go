// Package store keeps Watchword's state in SQLite or PostgreSQL: it implements
// tokens.Database on both.
//
// Most of its SQL is the same for both and written once, with "?" for each
// parameter. What is hot is not: load_*.go and commit_*.go hold one file for
// each database.
package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"time"

	"watchword/tokens"
)

// Options bound what a DB takes. The zero value is right for most.
type Options struct {
	// Readers is how many connections list what a SQLite database holds at once.
	// Default 4.
	Readers int
	// Connections bounds the connections to PostgreSQL: as many for batches of
	// attempts, and as many again for all else. Default 8.
	Connections int
	// Timeout bounds each statement on PostgreSQL, and is how long a server that
	// has gone silent is waited for. Default 10 s.
	Timeout time.Duration
	// ConnectTimeout bounds each attempt to connect to PostgreSQL, unless the
	// URL says connect_timeout. Default 5 s.
	ConnectTimeout time.Duration
}

func (o *Options) defaults() {
	if o.Readers <= 0 {
		o.Readers = 4
	}
	if o.Connections <= 0 {
		o.Connections = 8
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = 5 * time.Second
	}
}

// DB is an open database. All methods may be called concurrently.
type DB struct {
	engine engine

	mu     sync.Mutex
	locked bool // this DB holds the migration lock
}

var _ tokens.Database = (*DB)(nil)

// engine is what differs between the databases.
type engine interface {
	load(ctx context.Context, refs []tokens.Ref) (tokens.View, error)
	recall(ctx context.Context, refs []tokens.Ref) (tokens.View, error)
	confirm(ctx context.Context, c *tokens.Change) error
	// commitHot commits standings, motions of owned tokens and records, and
	// nothing else.
	commitHot(ctx context.Context, p *plan) error
	// core is commitHot in the transaction that s is in.
	core(s *session, p *plan) error
	// write runs f in a transaction, which it commits if f returns nil. Bulk
	// work gives way to other work.
	write(ctx context.Context, bulk bool, f func(*session) error) error
	// read runs f on one snapshot, or on a connection where f does one query.
	read(ctx context.Context, f func(*session) error) error
	// settled answers when all that a reader has seen before is durable.
	settled(ctx context.Context) error
	setup() setupEngine
	close() error
}

// setupEngine is what differs between the databases while they are set up.
type setupEngine interface {
	lock(ctx context.Context) (unlock func() error, err error)
	migrate(ctx context.Context) error
	durability(ctx context.Context) (warnings []string, sync bool, err error)
}

// Open opens the database that url names: "sqlite:PATH", whose file is made if
// there is none, or "postgres://...". It changes nothing in it: see Migrate.
func Open(ctx context.Context, url string, opts Options) (*DB, error) {
	opts.defaults()
	var (
		e   engine
		err error
	)
	switch {
	case strings.HasPrefix(url, "sqlite:"):
		e, err = openSQLite(ctx, strings.TrimPrefix(url, "sqlite:"), opts)
	case strings.HasPrefix(url, "postgres://"), strings.HasPrefix(url, "postgresql://"):
		e, err = openPostgres(ctx, url, opts)
	default:
		return nil, fmt.Errorf("%w: a database URL begins with sqlite: or postgres://", tokens.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	return &DB{engine: e}, nil
}

// Close ends all connections. Calls under way finish first, or fail.
func (db *DB) Close() error { return db.engine.close() }

// session is a connection in use, inside a transaction or not.
type session struct {
	conn interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
	ctx    context.Context
	dollar bool // parameters are $1, $2, ... rather than ?
}

// exec answers how many rows were changed.
func (s *session) exec(query string, args ...any) (int64, error) {
	result, err := s.conn.ExecContext(s.ctx, s.rebind(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// query runs a query; list reads what it answers.
func (s *session) query(query string, args ...any) (*sql.Rows, error) {
	return s.conn.QueryContext(s.ctx, s.rebind(query), args...)
}

// one reads the only row of a query into dest, or answers sql.ErrNoRows.
func (s *session) one(query string, args []any, dest ...any) error {
	rows, err := s.query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	return rows.Close()
}

var rebound sync.Map // query with ? -> query with $n

// rebind numbers the parameters for PostgreSQL. No query holds a "?" that is
// not a parameter.
func (s *session) rebind(query string) string {
	if !s.dollar {
		return query
	}
	if q, ok := rebound.Load(query); ok {
		return q.(string)
	}
	var b strings.Builder
	n := 0
	for _, part := range strings.SplitAfter(query, "?") {
		if rest, ok := strings.CutSuffix(part, "?"); ok {
			n++
			fmt.Fprintf(&b, "%s$%d", rest, n)
		} else {
			b.WriteString(part)
		}
	}
	rebound.Store(query, b.String())
	return b.String()
}
