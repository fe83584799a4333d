package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"

	"watchword/migrations"
)

// sqliteSetup sets a SQLite database up.
type sqliteSetup struct{ db *sqliteDB }

// lock takes an flock on a file beside the database. It ends with the process,
// however that ends.
func (s sqliteSetup) lock(ctx context.Context) (func() error, error) {
	f, err := os.OpenFile(s.db.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another process holds it: %w", ctx.Err()), f.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s sqliteSetup) migrate(ctx context.Context) error {
	if err := s.db.gate.enter(ctx, false); err != nil {
		return err
	}
	err := func() error {
		defer s.db.gate.leave()
		if err := s.db.settle(ctx); err != nil {
			return err
		}
		if err := migrate(ctx, goose.DialectSQLite3, s.db.writer, migrations.SQLite()); err != nil {
			return err
		}
		return s.db.log.wait(s.db.log.wrote())
	}()
	if err != nil {
		return err
	}
	return s.db.catchUp(ctx)
}

func (s sqliteSetup) durability(ctx context.Context) ([]string, bool, error) {
	var (
		warnings []string
		journal  string
	)
	if err := s.db.gate.enter(ctx, false); err != nil {
		return nil, false, err
	}
	defer s.db.gate.leave()
	if err := s.db.writer.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal); err != nil {
		return nil, false, err
	}
	if journal != "wal" {
		return nil, false, fmt.Errorf("SQLite cannot have a write-ahead log on the file system of %s (its journal mode is %s), and without one no commit would be durable; use a local file system", s.db.path, journal)
	}
	var at unix.Statfs_t
	if err := unix.Statfs(s.db.path, &at); err != nil {
		return nil, false, err
	}
	if name, ok := remote[int64(at.Type)]; ok {
		warnings = append(warnings, "The database lies on a network file system ("+name+"), where SQLite's locks and durability are not certain.")
	}
	if at.Type == unix.TMPFS_MAGIC {
		warnings = append(warnings, "The database lies in memory (tmpfs): it is gone at the next start of the machine.")
	}
	return warnings, false, nil
}

// remote are file systems over a network.
var remote = map[int64]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.SMB2_SUPER_MAGIC:  "SMB",
	unix.CIFS_SUPER_MAGIC:  "CIFS",
	unix.V9FS_MAGIC:        "9P",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.CEPH_SUPER_MAGIC:  "Ceph",
	unix.CODA_SUPER_MAGIC:  "Coda",
	unix.OCFS2_SUPER_MAGIC: "OCFS2",
}
