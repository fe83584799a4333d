package pskc

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// metered reads a file in small pieces and fails the test when the memory that
// is in use at any piece goes beyond ten times the file and 1 MB.
type metered struct {
	t      testing.TB
	r      io.Reader
	before uint64
	most   uint64
}

func meter(t testing.TB, file string) *metered {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return &metered{t: t, r: strings.NewReader(file), before: m.HeapAlloc, most: uint64(10*len(file)) + 1<<20}
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

func FuzzPSKC(f *testing.F) {
	good := keyPackage("A1", totpURI, eight, plainSeed+"<Time><PlainValue>0</PlainValue></Time><TimeDrift><PlainValue>-1</PlainValue></TimeDrift>")
	for _, file := range []string{
		"", "<", "text", figure6, figure7, wrapXML("", good, keyPackage("A2", hotpURI, eight, plainSeed+counter0)),
		wrapXML(figure6Header, keyPackage("A1", hotpURI, "<Policy><KeyUsage>OTP</KeyUsage></Policy>", figure6Seed+strings.Replace(figure6Seed, "Secret", "Counter", 2))),
		"<?xml version='0'?>", "<!DOCTYPE a [<!ENTITY b 'c'>]>" + wrapXML("", good), "<?xml version='1.0' encoding='latin1'?>" + wrapXML("", good),
		wrapXML("<Extensions><a><b/></a></Extensions>", "<![CDATA[x]]><!-- x -->&#65;"), strings.Repeat("<a>", 100),
	} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file string) {
		if strings.Contains(file, "IterationCount") && !strings.Contains(file, ">1000<") {
			t.Skip("PBKDF2 takes as long as it is asked to")
		}
		in := meter(t, file)
		rd := NewReader(in, Options{Key: mustHex(figureKey), Password: []byte("qwerty")})
		defer rd.Close()
		for n := 1; ; n++ {
			k, err := rd.Next()
			if err != nil {
				var bad *Error
				if err != io.EOF && (!errors.As(err, &bad) || bad.Line < 1 || bad.Reason == "") {
					t.Fatalf("%v", err)
				}
				break
			}
			if k.Number != n || k.Err != nil && len(k.Secret) > 0 {
				t.Fatalf("key %d: %+v", n, k)
			}
			if k.Err == nil && (len(k.Secret) == 0 || k.Algorithm != HOTP && k.Algorithm != TOTP || k.Digits < 1) {
				t.Fatalf("key %d is good: %+v", n, k)
			}
		}
		if _, err := rd.Next(); err == nil {
			t.Fatal("Next goes on after the end")
		}
		in.check()
	})
}

// packages is a container of n encrypted keys that is never in memory.
type packages struct {
	n    int
	left string
	end  bool
}

func (p *packages) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if p.left == "" {
			switch {
			case p.n > 0:
				p.left = encryptedPackage
				p.n--
			case !p.end:
				p.left, p.end = "</KeyContainer>", true
			default:
				return n, io.EOF
			}
		}
		k := copy(b[n:], p.left)
		p.left = p.left[k:]
		n += k
	}
	return n, nil
}

var encryptedPackage = keyPackage("A1", hotpURI, eight, figure6Seed+counter0)

func BenchmarkEncryptedKeys(b *testing.B) {
	head := wrapXML(figure6Header)
	rd := NewReader(&packages{n: b.N, left: head[:strings.Index(head, "</KeyContainer>")]}, figure6Options)
	b.ReportAllocs()
	b.SetBytes(int64(len(encryptedPackage)))
	for range b.N {
		if k, err := rd.Next(); err == io.EOF {
			rd = NewReader(&packages{n: b.N, left: head[:strings.Index(head, "</KeyContainer>")]}, figure6Options)
		} else if err != nil || k.Err != nil {
			b.Fatal(k.Err, err)
		}
	}
}
