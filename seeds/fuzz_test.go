package seeds

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

// metered reads a file in small pieces and fails the test when the memory that
// is in use at any piece goes beyond ten times the file and 1 MB.
type metered struct {
	t            testing.TB
	r            io.Reader
	before, most uint64
}

func meter(t testing.TB, file []byte) *metered {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return &metered{t: t, r: bytes.NewReader(file), before: m.HeapAlloc, most: uint64(10*len(file)) + 1<<20}
}

func (m *metered) Read(p []byte) (int, error) {
	m.check()
	return m.r.Read(p[:min(len(p), 4096)])
}

func (m *metered) check() {
	var s runtime.MemStats
	if runtime.ReadMemStats(&s); s.HeapAlloc > m.before+m.most {
		runtime.GC() // garbage does not count
		if runtime.ReadMemStats(&s); s.HeapAlloc > m.before+m.most {
			m.t.Fatalf("%d KB in use, %d are allowed", (s.HeapAlloc-m.before)>>10, m.most>>10)
		}
	}
}

// readable checks what every reader promises of every file.
func readable(t *testing.T, f *Format, file []byte) {
	readableWith(t, f, file, OpenOptions{Now: time.Unix(1_800_000_000, 0)})
}

func readableWith(t *testing.T, f *Format, file []byte, o OpenOptions) {
	in := meter(t, file)
	rd := f.Open(in, o)
	defer rd.Close()
	for place := -1; ; {
		rec, err := rd.Next()
		if err != nil {
			if err != io.EOF && (!errors.Is(err, tokens.ErrInvalid) || err.Error() == "") {
				t.Fatalf("%v", err)
			}
			break
		}
		if rec.Line < place || rec.Line < 1 {
			t.Fatalf("line %d after line %d", rec.Line, place)
		}
		place = rec.Line
		if rec.Err != nil {
			if len(rec.Seed) > 0 {
				t.Fatalf("a bad record with a seed: %v", rec.Err)
			}
			if rec.Serial != "" && tokens.ValidSerial(rec.Serial) != nil {
				t.Fatalf("a bad record shows the serial %q", rec.Serial)
			}
			continue
		}
		if err := rec.check(); err != nil {
			t.Fatalf("a good record is none: %v", err)
		}
		// What is good here must be good in the core too.
		token := tokens.Token{Serial: rec.Serial, Type: rec.Type, Algorithm: rec.Algorithm, Digits: rec.Digits, Period: rec.Period}
		if err := token.Valid(); err != nil {
			t.Fatalf("the core would refuse it: %v", err)
		}
	}
	in.check()
}

func FuzzCSV(f *testing.F) {
	for _, file := range []string{
		"", "\n", "A1", "A1,", csvOf("A1", "A2"), "serial,seed\r\n" + csvOf("A1"), "\xef\xbb\xbf# version: 1\n" + csvOf("A1"),
		`"A""1","` + rfcSeed + `",hotp,8,17,sha256`, "A1," + rfcSeed + ",totp,8,60,sha512", `"A1`, `A"1,x`, "A1," + rfcSeed + ",,,,,,,,,,", "# version: 2\n", "# version: 2\nalice,ldap,corp,A1," + rfcSeed + ",hotp,6,5\n", "model,hash,seed,serial\nx,sha256," + rfcSeed + ",A1\n",
		strings.Repeat("A", maxLine+10), strings.Repeat("\n", 100), "A1,\x00\xff", rfcSeed + "," + rfcSeed, "serial,seed,type,digits,period,hash\nA,B",
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) { readable(t, &oathCSV, file) })
}

func FuzzDetect(f *testing.F) {
	for _, file := range []string{"", "\xef\xbb\xbf", csvOf("A1"), container, "<a", "PK\x03\x04", "<!DOCTYPE a>", `"`, "serial,seed", "\xff\xfe"} {
		f.Add([]byte(file), true)
		f.Add([]byte(file), false)
	}
	f.Fuzz(func(t *testing.T, prefix []byte, whole bool) {
		if len(prefix) > prefixSize {
			prefix = prefix[:prefixSize]
		}
		before := bytes.Clone(prefix)
		format, reason, err := Detect(prefix, whole)
		if (format == nil) != (err != nil) || err == nil && reason == "" || err != nil && !errors.Is(err, tokens.ErrInvalid) {
			t.Fatalf("%v, %q, %v", format, reason, err)
		}
		if !bytes.Equal(prefix, before) {
			t.Fatal("the prefix was written to")
		}
		if format != nil && whole {
			readable(t, format, prefix)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	for _, file := range []string{"", "\n", "12345678901234567890123456789012\n", strings.Repeat("0f", 32), strings.Repeat("\x00", 24), "1234567890123456\r\n"} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		before := bytes.Clone(file)
		key, err := ParseKeyFile(file)
		if !bytes.Equal(file, before) {
			t.Fatal("the file was written to")
		}
		switch len(key) {
		case 0:
			if !errors.Is(err, tokens.ErrInvalid) {
				t.Fatalf("%v", err)
			}
		case 16, 24, 32:
			if err != nil {
				t.Fatalf("%v", err)
			}
			// A newline more changes nothing, unless there is one already.
			again, err := ParseKeyFile(append(before, '\n'))
			if !bytes.HasSuffix(file, []byte("\n")) && !bytes.HasSuffix(file, []byte("\r")) && (err != nil || !bytes.Equal(again, key)) {
				t.Fatalf("%x with a newline is %x, %v", key, again, err)
			}
		default:
			t.Fatalf("a key of %d bytes", len(key))
		}
		ParsePasswordFile(file)
	})
}
