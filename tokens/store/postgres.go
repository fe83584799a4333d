package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"watchword/tokens"
)

// postgresDB is a PostgreSQL database: connections for batches of attempts,
// apart from those for all else, so that no listing and no import stands in
// their way.
type postgresDB struct {
	hot     *sql.DB // of *hotConn
	general *sql.DB
	admin   *sql.DB // for the migration lock and migrations: may wait for long
	opts    Options

	known recollection
	brake brake
	flush string
}

func openPostgres(ctx context.Context, dsn string, opts Options) (*postgresDB, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		// url.Parse's error holds the URL, and the URL may hold a password.
		return nil, fmt.Errorf("%w: the database URL cannot be read as one", tokens.ErrInvalid)
	}
	q := u.Query()
	if !q.Has("connect_timeout") {
		q.Set("connect_timeout", strconv.Itoa(int(max(opts.ConnectTimeout, time.Second)/time.Second)))
	}
	if strings.Contains(u.Host, ",") && !q.Has("target_session_attrs") {
		q.Set("target_session_attrs", "read-write") // several hosts: the primary among them
	}
	q.Set("binary_parameters", "yes") // one round trip for what is not prepared
	if !q.Has("application_name") {
		q.Set("application_name", "watchword")
	}
	u.RawQuery = q.Encode()

	timeout := strconv.FormatInt(opts.Timeout.Milliseconds(), 10)
	// The schema asks who it is that edits users and tokens.
	common := "SET watchword.node = 'on'; SET default_transaction_isolation = 'read committed'; SET idle_in_transaction_session_timeout = " + timeout +
		"; SET statement_timeout = " + timeout + "; SET jit = off" // no statement is so long that compiling it pays
	// What is hot is known to be a few rows by primary key. Its plan is made once
	// a connection, maybe while the tables are empty, and must be right later.
	hot := common + "; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off" +
		"; SET enable_mergejoin = off; SET enable_bitmapscan = off"

	db := &postgresDB{opts: opts, flush: flush}
	db.known.lasts = forgetAfter
	db.known.empty()
	open := func(setup string, silence time.Duration, hot bool, opened func(), connections int) (*sql.DB, error) {
		c, err := pq.NewConnector(u.String())
		if err != nil {
			return nil, fmt.Errorf("%w: the database URL has a setting that is unknown or wrong", tokens.ErrInvalid)
		}
		c.Dialer(dialer{silence: silence})
		pool := sql.OpenDB(&connector{Connector: c, setup: setup, hot: hot, opened: opened, timeout: opts.ConnectTimeout + opts.Timeout})
		pool.SetMaxOpenConns(connections)
		pool.SetMaxIdleConns(connections)
		pool.SetConnMaxIdleTime(5 * time.Minute)
		return pool, nil
	}
	// The server gives up at the timeout; only one that is gone takes longer.
	silence := opts.Timeout + 2*time.Second
	if db.hot, err = open(hot, silence, true, db.known.renew, opts.Connections); err != nil {
		return nil, err
	}
	if db.general, err = open(common, silence, false, db.known.renew, opts.Connections); err != nil {
		return nil, errors.Join(err, db.hot.Close())
	}
	if db.admin, err = open("SET default_transaction_isolation = 'read committed'", 0, false, func() {}, 3); err != nil {
		return nil, errors.Join(err, db.hot.Close(), db.general.Close())
	}
	db.admin.SetMaxIdleConns(0)
	if err := db.general.PingContext(ctx); err != nil {
		return nil, errors.Join(failed("connecting", err), db.close())
	}
	return db, nil
}

func (db *postgresDB) close() error {
	return errors.Join(db.hot.Close(), db.general.Close(), db.admin.Close())
}

func (db *postgresDB) setup() setupEngine { return postgresSetup{db} }

// write runs f in a transaction, READ COMMITTED: what it changes is conditional
// on versions.
//
// ctx ends before the commit or not at all: a COMMIT that is cancelled while it
// waits for a standby is answered as if the standby had confirmed it. A server
// that does not answer is given up by the connection.
func (db *postgresDB) write(ctx context.Context, _ bool, f func(*session) error) error {
	conn, err := db.general.Conn(ctx)
	if err != nil {
		return db.suspect(err)
	}
	defer conn.Close()
	tx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return db.suspect(err)
	}
	defer tx.Rollback()
	if err := f(&session{conn: tx, ctx: ctx, dollar: true}); err != nil {
		return db.suspect(err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return db.suspect(tx.Commit())
}

// read runs f on a connection. Each statement has a snapshot of its own. If the
// connection breaks f is run once more, on another: the server may have been
// restarted long ago.
func (db *postgresDB) read(ctx context.Context, f func(*session) error) error {
	try := func() error {
		conn, err := db.general.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		return f(&session{conn: conn, ctx: ctx, dollar: true})
	}
	err := db.suspect(try())
	if lost(err) && ctx.Err() == nil {
		err = db.suspect(try())
	}
	return err
}

// suspect drops the idle connections when one broke: the server was restarted,
// or another has taken over, and each would fail once.
func (db *postgresDB) suspect(err error) error {
	if lost(err) {
		for _, pool := range []*sql.DB{db.hot, db.general} {
			pool.SetMaxIdleConns(-1)
			pool.SetMaxIdleConns(db.opts.Connections)
		}
	}
	return err
}

// onHot runs f on a connection for batches of attempts. If ctx ends first, onHot
// returns while f goes on, until the server's timeout at most.
func onHot[T any](ctx context.Context, db *postgresDB, f func(*hotConn) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.err = db.withHot(ctx, func(c *hotConn) (err error) {
			r.value, err = f(c)
			return err
		})
		done <- r
	}()
	select {
	case r := <-done:
		return r.value, db.suspect(r.err)
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

// withHot runs f on a connection for batches of attempts. f is run once: a commit
// whose connection broke may have been made, and database/sql would make it again.
func (db *postgresDB) withHot(ctx context.Context, f func(*hotConn) error) error {
	conn, err := db.hot.Conn(ctx)
	if err != nil {
		return err
	}
	err = conn.Raw(func(dc any) error { return f(dc.(*hotConn)) })
	_ = conn.Close()
	return err
}

// connector prepares each new connection.
type connector struct {
	*pq.Connector
	setup   string
	hot     bool
	opened  func()
	timeout time.Duration
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, c.setup, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.opened()
	if c.hot {
		return &hotConn{Conn: conn, prepared: make(map[string]driver.Stmt)}, nil
	}
	return conn, nil
}

// hotConn is a connection that keeps its statements prepared, so that each
// takes one round trip.
type hotConn struct {
	driver.Conn
	prepared map[string]driver.Stmt
}

// ResetSession implements driver.SessionResetter.
func (c *hotConn) ResetSession(ctx context.Context) error {
	return c.Conn.(driver.SessionResetter).ResetSession(ctx)
}

// IsValid implements driver.Validator.
func (c *hotConn) IsValid() bool { return c.Conn.(driver.Validator).IsValid() }

func (c *hotConn) prepare(query string) (driver.Stmt, error) {
	if s, ok := c.prepared[query]; ok {
		return s, nil
	}
	s, err := c.Conn.(driver.ConnPrepareContext).PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	c.prepared[query] = s
	return s, nil
}

func (c *hotConn) exec(query string, args []driver.NamedValue) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	_, err = s.(driver.StmtExecContext).ExecContext(context.Background(), args)
	return err
}

func (c *hotConn) query(query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	return s.(driver.StmtQueryContext).QueryContext(context.Background(), args)
}

// dialer makes connections that give up on a server that has gone silent.
type dialer struct {
	silence time.Duration // zero: wait as long as TCP does
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, network, address)
	if err != nil || d.silence == 0 {
		return conn, err
	}
	return &deadlineConn{Conn: conn, silence: d.silence}, nil
}

// deadlineConn bounds each read and write, so that a server that vanished
// without a word is noticed.
type deadlineConn struct {
	net.Conn
	silence  time.Duration
	explicit bool // the driver has set a deadline of its own, as it does while connecting
}

func (c *deadlineConn) SetDeadline(t time.Time) error {
	c.explicit = !t.IsZero()
	return c.Conn.SetDeadline(t)
}

func (c *deadlineConn) Read(b []byte) (int, error) {
	if !c.explicit {
		if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *deadlineConn) Write(b []byte) (int, error) {
	if !c.explicit {
		if err := c.SetWriteDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}
