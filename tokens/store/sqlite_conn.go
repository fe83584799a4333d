package store

import (
	"context"
	"database/sql/driver"
	"io"
)

// sqliteDriver is a connection of the driver, which keeps statements prepared
// by their text.
type sqliteDriver interface {
	driver.QueryerContext
	driver.ExecerContext
}

// sqliteConn runs statements on a connection without database/sql: what that
// adds to each is as much as the statement itself.
//
// SQLite prepares a join anew at each run if a parameter stands alone in a
// condition, since its value might lead to another plan; "+?" hides it.
type sqliteConn struct {
	conn   sqliteDriver
	args   []driver.NamedValue
	row    []driver.Value
	fields fields
}

// run runs a statement without parameters.
func (c *sqliteConn) run(statement string) error {
	_, err := c.conn.ExecContext(context.Background(), statement, nil)
	return err
}

func (c *sqliteConn) bind(args []any) []driver.NamedValue {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args
}

// changed runs a statement and says whether it changed a row. RETURNING would
// say so too, at twice the price.
func (c *sqliteConn) changed(statement string, args ...any) (bool, error) {
	result, err := c.conn.ExecContext(context.Background(), statement, c.bind(args))
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// each calls f for each row that a query answers.
func (c *sqliteConn) each(query string, f func(*fields), args ...any) error {
	rows, err := c.conn.QueryContext(context.Background(), query, c.bind(args))
	if err != nil {
		return err
	}
	defer rows.Close()
	if columns := len(rows.Columns()); cap(c.row) < columns {
		c.row = make([]driver.Value, columns)
	} else {
		c.row = c.row[:columns]
	}
	for {
		if err := rows.Next(c.row); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		c.fields = fields{values: c.row}
		f(&c.fields)
		if c.fields.err != nil {
			return c.fields.err
		}
	}
}
