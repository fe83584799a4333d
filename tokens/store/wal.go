package store

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// wal makes what SQLite wrote to its write-ahead log durable, several commits at
// a time. SQLite itself does not wait for the disk when it commits
// (synchronous=NORMAL): the commit is in the log, behind all earlier ones, and
// seen by readers, but the machine may lose it. So the next transaction runs while
// the disk is busy with the last; and whoever waits for durability waits for one
// flush, which covers all that was written before it began.
//
// SQLite flushes the log by itself before it moves any of it into the database,
// so the file is sound after a power failure whatever was flushed here.
type wal struct {
	path string

	mu       sync.Mutex
	change   sync.Cond
	written  uint64 // commits of this process, in the order of the log
	durable  uint64
	flushing bool
	failed   error // for good: what the disk has is not known any more

	// In the hands of who set flushing.
	fd   int
	file unix.Stat_t
}

// errNotDurable is why a database takes no more writes.
var errNotDurable = errors.New("what was written could not be made durable, so nothing more is written; look after the disk, and start the server anew")

func newWAL(path string) *wal {
	w := &wal{path: path, fd: -1}
	w.change.L = &w.mu
	return w
}

// wrote notes a commit and answers its number. It is called in the order in which
// commits were made.
func (w *wal) wrote() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written++
	return w.written
}

// last is the number of the last commit.
func (w *wal) last() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written
}

// sound answers why nothing must be written any more, or nil.
func (w *wal) sound() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// wait answers when commit n and all before it are durable. After an error
// nothing is ever durable again.
func (w *wal) wait(n uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.durable < n && w.failed == nil {
		if w.flushing {
			w.change.Wait()
			continue
		}
		w.flushing = true
		upto := w.written
		w.mu.Unlock()
		err := w.flush()
		w.mu.Lock()
		w.flushing = false
		if err != nil {
			w.failed = fmt.Errorf("%w: %w", errNotDurable, err)
		} else {
			w.durable = upto
		}
		w.change.Broadcast()
	}
	if w.durable >= n {
		return nil
	}
	return w.failed
}

// flush has the disk take the log. The file is opened once: it is there, and
// stays the same one, as long as any connection to the database is open. That is
// looked at each time, for a log that somebody removed takes writes, too.
func (w *wal) flush() error {
	if w.fd < 0 {
		fd, err := unix.Open(w.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the write-ahead log: %w", err)
		}
		w.fd = fd
		if err := unix.Fstat(fd, &w.file); err != nil {
			return fmt.Errorf("look at the write-ahead log: %w", err)
		}
	}
	var now unix.Stat_t
	if err := unix.Stat(w.path, &now); err != nil {
		return fmt.Errorf("look at the write-ahead log: %w", err)
	}
	if now.Ino != w.file.Ino || now.Dev != w.file.Dev {
		return errors.New("the write-ahead log is another file than before; somebody has removed it")
	}
	for {
		// A failure is final: the kernel forgets what it could not write.
		if err := unix.Fdatasync(w.fd); err == nil {
			return nil
		} else if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("write to the disk: %w", err)
		}
	}
}

// close lets go of the file once no flush uses it. Whoever waits hears that
// nothing more becomes durable.
func (w *wal) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.flushing {
		w.change.Wait()
	}
	if w.failed == nil {
		w.failed = errors.New("the database was closed")
	}
	w.change.Broadcast()
	if w.fd < 0 {
		return nil
	}
	fd := w.fd
	w.fd = -1
	return unix.Close(fd)
}
