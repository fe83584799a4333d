package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"watchword/tokens"
)

// maxBody is the size of the largest body that a page may send, in bytes. An
// attestation with a long chain has 10,000.
const maxBody = 64 << 10

// endpoint makes a handler of one that answers the script of a page in JSON.
func (c *Console) endpoint(do func(r *http.Request, body []byte) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !c.limit.take(c.cfg.Source(r), time.Now()) {
			w.Header().Set("Retry-After", "30")
			c.refuse(w, http.StatusTooManyRequests, hurried)
			return
		}
		if !fromScript(r) {
			c.refuse(w, http.StatusForbidden, foreign)
			return
		}
		if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
			c.refuse(w, http.StatusUnsupportedMediaType, foreign)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			c.refuse(w, http.StatusRequestEntityTooLarge, sorry{"That was too long", "What your browser sent is too long, or broke off. Try again."})
			return
		}
		answer, err := do(r, body)
		clear(body)
		if err != nil {
			status, why := c.explain(r, err)
			if status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "5")
			}
			c.refuse(w, status, why)
			return
		}
		c.answer(w, http.StatusOK, answer)
	}
}

// refusal is what a script is told when something did not work; it shows it as it
// is.
type refusal struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

func (c *Console) refuse(w http.ResponseWriter, status int, why sorry) {
	c.answer(w, status, refusal(why))
}

func (c *Console) answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		c.cfg.Log.Error("an answer could not be written", "error", err)
		b, status = []byte(`{"title":"That did not work","text":"The server made a mistake, and has noted it."}`), http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // who is gone reads nothing
}

// decode reads what a script sent. It is our own, so whatever is not understood is
// refused with one sentence.
func decode[T any](body []byte) (T, error) {
	var v T
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(&v)
	if err == nil {
		if _, extra := d.Token(); extra == io.EOF {
			return v, nil
		}
	}
	return v, fmt.Errorf("%w: what the page sent is not understood; load it again", tokens.ErrInvalid)
}
