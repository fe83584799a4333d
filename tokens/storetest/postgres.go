package storetest

import (
	"crypto/rand"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// PostgresEnv names the variable that may hold the URL of an existing server's
// database, whose user can make others: Postgres then uses that server.
const PostgresEnv = "WATCHWORD_TEST_POSTGRES"

var shared = sync.OnceValues(func() (*Cluster, error) { return startCluster(nil) })

// Postgres answers the URL of a new, empty PostgreSQL database. All tests of a
// process share one server, which ends with the process, unless PostgresEnv
// names another. The database is dropped when the test ends.
func Postgres(t testing.TB) string {
	t.Helper()
	if admin := os.Getenv(PostgresEnv); admin != "" {
		return postgresAt(t, admin)
	}
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return postgresAt(t, c.url("postgres"))
}

// postgresAt makes a database through another one of the same server.
func postgresAt(t testing.TB, admin string) string {
	t.Helper()
	bin, err := postgresBinaries()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("%s is not a URL", PostgresEnv)
	}
	run := func(sql string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, "psql"), "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", admin, "-c", sql)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", sql, err, out)
		}
	}
	name := "watchword_test_" + strings.ToLower(rand.Text())
	run("CREATE DATABASE " + name)
	t.Cleanup(func() { run("DROP DATABASE " + name + " WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}
