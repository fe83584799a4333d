package store

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

// everyRef are refs of each kind, of what there is and of what there is not.
var everyRef = []tokens.Ref{
	{Realm: "default", User: "user101"}, {Realm: "branch", User: "user100"}, {Realm: "default", User: "nobody"},
	{Realm: "default", Serial: "TOK10000007"}, {Realm: "default", Serial: "TOK10084007"}, {Realm: "default", Serial: "none"},
	{Realm: "default", Credential: "none"},
}

// overheard is a connection that notes what it is asked.
type overheard struct {
	sqliteDriver
	queries map[string]int // with the number of their parameters
}

func (c overheard) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.queries[query] = len(args)
	return c.sqliteDriver.QueryContext(ctx, query, args)
}

// What attempts are decided on is read by keys alone.
func TestSQLiteLoadsByKeysAlone(t *testing.T) {
	ctx := context.Background()
	db, _ := inhabited(t, "sqlite:"+filepath.Join(t.TempDir(), "w.db"))
	conn, err := db.engine.(*sqliteDB).loader.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	queries := make(map[string]int)
	if err := conn.Raw(func(dc any) error {
		c := &sqliteConn{conn: overheard{dc.(sqliteDriver), queries}}
		return c.load(newSubjects(len(everyRef)), everyRef)
	}); err != nil {
		t.Fatal(err)
	}
	if len(queries) != 6 {
		t.Errorf("%d statements were sent, not 6", len(queries))
	}
	for query, parameters := range queries {
		if err := db.engine.read(ctx, func(s *session) error {
			rows, err := s.query("EXPLAIN QUERY PLAN "+query, make([]any, parameters)...)
			steps, err := list(rows, err, 4, func(f *fields) string { f.next = 3; return f.str() })
			if reproach := reproveSQLite(spaces.ReplaceAllString(query, " "), steps); reproach != "" {
				t.Errorf("%s\nwhich  %s", query, reproach)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPostgresLoadsByKeysAlone(t *testing.T) {
	ctx := context.Background()
	url := storetest.Postgres(t)
	_, raw := inhabited(t, url)
	db, err := Open(ctx, url, Options{Connections: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, refs := range [][]tokens.Ref{nil, everyRef[:3], everyRef} {
		for _, load := range []func(context.Context, []tokens.Ref) (tokens.View, error){db.Load, db.Recall} {
			if _, err := load(ctx, refs); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A connection for attempts keeps what it was asked.
	sent, err := onHot(ctx, db.engine.(*postgresDB), func(c *hotConn) (sent []string, err error) {
		for query := range c.prepared {
			sent = append(sent, query)
		}
		return sent, nil
	})
	if err != nil || len(sent) != 3 {
		t.Fatalf("%d statements were sent, not 3: %v", len(sent), err)
	}
	conn, err := raw.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var columns arrays
	columns.of(len(everyRef),
		func(i int) any { return everyRef[i].Realm }, func(i int) any { return everyRef[i].User },
		func(i int) any { return everyRef[i].Serial }, func(i int) any { return nullBytes([]byte(everyRef[i].Credential)) })
	for i, query := range sent {
		call := fmt.Sprintf("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE load%d", i)
		var args []string
		for n := range strings.Count(query, "$") {
			args = append(args, "'"+columns.values[n].(string)+"'")
			if !strings.Contains(query, fmt.Sprintf("$%d::", n+1)) {
				t.Fatalf("the parameters of %s cannot be counted", query)
			}
		}
		if len(args) > 0 {
			call += " (" + strings.Join(args, ", ") + ")"
		}
		for _, statement := range []string{ // as on a connection for attempts
			"SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off", "SET enable_hashjoin = off",
			"SET enable_mergejoin = off", "SET enable_bitmapscan = off", fmt.Sprintf("PREPARE load%d AS %s", i, query),
		} {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				t.Fatal(err)
			}
		}
		var (
			text  []byte
			plans []struct{ Plan node }
		)
		if err := conn.QueryRowContext(ctx, call).Scan(&text); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &plans); err != nil {
			t.Fatal(err)
		}
		if reproach := plans[0].Plan.reprove(4 * len(everyRef)); reproach != "" {
			t.Errorf("%s\nwhich  %s", spaces.ReplaceAllString(query, " "), reproach)
		}
	}
}
