package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// RADIUS is what the handlers consume of the RADIUS server of this node. Its errors
// wrap the kinds of tokens/errors.go.
type RADIUS interface {
	// Watch shows requests as they come; ErrState, when too many watch.
	Watch(w tokens.Watching) (RADIUSWatch, error)
	// Try makes a request in the place of a client, which nobody has authorised yet
	// but the caller.
	Try(ctx context.Context, client *tokens.RADIUSClient, t ClientTest) (ClientTested, error)
}

// RADIUSWatch shows requests. Who has it closes it.
type RADIUSWatch interface {
	// Next waits for the next one. It answers io.EOF when no more come, and ctx's error
	// when that ends first.
	Next(ctx context.Context) (RadiusSight, error)
	Close()
}

// RadiusSight is one line of GET /v1/radius/watch.
type RadiusSight struct {
	Time    time.Time `json:"time"`
	Client  string    `json:"client,omitempty"`
	Address string    `json:"address"`
	User    string    `json:"user,omitempty"`
	NAS     string    `json:"nas,omitempty"`
	Method  string    `json:"method,omitempty"`
	Outcome string    `json:"outcome"`
	Reply   string    `json:"reply,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	TookMs  float64   `json:"took_ms,omitempty"`
	Test    bool      `json:"test,omitempty"`
	Missed  int64     `json:"missed,omitempty"`
}

var errNoRADIUS = fmt.Errorf("%w: RADIUS is switched off on this server; ask one where radius.listen is not none", tokens.ErrState)

// While somebody watches, their right to it is looked at every watchLook, and the
// connection as well: a fault of the database ends it when it lasts.
const (
	watchLook  = 5 * time.Second
	watchFault = time.Minute
)

// WatchRadius is GET /v1/radius/watch.
func (s *Server) WatchRadius(c echo.Context, params WatchRadiusParams) error {
	ctx := c.Request().Context()
	w, err := s.cfg.Core.WatchClients(ctx, who(c), tokens.Watching{
		Realm: value(params.Realm), Client: value(params.Client), User: value(params.User),
	})
	if err != nil {
		return err
	}
	if s.cfg.RADIUS == nil {
		return errNoRADIUS
	}
	sights, err := s.cfg.RADIUS.Watch(w)
	if err != nil {
		return err
	}
	defer sights.Close()
	out := &streamed{s: s, c: c, contentType: jsonLines}
	send := func(line []byte) error {
		if _, err := out.Write(line); err != nil {
			return err
		}
		return http.NewResponseController(c.Response()).Flush()
	}
	if err := send(nil); err != nil {
		return err
	}
	looked, sure := time.Now(), time.Now()
	for {
		v, err := before(ctx, looked.Add(s.watchLook()), sights.Next)
		switch {
		case errors.Is(err, io.EOF):
			return nil // the server ends
		case ctx.Err() != nil:
			return errGone
		case errors.Is(err, context.DeadlineExceeded):
			err = send([]byte("\n"))
		case err == nil:
			var line []byte
			if line, err = json.Marshal(v); err == nil {
				err = send(append(line, '\n'))
			}
		}
		if err != nil {
			return err
		}
		if now := time.Now(); now.Sub(looked) >= s.watchLook() {
			looked = now
			switch err := s.cfg.Core.MayWatch(ctx, who(c), w); {
			case err == nil:
				sure = now
			case errors.Is(err, tokens.ErrUnavailable) && now.Sub(sure) < watchFault:
			default:
				return nil // what was shown is whole, and there is no more
			}
		}
	}
}

func (s *Server) watchLook() time.Duration { return min(watchLook, s.cfg.Timeout) }

// before calls f with a context that ends at a time.
func before[T any](ctx context.Context, until time.Time, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return f(ctx)
}

// TestClient is POST /v1/clients/{name}/test.
func (s *Server) TestClient(c echo.Context, name string) error {
	in, err := decode[ClientTest](c)
	if err != nil {
		return err
	}
	if in.Method != nil && !in.Method.Valid() {
		return fmt.Errorf("%w: method is pap, chap, mschap or mschapv2", tokens.ErrInvalid)
	}
	client, err := s.cfg.Core.TestClient(c.Request().Context(), who(c), tokens.ClientTest{
		Client: name, User: value(in.User), Method: string(value(in.Method)),
	})
	if err != nil {
		return err
	}
	if s.cfg.RADIUS == nil {
		return errNoRADIUS
	}
	got, err := s.cfg.RADIUS.Try(c.Request().Context(), client, in)
	return reply(c, got, err)
}
