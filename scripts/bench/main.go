// Command bench measures Watchword next to its yardsticks, in one run on one
// machine: import, RADIUS PAP and HTTP verification on SQLite and PostgreSQL,
// beside pgbench doing a select and an update by primary key with as many
// clients, and FreeRADIUS answering from a flat file and with its rlm_totp; and
// logins with FIDO keys, over HTTP and without it, beside this machine's bare
// verification of ECDSA P-256; CHAP and MS-CHAPv2 beside PAP; and verification under
// ten policies and ten thousand links beside none.
//
// It needs Debian's freeradius, postgresql and softhsm2, listens on loopback,
// and ends what it started.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	binary      string
	tokens      int
	users       int
	keys        int
	what        []string
	seconds     time.Duration
	outstanding []int
	databases   []string
}

func main() {
	var o options
	var outstanding, databases, what string
	flag.StringVar(&o.binary, "watchword", "bin/watchword", "the server to measure")
	flag.IntVar(&o.tokens, "tokens", 100_000, "tokens to import")
	flag.IntVar(&o.users, "users", 100_000, "users to make and assign tokens to")
	flag.IntVar(&o.keys, "keys", 2000, "users to enrol FIDO keys for")
	flag.StringVar(&what, "what", "codes,keys,methods,policies", "what to measure")
	flag.DurationVar(&o.seconds, "time", 5*time.Second, "length of one measurement")
	flag.StringVar(&outstanding, "outstanding", "1,16,64,256", "requests under way at once")
	flag.StringVar(&databases, "databases", "sqlite,postgres", "databases to measure on")
	flag.Parse()
	for _, s := range strings.Split(outstanding, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 4096 {
			fatal(fmt.Errorf("-outstanding %q: numbers from 1 to 4096, with commas", outstanding))
		}
		o.outstanding = append(o.outstanding, n)
	}
	o.databases, o.what = strings.Split(databases, ","), strings.Split(what, ",")
	for _, w := range o.what {
		if !slices.Contains([]string{"codes", "keys", "methods", "policies"}, w) {
			fatal(fmt.Errorf("-what %q: codes, keys, methods and policies, with commas", what))
		}
	}
	if most := slices.Max(o.outstanding); o.keys <= most {
		fatal(fmt.Errorf("-keys %d: more than the %d requests at once are needed, so that nobody is asked twice at once", o.keys, most))
	}
	o.users = min(o.users, o.tokens)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "watchword-bench-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	pg, err := startPostgres(ctx, filepath.Join(dir, "pg"))
	if err != nil {
		return fmt.Errorf("PostgreSQL: %w", err)
	}
	defer pg.stop()
	if slices.Contains(o.what, "codes") {
		if err := runCodes(ctx, dir, pg, o); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		name string
		run  func(context.Context, string, *postgres, options) error
	}{{"keys", runKeys}, {"methods", runMethods}, {"policies", runPolicies}} {
		if !slices.Contains(o.what, part.name) {
			continue
		}
		if err := part.run(ctx, dir, pg, o); err != nil {
			return err
		}
	}
	return nil
}

// runKeys measures logins with FIDO keys.
func runKeys(ctx context.Context, dir string, pg *postgres, o options) error {
	t := table{beside: []string{"of bare ECDSA"}}
	t.title = fmt.Sprintf("FIDO keys: %d users, %d cores, everything on one machine, %v a measurement", o.keys, runtime.NumCPU(), o.seconds)
	say("bare ECDSA P-256")
	bare, err := bareECDSA(ctx, o.seconds)
	if err != nil {
		return err
	}
	t.add("verifying ECDSA P-256 (Go, all cores)", runtime.NumCPU(), bare, &bare)
	if perSecond, ok := opensslECDSA(ctx); ok {
		t.note("openssl speed, all cores: %.0f verifications/s, %.2f of Go's", perSecond, perSecond/bare.perSecond)
	}
	for _, db := range o.databases {
		if err := measureKeys(ctx, &t, filepath.Join(dir, db), db, pg, o, bare); err != nil {
			return fmt.Errorf("keys on %s: %w", db, err)
		}
		if err := measureCore(ctx, &t, filepath.Join(dir, db), db, pg, o, bare); err != nil {
			return fmt.Errorf("keys on %s: %w", db, err)
		}
	}
	t.print(os.Stdout)
	return nil
}

// runCodes measures imports and verification of codes.
func runCodes(ctx context.Context, dir string, pg *postgres, o options) error {
	fleet := newFleet(o.tokens)
	t := table{beside: []string{"of flat file", "of pgbench"}}
	t.title = fmt.Sprintf("%d tokens, %d users, %d cores, everything on one machine, %v a measurement",
		o.tokens, o.users, runtime.NumCPU(), o.seconds)

	flat, err := freeradiusRates(ctx, dir, o, fleet, false)
	if err != nil {
		return fmt.Errorf("FreeRADIUS: %w", err)
	}
	totp, err := freeradiusRates(ctx, dir, o, fleet, true)
	if err != nil {
		return fmt.Errorf("FreeRADIUS with rlm_totp: %w", err)
	}
	bench, err := pg.pgbench(ctx, o)
	if err != nil {
		return fmt.Errorf("pgbench: %w", err)
	}
	for i, n := range o.outstanding {
		t.add("FreeRADIUS flat file", n, flat[i], nil, nil)
	}
	for i, n := range o.outstanding {
		t.add("FreeRADIUS rlm_totp (no state)", n, totp[i], nil, nil)
	}
	for i, n := range o.outstanding {
		t.add("pgbench select+update", n, bench[i], nil, nil)
	}
	for _, db := range o.databases {
		if err := measure(ctx, &t, filepath.Join(dir, db), db, pg, o, fleet, flat, bench); err != nil {
			return fmt.Errorf("%s: %w", db, err)
		}
	}
	t.print(os.Stdout)
	return nil
}

// measure runs the server on one database through import, a cold pass over all
// users, and warm measurements.
func measure(ctx context.Context, t *table, dir, db string, pg *postgres, o options, fleet *fleet, flat, bench []rate) error {
	fleet.reset()
	url := ""
	if db == "postgres" {
		var err error
		if url, err = pg.create(ctx, "watchword"); err != nil {
			return err
		}
	}
	s, err := startServer(ctx, o.binary, dir, url)
	if err != nil {
		return err
	}
	defer func() { s.stop() }()
	say("%s: importing %d tokens", db, o.tokens)
	imported, err := s.importFleet(ctx, dir, fleet)
	if err != nil {
		return err
	}
	t.note("%s: %d tokens imported in %v: %.0f tokens/s, server's memory at most %d MB",
		db, o.tokens, imported.Round(10*time.Millisecond), float64(o.tokens)/imported.Seconds(), s.peakMemory())
	say("%s: adding and assigning %d users", db, o.users)
	if err := s.assign(ctx, fleet, o.users); err != nil {
		return err
	}
	s.stop()
	if s, err = startServer(ctx, o.binary, dir, url); err != nil {
		return err
	}
	say("%s: cold", db)
	cold, err := drive(ctx, 64, o.users, time.Hour, s.radiusWorker(fleet, o.users))
	if err != nil {
		return err
	}
	at := func(rates []rate, n int) *rate {
		for i := range o.outstanding {
			if o.outstanding[i] == n {
				return &rates[i]
			}
		}
		return nil
	}
	t.add(db+" RADIUS PAP, cold", 64, cold, at(flat, 64), at(bench, 64))
	for _, n := range o.outstanding {
		say("%s: RADIUS PAP warm, %d outstanding", db, n)
		r, err := drive(ctx, n, 0, o.seconds, s.radiusWorker(fleet, o.users))
		if err != nil {
			return err
		}
		t.add(db+" RADIUS PAP, warm", n, r, at(flat, n), at(bench, n))
	}
	for _, n := range o.outstanding {
		say("%s: HTTP verify warm, %d outstanding", db, n)
		r, err := drive(ctx, n, 0, o.seconds, s.httpWorker(fleet, o.users))
		if err != nil {
			return err
		}
		t.add(db+" HTTP verify, warm", n, r, at(flat, n), at(bench, n))
	}
	return nil
}
