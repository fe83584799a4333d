package softkey_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"watchword/webauthn/softkey"
)

// commandSeeds are commands as platforms send them.
func commandSeeds(f *testing.F) [][]byte {
	command := func(cmd byte, parameters map[int]any) []byte {
		b, err := cbor.Marshal(parameters)
		if err != nil {
			f.Fatal(err)
		}
		return append([]byte{cmd}, b...)
	}
	hash := bytes.Repeat([]byte{7}, 32)
	point := map[int]any{1: 2, 3: -25, -1: 1, -2: hash, -3: hash}
	user := map[string]any{"id": []byte("alice"), "name": "alice", "displayName": "Alice"}
	algorithms := []any{map[string]any{"alg": -7, "type": "public-key"}}
	listed := []any{map[string]any{"id": hash, "type": "public-key"}}
	return [][]byte{
		{0x04}, {0x07}, {0x08}, {0x0b},
		command(0x01, map[int]any{1: hash, 2: map[string]any{"id": rpID, "name": "x"}, 3: user, 4: algorithms, 5: listed,
			6: map[string]any{"credProtect": 2, "hmac-secret": true}, 7: map[string]any{"rk": true, "uv": false}}),
		command(0x01, map[int]any{1: hash, 2: map[string]any{"id": rpID}, 3: user, 4: algorithms, 8: hash, 9: 2, 10: 1}),
		command(0x02, map[int]any{1: rpID, 2: hash, 5: map[string]any{"up": true}}),
		command(0x02, map[int]any{1: rpID, 2: hash, 3: listed, 4: map[string]any{"hmac-secret": map[int]any{1: point, 2: hash, 3: hash, 4: 2}}, 6: hash, 7: 2}),
		command(0x06, map[int]any{2: 1}), command(0x06, map[int]any{1: 2, 2: 2}), command(0x06, map[int]any{2: 7}),
		command(0x06, map[int]any{1: 2, 2: 3, 3: point, 4: hash, 5: bytes.Repeat(hash, 2)}),
		command(0x06, map[int]any{1: 1, 2: 4, 3: point, 4: hash, 5: bytes.Repeat(hash, 2), 6: hash[:16]}),
		command(0x06, map[int]any{1: 1, 2: 5, 3: point, 6: hash[:16]}),
		command(0x06, map[int]any{1: 2, 2: 9, 3: point, 6: hash, 9: 3, 10: rpID}),
		command(0x0a, map[int]any{1: 4, 2: map[int]any{1: hash}, 3: 2, 4: hash}), command(0x0a, map[int]any{1: 3}),
		command(0x0d, map[int]any{1: 3, 2: map[int]any{1: 8, 3: true}, 3: 1, 4: hash}), command(0x0d, map[int]any{1: 2}),
	}
}

// FuzzCommand sends a few commands, each behind its length, to one key: it must
// answer each with a status, and CBOR after a good one.
func FuzzCommand(f *testing.F) {
	join := func(commands ...[]byte) (all []byte) {
		for _, c := range commands {
			all = append(binary.BigEndian.AppendUint16(all, uint16(len(c))), c...)
		}
		return all
	}
	seeds := commandSeeds(f)
	for _, s := range seeds {
		f.Add(join(s))
	}
	f.Add(join(seeds...))
	f.Add(join(seeds[4], seeds[4], seeds[6], seeds[2]))
	vendor := maker()
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := softkey.New(softkey.Options{Vendor: vendor, Algorithm: softkey.ES256, Capacity: 2, Serial: "1"})
		if err != nil {
			t.Fatal(err)
		}
		for range 32 {
			if len(data) < 2 {
				return
			}
			n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			answer := k.Command(context.Background(), data[2:2+n])
			data = data[2+n:]
			if len(answer) == 0 || len(answer) > 7609 {
				t.Fatalf("an answer of %d bytes", len(answer))
			}
			if answer[0] == 0x7f {
				t.Fatal("a fault of the key's own")
			}
			if len(answer) > 1 && (answer[0] != 0 || cbor.Wellformed(answer[1:]) != nil) {
				t.Fatalf("the answer %x", answer)
			}
		}
	})
}

// fuzzWire feeds reports to a key and looks at those that come back.
type fuzzWire struct {
	t      *testing.T
	input  []byte
	open   int // reports that the message that comes back still needs
	onward uint32
}

func (w *fuzzWire) Read(p []byte) (int, error) {
	if len(w.input) == 0 {
		time.Sleep(time.Millisecond) // let a command end
		return 0, io.EOF
	}
	n := copy(p, w.input)
	w.input = w.input[n:]
	return n, nil
}

func (w *fuzzWire) Write(p []byte) (int, error) {
	if len(p) != 64 {
		w.t.Errorf("a report of %d bytes", len(p))
		return 0, io.ErrShortWrite
	}
	channel := binary.BigEndian.Uint32(p)
	switch {
	case p[4]&0x80 != 0 && w.open > 0:
		w.t.Error("a message begins within another")
	case p[4]&0x80 != 0:
		length := int(binary.BigEndian.Uint16(p[5:]))
		w.open, w.onward = (max(length-57, 0)+58)/59, channel
	case w.open == 0 || channel != w.onward:
		w.t.Error("a report continues nothing")
	default:
		w.open--
	}
	return len(p), nil
}

// FuzzHID sends reports to a key. Those whose first byte is below 0xf0 are sent
// on the first channel, so that most get further than that.
func FuzzHID(f *testing.F) {
	for _, s := range commandSeeds(f) {
		var reports []byte
		reports = append(reports, first(1, cborCommand, len(s), s)...)
		for i := byte(0); len(s) > 57+59*int(i); i++ {
			reports = append(reports, further(1, i, s[57+59*int(i):])...)
		}
		f.Add(reports)
	}
	f.Add(append(first(0xffffffff, initialise, 8, nil), first(2, ping, 3, []byte("abc"))...))
	f.Add(append(first(1, ping, 7609, nil), further(1, 1, nil)...))
	f.Add(append(first(1, cborCommand, 1, []byte{selection}), first(1, cancel, 0, nil)...))
	vendor := maker()
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := softkey.New(softkey.Options{Vendor: vendor, Algorithm: softkey.ES256, Capacity: 2})
		if err != nil {
			t.Fatal(err)
		}
		input := first(broadcast, initialise, 8, nil)
		for ; len(data) >= 5 && len(input) < 64*64; data = data[min(64, len(data)):] {
			report := make([]byte, 64)
			copy(report, data)
			if report[0] < 0xf0 {
				binary.BigEndian.PutUint32(report, 1)
			}
			input = append(input, report...)
		}
		w := &fuzzWire{t: t, input: input}
		if err := k.ServeHID(w); err != nil {
			t.Fatal(err)
		}
		if w.open > 0 {
			t.Error("the last message is not whole")
		}
	})
}

// FuzzBrowser gives Register and Assert options of any kind.
func FuzzBrowser(f *testing.F) {
	f.Add(creation("AAAA", `,"attestation":"direct","extensions":{"credProps":true}`), origin)
	f.Add(request("AAAA", allow([]byte("some credential"))), origin)
	f.Add([]byte(`{"publicKey":{"rp":{},"user":{"id":"AA"}}}`), "http://localhost:8080")
	k, err := softkey.New(softkey.Options{Vendor: maker(), Algorithm: softkey.ES256, Capacity: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, options []byte, origin string) {
		if response, err := k.Register(options, origin); (err == nil) != (len(response) > 0) {
			t.Errorf("Register answers %q, %v", response, err)
		}
		if response, err := k.Assert(options, origin); (err == nil) != (len(response) > 0) {
			t.Errorf("Assert answers %q, %v", response, err)
		}
	})
}
