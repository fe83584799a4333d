package seeds

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxNested is how many containers may lie within each other.
const maxNested = 3

// wrapper is a container: a wrapping around a seed file of any format. What it is shows in
// its first bytes, whatever format --format names for the file inside.
type wrapper struct {
	title string

	// is looks at the beginning of a file. It says whether this is such a
	// container, or why one that seems to be cannot be read.
	is func(prefix []byte) (is bool, refuse string)

	// open reads up to the content. Secrets of o are used until Close.
	open func(r io.Reader, o *OpenOptions) (wrapped, error)
}

// wrapped is the content of a container. Read answers io.EOF only once the whole
// container was read and found intact; what it gave before is not certain until
// then. Its errors are *FileErrors, or what the source failed with.
type wrapped interface {
	io.Reader
	Notes() []string // what else is worth knowing, once Read has answered io.EOF
	Close()          // wipes what is kept of the content
}

// wrappers holds every container that is known.
var wrappers = []*wrapper{&zipArchive, &pgpMessage}

// peek reads a source, of which it shows the beginning first.
type peek struct {
	r      io.Reader
	prefix []byte
	used   int   // of prefix
	err    error // after prefix
	whole  bool  // there is no more than prefix
}

// fill reads the beginning.
func (p *peek) fill() error {
	p.prefix = make([]byte, prefixSize)
	n, err := io.ReadFull(p.r, p.prefix)
	p.prefix = p.prefix[:n]
	if p.whole = err == io.EOF || err == io.ErrUnexpectedEOF; p.whole {
		p.err, err = io.EOF, nil
	}
	return err
}

func (p *peek) Read(b []byte) (n int, err error) {
	if p.used < len(p.prefix) {
		n = copy(b, p.prefix[p.used:])
		clear(p.prefix[p.used : p.used+n])
		p.used += n
		return n, nil
	}
	if p.err != nil {
		return 0, p.err
	}
	if n, err = p.r.Read(b); err != nil {
		p.err = err
	}
	return n, err
}

// content is what is to be parsed: the file, or what lies inside the containers
// around it.
type content struct {
	layers []wrapped // from the outside
	titles []string
	peek   *peek   // of the innermost
	outer  []*peek // of what is around it
}

// openContent unwraps a file, and tells its format.
func openContent(file io.Reader, name string, o *OpenOptions) (c *content, f *Format, reason string, err error) {
	c = &content{peek: &peek{r: file}}
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("an internal error while opening the file")
		}
		if err != nil {
			c.Close()
			c, f, reason = nil, nil, ""
		}
	}()
	for {
		if err := c.peek.fill(); err != nil {
			return c, nil, "", c.reading(err)
		}
		inner, err := c.unwrap(o)
		if err != nil {
			return c, nil, "", err
		}
		if inner == nil {
			break
		}
		c.outer, c.peek = append(c.outer, c.peek), &peek{r: inner}
	}
	if name != "" && name != Auto {
		f, err = FormatNamed(name)
		reason = "named by --format"
	} else {
		f, reason, err = Detect(c.peek.prefix, c.peek.whole)
	}
	if err != nil && len(c.layers) > 0 {
		// It may be the wrong one of several files.
		if bad := c.drain(); bad != nil {
			return c, nil, "", bad
		}
		return c, nil, "", c.inside(err)
	}
	for i := len(c.titles) - 1; i >= 0; i-- {
		reason += ", in a " + c.titles[i]
	}
	return c, f, reason, err
}

// unwrap opens the container that the file at hand is, nil if it is none.
func (c *content) unwrap(o *OpenOptions) (wrapped, error) {
	for _, k := range wrappers {
		is, refuse := k.is(c.peek.prefix)
		if refuse != "" {
			return nil, c.inside(&FileError{Reason: refuse})
		}
		if !is {
			continue
		}
		if len(c.layers) == maxNested {
			return nil, &FileError{Reason: fmt.Sprintf("more than %d containers within each other", maxNested)}
		}
		inner, err := k.open(c.peek, o)
		if err != nil {
			return nil, c.inside(c.reading(err))
		}
		if len(c.titles) > 0 {
			inner = &placed{wrapped: inner, place: c.place()}
		}
		c.layers, c.titles = append(c.layers, inner), append(c.titles, k.title)
		return inner, nil
	}
	return nil, nil
}

// reading gives an error of the source its place.
func (c *content) reading(err error) error {
	var bad *FileError
	if errors.As(err, &bad) {
		return bad
	}
	return fmt.Errorf("reading the file: %w", err)
}

// place says where the innermost file is: "in the zip archive, in the PGP
// message: ".
func (c *content) place() string { return "in the " + strings.Join(c.titles, ", in the ") + ": " }

// inside says of an error that it is about what lies in a container.
func (c *content) inside(err error) error {
	if len(c.titles) == 0 {
		return err
	}
	return within(c.place(), err)
}

// within says of an error where the file is that it is about.
func within(place string, err error) error {
	var bad *FileError
	if !errors.As(err, &bad) || strings.HasPrefix(bad.Reason, "in the ") {
		return err
	}
	return &FileError{Line: bad.Line, Reason: place + bad.Reason}
}

// placed is a container that lies in others: its errors say so.
type placed struct {
	wrapped
	place string
}

func (p *placed) Read(b []byte) (int, error) {
	n, err := p.wrapped.Read(b)
	if err != nil && err != io.EOF {
		err = within(p.place, err)
	}
	return n, err
}

func (c *content) Read(p []byte) (int, error) { return c.peek.Read(p) }

// drain reads what the parser left, so that every container is checked to its
// end. A file without containers has no need of it.
func (c *content) drain() error {
	if len(c.layers) == 0 {
		return nil
	}
	buf := make([]byte, 4096)
	defer clear(buf)
	for {
		_, err := c.peek.Read(buf)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return c.reading(err)
		}
	}
}

// Notes says what else the containers show.
func (c *content) Notes() []string {
	var notes []string
	for _, l := range c.layers {
		notes = append(notes, l.Notes()...)
	}
	return notes
}

// Close wipes what is kept of the file's bytes.
func (c *content) Close() {
	for _, p := range append(c.outer, c.peek) {
		clear(p.prefix[:cap(p.prefix)])
	}
	for i := len(c.layers) - 1; i >= 0; i-- {
		c.layers[i].Close()
	}
}
