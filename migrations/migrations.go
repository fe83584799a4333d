// Package migrations holds the numbered SQL of the database's schema, for
// goose. A file that was released is never edited: a change is a new file, in
// both folders under the same number.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed sqlite/*.sql postgres/*.sql
var files embed.FS

// SQLite is the schema for SQLite.
func SQLite() fs.FS { return folder("sqlite") }

// Postgres is the schema for PostgreSQL.
func Postgres() fs.FS { return folder("postgres") }

func folder(name string) fs.FS {
	sub, err := fs.Sub(files, name)
	if err != nil {
		panic("migrations: " + err.Error()) // the name is a constant that go:embed has checked
	}
	return sub
}
