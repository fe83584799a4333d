package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"watchword/api/console"
	"watchword/tokens"
	"watchword/tokens/policy"
)

// Answers that show a secret once, such as a seed or a passcode, are put together
// from bytes that can be wiped: what encoding/json makes of a string cannot.

// issued is a new token but for its secret.
type issued struct {
	Token Token   `json:"token"`
	Say   *string `json:"say,omitempty"`
}

func issuedView(action policy.Action, t *tokens.Token) issued {
	return issued{tokenView(t), said(action, t, nil)}
}

// secretField is a member of an object that holds a secret: its name, and its
// value in JSON.
type secretField struct {
	name string
	json []byte
}

// withSecrets is v, an object in JSON, with secret members behind its own. The
// buffer is made as long as it gets; the caller wipes it.
func withSecrets(v any, fields ...secretField) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write an answer: %w", err)
	}
	size := len(plain)
	for _, f := range fields {
		size += len(f.name) + len(f.json) + len(`,"":`)
	}
	out := append(make([]byte, 0, size), plain[:len(plain)-1]...)
	for _, f := range fields {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = append(out, f.name...)
		out = append(out, '"', ':')
		out = append(out, f.json...)
	}
	return append(out, '}'), nil
}

// quoted is an ASCII text as a string in JSON.
func quoted(text []byte) []byte {
	const hex = "0123456789abcdef"
	out := append(make([]byte, 0, 6*len(text)+2), '"')
	for _, char := range text {
		if char < ' ' || char == '"' || char == '\\' || char >= 0x7f {
			out = append(out, '\\', 'u', '0', '0', hex[char>>4], hex[char&15])
		} else {
			out = append(out, char)
		}
	}
	return append(out, '"')
}

// quotedList is a list of ASCII texts in JSON.
func quotedList(texts [][]byte) []byte {
	size := len("[]")
	for _, text := range texts {
		size += 6*len(text) + len(`"",`)
	}
	out := append(make([]byte, 0, size), '[')
	for i, text := range texts {
		if i > 0 {
			out = append(out, ',')
		}
		q := quoted(text)
		out = append(out, q...)
		clear(q)
	}
	return append(out, ']')
}

// pngURI is a key URI as a QR code, in a data: URI (RFC 2397), as a string in JSON.
func pngURI(uri []byte) ([]byte, error) {
	png, err := console.QRPNG(uri)
	if err != nil {
		return nil, err
	}
	defer clear(png)
	const head = `"data:image/png;base64,`
	out := append(make([]byte, 0, len(head)+base64.StdEncoding.EncodedLen(len(png))+1), head...)
	return append(base64.StdEncoding.AppendEncode(out, png), '"'), nil
}

// replySecret answers JSON that holds a secret, and wipes it. What follows it
// overwrites the buffers that it went through; white space at the end of JSON
// means nothing.
func replySecret(c echo.Context, status int, body []byte) error {
	defer clear(body)
	h := c.Response().Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1+console.Padding))
	c.Response().WriteHeader(status)
	_, err := c.Response().Write(body)
	if err == nil {
		_, err = c.Response().Write([]byte("\n"))
	}
	if err == nil {
		err = console.Pad(c.Response())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// createdSecret is replySecret for a new thing, with where it is.
func createdSecret(c echo.Context, location string, body []byte) error {
	c.Response().Header().Set("Location", location)
	return replySecret(c, http.StatusCreated, body)
}
