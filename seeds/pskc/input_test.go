package pskc

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// However a file comes in, its byte order mark does no harm.
func TestByteOrderMarkThatComesAlone(t *testing.T) {
	r := NewReader(iotest.OneByteReader(strings.NewReader("\xef\xbb\xbf<KeyContainer Version=\"1.0\" xmlns=\""+Namespace+"\"></KeyContainer>")), Options{Now: time.Now()})
	defer r.Close()
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}
