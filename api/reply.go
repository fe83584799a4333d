package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// reply answers a handler's value, or its error, with status 200.
func reply[T any](c echo.Context, v T, err error) error {
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, "application/json", v)
}

// created answers a new thing, and where it is.
func created[T any](c echo.Context, location string, v T, err error) error {
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", location)
	return writeJSON(c, http.StatusCreated, "application/json", v)
}

// gone answers that a thing is no more.
func gone(c echo.Context, err error) error {
	if err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func writeJSON(c echo.Context, status int, contentType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write an answer: %w", err)
	}
	return c.Blob(status, contentType, b)
}

// Pages hold defaultLimit items unless asked for another number, up to
// maxLimit. One more is read, to know whether there is a next page.
const (
	defaultLimit = 100
	maxLimit     = 500
)

// page is what a listing asked for: after or before which row, and how many.
type page struct {
	mark  int64 // the cursor; zero for the first page
	limit int
}

func pageOf(cursor *string, limit *int) (page, error) {
	p := page{limit: defaultLimit}
	if limit != nil {
		p.limit = *limit
	}
	if p.limit < 1 || p.limit > maxLimit {
		return page{}, fmt.Errorf("%w: limit is %d; 1 to %d are possible", tokens.ErrInvalid, p.limit, maxLimit)
	}
	if s := value(cursor); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 1 {
			return page{}, fmt.Errorf("%w: cursor is none that a listing answered as next", tokens.ErrInvalid)
		}
		p.mark = n
	}
	return p, nil
}

// cursorOf is where the next page of a listing begins; nil if there is none.
func cursorOf(next int64) *string {
	if next == 0 {
		return nil
	}
	s := strconv.FormatInt(next, 10)
	return &s
}

// pageItems cuts rows to a page and answers its items and the next cursor, nil
// if that was all. id is a row's place in the listing.
func pageItems[R, T any](p page, rows []R, id func(*R) int64, view func(*R) T) ([]T, *string) {
	var next *string
	if len(rows) > p.limit {
		rows = rows[:p.limit]
		next = cursorOf(id(&rows[p.limit-1]))
	}
	return views(rows, view), next
}

// inRealm keeps the rows of a realm, if one is asked for.
func inRealm[R any](rows []R, query *string, realm func(*R) string) ([]R, error) {
	if value(query) == "" {
		return rows, nil
	}
	want, err := tokens.ParseRealm(*query)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(r R) bool { return realm(&r) != want }), nil
}

// views are the items for rows; never nil, as JSON's [] is not null.
func views[R, T any](rows []R, view func(*R) T) []T {
	items := make([]T, len(rows))
	for i := range rows {
		items[i] = view(&rows[i])
	}
	return items
}

// unlessEmpty is a text, or nothing for none.
func unlessEmpty(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// instant is a time as every answer has it: in UTC, to the microsecond, which is
// what databases keep.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
