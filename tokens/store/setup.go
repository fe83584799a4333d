package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/pressly/goose/v3"

	"watchword/hsm"
	"watchword/tokens"
)

// Lock implements tokens.Setup.
func (db *DB) Lock(ctx context.Context) (func() error, error) {
	release, err := db.engine.setup().lock(ctx)
	if err != nil {
		return nil, failed("taking the migration lock", err)
	}
	db.mu.Lock()
	db.locked = true
	db.mu.Unlock()
	var once sync.Once
	return func() (err error) {
		once.Do(func() {
			db.mu.Lock()
			db.locked = false
			db.mu.Unlock()
			err = failed("giving back the migration lock", release())
		})
		return err
	}, nil
}

// Migrate implements tokens.Setup. It takes the lock for itself if this DB does
// not hold it.
func (db *DB) Migrate(ctx context.Context) (err error) {
	db.mu.Lock()
	locked := db.locked
	db.mu.Unlock()
	if !locked {
		unlock, err := db.Lock(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	return failed("migrating the schema", db.engine.setup().migrate(ctx))
}

// migrate brings a schema up to date with goose.
func migrate(ctx context.Context, dialect goose.Dialect, conn *sql.DB, files fs.FS) error {
	provider, err := goose.NewProvider(dialect, conn, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return fmt.Errorf("%w: the database has schema %d and this program knows %d: it was used with a newer Watchword; use that one",
			tokens.ErrState, current, target)
	}
	_, err = provider.Up(ctx)
	return err
}

// HSMKeys implements tokens.Setup.
func (db *DB) HSMKeys(ctx context.Context) ([]hsm.KeyRecord, error) {
	var keys []hsm.KeyRecord
	err := db.read(ctx, "reading the HSM keys' records", func(s *session) error {
		rows, err := s.query(`SELECT name, version, id, "check" FROM hsm_keys ORDER BY name, version`)
		keys, err = list(rows, err, 4, func(f *fields) hsm.KeyRecord {
			return hsm.KeyRecord{Name: hsm.KeyName(f.str()), Version: uint32(f.int()), ID: f.bytes(), Check: f.bytes()}
		})
		return err
	})
	return keys, err
}

// AddHSMKeys implements tokens.Setup.
func (db *DB) AddHSMKeys(ctx context.Context, keys []hsm.KeyRecord) error {
	err := db.engine.write(ctx, false, func(s *session) error {
		for _, k := range keys {
			_, err := s.exec(`INSERT INTO hsm_keys (name, version, id, "check") VALUES (?, ?, ?, ?)`,
				string(k.Name), int64(k.Version), append([]byte{}, k.ID...), append([]byte{}, k.Check...))
			if taken(err) {
				return fmt.Errorf("%w: HSM key %s, version %d", tokens.ErrExists, k.Name, k.Version)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return failed("recording HSM keys", err)
}

// Durability implements tokens.Setup.
func (db *DB) Durability(ctx context.Context) ([]string, bool, error) {
	warnings, sync, err := db.engine.setup().durability(ctx)
	return warnings, sync, failed("asking for its settings", err)
}
