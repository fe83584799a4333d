package softkey_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"watchword/webauthn/softkey"
)

const (
	ping, initialise, cborCommand, cancel = 0x01, 0x06, 0x10, 0x11
	keepalive, failure                    = 0x3b, 0x3f
	broadcast                             = 0xffffffff
)

// wire is a client of a key that is served on it.
type wire struct {
	t *testing.T
	net.Conn
}

// serve serves the key until the test is over. Within synctest's bubble its
// time is the bubble's.
func serve(t *testing.T, k *softkey.Key) *wire {
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- k.ServeHID(far) }()
	t.Cleanup(func() {
		near.Close()
		if err := <-served; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("serve: %v", err)
		}
		far.Close()
	})
	return &wire{t, near}
}

// first is a message's first report; more are the bytes after its head.
func first(channel uint32, cmd byte, length int, data []byte) []byte {
	r := make([]byte, 64)
	binary.BigEndian.PutUint32(r, channel)
	r[4] = cmd | 0x80
	binary.BigEndian.PutUint16(r[5:], uint16(length))
	copy(r[7:], data)
	return r
}

func further(channel uint32, sequence byte, data []byte) []byte {
	r := make([]byte, 64)
	binary.BigEndian.PutUint32(r, channel)
	r[4] = sequence
	copy(r[5:], data)
	return r
}

func (w *wire) put(report []byte) {
	w.t.Helper()
	if _, err := w.Write(report); err != nil {
		w.t.Fatal(err)
	}
}

// send sends a whole message.
func (w *wire) send(channel uint32, cmd byte, data []byte) {
	w.t.Helper()
	w.put(first(channel, cmd, len(data), data))
	for s := byte(0); len(data) > 57+59*int(s); s++ {
		w.put(further(channel, s, data[57+59*int(s):]))
	}
}

// receive takes a whole message.
func (w *wire) receive() (channel uint32, cmd byte, data []byte) {
	w.t.Helper()
	var r [64]byte
	if _, err := io.ReadFull(w, r[:]); err != nil {
		w.t.Fatal(err)
	}
	channel, cmd = binary.BigEndian.Uint32(r[:]), r[4]&^0x80
	length := int(binary.BigEndian.Uint16(r[5:]))
	data = append(data, r[7:]...)
	for s := byte(0); len(data) < length; s++ {
		if _, err := io.ReadFull(w, r[:]); err != nil {
			w.t.Fatal(err)
		}
		if binary.BigEndian.Uint32(r[:]) != channel || r[4] != s {
			w.t.Fatalf("report %x does not continue channel %x at %d", r[:5], channel, s)
		}
		data = append(data, r[5:]...)
	}
	return channel, cmd, data[:length]
}

// want takes a message and compares it.
func (w *wire) want(channel uint32, cmd byte, data ...byte) {
	w.t.Helper()
	c, m, d := w.receive()
	if c != channel || m != cmd || !bytes.Equal(d, data) {
		w.t.Fatalf("got channel %x, command %02x, %x; want channel %x, command %02x, %x", c, m, d, channel, cmd, data)
	}
}

// open gets a channel.
func (w *wire) open() uint32 {
	w.t.Helper()
	nonce := []byte("nonce123")
	w.send(broadcast, initialise, nonce)
	c, m, d := w.receive()
	if c != broadcast || m != initialise || len(d) != 17 || !bytes.Equal(d[:8], nonce) || d[12] != 2 || d[16] != 0x0c {
		w.t.Fatalf("INIT is answered on %x with %02x, %x", c, m, d)
	}
	return binary.BigEndian.Uint32(d[8:])
}

// touchKey is a key whose user touches when told to.
func touchKey(t *testing.T) (*softkey.Key, chan bool) {
	touches := make(chan bool)
	return newKey(t, softkey.Options{Touch: func(ctx context.Context) bool {
		select {
		case yes := <-touches:
			return yes
		case <-ctx.Done():
			return false
		}
	}}), touches
}

const selection = 0x0b // waits for a touch, and nothing else

func TestPingsOfEverySizeComeBack(t *testing.T) {
	w := serve(t, newKey(t, softkey.Options{}))
	c := w.open()
	for _, n := range []int{0, 1, 56, 57, 58, 116, 117, 1000, 7608, 7609} {
		data := bytes.Repeat([]byte{byte(n), 0x5a}, n/2+1)[:n]
		sent := make(chan struct{})
		go func() { w.send(c, ping, data); close(sent) }()
		w.want(c, ping, data...)
		<-sent
	}
}

func TestEachChannelIsItsOwn(t *testing.T) {
	w := serve(t, newKey(t, softkey.Options{}))
	a, b := w.open(), w.open()
	if a == b || a == 0 || b == 0 {
		t.Fatalf("channels %x and %x", a, b)
	}
	for _, c := range []uint32{0, b + 1, 0xfffffffe} {
		w.send(c, ping, []byte("x"))
		w.want(c, failure, 0x0b)
	}
	w.send(broadcast, ping, []byte("x"))
	w.want(broadcast, failure, 0x0b)
	// INIT on a channel in use answers the same channel.
	w.send(b, initialise, []byte("12345678"))
	w.want(b, initialise, append([]byte("12345678"), 0, 0, 0, byte(b), 2, 0, 1, 0, 0x0c)...)
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	w := serve(t, newKey(t, softkey.Options{}))
	c, other := w.open(), w.open()
	w.put(first(c, ping, 7610, nil))
	w.want(c, failure, 0x03)
	w.put(first(broadcast, initialise, 7, nil))
	w.want(broadcast, failure, 0x03)
	w.send(c, cborCommand, nil)
	w.want(c, failure, 0x03)
	for _, cmd := range []byte{0x03, 0x04, 0x08, 0x3b, 0x3f, 0x7f} {
		w.send(c, cmd, []byte("x"))
		w.want(c, failure, 0x01)
	}
	w.put(first(c, ping, 200, nil))
	w.put(further(c, 1, nil))
	w.want(c, failure, 0x04)
	w.put(further(c, 0, nil)) // of a message that was given up: no answer
	w.put(first(c, ping, 200, nil))
	w.put(first(other, ping, 1, nil))
	w.want(other, failure, 0x06)
	w.put(further(other, 0, nil)) // not its message: no answer
	w.put(first(c, ping, 1, nil))
	w.want(c, failure, 0x04)
	w.put(first(c, ping, 200, nil))
	w.send(c, initialise, []byte("12345678")) // begins anew
	if _, cmd, _ := w.receive(); cmd != initialise {
		t.Errorf("INIT within a message is answered with %02x", cmd)
	}
	w.send(c, ping, []byte("x"))
	w.want(c, ping, 'x')
	w.send(c, cborCommand, []byte{0x99})
	w.want(c, cborCommand, 0x01)
	w.send(c, cborCommand, []byte{0x01, 0xff})
	w.want(c, cborCommand, 0x12)
}

func TestAMessageThatStopsHalfwayTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serve(t, newKey(t, softkey.Options{}))
		c := w.open()
		begun := time.Now()
		w.put(first(c, ping, 200, nil))
		w.want(c, failure, 0x05)
		if took := time.Since(begun); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		w.send(c, ping, []byte("x"))
		w.want(c, ping, 'x')
	})
}

func TestAWaitingKeySaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, touches := touchKey(t)
		w := serve(t, k)
		c := w.open()
		begun := time.Now()
		w.send(c, cborCommand, []byte{selection})
		for range 5 {
			w.want(c, keepalive, 2)
		}
		if took := time.Since(begun); took < 400*time.Millisecond || took > time.Second {
			t.Errorf("five keep-alives took %v", took)
		}
		touches <- true
		w.want(c, cborCommand, 0)
		// And when nobody touches it, it gives up.
		begun = time.Now()
		w.send(c, cborCommand, []byte{selection})
		for {
			_, cmd, data := w.receive()
			if cmd == keepalive {
				continue
			}
			if cmd != cborCommand || !bytes.Equal(data, []byte{0x2f}) {
				t.Errorf("got %02x %x", cmd, data)
			}
			break
		}
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("it gave up after %v", took)
		}
	})
}

func TestACommandIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, touches := touchKey(t)
		w := serve(t, k)
		c, other := w.open(), w.open()
		w.send(c, cancel, nil) // of nothing: no answer
		w.send(c, cborCommand, []byte{selection})
		w.want(c, keepalive, 2)
		w.send(other, cborCommand, []byte{selection})
		w.want(other, failure, 0x06)
		w.send(c, ping, nil)
		w.want(c, failure, 0x06)
		w.send(other, cancel, nil) // not its command
		w.want(c, keepalive, 2)
		w.send(c, cancel, nil)
		w.want(c, cborCommand, 0x2d)

		w.send(c, cborCommand, []byte{selection})
		w.want(c, keepalive, 2)
		w.send(c, initialise, []byte("12345678")) // ends it without an answer
		if _, cmd, _ := w.receive(); cmd != initialise {
			t.Errorf("INIT is answered with %02x", cmd)
		}
		w.send(other, cborCommand, []byte{selection})
		w.want(other, keepalive, 2)
		touches <- true
		w.want(other, cborCommand, 0)
	})
}

func TestAKeyThatIsPulledOutEndsItsCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := touchKey(t)
		w := serve(t, k)
		w.send(w.open(), cborCommand, []byte{selection})
		synctest.Wait()
		w.Close()
		synctest.Wait()
		// The command has ended, so the key takes another.
		if got := k.Command(t.Context(), []byte{0x04}); got[0] != 0 {
			t.Errorf("getInfo answers %x", got[0])
		}
	})
}
