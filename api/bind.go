package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// maxJSON is the size of the largest JSON body, in bytes.
const maxJSON = 64 << 10

var errNoObject = fmt.Errorf("%w: the body is not a JSON object", tokens.ErrInvalid)

var errEmpty = fmt.Errorf("%w: the body is empty; a JSON object is needed", tokens.ErrInvalid)

// buffers hold bodies while they are decoded. Bodies hold codes, PINs and
// secrets: a buffer is wiped before it goes back.
var buffers = sync.Pool{New: func() any { b := make([]byte, maxJSON+1); return &b }}

// decode reads a JSON body into a T, strictly: one object, no member that T
// lacks, none twice, none null, and the required ones there and not empty.
// Names are compared as they stand, in lower case.
func decode[T any](c echo.Context, required ...string) (T, error) {
	body, err := decodeOptional[T](c, required...)
	if err == nil && body == nil {
		err = errEmpty
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return *body, nil
}

// decodeOptional is decode for a body that may be empty: then it answers nil.
func decodeOptional[T any](c echo.Context, required ...string) (*T, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	return decodeIn[T](c, *buf, required)
}

// decodeIn is decodeOptional by way of a buffer, which is one byte longer than a
// body may be, and is wiped.
func decodeIn[T any](c echo.Context, buf []byte, required []string) (*T, error) {
	r := c.Request()
	if r.ContentLength == 0 {
		return nil, nil
	}
	tooLarge := func() error { return fmt.Errorf("%w: the body is larger than %d bytes", errTooLarge, len(buf)-1) }
	if r.ContentLength >= int64(len(buf)) {
		return nil, tooLarge()
	}
	n, err := io.ReadFull(r.Body, buf)
	defer func() { clear(buf[:n]) }()
	switch {
	case err == nil:
		return nil, tooLarge()
	case err == io.EOF:
		return nil, nil
	case err != io.ErrUnexpectedEOF:
		return nil, bodyError(err)
	}
	if r.ContentLength > 0 && int64(n) < r.ContentLength {
		return nil, fmt.Errorf("%w: the body broke off", tokens.ErrInvalid)
	}
	if err := isJSON(r.Header.Get("Content-Type")); err != nil {
		return nil, err
	}
	into := new(T)
	if err := unmarshal(buf[:n], into, required); err != nil {
		return nil, err
	}
	return into, nil
}

// isJSON refuses a body of another type. JSON is UTF-8 (RFC 8259, section 8.1).
func isJSON(contentType string) error {
	if contentType == "application/json" {
		return nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	charset, named := params["charset"]
	if err != nil || media != "application/json" || named && !strings.EqualFold(charset, "utf-8") {
		return fmt.Errorf("%w: send JSON in UTF-8, with 'Content-Type: application/json'", errMediaType)
	}
	return nil
}

// bodyError makes of a failed read what the client can do something about.
func bodyError(err error) error {
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return fmt.Errorf("%w: the body is larger than %d bytes", errTooLarge, tooLarge.Limit)
	}
	return fmt.Errorf("%w: the body broke off", tokens.ErrInvalid)
}

// unmarshal decodes one object. Its errors name fields and places, never what
// stands there.
func unmarshal(b []byte, into any, required []string) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: the body is not valid UTF-8", tokens.ErrInvalid)
	}
	if bytes.Contains(b, []byte(`\u0000`)) {
		return fmt.Errorf("%w: the body holds a NUL character", tokens.ErrInvalid)
	}
	to := reflect.ValueOf(into).Elem()
	if quickly(b, to, required) {
		return nil
	}
	to.SetZero()
	return thoroughly(b, into, required)
}

// thoroughly is unmarshal for what is valid UTF-8, whatever it is.
func thoroughly(b []byte, into any, required []string) error {
	if err := json.Unmarshal(b, into); err != nil {
		return jsonError(err)
	}
	return strict(b, reflect.TypeOf(into).Elem(), required)
}

// strict holds an object against the struct that it was decoded into, and the
// objects in it against theirs.
func strict(b []byte, t reflect.Type, required []string) error {
	known := fieldsOf(t, "json")
	seen := make([]string, 0, 8)
	err := members(b, func(name string, value []byte) error {
		at := slices.Index(known, name)
		if at < 0 {
			if len(name) > 40 {
				name = name[:40] + "..."
			}
			return fmt.Errorf("%w: unknown field %q; there are: %s", tokens.ErrInvalid, name, strings.Join(known, ", "))
		}
		switch {
		case slices.Contains(seen, name):
			return fmt.Errorf("%w: the field %q stands there twice", tokens.ErrInvalid, name)
		case value[0] == 'n' && t.Field(at).Type != reflect.TypeFor[timeOrNull]():
			return fmt.Errorf("%w: the field %q is null", tokens.ErrInvalid, name)
		case string(value) == `""` && slices.Contains(required, name):
			return fmt.Errorf("%w: the field %q is empty", tokens.ErrInvalid, name)
		}
		seen = append(seen, name)
		switch value[0] {
		case '{':
			return strictInside(name, value, t.Field(at).Type)
		case '[':
			return strictList(name, value, t.Field(at).Type)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range required {
		if !slices.Contains(seen, name) {
			return fmt.Errorf("%w: the field %q is missing", tokens.ErrInvalid, name)
		}
	}
	return nil
}

// strictInside is strict for a field that holds an object.
func strictInside(name string, value []byte, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct:
		return strict(value, t, requiredOf(t))
	case reflect.Map:
		var seen []string
		return members(value, func(key string, value []byte) error {
			switch {
			case slices.Contains(seen, key):
				return fmt.Errorf("%w: a name stands twice in the field %q", tokens.ErrInvalid, name)
			case value[0] == 'n' && t.Elem().Kind() != reflect.Pointer:
				return fmt.Errorf("%w: something is null in the field %q", tokens.ErrInvalid, name)
			}
			seen = append(seen, key)
			return nil
		})
	}
	return nil
}

// strictList is strict for a field that holds a list: nothing in it is null, and each
// object in it is held against its struct.
func strictList(name string, value []byte, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Slice || t.Elem().Kind() == reflect.Uint8 {
		return nil // anything may be in it
	}
	return elements(value, func(value []byte) error {
		switch value[0] {
		case 'n':
			return fmt.Errorf("%w: something is null in the field %q", tokens.ErrInvalid, name)
		case '{':
			return strictInside(name, value, t.Elem())
		}
		return nil
	})
}

// bounded refuses a field whose text is longer than the contract says, in characters.
func bounded(name string, text *string, most int) error {
	if text != nil && utf8.RuneCountInString(*text) > most {
		return fmt.Errorf("%w: %s has more than %d characters", tokens.ErrInvalid, name, most)
	}
	return nil
}

// requiredOf are the fields that an object in a body must have: those that its
// contract does not call optional.
func requiredOf(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, rest, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(rest, "omitempty") {
			names = append(names, name)
		}
	}
	return names
}

// timeOrNull is a time, or null, in a body; or neither.
type timeOrNull struct {
	said bool // it is there
	time time.Time
}

// UnmarshalJSON is called for null, too.
func (t *timeOrNull) UnmarshalJSON(b []byte) error {
	t.said = true
	if string(b) == "null" {
		return nil
	}
	return t.time.UnmarshalJSON(b)
}

// jsonKind is how JSON calls what a field must be.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint64:
		return "whole number in range"
	case reflect.Slice:
		return "list"
	case reflect.Struct, reflect.Map:
		return "object"
	}
	return t.Kind().String()
}

// jsonError says what is wrong with a body without quoting it.
func jsonError(err error) error {
	if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
		if wrong.Field == "" {
			return errNoObject
		}
		return fmt.Errorf("%w: the field %q is no %s", tokens.ErrInvalid, wrong.Field, jsonKind(wrong.Type))
	}
	if syntax := new(json.SyntaxError); errors.As(err, &syntax) {
		return fmt.Errorf("%w: the body is not valid JSON, at byte %d", tokens.ErrInvalid, syntax.Offset)
	}
	return fmt.Errorf("%w: a field of the body cannot be read; a time is written like 2027-01-31T12:00:00Z", tokens.ErrInvalid)
}

// members calls f with the name and the text of each member of an object, in
// order, and stops at its first error. The text must be valid JSON.
func members(b []byte, f func(name string, value []byte) error) error {
	b = bytes.Trim(b, " \t\r\n")
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return errNoObject
	}
	b = b[1 : len(b)-1]
	for {
		b = bytes.TrimLeft(b, " \t\r\n,")
		if len(b) == 0 {
			return nil
		}
		end := stringEnd(b)
		name := string(b[1 : end-1])
		if strings.Contains(name, `\`) {
			if json.Unmarshal(b[:end], &name) != nil {
				return errNoObject
			}
		}
		b = bytes.TrimLeft(b[end:], " \t\r\n:")
		end = valueEnd(b)
		if err := f(name, bytes.TrimRight(b[:end], " \t\r\n")); err != nil {
			return err
		}
		b = b[end:]
	}
}

// elements calls f with the text of each element of a list, in order, and stops at its
// first error. The text must be valid JSON.
func elements(b []byte, f func(value []byte) error) error {
	b = bytes.Trim(b, " \t\r\n")
	b = b[1 : len(b)-1]
	for {
		b = bytes.TrimLeft(b, " \t\r\n,")
		if len(b) == 0 {
			return nil
		}
		end := valueEnd(b)
		if err := f(bytes.TrimRight(b[:end], " \t\r\n")); err != nil {
			return err
		}
		b = b[end:]
	}
}

// stringEnd is the index after the string that b begins with.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// valueEnd is the index after the value that b begins with: of the comma that
// follows, or the end.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i += stringEnd(b[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

// fieldNames caches fieldsOf: it is asked for each body.
var fieldNames sync.Map // of fieldKey to []string

type fieldKey struct {
	t   reflect.Type
	tag string
}

// fieldsOf are the names that a struct's tags give to its fields.
func fieldsOf(t reflect.Type, tag string) []string {
	key := fieldKey{t, tag}
	if names, ok := fieldNames.Load(key); ok {
		return names.([]string)
	}
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get(tag), ",")
		names = append(names, name)
	}
	fieldNames.Store(key, names)
	return names
}

// oneRealm is the realm that a request names in its query or in its body.
func oneRealm(query, body *string) (string, error) {
	q, b := value(query), value(body)
	if q != "" && b != "" && q != b {
		return "", fmt.Errorf("%w: the query and the body name two realms", tokens.ErrInvalid)
	}
	if q != "" {
		return q, nil
	}
	return b, nil
}

// value is what an optional field holds, or the zero value.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
