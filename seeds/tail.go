package seeds

import (
	"bytes"
	"errors"
)

// tail is the shape of the last good line of a text with a token a line. A file
// that was cut off shows in a last line that has no end, and less in it.
type tail struct {
	fields, seed int
	last         []byte // field; empty where it is the seed
}

var errCutOff = errors.New("the last line has no end and less in it than the one before; the file may have been cut off (if it is whole, end it with a newline)")

// check refuses a line without an end if it is what remains of one like the line
// before: fewer fields, a shorter seed, or a last field that is the beginning of
// the other's.
func (t *tail) check(fields, seed int, last []byte) error {
	if t.fields == 0 || fields > t.fields && seed >= t.seed {
		return nil
	}
	if fields < t.fields || seed < t.seed || len(last) < len(t.last) && bytes.HasPrefix(t.last, last) {
		return errCutOff
	}
	return nil
}

// keep remembers a good line.
func (t *tail) keep(fields, seed int, last []byte) {
	t.fields, t.seed, t.last = fields, seed, append(t.last[:0], last...)
}
