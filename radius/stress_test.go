package radius

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	layeh "layeh.com/radius"

	"watchword/tokens"
)

// Gateways, watchers, tests in a client's place and changes of the client go on at once,
// and the server ends in the middle of it: whoever is answered is answered rightly, and
// nothing stays behind.
func TestAllAtOnceAndThenTheEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, apart := range []bool{false, true} {
		core := oneClient()
		core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
			switch {
			case a.Code == goodCode:
				return tokens.Result{Accept: true, Groups: []string{"a", "staff"}}, nil
			case len(a.Dialogues) > 0 && a.State == nil:
				return tokens.Result{Challenge: &tokens.Challenge{Question: tokens.QuestionCode, State: []byte("state")}}, nil
			}
			return tokens.Result{}, nil
		}
		s, err := New(core, Config{Listen: []string{"127.0.0.1:0"}, Readers: 3, Apart: apart, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(context.Background()) }()
		at := s.Listening()[0]
		stop := make(chan struct{})
		var all sync.WaitGroup
		loop := func(f func(i int)) {
			all.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
						f(i)
					}
				}
			})
		}
		plainClient := core.clients[0]
		loop(func(i int) {
			c := *plainClient
			c.Rate = []int{0, 1000000}[i%2]
			if i%3 > 0 {
				c.Dialogues = []tokens.Dialogue{tokens.DialoguePIN}
			}
			if i%5 > 0 {
				c.Replies = []tokens.Reply{replyFor("staff", "Class", fmt.Sprint("c", i))}
			}
			core.changed.Store(&c)
			time.Sleep(200 * time.Microsecond)
		})
		for range 3 {
			n := gateway(t, "", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()))
			loop(func(i int) {
				code := []string{goodCode, "000000"}[i%2]
				request := accessRequest(t, "alice", code, secret)
				for range 2 {
					_, _ = n.conn.Write(request) // refused once the server has ended
				}
				for range 2 {
					reply, err := n.next(20 * time.Millisecond)
					if err != nil {
						break
					}
					if code != goodCode && layeh.Code(reply[0]) == layeh.CodeAccessAccept && reply[1] == request[1] {
						t.Error("a wrong code is accepted")
					}
				}
			})
			loop(func(i int) {
				got, err := s.Try(context.Background(), Trial{Client: plainClient, User: "alice", Code: []byte(goodCode)})
				if errors.Is(err, ErrServerClosed) {
					time.Sleep(time.Millisecond)
					return
				}
				if err != nil || got.Outcome != "accept" || got.Refused != "" {
					t.Errorf("%+v, %v", got, err)
				}
			})
			loop(func(i int) {
				w, err := s.Watch(Sighted{})
				if err != nil {
					time.Sleep(time.Millisecond)
					return
				}
				defer w.Close()
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%5)*time.Millisecond)
				defer cancel()
				for {
					if _, err := w.Next(ctx); err != nil {
						return
					}
				}
			})
		}
		time.Sleep(700 * time.Millisecond)
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		time.Sleep(20 * time.Millisecond)
		close(stop)
		all.Wait()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if in := s.gate.in.Load(); in != 0 {
			t.Errorf("%d requests are in work after the end", in)
		}
	}
	for range 100 {
		if runtime.NumGoroutine() <= before+2 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b := make([]byte, 1<<16)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
}
