package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/pressly/goose/v3"

	"watchword/migrations"
	"watchword/tokens"
)

// lockKey is the advisory lock's number: "watchwrd" in ASCII.
const lockKey = 0x7761746368777264

// postgresSetup sets a PostgreSQL database up.
type postgresSetup struct{ db *postgresDB }

// lock takes an advisory lock on a connection of its own. It ends with the
// connection, however that ends.
func (s postgresSetup) lock(ctx context.Context) (func() error, error) {
	conn, err := s.db.admin.Conn(ctx)
	if err != nil {
		return nil, err
	}
	for {
		var got bool
		err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", int64(lockKey)).Scan(&got)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		if got {
			return conn.Close, nil // no connection stays idle in this pool: it ends
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another node holds it: %w", ctx.Err()), conn.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s postgresSetup) migrate(ctx context.Context) error {
	err := migrate(ctx, goose.DialectPostgres, s.db.admin, migrations.Postgres())
	var refused *pq.Error
	if errors.As(err, &refused) && strings.Contains(refused.Message, "pg_trgm") {
		return fmt.Errorf("%w: the extension pg_trgm, by which users and tokens are searched, cannot be made: install PostgreSQL's contrib modules where they are missing, let an administrator run CREATE EXTENSION pg_trgm in this database, and start again: %w", tokens.ErrState, plain(err))
	}
	return err
}

// weaker are the settings without which a commit is not durable.
var weaker = map[string]string{
	"fsync":              "PostgreSQL does not write through to the disk (fsync is off): a crash of the machine can lose accepts and corrupt the database.",
	"full_page_writes":   "PostgreSQL does not log full pages (full_page_writes is off): a crash of the machine can corrupt the database.",
	"synchronous_commit": "PostgreSQL confirms a commit before it is on the disk (synchronous_commit is off): a crash can lose accepts, and their codes would be good again.",
}

func (s postgresSetup) durability(ctx context.Context) (warnings []string, sync bool, err error) {
	settings := make(map[string]string)
	var standby sql.NullBool // is a synchronous one connected? NULL if we may not know
	err = s.db.read(ctx, func(conn *session) error {
		for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names"} {
			var value string
			if err := conn.one(`SELECT current_setting(?)`, []any{name}, &value); err != nil {
				return err
			}
			settings[name] = value
			if value == "off" {
				warnings = append(warnings, weaker[name])
			}
		}
		return conn.one(`SELECT bool_or(sync_state IN ('sync', 'quorum')) FROM pg_stat_replication`, nil, &standby)
	})
	if err != nil {
		return nil, false, err
	}
	if settings["synchronous_standby_names"] == "" {
		return warnings, false, nil
	}
	switch settings["synchronous_commit"] {
	case "on", "remote_apply":
		sync = true
		if standby.Valid && !standby.Bool {
			warnings = append(warnings, "No synchronous standby is connected to PostgreSQL: commits wait until one is.")
		}
	case "local", "remote_write":
		warnings = append(warnings, "PostgreSQL has synchronous standbys but does not wait until a commit is on their disk (synchronous_commit is "+
			settings["synchronous_commit"]+"): a failover can lose accepts.")
	}
	return warnings, sync, nil
}
