package softkey

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// A CTAPHID report, either way (CTAP 2.1 §11.2.4):
//
//	channel (4) || command | 0x80 (1) || length (2) || data (57)     the first
//	channel (4) || sequence (1)               || data (59)     each that follows
const (
	reportSize  = 64
	firstData   = reportSize - 7
	furtherData = reportSize - 5
)

// Commands of CTAPHID (§11.2.9).
const (
	hidPing      = 0x01
	hidInit      = 0x06
	hidCBOR      = 0x10
	hidCancel    = 0x11
	hidKeepalive = 0x3b
	hidError     = 0x3f
)

// Errors of CTAPHID (§11.2.9.1.6).
const (
	hidInvalidCommand  = 0x01
	hidInvalidLength   = 0x03
	hidInvalidSequence = 0x04
	hidTimeout         = 0x05
	hidBusy            = 0x06
	hidInvalidChannel  = 0x0b
)

const (
	hidBroadcast = 0xffffffff
	hidVersion   = 2
	// Capabilities: CBOR, and no CTAP1.
	hidCapabilities = 0x04 | 0x08

	keepaliveProcessing = 1
	keepaliveTouch      = 2

	keepaliveEvery = 100 * time.Millisecond
	messageTimeout = 3 * time.Second // for all reports of a message to arrive
)

// ServeHID is a security key's USB interface: it reads CTAPHID reports of 64
// bytes, runs the commands that they carry and writes the answers in reports of
// 64 bytes. It returns nil once there is nothing more to read, and an error if
// reading or writing failed, when the port is to be closed; the command that was
// under way has ended. Plugging a key in is a power cycle. A Key can be served in
// one place at a time.
func (k *Key) ServeHID(port io.ReadWriter) error {
	k.PowerCycle()
	h := &hid{key: k, port: port, done: make(chan []byte, 1)}
	reports := make(chan [reportSize]byte)
	failed := make(chan error, 1)
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		for {
			var report [reportSize]byte
			if _, err := io.ReadFull(port, report[:]); err != nil {
				failed <- err
				return
			}
			select {
			case reports <- report:
			case <-stopped:
				return
			}
		}
	}()
	err := h.run(reports, failed)
	h.end()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("softkey: CTAPHID: %w", err)
}

// hid is the state of a CTAPHID device. One goroutine has it.
type hid struct {
	key  *Key
	port io.ReadWriter

	// Channels are given out in order: those up to channels are in use. So a
	// client cannot use up memory with them.
	channels uint32

	// The message that is arriving; want is 0 if there is none.
	channel  uint32
	cmd      byte
	message  []byte
	want     int
	sequence byte
	deadline time.Time

	// The command that is running; cancel is nil if there is none.
	runs   uint32 // on this channel
	cancel context.CancelFunc
	done   chan []byte
}

func (h *hid) run(reports <-chan [reportSize]byte, failed <-chan error) error {
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case report := <-reports:
			err = h.report(report[:])
		case answer := <-h.done:
			h.cancel()
			h.cancel = nil
			err = h.write(h.runs, hidCBOR, answer)
		case now := <-tick.C:
			err = h.tick(now)
		case err := <-failed:
			return err
		}
		if err != nil {
			return err
		}
	}
}

func (h *hid) tick(now time.Time) error {
	if h.want > 0 && now.After(h.deadline) {
		h.want = 0
		return h.fail(h.channel, hidTimeout)
	}
	if h.cancel == nil {
		return nil
	}
	state := byte(keepaliveProcessing)
	if h.key.waiting.Load() {
		state = keepaliveTouch
	}
	return h.write(h.runs, hidKeepalive, []byte{state})
}

// report takes one report.
func (h *hid) report(r []byte) error {
	channel := binary.BigEndian.Uint32(r)
	if r[4]&0x80 == 0 {
		return h.further(channel, r[4], r[5:])
	}
	cmd, length := r[4]&0x7f, int(binary.BigEndian.Uint16(r[5:]))
	known := channel != 0 && channel <= h.channels
	switch {
	case channel == hidBroadcast && cmd != hidInit, channel != hidBroadcast && !known:
		return h.fail(channel, hidInvalidChannel)
	case cmd == hidInit && length != 8, length > maxMessage:
		return h.fail(channel, hidInvalidLength)
	case cmd == hidInit:
		return h.init(channel, r[7:7+8])
	case cmd == hidCancel:
		if h.cancel != nil && h.runs == channel {
			h.cancel() // the command itself answers
		}
		return nil
	case h.cancel != nil, h.want > 0 && h.channel != channel:
		return h.fail(channel, hidBusy)
	case h.want > 0:
		h.want = 0
		return h.fail(channel, hidInvalidSequence)
	}
	h.channel, h.cmd, h.want, h.sequence = channel, cmd, length, 0
	h.message = append(h.message[:0], r[7:7+min(length, firstData)]...)
	if length <= firstData {
		return h.complete()
	}
	h.deadline = time.Now().Add(messageTimeout)
	return nil
}

// further takes a report that continues a message.
func (h *hid) further(channel uint32, sequence byte, data []byte) error {
	if h.want == 0 || h.channel != channel {
		return nil // of a message that was given up
	}
	if sequence != h.sequence {
		h.want = 0
		return h.fail(channel, hidInvalidSequence)
	}
	h.sequence++
	h.message = append(h.message, data[:min(h.want-len(h.message), furtherData)]...)
	if len(h.message) < h.want {
		return nil
	}
	return h.complete()
}

// complete runs a message's command.
func (h *hid) complete() error {
	h.want = 0
	switch h.cmd {
	case hidPing:
		return h.write(h.channel, hidPing, h.message)
	case hidCBOR:
		if len(h.message) == 0 {
			return h.fail(h.channel, hidInvalidLength)
		}
		ctx, cancel := context.WithCancel(context.Background())
		h.runs, h.cancel = h.channel, cancel
		request := append([]byte(nil), h.message...)
		go func() { h.done <- h.key.Command(ctx, request) }()
		return nil
	}
	return h.fail(h.channel, hidInvalidCommand)
}

// end ends the command that is running, if there is one; it is not answered.
func (h *hid) end() {
	if h.cancel != nil {
		h.cancel()
		<-h.done
		h.cancel = nil
	}
}

// init gives a new client a channel, or ends what a known one had begun.
func (h *hid) init(channel uint32, nonce []byte) error {
	given := channel
	if channel == hidBroadcast {
		h.channels++
		if h.channels >= hidBroadcast-1 {
			h.channels = 1
		}
		given = h.channels
	} else {
		if h.want > 0 && h.channel == channel {
			h.want = 0
		}
		if h.runs == channel {
			h.end()
		}
	}
	answer := append(make([]byte, 0, 17), nonce...)
	answer = binary.BigEndian.AppendUint32(answer, given)
	answer = append(answer, hidVersion, 0, firmware, 0, hidCapabilities)
	return h.write(channel, hidInit, answer)
}

func (h *hid) fail(channel uint32, code byte) error {
	return h.write(channel, hidError, []byte{code})
}

// write sends a message in as many reports as it takes.
func (h *hid) write(channel uint32, cmd byte, data []byte) error {
	var report [reportSize]byte
	binary.BigEndian.PutUint32(report[:], channel)
	report[4] = cmd | 0x80
	binary.BigEndian.PutUint16(report[5:], uint16(len(data)))
	n := copy(report[7:], data)
	for sequence := byte(0); ; sequence++ {
		if _, err := h.port.Write(report[:]); err != nil {
			return err
		}
		if data = data[n:]; len(data) == 0 {
			return nil
		}
		clear(report[4:])
		report[4] = sequence
		n = copy(report[5:], data)
	}
}
