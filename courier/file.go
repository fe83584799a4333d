package courier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"watchword/tokens"
	"watchword/tokens/audit"
)

const (
	currentFile = "audit.jsonl"
	// rotated names a file by when it was rotated, so that names are in order of time.
	rotatedTime = "20060102T150405.000000Z"
	// fileMode lets the group read, so that a collector needs no root.
	fileMode = 0o640
)

// file writes to DIR/SINK/audit.jsonl, one record a line, and has each line on the
// disk before it says so. A line that a crash cut off is removed before the next is
// written: its record was not noted as told.
type file struct {
	dir     string
	sink    tokens.Sink
	version string

	f    *os.File
	size int64
	safe map[int64]int64
}

// Send implements tokens.Delivery.
func (w *file) Send(ctx context.Context, records []audit.Record) (int, error) {
	done := 0
	for done < len(records) {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		if err := w.open(); err != nil {
			return done, err
		}
		var b []byte
		n := 0
		for ; done+n < len(records); n++ {
			line := append(w.line(&records[done+n]), '\n')
			if w.size+int64(len(b)) > 0 && w.size+int64(len(b)+len(line)) > w.sink.MaxBytes {
				break
			}
			b = append(b, line...)
		}
		if n == 0 {
			if err := w.rotate(); err != nil {
				return done, err
			}
			continue
		}
		if err := w.write(b); err != nil {
			// What is in the file is not known any more.
			return done, errors.Join(err, w.Close())
		}
		done += n
		w.safe[records[done-1].Chain] = records[done-1].Seq
	}
	return done, nil
}

// Safe implements tokens.Delivery: what was written is on the disk.
func (w *file) Safe() (map[int64]int64, error) { return w.safe, nil }

func (w *file) line(r *audit.Record) []byte {
	if w.sink.Format == tokens.SinkOCSF {
		return r.AppendOCSF(nil, w.version)
	}
	return r.AppendJSON(nil)
}

func (w *file) write(b []byte) error {
	if _, err := w.f.Write(b); err != nil {
		return plainly("write", err)
	}
	if err := w.f.Sync(); err != nil {
		return plainly("write", err)
	}
	w.size += int64(len(b))
	return nil
}

// plainly is an error of the file system without the path, which is the server's
// own concern.
func plainly(doing string, err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		err = l.Err
	}
	return fmt.Errorf("%s the file: %w", doing, err)
}

// open opens the current file, or goes on with it. Somebody else's rotation, which
// moved it away, is noticed.
func (w *file) open() error {
	path := filepath.Join(w.dir, currentFile)
	if w.f != nil {
		mine, err := w.f.Stat()
		if err != nil {
			return plainly("look at", err)
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(mine, there) && there.Size() == w.size {
			return nil
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		return plainly("make the directory of", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, fileMode)
	if err != nil {
		return plainly("open", err)
	}
	// One server at a time tells a sink, but a disk that hangs may hold one up beyond
	// its time: what it is writing is not to be taken for a line that was cut off.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another server is writing to it")
		}
		return errors.Join(plainly("lock", err), f.Close())
	}
	size, err := whole(f)
	if err == nil {
		err = syncDir(w.dir) // that the file is there
	}
	if err != nil {
		return errors.Join(plainly("open", err), f.Close())
	}
	w.f, w.size = f, size
	return nil
}

// whole removes what follows the last line feed, and answers how long the file is.
func whole(f *os.File) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		begin := max(0, end-int64(len(buf)))
		part := buf[:end-begin]
		if _, err := f.ReadAt(part, begin); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			end = begin + int64(i) + 1
			if end == size {
				return size, nil
			}
			return end, f.Truncate(end)
		}
		end = begin
	}
	if size == 0 {
		return 0, nil
	}
	return 0, f.Truncate(0)
}

// rotate gives the current file a name of its own, and removes the oldest ones
// beyond those to keep.
func (w *file) rotate() error {
	if err := w.Close(); err != nil {
		return err
	}
	from := filepath.Join(w.dir, currentFile)
	for at := time.Now().UTC(); ; at = at.Add(time.Microsecond) {
		to := filepath.Join(w.dir, "audit-"+at.Format(rotatedTime)+".jsonl")
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(from, to); err != nil {
			return plainly("rotate", err)
		}
		break
	}
	if err := syncDir(w.dir); err != nil {
		return plainly("rotate", err)
	}
	if w.sink.Keep == 0 {
		return nil
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return plainly("rotate", err)
	}
	var old []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), "audit-"); ok && strings.HasSuffix(name, ".jsonl") && e.Type().IsRegular() {
			old = append(old, e.Name())
		}
	}
	slices.Sort(old)
	for len(old) > w.sink.Keep {
		if err := os.Remove(filepath.Join(w.dir, old[0])); err != nil {
			return plainly("remove", err)
		}
		old = old[1:]
	}
	return nil
}

// syncDir has the names in a directory on the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Test implements tokens.Delivery: can the file be opened for writing? It leaves
// what is in it alone, for another may be writing to it just now.
func (w *file) Test(context.Context) error {
	if err := os.MkdirAll(w.dir, 0o750); err != nil {
		return plainly("make the directory of", err)
	}
	f, err := os.OpenFile(filepath.Join(w.dir, currentFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, fileMode)
	if err != nil {
		return plainly("open", err)
	}
	if err := f.Close(); err != nil {
		return plainly("close", err)
	}
	return nil
}

// Close implements tokens.Delivery.
func (w *file) Close() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f, w.size = nil, 0
	if err := f.Close(); err != nil {
		return plainly("close", err)
	}
	return nil
}
