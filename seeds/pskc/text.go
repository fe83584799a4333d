package pskc

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// decodeBase64 decodes an element's text, with white space anywhere, into buf.
// The text is overwritten. Its errors continue a sentence.
func decodeBase64(buf []byte, n *node) ([]byte, error) {
	text := n.text[:0]
	for _, b := range n.text {
		switch b {
		case ' ', '\t', '\r', '\n':
		default:
			text = append(text, b)
		}
	}
	if len(text) == 0 || len(n.kids) > 0 {
		return nil, errors.New("is empty")
	}
	if base64.StdEncoding.DecodedLen(len(text)) > len(buf) {
		return nil, fmt.Errorf("is longer than %d bytes", len(buf)-3)
	}
	k, err := base64.StdEncoding.Decode(buf, text)
	clear(text)
	if err != nil {
		clear(buf[:k])
		return nil, errors.New("is not base64")
	}
	return buf[:k], nil
}

// fragment is what follows the # of a URI, in lower case.
func fragment(uri string) string {
	return strings.ToLower(uri[strings.LastIndexByte(uri, '#')+1:])
}

// quoted shows a name out of the file, shortened.
func quoted(s string) string {
	if s == "" {
		return "an algorithm without a name"
	}
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return strconv.Quote(s)
}
