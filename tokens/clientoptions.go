package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
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

	// Replies are the attributes that an Access-Accept has beside what the protocol
	// wants, from all the replies that are for the user. Of an attribute that may stand
	// there once, the first counts.
	Replies []Reply `json:"replies,omitempty"`

	// Messages are the texts of Reply-Message: by Question for a challenge, and
	// "accept" and "reject". One that is missing has its default, which for "accept"
	// and "reject" is none; one that is empty is not sent.
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

// The bounds of options.
const (
	maxOptions    = 16 << 10  // bytes of all of them, in JSON
	maxRate       = 1_000_000 // requests a second
	maxMessage    = 253       // bytes of a Reply-Message (RFC 2865, section 5.18)
	maxReplyName  = 128       // bytes
	maxReplyValue = 512       // bytes: an attribute in hexadecimal
)

// Texts of Reply-Message that answer no question.
const (
	MessageAccept = "accept"
	MessageReject = "reject"
)

// messageKeys are what Messages may hold.
var messageKeys = []string{
	string(QuestionCode), string(QuestionNextCode), string(QuestionNewPIN), string(QuestionBadPIN), string(QuestionNewPINAgain),
	MessageAccept, MessageReject,
}

// Normal answers the options in the one form that they are kept in: in order, folded,
// and with nothing that is the default. It says what is wrong with them, but for what
// the dictionary of attributes alone knows.
func (o *ClientOptions) Normal() (ClientOptions, error) {
	held := *o
	var err error
	if held.Methods, err = inOrder("method", o.Methods, everyMethod); err != nil {
		return held, err
	}
	if slices.Equal(held.Methods, []Method{MethodPAP}) {
		held.Methods = nil
	}
	if held.Dialogues, err = inOrder("dialogue", o.Dialogues, everyDialogue); err != nil {
		return held, err
	}
	// The PIN may stand before the code from every client.
	if held.Joined, err = inOrder("joined dialogue", o.Joined, []Dialogue{DialogueNextCode, DialogueNewPIN}); err != nil {
		return held, err
	}
	for _, d := range held.Joined {
		if slices.Contains(held.Dialogues, d) {
			return held, fmt.Errorf("%w: %s is both a dialogue and a joined one; a gateway can either ask, or not", ErrInvalid, d)
		}
	}
	if o.Rate < 0 || o.Rate > maxRate {
		return held, fmt.Errorf("%w: a rate of %d requests a second; it is 1 to %d, or 0 for no limit", ErrInvalid, o.Rate, maxRate)
	}
	if held.Replies, err = heldReplies(o.Replies); err != nil {
		return held, err
	}
	return held, checkMessages(o.Messages)
}

// text are the options as they are kept; empty where they are the default.
func (o *ClientOptions) text() (string, error) {
	held, err := o.Normal()
	if err != nil {
		return "", err
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

// inOrder sorts names of a kind, each of which is one of those that there are, once.
func inOrder[T ~string](kind string, names, known []T) ([]T, error) {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	for i, n := range sorted {
		switch {
		case !slices.Contains(known, n):
			all := make([]string, len(known))
			for i := range known {
				all[i] = string(known[i])
			}
			return nil, fmt.Errorf("%w: %s %q; it is %s or %s", ErrInvalid, kind, n, strings.Join(all[:len(all)-1], ", "), all[len(all)-1])
		case i > 0 && n == sorted[i-1]:
			return nil, fmt.Errorf("%w: %s %s is named twice", ErrInvalid, kind, n)
		}
	}
	return sorted, nil
}

// heldReplies are replies with their groups folded. What the attributes mean is for
// Config.CheckReplies to say.
func heldReplies(replies []Reply) ([]Reply, error) {
	held := slices.Clone(replies)
	groups := map[string]bool{}
	for i := range held {
		r := &held[i]
		whose := "everybody"
		if r.Group != "" {
			group, err := FoldName(r.Group)
			if err != nil {
				return nil, fmt.Errorf("the group of reply %d: %w", i+1, err)
			}
			r.Group, whose = group, "group "+group
		}
		switch {
		case groups[r.Group]:
			return nil, fmt.Errorf("%w: there are two replies for %s; put their attributes into one", ErrInvalid, whose)
		case len(r.Attributes) == 0:
			return nil, fmt.Errorf("%w: the reply for %s has no attribute", ErrInvalid, whose)
		}
		groups[r.Group] = true
		for n, a := range r.Attributes {
			if err := a.check(); err != nil {
				return nil, fmt.Errorf("attribute %d of the reply for %s: %w", n+1, whose, err)
			}
		}
	}
	return held, nil
}

// check says what is wrong with the form of an attribute.
func (a *ReplyAttribute) check() error {
	name := func(r rune) bool { return r <= ' ' || r > '~' || r == '=' }
	switch {
	case a.Name == "" || len(a.Name) > maxReplyName || strings.ContainsFunc(a.Name, name):
		return fmt.Errorf("%w: its name is missing, or no attribute's; they are like Filter-Id", ErrInvalid)
	case len(a.Value) > maxReplyValue:
		return fmt.Errorf("%w: the value of %s is longer than %d bytes", ErrInvalid, a.Name, maxReplyValue)
	case !utf8.ValidString(a.Value) || strings.ContainsFunc(a.Value, unicode.IsControl):
		return fmt.Errorf("%w: the value of %s holds control characters, or is not UTF-8", ErrInvalid, a.Name)
	}
	return nil
}

// checkMessages says what is wrong with texts of Reply-Message. One that is empty is
// not sent.
func checkMessages(messages map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(messages)) {
		text := messages[key]
		switch {
		case !slices.Contains(messageKeys, key):
			return fmt.Errorf("%w: there is no message %q; there are %s", ErrInvalid, key, strings.Join(messageKeys, ", "))
		case len(text) > maxMessage:
			return fmt.Errorf("%w: the message %s has %d bytes; a Reply-Message holds %d at most", ErrInvalid, key, len(text), maxMessage)
		case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
			return fmt.Errorf("%w: the message %s holds control characters or line ends, or is not UTF-8", ErrInvalid, key)
		}
	}
	return nil
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
