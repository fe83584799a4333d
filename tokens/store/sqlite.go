package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/mattn/go-sqlite3" // driver "sqlite3"

	"watchword/tokens"
)

// pageSize is that of a new database, in bytes. Small: a batch of attempts
// changes a few bytes in each of many pages, and whole pages are what is logged.
const pageSize = 1024

// checkpointPages is how long the write-ahead log grows, in pages, before a
// commit moves it into the database. Long: what is moved later is moved once.
const checkpointPages = 32768

// loaders is how many connections read users for attempts and for acts.
const loaders = 2

// sqliteDB is a SQLite database: one connection that writes, in turns, and
// several that read what was committed last.
type sqliteDB struct {
	path   string
	writer *sql.DB // one connection
	loader *sql.DB // for Load, which no listing may keep waiting
	reader *sql.DB
	gate   gate
	log    *wal
	known  recollection

	userIDs map[name]int64 // in the hands of who passed the gate

	life     context.Context // until close
	end      context.CancelFunc
	work     sync.WaitGroup // of published
	catching sync.Mutex
	busy     bool // a goroutine catches up
	again    bool // there is more for it to do
	ending   bool
	behind   atomic.Bool // the last try failed
}

// name is a user's key in its realm.
type name struct{ realm, key string }

func openSQLite(ctx context.Context, path string, opts Options) (*sqliteDB, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: sqlite: must be followed by the path of a file", tokens.ErrInvalid)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, failed("opening the file", err)
	}
	// SQLite gives its other files the mode of this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, failed("opening the file", err)
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, failed("opening the file", err)
	}
	// SQLite follows a link, and its log lies beside the file that the link names.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, failed("opening the file", err)
	}
	if info.Size() == 0 {
		if err := layOut(ctx, path); err != nil {
			return nil, failed("making the file", err)
		}
	}

	db := &sqliteDB{path: path, log: newWAL(path + "-wal")}
	db.life, db.end = context.WithCancel(context.WithoutCancel(ctx))
	db.known.lasts = recallFor
	db.known.empty()
	// Deleted content is overwritten: a revoked token's wrapped seed is to be gone.
	db.writer, err = sql.Open("sqlite3", sqliteDSN(path, url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {"NORMAL"}, "_foreign_keys": {"1"}, "_secure_delete": {"FAST"},
	}))
	if err != nil {
		return nil, failed("opening the file", err)
	}
	db.writer.SetMaxOpenConns(1)
	db.writer.SetMaxIdleConns(1)
	readOnly := sqliteDSN(path, url.Values{"_query_only": {"1"}})
	if db.loader, err = sql.Open("sqlite3", readOnly); err != nil {
		return nil, errors.Join(failed("opening the file", err), db.writer.Close())
	}
	// One connection that has read stays open to the end, whatever becomes of the
	// writer's: with the last one SQLite would remove the log.
	if _, err := db.loader.ExecContext(ctx, "SELECT count(*) FROM sqlite_schema"); err != nil {
		return nil, errors.Join(failed("opening the file", err), db.loader.Close(), db.writer.Close())
	}
	db.loader.SetMaxOpenConns(loaders)
	db.loader.SetMaxIdleConns(loaders)
	if db.reader, err = sql.Open("sqlite3", readOnly); err != nil {
		return nil, errors.Join(failed("opening the file", err), db.loader.Close(), db.writer.Close())
	}
	db.reader.SetMaxOpenConns(opts.Readers)
	db.reader.SetMaxIdleConns(opts.Readers)

	// This looks at the file as well: is it a database at all?
	if _, err := db.writer.ExecContext(ctx, "PRAGMA wal_autocheckpoint = "+strconv.Itoa(checkpointPages)); err != nil {
		return nil, errors.Join(failed("opening the file", err), db.close())
	}
	var searches bool
	if err := db.writer.QueryRowContext(ctx, "SELECT sqlite_compileoption_used('ENABLE_FTS5')").Scan(&searches); err != nil {
		return nil, errors.Join(failed("opening the file", err), db.close())
	}
	if !searches {
		return nil, errors.Join(errNoSearch, db.close())
	}
	return db, nil
}

// errNoSearch is for who builds Watchword by hand.
var errNoSearch = fmt.Errorf("%w: this program was built without SQLite's full-text search; build it with make, or with -tags sqlite_fts5", tokens.ErrState)

// settle moves what the log holds into the database, and begins the log anew.
// Whoever wrote it may have ended because the disk failed: then the system shows
// what it holds in memory and has given up writing, and everything that is added
// behind it is lost with it. What is moved is written again.
func (db *sqliteDB) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		var busy, frames, moved int64
		if err := db.writer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved); err != nil {
			return fmt.Errorf("move the write-ahead log into the database: %w", err)
		}
		if busy == 0 {
			return nil
		}
		select { // another program reads, or does the same
		case <-ctx.Done():
			return fmt.Errorf("move the write-ahead log into the database: other programs use it all the time: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// layOut sets what can only be set while a database is new.
func layOut(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite3", sqliteDSN(path, url.Values{}))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "PRAGMA page_size = "+strconv.Itoa(pageSize)+"; PRAGMA journal_mode = WAL")
	return errors.Join(err, db.Close())
}

func sqliteDSN(path string, pragmas url.Values) string {
	pragmas.Set("_busy_timeout", "10000")
	// A connection is used by one goroutine at a time: it needs no locks.
	pragmas.Set("_mutex", "no")
	pragmas.Set("_stmt_cache_size", "64")
	// KiB for each connection. Small: what is not in it is in the system's cache
	// of files, which costs the server no memory.
	pragmas.Set("_cache_size", "-8192")
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + pragmas.Encode()
}

func (db *sqliteDB) close() error {
	db.settleDown()
	// The readers go first, so that the writer is last and cleans up the log.
	return errors.Join(db.log.close(), db.reader.Close(), db.loader.Close(), db.writer.Close())
}

// write runs f in the one write transaction, and answers when that is durable.
// It is not cut off when ctx ends: it is short, and cutting it off would only cost
// the answer.
//
// Bulk work changes nothing that attempts are decided on.
func (db *sqliteDB) write(ctx context.Context, bulk bool, f func(*session) error) error {
	made := db.known.empty
	if bulk {
		made = nil
	}
	err := db.transaction(ctx, bulk, made, func(conn *sql.Conn) error {
		return f(&session{conn: conn, ctx: context.WithoutCancel(ctx)})
	})
	if err != nil {
		db.known.empty() // who knows what was made
	}
	return err
}

// transaction is write on the connection itself. made, if not nil, is called when
// readers see what f did and the next transaction may run.
func (db *sqliteDB) transaction(ctx context.Context, bulk bool, made func(), f func(*sql.Conn) error) error {
	n, err := db.turn(ctx, bulk, f)
	if err != nil {
		return err
	}
	if made != nil {
		made()
	}
	return db.log.wait(n)
}

// turn runs f in a transaction and answers its place in the log.
func (db *sqliteDB) turn(ctx context.Context, bulk bool, f func(*sql.Conn) error) (n uint64, err error) {
	if err := db.gate.enter(ctx, bulk); err != nil {
		return 0, err
	}
	defer db.gate.leave()
	if err := db.log.sound(); err != nil {
		return 0, err
	}
	ctx = context.WithoutCancel(ctx)
	conn, err := db.writer.Conn(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := bare(conn, "BEGIN IMMEDIATE"); err != nil {
		return 0, err
	}
	committed := false
	defer func() {
		if committed {
			return
		}
		if rerr := bare(conn, "ROLLBACK"); rerr != nil {
			// SQLite has rolled back by itself, or the connection is of no use.
			// Without it the next one begins afresh either way.
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		}
	}()
	if err := f(conn); err != nil {
		return 0, err
	}
	if err := bare(conn, "COMMIT"); err != nil {
		return 0, err
	}
	committed = true
	return db.log.wrote(), nil
}

// bare runs a statement without parameters.
func bare(conn *sql.Conn, statement string) error {
	return conn.Raw(func(dc any) error {
		c := sqliteConn{conn: dc.(sqliteDriver)}
		return c.run(statement)
	})
}

// read runs f on one snapshot.
func (db *sqliteDB) read(ctx context.Context, f func(*session) error) error {
	conn, err := db.reader.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	tx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return f(&session{conn: tx, ctx: ctx})
}

func (db *sqliteDB) setup() setupEngine { return sqliteSetup{db} }
