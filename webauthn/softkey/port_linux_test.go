package softkey

import (
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unread is how many bytes wait on the terminal for a client.
func (p *Port) unread(t *testing.T) int {
	t.Helper()
	var n int
	if err := p.terminal(func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *Port) waitUnread(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); p.unread(t) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are unread, want %d", p.unread(t), want)
		}
	}
}

// TestWhatAClientLeftUnreadIsNotTheNextOnes has clients end before they read the
// answer to their INIT. The next one would take it for its own, refuse it for its
// nonce, and leave its own answer to the one after it, for ever.
func TestWhatAClientLeftUnreadIsNotTheNextOnes(t *testing.T) {
	k, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Plug(k)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	open := func() *os.File {
		t.Helper()
		client, err := os.OpenFile(p.Path(), os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	initialise := func(client *os.File, nonce string) {
		t.Helper()
		report := make([]byte, 1+reportSize)
		copy(report[1:], "\xff\xff\xff\xff\x86\x00\x08"+nonce)
		if _, err := client.Write(report); err != nil {
			t.Fatal(err)
		}
	}
	one, other := open(), open()
	initialise(one, "one one ")
	p.waitUnread(t, reportSize)
	one.Close()
	time.Sleep(10 * time.Millisecond)
	if n := p.unread(t); n != reportSize {
		t.Errorf("%d bytes are left to the client that still listens, want %d", n, reportSize)
	}
	other.Close()
	p.waitUnread(t, 0)

	one = open() // and is gone before its answer is there
	initialise(one, "one one ")
	one.Close()
	time.Sleep(100 * time.Millisecond)
	p.waitUnread(t, 0)

	last := open()
	defer last.Close()
	initialise(last, "the last")
	answer := make([]byte, reportSize)
	if _, err := io.ReadFull(last, answer); err != nil || string(answer[7:15]) != "the last" {
		t.Errorf("the last client is answered %x: %v", answer[7:15], err)
	}
}
