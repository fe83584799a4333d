package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// maxBulk is the size of the largest body of a bulk act, in bytes: 10,000 serials.
const maxBulk = 1 << 20

// BulkTokens is POST /v1/tokens/bulk. What became of each token goes out as it is
// done.
func (s *Server) BulkTokens(c echo.Context, params BulkTokensParams) error {
	in, err := s.bulkBody(c)
	switch {
	case err != nil:
		return err
	case in == nil:
		return errEmpty
	}
	r, err := bulkWanted(in)
	if err != nil {
		return err
	}
	if r.Realm, err = oneRealm(params.Realm, in.Realm); err != nil {
		return err
	}
	r.Select.Realm = r.Realm
	return s.stream(c, "application/json", func(w io.Writer) error {
		list := items{w: w}
		got, err := s.cfg.Core.Bulk(c.Request().Context(), who(c), r, func(i tokens.BulkItem) error {
			return list.add(BulkItem{Serial: i.Serial, User: i.User, Outcome: BulkItemOutcome(i.Outcome), Reason: i.Reason})
		})
		if err != nil {
			return err
		}
		return list.end(fmt.Sprintf(`,"matched":%d,"done":%d,"unchanged":%d,"refused":%d`, got.Matched, got.Done, got.Unchanged, got.Refused))
	})
}

// bulkBody reads a body in the time that any other has, though what is to be done
// may take longer.
func (s *Server) bulkBody(c echo.Context) (*Bulk, error) {
	control := http.NewResponseController(c.Response())
	if err := control.SetReadDeadline(time.Now().Add(s.cfg.Timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("set the deadline of a body: %w", err)
	}
	in, err := decodeIn[Bulk](c, make([]byte, maxBulk+1), []string{"act"})
	if err != nil {
		return nil, err
	}
	// A deadline that passed later would look as if the client had gone.
	if err := control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("lift the deadline of a body: %w", err)
	}
	return in, nil
}

// bulkWanted is what a request asks for, but for its realm. What an act does not
// need is refused: it was meant for another one.
func bulkWanted(in *Bulk) (r tokens.BulkRequest, err error) {
	invalid := func(what string) error { return fmt.Errorf("%w: %s", tokens.ErrInvalid, what) }
	sel := value(in.Select)
	switch {
	case !in.Act.Valid():
		return r, invalid("act is suspend, resume, lost, revoke, unassign, expire, tag, untag or note")
	case (in.Serials == nil) == (in.Select == nil):
		return r, invalid("name the tokens by serials or by select, one of the two")
	case in.Serials != nil && len(*in.Serials) == 0:
		return r, invalid("serials is empty")
	case slices.Contains(value(in.Serials), ""):
		return r, invalid("a serial is empty")
	case sel.State != nil && !sel.State.Valid():
		return r, invalid("state is imported, pending, active, suspended, lost or revoked")
	case sel.Type != nil && !sel.Type.Valid():
		return r, invalid("type is totp, hotp, yubico, fido, recovery or temporary")
	case in.Expires.said != (in.Act == BulkActExpire):
		return r, invalid("expires, a time or null, goes with the act expire")
	case (in.Note != nil) != (in.Act == BulkActNote):
		return r, invalid("note goes with the act note")
	case (in.Tags != nil) != (in.Act == BulkActTag || in.Act == BulkActUntag):
		return r, invalid("tags goes with the acts tag and untag")
	}
	return tokens.BulkRequest{
		Act: string(in.Act), Serials: value(in.Serials), DryRun: value(in.DryRun), Reason: value(in.Reason),
		Note: value(in.Note), Tags: value(in.Tags), Expires: in.Expires.time,
		Select: tokens.TokenQuery{
			Owner: value(sel.User), State: tokens.State(value(sel.State)), Type: tokens.Type(value(sel.Type)),
			Q: value(sel.Q), Tag: value(sel.Tag), Batch: value(sel.Batch),
		},
	}, nil
}
