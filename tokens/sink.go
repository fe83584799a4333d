package tokens

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"watchword/tokens/audit"
)

// SinkKind is a way in which the audit leaves the building.
type SinkKind string

// The kinds of sinks.
const (
	SinkFile    SinkKind = "file"    // on the server's disk
	SinkSyslog  SinkKind = "syslog"  // RFC 5424 over TLS; over TCP or UDP by name only
	SinkWebhook SinkKind = "webhook" // some events, each by an HTTPS request
)

// The formats of a file.
const (
	SinkJSON = "json" // audit.Record.AppendJSON
	SinkOCSF = "ocsf" // audit.Record.AppendOCSF
)

const (
	maxSinks    = 16
	maxSinkPEM  = 32 << 10 // bytes of a certificate, a chain or a list of authorities
	maxSinkText = 2048     // bytes of a URL
)

// Sink is where the audit is told to: all of it, or of a webhook some events. All
// nodes know it, and one of them tells it at a time.
type Sink struct {
	Name     string    `json:"name"`
	ID       string    `json:"id"`       // of this sink and no later one of the name
	Revision int64     `json:"revision"` // rises when it is put anew
	Kind     SinkKind  `json:"kind"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
	Stopped  string    `json:"stopped,omitempty"` // why it is told nothing any more; empty: it is

	// Of a file. It is rotated when it would be longer than MaxBytes, and the Keep
	// newest of those that were are kept, all if zero.
	Format   string `json:"format,omitempty"`
	MaxBytes int64  `json:"max_bytes,omitempty"`
	Keep     int    `json:"keep,omitempty"`

	// Of syslog: tls://host:port, tcp://host:port or udp://host:port.
	Address        string `json:"address,omitempty"`
	AllowPlaintext bool   `json:"allow_plaintext,omitempty"`
	CA             string `json:"ca,omitempty"`          // PEM; empty: the system's
	ServerName     string `json:"server_name,omitempty"` // that the certificate must have; empty: the host of Address
	Certificate    string `json:"certificate,omitempty"` // ours, PEM; empty: none

	// Of a webhook.
	URL    string   `json:"url,omitempty"`
	Events []string `json:"events,omitempty"` // of NoticeTypes; empty: all

	// Begin is how far each chain went where nothing before is told.
	Begin map[int64]int64 `json:"begin,omitempty"`

	Secret []byte `json:"secret,omitempty"` // of a webhook, sealed by the HSM
	Key    []byte `json:"key,omitempty"`    // of Certificate, sealed by the HSM
}

// Plain says whether whoever stands between can read and change what is told.
func (k *Sink) Plain() bool {
	return k.Kind == SinkSyslog && !strings.HasPrefix(k.Address, "tls://")
}

// SinkSecrets are a sink's secrets in clear. Whoever gets them wipes them.
type SinkSecrets struct {
	Webhook []byte // that signs what a webhook is told
	Key     []byte // the PEM of the key of Sink.Certificate
}

// Wipe clears the secrets.
func (s *SinkSecrets) Wipe() {
	clear(s.Webhook)
	clear(s.Key)
}

// Deliverer knows the ways to sinks.
type Deliverer interface {
	// Open readies the way to a sink, and fails with ErrInvalid if its settings lead
	// nowhere. It does not wait for a network. It keeps copies of the secrets that
	// it needs.
	Open(k *Sink, secrets *SinkSecrets) (Delivery, error)
}

// Delivery is a way to one sink. Its methods are called one at a time.
type Delivery interface {
	// Send hands over records of one chain, in order, and answers how many of them,
	// from the first on. After an error the rest is sent again. It ends when ctx does.
	Send(ctx context.Context, records []audit.Record) (int, error)
	// Safe answers, chain by chain, the last of the records handed over that the sink
	// will not lose any more, as far as that can be known. After an error all
	// that was not said to be safe is handed over again.
	Safe() (map[int64]int64, error)
	// Test says whether the sink would take records, as far as can be found out
	// without a record of the audit.
	Test(ctx context.Context) error
	Close() error
}

// ErrSinkGone is a Deliverer's word to the core that the sink wants no more, for good.
var ErrSinkGone = errors.New("the receiver wants no more")

// NewSink is a sink to make, or to change.
type NewSink struct {
	Name           string
	Kind           SinkKind
	Format         string // of a file; empty: json
	MaxBytes       int64  // of a file; zero: 100 MiB
	Keep           int
	Address        string
	AllowPlaintext bool
	CA             string
	ServerName     string
	Certificate    string
	Key            []byte // PEM, of Certificate; wiped. Empty: the one there is, if Certificate is the one there is
	URL            string
	Events         []string
	FromNow        *bool // nothing of before is told; nil: so for webhooks. A sink that is there goes on where it is
	NewSecret      bool  // a webhook that is there gets another secret

	// Secret is the one that a webhook is to have, as its receiver knows it: "whsec_"
	// and base64 of 24 to 64 bytes; wiped. Empty: the one there is, or one that is made.
	Secret []byte
}

// The secrets of webhooks, in bytes, as Standard Webhooks has them.
const (
	minWebhookSecret = 24
	maxWebhookSecret = 64
)

// plainSecret is what the signatures of the webhook are made with; nil if n brings
// none. Whoever gets it wipes it.
func (n *NewSink) plainSecret() ([]byte, error) {
	if len(n.Secret) == 0 {
		return nil, nil
	}
	text, named := bytes.CutPrefix(n.Secret, []byte(webhookSecret))
	key := make([]byte, base64.StdEncoding.DecodedLen(min(len(text), 2*maxWebhookSecret)))
	size, err := 0, error(nil)
	if named && len(text) <= 2*maxWebhookSecret {
		size, err = base64.StdEncoding.Strict().Decode(key, text)
	}
	if err != nil || size < minWebhookSecret || size > maxWebhookSecret {
		clear(key)
		return nil, fmt.Errorf("the secret is %s and base64 of %d to %d bytes", webhookSecret, minWebhookSecret, maxWebhookSecret)
	}
	return key[:size], nil
}

// Sink is the sink that PutSink would make: its settings, as they are kept. It fails
// with ErrInvalid.
func (n *NewSink) Sink() (Sink, error) { return n.check() }

// check brings the settings to their form, or says what is wrong with them.
func (n *NewSink) check() (Sink, error) {
	k := Sink{Name: n.Name, Kind: n.Kind}
	bad := func(format string, args ...any) (Sink, error) {
		return Sink{}, fmt.Errorf("%w: sink %s: "+format, append([]any{ErrInvalid, n.Name}, args...)...)
	}
	if !validSinkName(n.Name) {
		return Sink{}, fmt.Errorf("%w: a sink's name is 1 to 64 of a-z, 0-9 and -, and begins with a letter", ErrInvalid)
	}
	foreign := map[string]bool{
		"format": n.Kind != SinkFile && n.Format != "", "max_bytes": n.Kind != SinkFile && n.MaxBytes != 0, "keep": n.Kind != SinkFile && n.Keep != 0,
		"address": n.Kind != SinkSyslog && n.Address != "", "allow_plaintext": n.Kind != SinkSyslog && n.AllowPlaintext,
		"server_name": n.Kind != SinkSyslog && n.ServerName != "", "certificate": n.Kind != SinkSyslog && n.Certificate != "",
		"key": n.Kind != SinkSyslog && len(n.Key) > 0, "ca": n.Kind == SinkFile && n.CA != "",
		"url": n.Kind != SinkWebhook && n.URL != "", "events": n.Kind != SinkWebhook && len(n.Events) > 0, "new_secret": n.Kind != SinkWebhook && n.NewSecret, "secret": n.Kind != SinkWebhook && len(n.Secret) > 0,
	}
	for _, name := range []string{"format", "max_bytes", "keep", "address", "allow_plaintext", "server_name", "certificate", "key", "ca", "url", "events", "new_secret", "secret"} {
		if foreign[name] && (n.Kind == SinkFile || n.Kind == SinkSyslog || n.Kind == SinkWebhook) {
			return bad("%s is not for a sink of kind %s", name, n.Kind)
		}
	}
	if len(n.CA) > maxSinkPEM || len(n.Certificate) > maxSinkPEM || len(n.Key) > maxSinkPEM {
		return bad("a certificate or key is longer than %d bytes", maxSinkPEM)
	}
	for _, text := range []string{n.CA, n.Certificate, n.ServerName, n.Address, n.URL} {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return bad("a setting is not text")
		}
	}
	// They are shown to whoever lists sinks, and a PEM file often has both.
	if strings.Contains(n.CA+n.Certificate, "PRIVATE KEY-----") {
		return bad("there is a private key among the certificates, which everybody would see; leave it out, and name it as the key")
	}
	k.CA = n.CA
	switch n.Kind {
	case SinkFile:
		k.Format, k.MaxBytes, k.Keep = n.Format, n.MaxBytes, n.Keep
		if k.Format == "" {
			k.Format = SinkJSON
		}
		if k.MaxBytes == 0 {
			k.MaxBytes = 100 << 20
		}
		switch {
		case k.Format != SinkJSON && k.Format != SinkOCSF:
			return bad("the format of a file is json or ocsf")
		case k.MaxBytes < 64<<10 || k.MaxBytes > 1<<40:
			return bad("a file is rotated at 64 KiB to 1 TiB")
		case k.Keep < 0 || k.Keep > 100_000:
			return bad("0 to 100000 files are kept, where 0 is all")
		}
	case SinkSyslog:
		k.Address, k.AllowPlaintext, k.ServerName, k.Certificate = n.Address, n.AllowPlaintext, n.ServerName, n.Certificate
		if err := checkSyslog(&k, len(n.Key) > 0); err != nil {
			return bad("%w", err)
		}
	case SinkWebhook:
		k.URL, k.Events = n.URL, slices.Clone(n.Events)
		slices.Sort(k.Events)
		k.Events = slices.Compact(k.Events)
		for _, e := range k.Events {
			if !slices.Contains(NoticeTypes, e) {
				return bad("there is no event %q; there are %s", e, strings.Join(NoticeTypes, ", "))
			}
		}
		if err := checkWebhook(k.URL); err != nil {
			return bad("%w", err)
		}
		if n.NewSecret && len(n.Secret) > 0 {
			return bad("secret and new_secret exclude each other")
		}
		key, err := n.plainSecret()
		if err != nil {
			return bad("%w", err)
		}
		clear(key)
	default:
		return bad("the kind is file, syslog or webhook")
	}
	return k, nil
}

func validSinkName(name string) bool {
	if len(name) < 1 || len(name) > 64 || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	return !strings.ContainsFunc(name, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' })
}

func checkSyslog(k *Sink, key bool) error {
	u, err := url.Parse(k.Address)
	if err != nil || len(k.Address) > maxSinkText || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the address is tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT")
	}
	if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" || u.Hostname() == "" {
		return errors.New("the address needs a host and a port: syslog over TLS is at 6514 as a rule")
	}
	switch u.Scheme {
	case "tls":
		if len(k.ServerName) > 255 {
			return errors.New("server_name is longer than 255 bytes")
		}
		if k.AllowPlaintext {
			return errors.New("allow_plaintext is for tcp:// and udp://")
		}
	case "tcp", "udp":
		switch {
		case !k.AllowPlaintext:
			return errors.New("without TLS whoever stands between can read and change the audit; use tls://, or say allow_plaintext if that cannot be")
		case k.CA != "" || k.ServerName != "" || k.Certificate != "" || key:
			return errors.New("certificates, keys and server_name are for tls://")
		}
	default:
		return errors.New("the address begins with tls://, tcp:// or udp://")
	}
	if key && k.Certificate == "" {
		return errors.New("there is a key and no certificate")
	}
	return nil
}

func checkWebhook(text string) error {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxSinkText || u.Host == "" || u.Hostname() == "" || u.Fragment != "" {
		return errors.New("the URL is https://HOST/PATH")
	}
	if u.User != nil {
		return errors.New("the URL holds a user name or password; receivers know us by the signature")
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.IsLoopback() || u.Hostname() == "localhost" {
			return nil
		}
		return errors.New("http:// is for this machine alone; use https://")
	}
	return errors.New("the URL begins with https://")
}

// place is where a sink is, as the audit says it: a webhook's path may be known to
// few.
func (k *Sink) place() string {
	switch k.Kind {
	case SinkSyslog:
		return k.Address
	case SinkWebhook:
		if u, err := url.Parse(k.URL); err == nil {
			return u.Scheme + "://" + u.Host
		}
	}
	return ""
}

// Wants says whether a webhook is told notices of a type.
func (k *Sink) Wants(notice string) bool {
	return len(k.Events) == 0 || slices.Contains(k.Events, notice)
}
