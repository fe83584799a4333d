package api

import (
	"context"
	"io"

	"watchword/tokens"
)

func (s *scripted) WatchClients(_ context.Context, p tokens.Principal, w tokens.Watching) (tokens.Watching, error) {
	return w, s.asked(p, w.Realm, w.User, w)
}

func (s *scripted) MayWatch(_ context.Context, p tokens.Principal, w tokens.Watching) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watching == nil {
		return s.err
	}
	return s.watching(w)
}

func (s *scripted) TestClient(_ context.Context, p tokens.Principal, t tokens.ClientTest) (*tokens.RADIUSClient, error) {
	return &tokens.RADIUSClient{Client: tokens.Client{Name: t.Client}}, s.asked(p, "", t.User, t)
}

// scriptedRADIUS shows what a test sends it, or one request and then the end.
type scriptedRADIUS struct {
	sights chan RadiusSight
	closed chan struct{}
	tried  ClientTest
	client string
	answer ClientTested
	err    error
}

func (s *scripted) radius() RADIUS {
	r := &scriptedRADIUS{sights: make(chan RadiusSight, 1), answer: ClientTested{Outcome: "accept", Attributes: []RadiusAttribute{}}}
	r.sights <- RadiusSight{Time: testTime, Client: "vpn", Address: "192.0.2.10", User: "alice", Method: "pap", Outcome: "accept", Reply: "Access-Accept", TookMs: 3.5}
	close(r.sights)
	return r
}

func (r *scriptedRADIUS) Watch(tokens.Watching) (RADIUSWatch, error) { return r, r.err }

func (r *scriptedRADIUS) Next(ctx context.Context) (RadiusSight, error) {
	select {
	case v, open := <-r.sights:
		if !open {
			return RadiusSight{}, io.EOF
		}
		return v, nil
	case <-ctx.Done():
		return RadiusSight{}, ctx.Err()
	}
}

func (r *scriptedRADIUS) Close() {
	if r.closed != nil {
		close(r.closed)
	}
}

func (r *scriptedRADIUS) Try(_ context.Context, client *tokens.RADIUSClient, t ClientTest) (ClientTested, error) {
	r.client, r.tried = client.Name, t
	return r.answer, r.err
}
