package seeds

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"

	"watchword/tokens"
)

// chunk is a run of records on its way from the parser to the core. Its seeds
// lie in one buffer, which is wiped when the core has answered.
type chunk struct {
	tokens []tokens.NewToken
	items  []item
	arena  []byte
	bytes  int64 // of the file, read so far
	err    error // what the file ended with after this chunk: io.EOF if well

	transported bool // it holds seeds that are encrypted to the transport key
}

// item is one record of a chunk, in the file's order.
type item struct {
	line, key int
	serial    string
	user      string // that the file names
	token     int    // index into tokens; -1 for a bad record
	reason    string // of a bad record
}

func newChunk() *chunk {
	return &chunk{
		tokens: make([]tokens.NewToken, 0, chunkSize),
		items:  make([]item, 0, chunkSize),
		arena:  make([]byte, 0, chunkSize*MaxSeed),
	}
}

// wipe forgets the chunk's records and their seeds.
func (c *chunk) wipe() {
	clear(c.arena)
	clear(c.tokens)
	clear(c.items)
	c.tokens, c.items, c.arena, c.transported = c.tokens[:0], c.items[:0], c.arena[:0], false
}

// add takes a record over; its seed is copied. to is the key that it is encrypted
// to, if it is.
func (c *chunk) add(r *Record, to *rsa.PublicKey) {
	it := item{line: r.Line, key: r.Key, serial: r.Serial, user: r.User, token: -1}
	if r.Err != nil {
		it.reason = r.Err.Error()
		c.items = append(c.items, it)
		return
	}
	it.token = len(c.tokens)
	public, private := r.identities(&c.arena)
	start := len(c.arena)
	c.arena = append(c.arena, r.Seed...) // within its capacity: readers check MaxSeed
	c.items = append(c.items, it)
	c.tokens = append(c.tokens, tokens.NewToken{
		Serial: r.Serial, Type: r.Type, Algorithm: r.Algorithm, Digits: r.Digits, Period: r.Period,
		Counter: r.Counter, Drift: r.drift(), Model: r.Model, PublicID: public, PrivateID: private,
		Seed:    c.arena[start:len(c.arena):len(c.arena)],
		Expires: r.Expires, User: r.User, UserRealm: r.UserRealm,
	})
	if r.Transported != nil {
		n, t := &c.tokens[it.token], *r.Transported
		t.Ciphertext, t.Label = bytes.Clone(t.Ciphertext), bytes.Clone(t.Label)
		n.Seed, n.Transported, n.TransportKey = nil, &t, to
		c.transported = true
	}
}

// parse reads records into chunks until the file ends, well or not, or ctx is
// over. The last chunk carries the error that it ended with.
func parse(ctx context.Context, reader Reader, src *source, free <-chan *chunk, full chan<- *chunk) {
	seen := newSerials()
	records := 0
	for {
		var c *chunk
		select {
		case c = <-free:
		case <-ctx.Done():
			return
		}
		c.err = fillChunk(c, reader, seen, &records)
		c.bytes = src.n
		done := c.err != nil
		full <- c // never blocks: there is room for every chunk
		if done {
			return
		}
	}
}

// fillChunk reads as many records as a chunk holds. A parser that panics, on
// whatever a file may hold, ends the import and not the server.
func fillChunk(c *chunk, reader Reader, seen *serials, records *int) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("an internal error while reading the file, after record " + fmt.Sprint(*records))
		}
	}()
	for len(c.items) < chunkSize {
		r, err := reader.Next()
		if err != nil {
			return fileError(err)
		}
		if *records++; *records > MaxRecords {
			return &FileError{Line: r.Line, Reason: fmt.Sprintf("more than %d records; split the file", MaxRecords)}
		}
		if r.Err == nil && !seen.add(r.Serial) {
			r.fail("the serial occurs already earlier in this file")
		}
		var to *rsa.PublicKey
		if t, ok := reader.(interface{ TransportKey() *rsa.PublicKey }); ok && r.Transported != nil {
			to = t.TransportKey()
		}
		c.add(r, to)
	}
	return nil
}

// fileError lets a *FileError inside err speak for itself.
func fileError(err error) error {
	var bad *FileError
	if err == io.EOF || !errors.As(err, &bad) {
		return err
	}
	return bad
}
