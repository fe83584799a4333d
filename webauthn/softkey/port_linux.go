package softkey

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Port is a Key that is plugged in: a pseudo-terminal that speaks CTAPHID.
// libfido2 opens any character device, so to it, and to fido2-token, fido2-cred
// and fido2-assert, the Port's path is a security key.
type Port struct {
	path   string
	master *os.File
	device *os.File // kept open, so that the terminal outlives its clients
	served chan error
	once   sync.Once
	err    error
}

// Plug plugs the key in. A session leader without a terminal of its own, such as
// a daemon, must open the Port with O_NOCTTY or from another process: otherwise
// the Port becomes its terminal, and it gets SIGHUP when the key is pulled out.
func Plug(k *Key) (*Port, error) {
	p := &Port{served: make(chan error, 1)}
	if err := p.open(); err != nil {
		return nil, fmt.Errorf("softkey: a pseudo-terminal: %w", err)
	}
	go func() { p.served <- k.ServeHID(&reports{port: p}) }()
	return p, nil
}

// Path is the device to open, as /dev/pts/5.
func (p *Port) Path() string { return p.path }

// Close pulls the key out: who reads from it gets an end of file, and a command
// that waits for the user ends. It waits until then.
func (p *Port) Close() error {
	p.once.Do(func() {
		select {
		case p.err = <-p.served: // it ended before
		default:
			defer func() { <-p.served }()
		}
		p.err = errors.Join(p.err, p.master.Close(), p.device.Close())
	})
	return p.err
}

// open makes the terminal: raw, so that bytes travel as they are, and with
// reads that wait for a whole report.
func (p *Port) open() (err error) {
	p.master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			p.master.Close()
		}
	}()
	raw, err := p.master.SyscallConn()
	if err != nil {
		return err
	}
	var number int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			number, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	p.path = fmt.Sprintf("/dev/pts/%d", number)
	fd, err := unix.Open(p.path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", p.path, err)
	}
	p.device = os.NewFile(uintptr(fd), p.path)
	settings := unix.Termios{Cflag: unix.CS8 | unix.CREAD}
	settings.Cc[unix.VMIN] = reportSize
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &settings); err != nil {
		p.device.Close()
		return fmt.Errorf("make %s raw: %w", p.path, err)
	}
	return nil
}

// reports are the terminal's other side as CTAPHID has it. A client writes a
// report ID, 0, before each report, as it would to a hidraw device.
type reports struct {
	port   *Port
	buffer [1 + reportSize]byte
}

// partTimeout is how long the rest of a report may take. A client writes a report
// in one piece, so what is not whole after this is the last of a client that ended,
// and must not become the beginning of the next one's.
const partTimeout = 100 * time.Millisecond

func (r *reports) Read(to []byte) (int, error) {
	if len(to) < reportSize {
		return 0, io.ErrShortBuffer
	}
	master := r.port.master
	for {
		if err := master.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
		n, err := master.Read(r.buffer[:])
		if err != nil {
			return 0, err
		}
		if n < len(r.buffer) {
			if err := master.SetReadDeadline(time.Now().Add(partTimeout)); err != nil {
				return 0, err
			}
			_, err = io.ReadFull(master, r.buffer[n:])
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return 0, err
		}
		return copy(to, r.buffer[1:]), nil
	}
}

// writeTimeout is how long a report waits for room. There is room for a
// thousand, so nobody reads any more.
const writeTimeout = 250 * time.Millisecond

// Write sends a report. Like a real key, it does not care whether anybody reads:
// what does not fit is lost.
func (r *reports) Write(report []byte) (int, error) {
	if err := r.port.master.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	if _, err := r.port.master.Write(report); errors.Is(err, os.ErrDeadlineExceeded) {
		r.drain() // and with it what was written of this report
	} else if err != nil {
		return 0, err
	}
	return len(report), nil
}

// drain throws away what nobody reads.
func (r *reports) drain() {
	raw, err := r.port.device.SyscallConn()
	if err != nil {
		return
	}
	var left [4096]byte
	_ = raw.Control(func(fd uintptr) {
		for {
			if n, err := unix.Read(int(fd), left[:]); n <= 0 && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
}
