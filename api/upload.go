package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// The longest parts that may stand before the file, in bytes, and how much of
// a refused file is read to see what stands behind it.
const (
	maxPSK      = 1 << 10
	maxPassword = 4 << 10
	maxKeyFile  = 256 << 10 // of keys and certificates
	maxSkip     = 8 << 20
)

// upload is the body of an import as it comes in. Read gives the file's bytes;
// nothing of it is kept. It fails, rather than end, when the body breaks off,
// stands still for too long, or goes on behind the file, so that no importer
// takes a part for the whole.
type upload struct {
	file     io.Reader
	parts    *multipart.Reader // nil if the body is the file
	buffer   []byte            // that parts reads the body through
	name     string            // of the file, if the body tells it
	psk      []byte            // content of the part; nil if there was none, as with all of these
	password []byte
	pgpKey   []byte

	pgpSigner, signer []byte // public

	control *http.ResponseController
	stall   time.Duration
	moved   time.Time // when the read deadline was last put off
	err     error     // what Read answered at the end
}

// errOrder is what comes of a secret that stands behind the file.
var errOrder = fmt.Errorf("%w: the parts psk, password, pgp_key, pgp_signer and signer must stand before the part file, which is read as it comes and must be the last (curl sends -F options in the order given)", tokens.ErrInvalid)

// receive reads a body up to the first byte of the file.
func (s *Server) receive(c echo.Context) (*upload, error) {
	r := c.Request()
	up := &upload{file: r.Body, control: http.NewResponseController(c.Response()), stall: s.cfg.Stall}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && media == "application/octet-stream":
		return up, nil
	case err == nil && media == "multipart/form-data":
	default:
		return nil, fmt.Errorf("%w: send the file with 'Content-Type: application/octet-stream', or as multipart/form-data", errMediaType)
	}
	if params["boundary"] == "" {
		return nil, fmt.Errorf("%w: the Content-Type of a multipart body names its boundary", tokens.ErrInvalid)
	}
	up.parts = multipart.NewReader(&moving{up, r.Body}, params["boundary"])
	if err := up.secrets(); err != nil {
		up.wipe()
		return nil, err
	}
	return up, nil
}

// secrets reads the parts before the file.
func (up *upload) secrets() error {
	for {
		part, err := up.parts.NextPart()
		if err == io.EOF {
			return fmt.Errorf("%w: there is no part named file", tokens.ErrInvalid)
		}
		if err != nil {
			return up.broken(err)
		}
		switch part.FormName() {
		case "psk":
			err = up.secret(part, &up.psk, maxPSK)
		case "password":
			err = up.secret(part, &up.password, maxPassword)
		case "pgp_key":
			err = up.secret(part, &up.pgpKey, maxKeyFile)
		case "pgp_signer":
			err = up.secret(part, &up.pgpSigner, maxKeyFile)
		case "signer":
			err = up.secret(part, &up.signer, maxKeyFile)
		case "file":
			up.file, up.name = part, part.FileName()
			return nil
		default:
			err = fmt.Errorf("%w: unknown part; there are psk, password, pgp_key, pgp_signer and signer, and file as the last", tokens.ErrInvalid)
		}
		if err != nil {
			return err
		}
	}
}

// secret reads one part into a buffer of its own that never grows, so that
// wiping it leaves no copy behind.
func (up *upload) secret(part *multipart.Part, into *[]byte, limit int) error {
	if *into != nil {
		return fmt.Errorf("%w: the part %s stands there twice", tokens.ErrInvalid, part.FormName())
	}
	buf := make([]byte, limit+1)
	n, err := io.ReadFull(part, buf)
	*into = buf[:n]
	switch {
	case err == nil:
		return fmt.Errorf("%w: the part %s is larger than %d bytes", tokens.ErrInvalid, part.FormName(), limit)
	case err == io.EOF:
		return fmt.Errorf("%w: the part %s is empty", tokens.ErrInvalid, part.FormName())
	case err != io.ErrUnexpectedEOF:
		return up.broken(err)
	}
	return nil
}

// wipe clears the secrets, and the buffer in which the last kilobytes of a
// multipart body would stay until the memory is used again. Nothing is read
// from up after it.
func (up *upload) wipe() {
	clear(up.psk)
	clear(up.password)
	clear(up.pgpKey)
	clear(up.buffer)
}

// Read gives the file.
func (up *upload) Read(p []byte) (int, error) {
	if up.err != nil {
		return 0, up.err
	}
	if up.parts == nil {
		up.putOff()
	}
	n, err := up.file.Read(p)
	switch {
	case err == nil:
	case err == io.EOF:
		up.err = up.end()
	default:
		up.err = up.broken(err)
	}
	return n, up.err
}

// end is what the end of the file means: io.EOF only if the body ends, too.
func (up *upload) end() error {
	if up.parts != nil {
		switch _, err := up.parts.NextPart(); {
		case err == nil:
			return errOrder
		case err != io.EOF:
			return up.broken(err)
		}
	}
	// All is there: the work that remains has no deadline. (One that passed would
	// look as if the client had gone.)
	if err := up.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("lift the deadline of an upload: %w", err)
	}
	return io.EOF
}

// explain is the error of an import, seen with what we know of the body: a
// file that cannot be read without a key may be followed by the key.
func (up *upload) explain(err error) error {
	if up.parts == nil || up.err != nil || up.psk != nil || up.password != nil || up.pgpKey != nil || !errors.Is(err, tokens.ErrInvalid) {
		return err
	}
	_, skipped := io.CopyN(io.Discard, up, maxSkip)
	if errors.Is(skipped, errOrder) {
		return errOrder
	}
	return err
}

// putOff moves the read deadline on while the body comes in.
func (up *upload) putOff() {
	now := time.Now()
	if now.Sub(up.moved) < up.stall/8 {
		return
	}
	up.moved = now
	// Where deadlines are not supported there is none to put off.
	_ = up.control.SetReadDeadline(now.Add(up.stall))
}

// broken says why a body could not be read to its end. It hides the cause,
// because io.ErrUnexpectedEOF may mean something good to a reader further up.
func (up *upload) broken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: the upload stood still for %v; nothing was imported", tokens.ErrInvalid, up.stall)
	}
	return fmt.Errorf("%w: the body broke off or is malformed; nothing was imported", tokens.ErrInvalid)
}

// moving puts the deadline off at each read of a multipart body, and notes the
// buffer that it is read into: the first read is given all of it, as it is
// empty then, and the multipart.Reader keeps it to the end.
type moving struct {
	up   *upload
	body io.Reader
}

func (m *moving) Read(p []byte) (int, error) {
	m.up.putOff()
	if len(p) > len(m.up.buffer) {
		m.up.buffer = p
	}
	return m.body.Read(p)
}
