package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"watchword/tokens"
)

const verifyBody = `{"user":"alice","code":"755224"}`

func instantCore() *scripted {
	return &scripted{verifying: func(context.Context, tokens.Attempt) (tokens.Result, error) {
		return tokens.Result{Accept: true, Serial: "24680017"}, nil
	}}
}

// BenchmarkVerify is what HTTP costs beside the core, without a network.
func BenchmarkVerify(b *testing.B) {
	h := newServer(b, instantCore()).Handler()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		body := bytes.NewReader(nil)
		r := httptest.NewRequest("POST", "/v1/verify", body)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+testKey)
		r.Body, r.ContentLength = io.NopCloser(body), int64(len(verifyBody))
		for pb.Next() {
			body.Reset([]byte(verifyBody))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				b.Fatal(w.Code, w.Body)
			}
		}
	})
}

// BenchmarkVerifyOverTCP is the same with net/http and the loopback between,
// over connections that are kept alive, the client's work included.
func BenchmarkVerifyOverTCP(b *testing.B) {
	addr := serve(b, newServer(b, instantCore()))
	request := fmt.Appendf(nil, "POST /v1/verify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		testKey, len(verifyBody), verifyBody)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for pb.Next() {
			if _, err := conn.Write(request); err != nil {
				b.Error(err)
				return
			}
			answer, err := http.ReadResponse(in, nil)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
				b.Error(err, answer.Status)
				return
			}
			answer.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "verifies/s")
}
