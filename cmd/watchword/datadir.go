package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The files of a data directory.
const (
	markerFile   = "watchword.json" // makes a directory a data directory
	lockFile     = "watchword.lock" // held by the server that runs
	initLockFile = "watchword.init" // held while the directory is prepared
	pinFile      = "hsm.pin"        // PIN of the SoftHSM token
	softHSMDir   = "softhsm"        // SoftHSM's configuration and tokens
	adminKeyFile = "admin.key"      // the first administrator's API key
	secretFile   = "radius.secret"  // the shared secret of RADIUS client 127.0.0.1
	markerLayout = 1                // what we know how to read
)

// marker is what watchword.json says.
type marker struct {
	Layout  int       `json:"watchword_data_directory"` // version of the layout
	Created time.Time `json:"created"`
	Making  bool      `json:"softhsm_being_made,omitempty"` // and was not finished, if a server finds this at start
	SoftHSM bool      `json:"softhsm"`                      // a token was made here: without it, the seeds are lost
}

// dataDir is a data directory in use.
type dataDir struct {
	path  string
	locks []*os.File
}

// openDataDir makes the directory if need be, and takes it for this server:
// alone if exclusive, else together with others.
func openDataDir(path string, exclusive bool) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, dirFailure(path, err)
	}
	d := &dataDir{path: path}
	if err := d.lock(filepath.Join(path, lockFile), path, exclusive); err != nil {
		return nil, err
	}
	return d, nil
}

func dirFailure(path string, err error) error {
	return &failure{What: "use the data directory " + path, Why: plainCause(err), Do: "name another one with --data-dir, or let this user write there"}
}

// lockDatabase keeps other servers off a SQLite file, whatever their directory.
// The lock is a file of its own: SQLite and the store have theirs.
func (d *dataDir) lockDatabase(file string) error {
	if to, err := filepath.EvalSymlinks(file); err == nil {
		file = to
	}
	return d.lock(file+".server", file, true)
}

// lock takes a record lock, which ends with the process however that ends. It
// is of the kind that tells who holds it.
func (d *dataDir) lock(file, what string, exclusive bool) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return dirFailure(what, err)
	}
	l := syscall.Flock_t{Type: syscall.F_RDLCK, Whence: io.SeekStart}
	if exclusive {
		l.Type = syscall.F_WRLCK
	}
	err = syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &l)
	if err == nil {
		d.locks = append(d.locks, f)
		return nil
	}
	defer f.Close()
	if !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EACCES) {
		return dirFailure(what, err)
	}
	holder := "another watchword"
	if syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &l) == nil && l.Type != syscall.F_UNLCK && l.Pid > 0 {
		holder = fmt.Sprintf("another watchword (pid %d)", l.Pid)
	}
	return &failure{What: "start the server", Why: holder + " uses " + what, Do: "stop that one, or name another directory with --data-dir; only servers on PostgreSQL can share one"}
}

// close lets others use the directory.
func (d *dataDir) close() error {
	var errs []error
	for _, f := range d.locks {
		errs = append(errs, f.Close())
	}
	d.locks = nil
	return errors.Join(errs...)
}

// sync has the file system write what it holds back.
func (d *dataDir) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return dirFailure(d.path, err)
	}
	if err := firstOf(unix.Syncfs(int(f.Fd())), f.Close()); err != nil {
		return dirFailure(d.path, err)
	}
	return nil
}

// guard lets one process at a time into the directory, until leave is called.
func (d *dataDir) guard() (leave func() error, err error) {
	f, err := os.OpenFile(filepath.Join(d.path, initLockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, dirFailure(d.path, err)
	}
	wait := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := retryInterrupted(func() error { return syscall.FcntlFlock(f.Fd(), syscall.F_SETLKW, &wait) }); err != nil {
		return nil, firstOf(dirFailure(d.path, err), f.Close())
	}
	return f.Close, nil
}

// prepare makes it a data directory, under guard; softHSM, if not nil, makes a
// SoftHSM token under the PIN that it is given, or finds it made. fresh says
// whether the directory was new.
func (d *dataDir) prepare(softHSM func(pin []byte) error) (fresh bool, err error) {
	m, err := d.readMarker()
	switch {
	case errors.Is(err, os.ErrNotExist):
		fresh, m = true, marker{Layout: markerLayout, Created: time.Now().UTC().Truncate(time.Second)}
	case err != nil:
		return false, err
	}
	was := m
	if softHSM != nil {
		if err := d.prepareSoftHSM(&m, softHSM); err != nil {
			return false, err
		}
	}
	if fresh || m != was {
		err = d.writeMarker(m)
	}
	return fresh, err
}

func (d *dataDir) writeMarker(m marker) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(d.path, markerFile), string(text)); err != nil {
		return dirFailure(d.path, err)
	}
	return nil
}

func retryInterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (d *dataDir) readMarker() (m marker, err error) {
	text, err := os.ReadFile(filepath.Join(d.path, markerFile))
	if err != nil {
		return m, err
	}
	what := "use the data directory " + d.path
	if json.Unmarshal(text, &m) != nil || m.Layout < 1 {
		return m, &failure{What: what, Why: "its " + markerFile + " is not one that Watchword wrote", Do: "restore it from a backup, or name another directory with --data-dir"}
	}
	if m.Layout > markerLayout {
		return m, &failure{What: what, Why: "it was written by a newer Watchword", Do: "start that version, or restore a backup made with this one"}
	}
	return m, nil
}

// prepareSoftHSM makes PIN and token where they are to be made. A token that
// was made once is never made again: what is gone must come from a backup, as
// a new token could unwrap nothing.
func (d *dataDir) prepareSoftHSM(m *marker, softHSM func(pin []byte) error) error {
	tokens := filepath.Join(d.path, softHSMDir, "tokens")
	left, dirErr := os.ReadDir(tokens)
	pin, err := d.readPIN()
	if m.SoftHSM {
		if err == nil && dirErr == nil && len(left) > 0 {
			return nil
		}
		return &failure{
			What: "open the SoftHSM token",
			Why:  fmt.Sprintf("%s or %s of %s is gone or cannot be read", pinFile, softHSMDir, d.path),
			Do:   "restore both from a backup; no new token is made, as it could not open a single seed",
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		random := make([]byte, 16)
		if _, err := rand.Read(random); err != nil {
			return err
		}
		pin = hex.EncodeToString(random)
		err = writeFile(filepath.Join(d.path, pinFile), pin)
	}
	if err != nil {
		return dirFailure(d.path, err)
	}
	if m.Making && len(left) > 0 {
		// Half a token, which no key was ever made on. Nothing is deleted that
		// could be somebody's.
		aside := fmt.Sprintf("%s.unfinished-%d", tokens, time.Now().UnixNano())
		if err := os.Rename(tokens, aside); err != nil {
			return dirFailure(d.path, err)
		}
		left = nil
	}
	if len(left) == 0 {
		m.Making = true
		if err := d.writeMarker(*m); err != nil {
			return err
		}
	}
	if err := softHSM([]byte(pin)); err != nil {
		return err
	}
	// Before the marker says that there is a token, and before the first login:
	// a kill there must not cut short the only copy.
	if err := keepSoftTokens(filepath.Join(d.path, softHSMDir)); err != nil {
		return dirFailure(d.path, err)
	}
	m.Making, m.SoftHSM = false, true
	return nil
}

func (d *dataDir) readPIN() (string, error) {
	text, err := os.ReadFile(filepath.Join(d.path, pinFile))
	return strings.TrimRight(string(text), "\r\n"), err
}

// Save keeps what is shown once; it is tokens.Firsts.
func (d *dataDir) Save(adminKey, radiusSecret string) error {
	if err := writeFile(filepath.Join(d.path, adminKeyFile), adminKey); err != nil {
		return dirFailure(d.path, err)
	}
	if err := writeFile(filepath.Join(d.path, secretFile), radiusSecret); err != nil {
		return dirFailure(d.path, err)
	}
	return nil
}

// writeFile replaces a file by one with a line, as writeWhole does.
func writeFile(path, line string) error { return writeWhole(path, []byte(line+"\n")) }

// writeWhole replaces a file by one that nobody else can read. It is there
// wholly or not at all, also after a power failure.
func writeWhole(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = firstOf(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	open, err := os.Open(dir)
	if err != nil {
		return err
	}
	return firstOf(open.Sync(), open.Close())
}
