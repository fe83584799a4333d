package station

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"unicode/utf8"
)

// Secret is a PIN. It lies in a page of its own, outside Go's heap and libc's: nothing
// copies it, it is not swapped out, and no core dump has it. The page ends it with
// zeros, as C wants.
type Secret struct {
	page []byte // nil once wiped
	n    int
}

// maxPIN is how long a PIN can be, in bytes (CTAP 2.1, section 6.5.1).
const maxPIN = 63

// newSecret has room for a PIN.
func newSecret() (*Secret, error) {
	page, err := syscall.Mmap(-1, 0, syscall.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("memory for a PIN: %w", err)
	}
	const dontDump = 16 // MADV_DONTDUMP
	if err := errors.Join(syscall.Mlock(page), syscall.Madvise(page, dontDump)); err != nil {
		return nil, errors.Join(fmt.Errorf("memory for a PIN cannot be locked (see ulimit -l): %w", err), syscall.Munmap(page))
	}
	s := &Secret{page: page}
	runtime.SetFinalizer(s, (*Secret).Wipe)
	return s, nil
}

// ReadSecret reads a PIN to the end of its line, or of r. It reads byte by byte into
// the PIN's own memory, so that no buffer holds it.
func ReadSecret(r io.Reader) (*Secret, error) {
	s, err := newSecret()
	if err != nil {
		return nil, err
	}
	for {
		if s.n > maxPIN {
			s.Wipe()
			return nil, fmt.Errorf("a PIN is not longer than %d bytes", maxPIN)
		}
		n, err := r.Read(s.page[s.n : s.n+1])
		if n == 1 && s.page[s.n] == '\n' || n == 0 && errors.Is(err, io.EOF) {
			s.page[s.n] = 0
			break
		}
		if err != nil && n == 0 {
			s.Wipe()
			return nil, err
		}
		s.n += n
	}
	if s.n > 0 && s.page[s.n-1] == '\r' {
		s.n--
		s.page[s.n] = 0
	}
	if err := s.check(); err != nil {
		s.Wipe()
		return nil, err
	}
	return s, nil
}

func (s *Secret) check() error {
	switch {
	case s.n == 0:
		return errors.New("the PIN is empty")
	case s.n > maxPIN:
		return fmt.Errorf("a PIN is not longer than %d bytes", maxPIN)
	case bytes.IndexByte(s.Bytes(), 0) >= 0 || !utf8.Valid(s.Bytes()):
		return errors.New("the PIN is not text")
	}
	return nil
}

// Bytes is the PIN where it lies. Whoever copies it looks after the copy.
func (s *Secret) Bytes() []byte { return s.page[:s.n] }

// Len is how many characters the PIN has: that is what keys count.
func (s *Secret) Len() int { return utf8.RuneCount(s.Bytes()) }

// Wipe ends the PIN. It may be called again, and of none.
func (s *Secret) Wipe() {
	if s == nil || s.page == nil {
		return
	}
	clear(s.page)
	_ = syscall.Munmap(s.page)
	s.page, s.n = nil, 0
	runtime.SetFinalizer(s, nil)
}
