package radius

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

var everyMethod = []tokens.Method{tokens.MethodPAP, tokens.MethodCHAP, tokens.MethodMSCHAP, tokens.MethodMSCHAPv2}

// proving is a core that takes the good code by every method.
func proving() *fakeCore {
	core := oneClient()
	core.clients[0].Methods = everyMethod
	core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		if a.Proof != nil {
			return tokens.Result{Accept: a.Proof.Proves([]byte(goodCode))}, nil
		}
		return tokens.Result{Accept: a.Code == goodCode}, nil
	}
	return core
}

func try(t *testing.T, h *house, trial Trial) Tried {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if trial.Client == nil {
		trial.Client = h.core.clients[0]
	}
	eventually(t, "it serves", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.started
	})
	got, err := h.Try(ctx, trial)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestATrialIsAnsweredAsTheClientWouldBe(t *testing.T) {
	h := serve(t, proving(), Config{})
	w := h.watch(t, Sighted{})
	for _, method := range append([]tokens.Method{""}, everyMethod...) {
		for code, want := range map[string]string{goodCode: "accept", "000000": "reject"} {
			got := try(t, h, Trial{User: `CORP\alice`, Code: []byte(code), Method: method, NAS: "gate", Caller: "192.0.2.44"})
			if got.Outcome != want || got.Refused != "" || got.Cause != "" || got.Reply != map[string]string{"accept": "Access-Accept", "reject": "Access-Reject"}[want] {
				t.Errorf("%s with %s: %+v", method, code, got)
			}
			all := h.core.asked()
			if a := all[len(all)-1]; a.Transport != "radius-test" || a.User != `CORP\alice` || a.Origin.NAS != "gate" || a.Origin.Caller.String() != "192.0.2.44" {
				t.Errorf("the core was asked %+v", a)
			}
			if v := sees(t, w, 1)[0]; !v.Test || v.Outcome != want {
				t.Errorf("who watches sees %+v", v)
			}
			if text := fmt.Sprintf("%+v", got); strings.Contains(text, goodCode) || strings.Contains(text, secret) {
				t.Errorf("a secret is shown: %s", text)
			}
		}
	}
	// What comes by network afterwards is no trial.
	gateway(t, "", h.address()).exchange(accessRequest(t, "alice", goodCode, secret), secret)
	all := h.core.asked()
	if a := all[len(all)-1]; a.Transport != "radius" {
		t.Errorf("a gateway's request is taken for a trial: %+v", a)
	}
	if v := sees(t, w, 1)[0]; v.Test {
		t.Errorf("%+v", v)
	}
}

func TestATrialOfStatusSaysWhetherTheServerIsReady(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	if got := try(t, h, Trial{}); got.Outcome != "accept" || got.Reply != "Access-Accept" || got.Refused != "" {
		t.Errorf("%+v", got)
	}
	h.core.unready.Store(true)
	if got := try(t, h, Trial{}); got.Outcome != "dropped" || got.Cause != "not_ready" || got.Says == "" || got.Do == "" || got.Reply != "" {
		t.Errorf("%+v", got)
	}
}

func TestATrialThatIsNotAnsweredSaysWhy(t *testing.T) {
	core := limited(1, true)
	h := serve(t, core, Config{Timeout: 50 * time.Millisecond})
	try(t, h, Trial{User: "alice", Code: []byte(goodCode)})
	if got := try(t, h, Trial{User: "alice", Code: []byte(goodCode)}); got.Cause != "rate_limited" {
		t.Errorf("beyond the rate: %+v", got)
	}
	core.clients[0].Rate = 0
	core.verify = func(ctx context.Context, a tokens.Attempt) (tokens.Result, error) {
		switch a.User {
		case "slow":
			<-ctx.Done()
			return tokens.Result{}, ctx.Err()
		case "shed":
			return tokens.Result{}, tokens.ErrOverloaded
		}
		return tokens.Result{}, errFault
	}
	for user, want := range map[string]string{"slow": "fault", "shed": "shed", "fault": "fault"} {
		if got := try(t, h, Trial{User: user, Code: []byte(goodCode)}); got.Outcome != want || got.Reply != "" {
			t.Errorf("%s: %+v", user, got)
		}
	}
	bare := newClient("bare", "192.0.2.1/32", "", true)
	if got := try(t, h, Trial{Client: bare, User: "alice", Code: []byte(goodCode), Method: tokens.MethodCHAP}); got.Cause != "no_secret" {
		t.Errorf("a client without a secret: %+v", got)
	}
	for name, bad := range map[string]Trial{
		"method": {User: "alice", Method: "eap"}, "password": {User: "alice", Code: make([]byte, 129)}, "name": {User: strings.Repeat("x", 254)},
		"NAS": {User: "alice", NAS: strings.Repeat("x", 254)}, "state": {User: "alice", State: make([]byte, 254)},
	} {
		bad.Client = core.clients[0]
		if _, err := h.Try(context.Background(), bad); !errors.Is(err, ErrTrial) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestATrialFollowsAChallenge(t *testing.T) {
	h := serve(t, asking(tokens.DialogueNextCode), Config{})
	got := try(t, h, Trial{User: "next_code", Code: []byte("000000")})
	if got.Outcome != "challenge" || got.Reply != "Access-Challenge" || !bytes.Equal(got.State, longState) || len(got.Attributes) != 1 || got.Attributes[0].Name != "Reply-Message" {
		t.Fatalf("%+v", got)
	}
	if got := try(t, h, Trial{User: "next_code", Code: []byte(goodCode), State: got.State}); got.Outcome != "accept" || got.State != nil {
		t.Errorf("%+v", got)
	}
}

func TestNoTrialIsBegunByAServerThatDoesNotRead(t *testing.T) {
	s, err := New(oneClient(), Config{Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	trial := Trial{Client: newClient("vpn", "127.0.0.0/8", secret, true), User: "alice", Code: []byte(goodCode)}
	if _, err := s.Try(context.Background(), trial); !errors.Is(err, ErrServerClosed) {
		t.Errorf("before Serve: %v", err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(context.Background()) }()
	done := make(chan error)
	begun := make(chan struct{}, 1)
	for range 4 {
		go func() {
			for {
				_, err := s.Try(context.Background(), trial)
				if err == nil {
					select {
					case begun <- struct{}{}:
					default:
					}
				} else if s.stopping() {
					done <- err
					return
				}
			}
		}()
	}
	<-begun
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for range 4 {
		if err := <-done; !errors.Is(err, ErrServerClosed) {
			t.Errorf("during the end: %v", err)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A correct client takes a reply as it is, and none that was changed anywhere.
func TestACorrectClientRefusesAChangedReply(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	request := accessRequest(t, "alice", goodCode, secret)
	n := gateway(t, "", h.address())
	n.send(request)
	reply := n.receive()
	if err := refuse(reply, request, []byte(secret)); err != nil {
		t.Fatal(err)
	}
	if refuse(reply, request, []byte("another")) == nil {
		t.Error("a reply under another secret is taken")
	}
	for i := range len(reply) * 8 {
		b := bytes.Clone(reply)
		b[i/8] ^= 1 << (i % 8)
		if refuse(b, request, []byte(secret)) == nil {
			t.Errorf("bit %d is not looked at", i)
		}
	}
	for i := range reply {
		if refuse(reply[:i], request, []byte(secret)) == nil {
			t.Errorf("%d bytes of it are taken", i)
		}
	}
	if refuse(slices.Concat(reply, []byte{0}), request, []byte(secret)) == nil {
		t.Error("a byte more is taken")
	}
}
