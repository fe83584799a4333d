package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/lib/pq"
	"github.com/mattn/go-sqlite3"

	"watchword/tokens"
)

// sqlError is a driver's error without the values that a database likes to
// put in its messages.
type sqlError struct {
	text  string
	cause error
}

func (e *sqlError) Error() string { return e.text }
func (e *sqlError) Unwrap() error { return e.cause }

// plain strips a driver's error of values.
func plain(err error) error {
	var p *pq.Error
	if errors.As(err, &p) {
		text := "PostgreSQL answered SQLSTATE " + string(p.Code)
		if p.Table != "" {
			text += " on table " + p.Table
		}
		if p.Constraint != "" {
			text += ", constraint " + p.Constraint
		}
		if describe, ok := sqlstates[string(p.Code)]; ok {
			text += ": " + describe
		}
		return &sqlError{text, err}
	}
	if errors.Is(err, driver.ErrBadConn) {
		return &sqlError{"the connection to the database broke", err}
	}
	return err
}

// sqlstates says in words what an administrator is likely to meet.
var sqlstates = map[string]string{
	"28P01": "the password was refused",
	"28000": "the user was refused",
	"3D000": "no such database",
	"42P01": "a table is missing; was the schema migrated?",
	"42883": "a function is missing; was the schema migrated?",
	"42501": "the user may not do this",
	"53100": "its disk is full",
	"53300": "too many connections",
	"57014": "a statement ran too long, or its caller went away",
	"57P01": "it is being shut down",
	"57P03": "it is starting up",
	"25006": "it is read-only (a standby?)",
}

// failed wraps what went wrong while doing something, for the caller: errors
// that the core knows stay as they are, anything else wraps ErrUnavailable.
func failed(doing string, err error) error {
	if err == nil || known(err) {
		return err
	}
	return fmt.Errorf("%w: the database failed at %s: %w", tokens.ErrUnavailable, doing, plain(err))
}

func known(err error) bool {
	for _, sentinel := range []error{
		tokens.ErrConflict, tokens.ErrExists, tokens.ErrChainMoved, tokens.ErrInvalid,
		tokens.ErrState, tokens.ErrNotFound, tokens.ErrSpent, tokens.ErrUnavailable,
	} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// taken says whether err is a violation of uniqueness.
func taken(err error) bool {
	var p *pq.Error
	if errors.As(err, &p) {
		return p.Code == "23505"
	}
	var s sqlite3.Error
	if errors.As(err, &s) {
		return s.ExtendedCode == sqlite3.ErrConstraintUnique || s.ExtendedCode == sqlite3.ErrConstraintPrimaryKey
	}
	return false
}

// takenExternal says whether err is a violation of what makes external ids unique.
func takenExternal(err error) bool {
	var p *pq.Error
	if errors.As(err, &p) {
		return p.Code == "23505" && p.Constraint == "users_external"
	}
	var s sqlite3.Error // which names the columns, and no values
	return errors.As(err, &s) && s.ExtendedCode == sqlite3.ErrConstraintUnique && strings.Contains(s.Error(), "users.external")
}

// orphan says whether err is a reference to a row that does not exist.
func orphan(err error) bool {
	var p *pq.Error
	if errors.As(err, &p) {
		return p.Code == "23503"
	}
	var s sqlite3.Error
	return errors.As(err, &s) && s.ExtendedCode == sqlite3.ErrConstraintForeignKey
}

// collided says whether PostgreSQL undid a transaction because another was in
// its way: by a lock, or because it removed the token that this one changed, or
// changed the one that this removed.
func collided(err error) bool {
	var p *pq.Error
	return errors.As(err, &p) && (p.Code == "40001" || p.Code == "40P01" ||
		p.Code == "23503" && p.Constraint == "motions_token_id_fkey")
}

// lost says whether err may mean that the connection is gone, so that the
// others of the pool are suspect as well.
func lost(err error) bool {
	if err == nil {
		return false
	}
	var p *pq.Error
	if errors.As(err, &p) {
		return strings.HasPrefix(string(p.Code), "57P") || strings.HasPrefix(string(p.Code), "08")
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, sql.ErrNoRows) && !known(err)
}
