package api

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
	"testing/iotest"
)

// readerConn is a connection whose other end is a reader.
type readerConn struct {
	net.Conn
	r io.Reader
}

func (c *readerConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Whatever the pieces are in which the network delivers records, TLS gets each
// whole and alone, and what it read the last one into is wiped by the next.
func TestRecordsAreHandedOutOneByOneAndWipedAfterUse(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var sizes []int
	for range 60 {
		n := random.IntN(6_000)
		if random.IntN(8) == 0 {
			n = 0
		}
		record := make([]byte, recordHeader+n)
		for i := range record {
			record[i] = byte(1 + random.IntN(255))
		}
		record[3], record[4] = byte(n>>8), byte(n)
		stream, sizes = append(stream, record...), append(sizes, n)
	}
	for name, piece := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "bytes": iotest.OneByteReader,
	} {
		t.Run(name, func(t *testing.T) {
			c := &recordConn{Conn: &readerConn{r: piece(bytes.NewReader(stream))}}
			rest := stream
			var last []byte
			for i, n := range sizes {
				room := make([]byte, recordHeader+n+512) // TLS asks for more than it needs
				for got := 0; got < recordHeader+n; {
					k, err := c.Read(room[got:])
					if err != nil {
						t.Fatalf("record %d: %v", i, err)
					}
					if got == 0 && len(bytes.Trim(last, "\x00")) > 0 {
						t.Fatalf("record %d is not wiped when the next one is read", i-1)
					}
					if got < recordHeader && got+k > recordHeader || got+k > recordHeader+n {
						t.Fatalf("record %d: %d bytes at once behind %d", i, k, got)
					}
					got += k
				}
				if !bytes.Equal(room[:recordHeader+n], rest[:recordHeader+n]) {
					t.Fatalf("record %d came altered", i)
				}
				rest, last = rest[recordHeader+n:], room[recordHeader:recordHeader+n]
			}
			if _, err := c.Read(make([]byte, 64)); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

// TLS itself works over it, in both versions, with what is larger than a record.
func TestTLSWorksOverRecords(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, certFile, keyFile)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := tlsListener{inner, &tls.Config{Certificates: []tls.Certificate{pair}}}
		done := make(chan error, 1)
		go func() {
			c, err := tls.Dial("tcp", inner.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
			if err == nil {
				_, err = c.Write(sent)
				c.Close()
			}
			done <- err
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(bufio.NewReaderSize(c, 4<<10)) // as net/http reads
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %d bytes, %v", tls.VersionName(version), len(got), err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.Close()
		inner.Close()
	}
}
