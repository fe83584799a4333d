package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Method is a way in which a RADIUS client shows a code.
type Method string

// The methods.
const (
	MethodPAP      Method = "pap"      // User-Password (RFC 2865)
	MethodCHAP     Method = "chap"     // CHAP-Password (RFC 2865): MD5 over the code, open to guessing by who records it
	MethodMSCHAP   Method = "mschap"   // MS-CHAP-Response (RFC 2433, 2548): DES and MD4
	MethodMSCHAPv2 Method = "mschapv2" // MS-CHAP2-Response (RFC 2759, 2548): DES, MD4 and SHA-1
)

var everyMethod = []Method{MethodPAP, MethodCHAP, MethodMSCHAP, MethodMSCHAPv2}

// ClientOptions are what a RADIUS client may do, or is given, beside what every client
// is. The zero value is the default.
type ClientOptions struct {
	// Methods are those that the client may use; none: PAP alone.
	Methods []Method `json:"methods,omitempty"`

	// UnsignedProxyState lets requests in that carry a Proxy-State and no
	// Message-Authenticator, where none is required. An attacker on the path needs
	// just that to forge a reply (CVE-2024-3596): only a proxy that cannot sign is a
	// reason for it.
	UnsignedProxyState bool `json:"unsigned_proxy_state,omitempty"`

	// Dialogues are the questions that the client's users may be asked, by
	// Access-Challenge; none: an attempt ends with an accept or a reject.
	Dialogues []Dialogue `json:"dialogues,omitempty"`

	// Joined are the dialogues whose answers the client's users may type into one
	// password, one after another, for a gateway that cannot ask. No dialogue starts
	// by it.
	Joined []Dialogue `json:"joined,omitempty"`

	// Rate is how many requests a second are taken from the client, on each node, over a
	// burst of as many; what is more is dropped. Zero: no limit.
	Rate int `json:"rate,omitempty"`

	// Replies are the attributes that replies have beside what the protocol wants.
	Replies []Reply `json:"replies,omitempty"`

	// Messages are the texts of Reply-Message: by Question for a challenge, and
	// "accept" and "reject". One that is missing has its default, which for "accept"
	// and "reject" is none.
	Messages map[string]string `json:"messages,omitempty"`
}

// Reply are attributes that a client's replies to certain users have.
type Reply struct {
	// Group is the group whose members get them; empty: everybody.
	Group string `json:"group,omitempty"`
	// Attributes, in the order in which they are sent; of an Access-Accept alone.
	Attributes []ReplyAttribute `json:"attributes"`
}

// ReplyAttribute is one attribute by its dictionary name (Filter-Id,
// Cisco-AVPair), with its value in the dictionary's way of writing it.
type ReplyAttribute struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Uses says whether the client may use a method.
func (o *ClientOptions) Uses(m Method) bool {
	if len(o.Methods) == 0 {
		return m == MethodPAP
	}
	return slices.Contains(o.Methods, m)
}

// maxOptions bounds the options of a client in JSON.
const maxOptions = 16 << 10

// text are the options as they are kept: in one form only, and empty where they are
// the default.
func (o *ClientOptions) text() (string, error) {
	methods := slices.Clone(o.Methods)
	slices.Sort(methods)
	for i, m := range methods {
		switch {
		case !slices.Contains(everyMethod, m):
			return "", fmt.Errorf("%w: method %q; it is pap, chap, mschap or mschapv2", ErrInvalid, m)
		case i > 0 && m == methods[i-1]:
			return "", fmt.Errorf("%w: method %s is named twice", ErrInvalid, m)
		}
	}
	held := *o
	held.Methods = methods
	if slices.Equal(methods, []Method{MethodPAP}) {
		held.Methods = nil
	}
	out, err := json.Marshal(held)
	switch {
	case err != nil:
		return "", err
	case len(out) > maxOptions:
		return "", fmt.Errorf("%w: the options of the client are more than %d bytes", ErrInvalid, maxOptions)
	case string(out) == "{}":
		return "", nil
	}
	return string(out), nil
}

// ParseClientOptions reads what Client.Options holds. What this version does not know
// is refused: it may be a restriction.
func ParseClientOptions(text string) (o ClientOptions, err error) {
	if text == "" {
		return o, nil
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err = dec.Decode(&o); err != nil {
		return ClientOptions{}, fmt.Errorf("%w: the options of a client: %w", ErrInvalid, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return ClientOptions{}, fmt.Errorf("%w: the options of a client hold more than one object", ErrInvalid)
	}
	again, err := o.text()
	if err != nil {
		return ClientOptions{}, err
	}
	if !bytes.Equal([]byte(again), []byte(text)) {
		return ClientOptions{}, fmt.Errorf("%w: the options of a client are not in the form that they are kept in", ErrInvalid)
	}
	return o, nil
}
