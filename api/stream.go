package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// streamBuffer is how much of a streamed answer is held back at most.
const streamBuffer = 32 << 10

// stream answers what fill writes, as it is written, however long that takes. As
// long as nothing has gone out, an error of fill's is answered like any other;
// after that the connection is broken off, so that nobody takes a part for the
// whole. The operation must be a slow one.
func (s *Server) stream(c echo.Context, contentType string, fill func(w io.Writer) error) error {
	out := &streamed{s: s, c: c, contentType: contentType}
	w := bufio.NewWriterSize(out, streamBuffer)
	if err := fill(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil || c.Response().Committed {
		return err
	}
	_, err := out.Write(nil) // there was nothing: it says of what kind, all the same
	return err
}

// streamed is where a stream goes. A reader who stands still is given up after a
// while.
type streamed struct {
	s           *Server
	c           echo.Context
	contentType string
}

func (w *streamed) Write(p []byte) (int, error) {
	out := w.c.Response()
	if !out.Committed {
		out.Header().Set("Content-Type", w.contentType)
		out.WriteHeader(http.StatusOK)
	}
	control := http.NewResponseController(out)
	if err := control.SetWriteDeadline(time.Now().Add(2 * w.s.cfg.Timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, fmt.Errorf("put off the deadline of an answer: %w", err)
	}
	n, err := out.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errGone, err)
	}
	return n, err
}

// items writes a JSON object whose first member is a list, item by item.
type items struct {
	w io.Writer
	n int
}

// add writes one more item.
func (l *items) add(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write an answer: %w", err)
	}
	before := ","
	if l.n == 0 {
		before = `{"items":[`
	}
	l.n++
	if _, err := io.WriteString(l.w, before); err != nil {
		return err
	}
	_, err = l.w.Write(b)
	return err
}

// end closes the list. What is to follow it in the object begins with a comma.
func (l *items) end(rest string) error {
	closing := "]" + rest + "}"
	if l.n == 0 {
		closing = `{"items":[` + closing
	}
	_, err := io.WriteString(l.w, closing)
	return err
}
