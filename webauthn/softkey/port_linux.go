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
	opened *os.File // inotify's: readable when somebody has opened the path
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
		p.err = errors.Join(p.err, p.master.Close(), p.opened.Close())
	})
	return p.err
}

// open makes the terminal: raw, so that bytes travel as they are, and with
// reads that wait for a whole report. It stays like that while its master side is
// open. The Port itself has only that side open, or the terminal would not tell
// when nobody has the other.
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
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch %s: %w", p.path, err)
	}
	p.opened = os.NewFile(uintptr(watch), "inotify")
	if _, err := unix.InotifyAddWatch(watch, p.path, unix.IN_OPEN); err != nil {
		p.opened.Close()
		return fmt.Errorf("watch %s: %w", p.path, err)
	}
	if err := p.terminal(func(fd int) error {
		settings := unix.Termios{Cflag: unix.CS8 | unix.CREAD}
		settings.Cc[unix.VMIN] = reportSize
		return unix.IoctlSetTermios(fd, unix.TCSETS, &settings)
	}); err != nil {
		p.opened.Close()
		return fmt.Errorf("make %s raw: %w", p.path, err)
	}
	return nil
}

// terminal does something with the clients' side of the terminal. It is opened
// by way of the master's, as after a Close the path may be another terminal's.
func (p *Port) terminal(do func(fd int) error) error {
	raw, err := p.master.SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(master uintptr) {
		fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK)
		if errno != 0 {
			err = errno
			return
		}
		defer unix.Close(int(fd))
		err = do(int(fd))
	})
	return errors.Join(err, failed)
}

// drain throws away what nobody has read.
func (p *Port) drain() error {
	return p.terminal(func(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) })
}

// state says whether nobody has the terminal open, and whether somebody has
// written what was not read yet.
func (p *Port) state() (alone, written bool, err error) {
	raw, err := p.master.SyscallConn()
	if err != nil {
		return false, false, err
	}
	failed := raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if _, err = unix.Poll(poll, 0); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		alone, written = poll[0].Revents&unix.POLLHUP != 0, poll[0].Revents&unix.POLLIN != 0
	})
	return alone, written, errors.Join(err, failed)
}

// await waits until somebody has the terminal open, or had, and wrote.
func (p *Port) await() error {
	var events [4096]byte
	for {
		if alone, written, err := p.state(); err != nil || !alone || written {
			return err
		}
		if _, err := p.opened.Read(events[:]); err != nil {
			return err
		}
	}
}

// reports are the terminal's other side as CTAPHID has it. A client writes a
// report ID, 0, before each report, as it would to a hidraw device.
//
// A real key's reports go to who listens, and are lost if nobody does. A terminal
// keeps them for the next client, which would take another's answer to INIT for
// its own. So nothing is written while nobody has the terminal open, and what the
// last client left unread is thrown away.
type reports struct {
	port   *Port
	buffer [1 + reportSize]byte
	mu     sync.Mutex // held while something is written or thrown away
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
		if err == nil && n < len(r.buffer) {
			if err := master.SetReadDeadline(time.Now().Add(partTimeout)); err != nil {
				return 0, err
			}
			_, err = io.ReadFull(master, r.buffer[n:])
		}
		switch {
		case err == nil:
			return copy(to, r.buffer[1:]), nil
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, unix.EIO): // nobody has it open
			if err := r.gone(); err != nil {
				return 0, err
			}
		default:
			return 0, err
		}
	}
}

// gone follows the last client, and waits for another.
func (r *reports) gone() error {
	r.mu.Lock()
	err := r.port.drain()
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.port.await()
}

// writeTimeout is how long a report waits for room. There is room for a
// thousand, so nobody reads any more.
const writeTimeout = 250 * time.Millisecond

// Write sends a report. Like a real key, it does not care whether anybody reads:
// what does not fit is lost.
func (r *reports) Write(report []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if alone, _, err := r.port.state(); err != nil {
		return 0, err
	} else if alone {
		return len(report), nil
	}
	if err := r.port.master.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	if _, err := r.port.master.Write(report); errors.Is(err, os.ErrDeadlineExceeded) {
		return len(report), r.port.drain() // and with it what was written of this one
	} else if err != nil {
		return 0, err
	}
	return len(report), nil
}
