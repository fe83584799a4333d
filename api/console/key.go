package console

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// The places in a page where the key of a software token stands. Templates work
// with strings, which cannot be wiped; so the page is made without the key, which
// is written in between. Each mark begins and ends with what stays there, of which
// one is a quote or a bracket: templates escape those in all that is not their own,
// so that no user's name is taken for a mark.
var (
	imageMark = []byte(`,@@IMAGE@@"`) // the QR code as SVG, in base64
	uriMark   = []byte(`"@@URI@@"`)   // the otpauth URI, escaped for an attribute
	keyMark   = []byte(`>@@KEY@@<`)   // the key in groups of four characters
)

// showKey answers the page of a new software token. All that holds its key is wiped
// when it returns, but uri, which is the caller's.
func (c *Console) showKey(w http.ResponseWriter, v app, uri []byte) error {
	key, err := Key(uri)
	if err != nil {
		return err
	}
	svg, err := qrSVG(uri)
	if err != nil {
		return err
	}
	defer clear(svg)
	image := base64.StdEncoding.AppendEncode(make([]byte, 0, base64.StdEncoding.EncodedLen(len(svg))), svg)
	defer clear(image)
	link := escape(uri)
	defer clear(link)
	grouped := group(key)
	defer clear(grouped)
	page, err := c.render("app", v)
	if err != nil {
		return err
	}
	return write(w, page, []insertion{{imageMark, image}, {uriMark, link}, {keyMark, grouped}})
}

// insertion is what stands in a page in place of a mark.
type insertion struct{ mark, text []byte }

// Padding is how much Pad writes, in bytes.
const Padding = 8 << 10

// Pad writes carriage returns, which show nowhere, after an answer that holds a
// secret: in pieces smaller than net/http's buffers (2 KiB before 4 KiB), so that
// what these held is overwritten.
func Pad(w io.Writer) error {
	blank := bytes.Repeat([]byte("\r"), 512)
	for range Padding / len(blank) {
		if _, err := w.Write(blank); err != nil {
			return err
		}
	}
	return nil
}

// write answers a page with what is inserted in it, in order.
func write(w http.ResponseWriter, page []byte, in []insertion) error {
	var parts [][]byte
	for _, i := range in {
		before, after, found := bytes.Cut(page, i.mark)
		if !found {
			return fmt.Errorf("the page has no place for %s", i.mark)
		}
		parts = append(parts, before, i.mark[:1], i.text, i.mark[len(i.mark)-1:])
		page = after
	}
	parts = append(parts, page)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return nil // who is gone reads nothing
		}
	}
	_ = Pad(w)
	return nil
}

// Key is the key in an otpauth URI, in base32: a part of it.
func Key(uri []byte) ([]byte, error) {
	_, key, found := bytes.Cut(uri, []byte("secret="))
	key, _, _ = bytes.Cut(key, []byte("&"))
	if !found || len(key) == 0 || !bytes.HasPrefix(uri, []byte("otpauth://totp/")) {
		return nil, errors.New("a new software token has no otpauth URI with a secret")
	}
	return key, nil
}

// escape writes a URI as it stands in an attribute.
func escape(uri []byte) []byte {
	out := make([]byte, 0, 6*len(uri))
	for _, char := range uri {
		switch char {
		case '&':
			out = append(out, "&amp;"...)
		case '"':
			out = append(out, "&#34;"...)
		case '<':
			out = append(out, "&lt;"...)
		case '>':
			out = append(out, "&gt;"...)
		default:
			out = append(out, char)
		}
	}
	return out
}

// group writes a key as people type it: four characters, a space, four characters.
func group(key []byte) []byte {
	out := make([]byte, 0, len(key)+len(key)/4+1)
	for i, char := range key {
		if i > 0 && i%4 == 0 {
			out = append(out, ' ')
		}
		out = append(out, char)
	}
	return out
}
