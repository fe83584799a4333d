package station

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Labels is the CSV file for labels: a line a key, written once the key is enrolled.
// With PINs it is the one place where they stand in clear, for as long as it is kept,
// and only its owner can read it.
//
// A PIN waits in a file beside it (.pending) from before the server is told of the key
// until the line is written: so none is lost, whatever ends the station.
type Labels struct {
	path string
	file *os.File
	pins bool
}

var labelHead = []string{"number", "serial", "model", "aaguid", "user", "realm", "enrolled", "pin", "pin_change"}

// OpenLabels opens the file, or begins it.
func OpenLabels(path string, pins bool) (*Labels, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Labels{path: path, file: f, pins: pins}
	if err := l.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("the labels %s: %w", path, err), f.Close())
	}
	return l, nil
}

func (l *Labels) begin() error {
	if err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.New("another station works with it")
	}
	st, err := l.file.Stat()
	if err != nil {
		return err
	}
	if l.pins && st.Mode().Perm()&0o077 != 0 {
		return errors.New("others can read the file, and it is to hold PINs: chmod 600")
	}
	if of, ok := st.Sys().(*syscall.Stat_t); l.pins && (!ok || int(of.Uid) != os.Geteuid()) {
		return errors.New("the file is somebody else's, and it is to hold PINs; give another one")
	}
	head := strings.Join(labelHead, ",") + "\n"
	if st.Size() == 0 {
		if _, err := l.file.WriteString(head); err != nil {
			return err
		}
		return errors.Join(l.file.Sync(), syncDirectory(l.path))
	}
	there := make([]byte, len(head))
	if _, err := l.file.ReadAt(there, 0); err != nil || string(there) != head {
		return errors.New("it is no file of labels; give another one")
	}
	// The last line, if it was being written when the power went, is none.
	tail, end, err := l.tail()
	if err != nil {
		return err
	}
	defer tail.Wipe()
	if b := tail.Bytes(); b[len(b)-1] != '\n' {
		end -= int64(len(b) - bytes.LastIndexByte(b, '\n') - 1)
		if err := l.file.Truncate(end); err != nil {
			return err
		}
	}
	_, err = l.file.Seek(end, io.SeekStart)
	return err
}

// tail reads the end of the file into memory that is wiped: there are PINs in it.
func (l *Labels) tail() (tail *Secret, end int64, err error) {
	if end, err = l.file.Seek(0, io.SeekEnd); err != nil {
		return nil, 0, err
	}
	if tail, err = newSecret(); err != nil {
		return nil, 0, err
	}
	from := max(end-int64(len(tail.page)), 0)
	if tail.n, err = l.file.ReadAt(tail.page[:end-from], from); err != nil && !errors.Is(err, io.EOF) || tail.n == 0 {
		tail.Wipe()
		return nil, 0, errors.Join(errors.New("its end cannot be read"), err)
	}
	return tail, end, nil
}

// has says whether there is a line of a key. Batches with journals of their own may
// share the file, so the number alone does not tell.
func (l *Labels) has(number int, serial string) (bool, error) {
	part, err := newSecret() // there are PINs in it
	if err != nil {
		return false, err
	}
	defer part.Wipe()
	want := strconv.Itoa(number) + "," + quoted(serial) + ","
	at, alike := 0, 0 // in the file, and in the line, which is another one where it is below zero
	for {
		n, err := l.file.ReadAt(part.page, int64(at))
		for _, c := range part.page[:n] {
			switch {
			case c == '\n':
				alike = 0
			case alike >= 0 && c == want[alike]:
				if alike++; alike == len(want) {
					return true, nil
				}
			default:
				alike = -1
			}
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		at += n
	}
}

// label is a line of the file.
type label struct {
	number int
	token  Token
	pin    *Secret // nil: none is printed
	forced bool    // the key wants another PIN at first use
}

// append writes a line, durable.
func (l *Labels) append(x label) error {
	line, err := newSecret()
	if err != nil {
		return err
	}
	defer line.Wipe()
	put := func(s string) { line.n += copy(line.page[line.n:], s) }
	t := &x.token
	for i, field := range []string{
		strconv.Itoa(x.number), t.Serial, t.Model, t.AAGUID, t.User, t.Realm, time.Now().UTC().Format(time.RFC3339),
	} {
		if i > 0 {
			put(",")
		}
		put(quoted(field))
	}
	put(",")
	if x.pin != nil && l.pins {
		if bytes.ContainsAny(x.pin.Bytes(), "\",\r\n") {
			put(`"`)
			for _, c := range x.pin.Bytes() {
				if c == '"' {
					put(`"`)
				}
				line.n += copy(line.page[line.n:], []byte{c})
			}
			put(`"`)
		} else {
			line.n += copy(line.page[line.n:], x.pin.Bytes())
		}
	}
	put(",")
	if x.forced {
		put("first use")
	}
	put("\n")
	if line.n == len(line.page) {
		return errors.New("write the label: it is longer than a page")
	}
	if _, err := l.file.Write(line.Bytes()); err != nil {
		return fmt.Errorf("write the label: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("write the label: %w", err)
	}
	return nil
}

// quoted is a field of CSV (RFC 4180). What a spreadsheet would take for a formula
// begins with an apostrophe.
func quoted(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	if strings.ContainsAny(s[:min(len(s), 1)], "=+-@") {
		s = "'" + s
	}
	if strings.ContainsAny(s, `",`) {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

// maxPending is more than the file of a PIN that waits has, in bytes.
const maxPending = 1 << 10

// keep has a PIN wait, durable, for the line of a key of the batch of that journal.
func (l *Labels) keep(pin *Secret, batch string) error {
	if !l.pins || pin == nil {
		return nil
	}
	f, err := os.OpenFile(l.pending(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("keep the PIN for its label: %w", err)
	}
	_, err = f.Write(pin.Bytes())
	_, err2 := f.WriteString("\n" + batch + "\n")
	if err := errors.Join(err, err2, f.Sync(), f.Close(), syncDirectory(l.path)); err != nil {
		return fmt.Errorf("keep the PIN for its label: %w", err)
	}
	return nil
}

// kept is the PIN that waits; nil if there is none. That of another batch is an error.
func (l *Labels) kept(batch string) (*Secret, error) {
	f, err := os.OpenFile(l.pending(), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	pin, err := ReadSecret(f)
	if err != nil {
		return nil, fmt.Errorf("the PIN that waits in %s: %w", l.pending(), err)
	}
	if of, err := io.ReadAll(io.LimitReader(f, maxPending)); err != nil || string(of) != batch+"\n" {
		pin.Wipe()
		return nil, errors.Join(fmt.Errorf("in %s waits the PIN of another batch's key: go on with that batch's journal first, or name another file for the labels", l.pending()), err)
	}
	return pin, nil
}

// drop ends the waiting of a batch's PIN: what the file held is overwritten first. One
// that was not written to its end, when the power went, is of a key that nobody was
// told of.
func (l *Labels) drop(batch string) error {
	if !l.pins {
		return nil
	}
	f, err := os.OpenFile(l.pending(), os.O_RDWR|syscall.O_NOFOLLOW, 0) // what it overwrites is not for others to say
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && st.Size() > maxPending {
		err = fmt.Errorf("%s is no file of the station's; it is in the way", l.pending())
	}
	if err == nil && !l.half(f, st.Size()) {
		var pin *Secret
		if pin, err = l.kept(batch); err == nil {
			pin.Wipe()
		}
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.WriteAt(make([]byte, st.Size()), 0)
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(l.pending()))
}

// half says whether the file of a PIN was not written to its end.
func (l *Labels) half(f *os.File, size int64) bool {
	var last [1]byte
	if size == 0 {
		return true
	}
	_, err := f.ReadAt(last[:], size-1)
	return err == nil && last[0] != '\n'
}

func (l *Labels) pending() string { return l.path + ".pending" }

// Close closes the file.
func (l *Labels) Close() error { return l.file.Close() }
