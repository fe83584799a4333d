package webauthn

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"watchword/tokens"
)

// Party is a relying party: what credentials are made for, and from where.
type Party struct {
	ID   string // relying party id: a domain name in lower case, A-labels; or localhost
	Name string // for people; empty: the ID

	// Origins are the web origins whose pages may run its ceremonies, exactly as
	// browsers write them: https://host, with a port unless it is 443 (RFC 6454,
	// section 6.2). http is allowed for localhost. One that is not on ID or below
	// it is a related origin (section 5.11), and must be served at
	// /.well-known/webauthn of the ID.
	Origins []string
}

// Config is what a Service is made of. Core and Parties are required.
type Config struct {
	Core    *tokens.Service
	Parties []Party // the first is the default

	// UserVerification says whether an authenticator must verify its user, by PIN
	// or biometrics: required, preferred or discouraged. Empty: preferred.
	UserVerification string
	// Synced allows credentials that may live on several devices (backup eligible).
	// Rules can say otherwise for a realm or group.
	Synced bool
	// Attestation is what browsers are asked to convey: direct, enterprise or
	// none. Empty: direct.
	Attestation string
	TTL         time.Duration // how long a ceremony may take, 10 s to 1 h; zero: 5 min

	SuspendOnStatus bool           // suspend keys enrolled before whose model is reported as not to be trusted
	MetadataURL     string         // where the metadata is fetched from; empty: never
	MetadataRoots   *x509.CertPool // that sign the metadata; nil: the FIDO root
	// MetadataGrace is how long metadata is still used to enrol after the day when
	// the next one was due. Zero: 30 days; negative: for ever.
	MetadataGrace time.Duration
	// Fetch gets a URL, for the metadata only. Nil: by HTTPS.
	Fetch func(ctx context.Context, url string) ([]byte, error)

	Now  func() time.Time // nil: time.Now
	Rand io.Reader        // nil: crypto/rand
	Log  *slog.Logger     // nil: discarded
}

// Service runs ceremonies. All its methods may be called concurrently, and a
// ceremony that began on one node may end on another.
type Service struct {
	cfg     Config
	core    *tokens.Service
	log     *slog.Logger
	parties map[string]*Party
	meta    metadataState
	keys    readKeys
	begun   begun
}

// New checks the configuration.
func New(_ context.Context, cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	if cfg.Core == nil {
		return nil, fmt.Errorf("webauthn needs the core")
	}
	if len(cfg.Parties) == 0 {
		return nil, fmt.Errorf("webauthn needs at least one relying party")
	}
	if verificationRank(cfg.UserVerification) < 0 {
		return nil, fmt.Errorf("user verification is %q; it can be required, preferred or discouraged", cfg.UserVerification)
	}
	if !slices.Contains([]string{"direct", "enterprise", "none"}, cfg.Attestation) {
		return nil, fmt.Errorf("attestation is %q; it can be direct, enterprise or none", cfg.Attestation)
	}
	if cfg.TTL < 10*time.Second || cfg.TTL > time.Hour {
		return nil, fmt.Errorf("a ceremony may take %v; 10s to 1h are possible", cfg.TTL)
	}
	s := &Service{cfg: cfg, core: cfg.Core, log: cfg.Log, parties: make(map[string]*Party, len(cfg.Parties))}
	for i := range cfg.Parties {
		p := cfg.Parties[i]
		if err := p.check(); err != nil {
			return nil, err
		}
		if s.parties[p.ID] != nil {
			return nil, fmt.Errorf("relying party %s is there twice", p.ID)
		}
		if p.Name == "" {
			p.Name = p.ID
		}
		s.parties[p.ID] = &p
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	if c.UserVerification == "" {
		c.UserVerification = "preferred"
	}
	if c.Attestation == "" {
		c.Attestation = "direct"
	}
	if c.TTL == 0 {
		c.TTL = 5 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Parties are the relying parties, the default one first.
func (s *Service) Parties() []Party {
	list := make([]Party, len(s.cfg.Parties))
	for i, p := range s.cfg.Parties {
		list[i] = *s.parties[p.ID]
		list[i].Origins = slices.Clone(p.Origins)
	}
	return list
}

// party is the relying party with the id; the default one for an empty id.
func (s *Service) party(id string) (*Party, error) {
	if id == "" {
		id = s.cfg.Parties[0].ID
	}
	if p := s.parties[id]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: this server is not relying party %s; 'webauthn' in the configuration lists those that it is", tokens.ErrInvalid, printable(id))
}

// verificationRank orders what is asked of user verification; -1 for a word
// that is none.
func verificationRank(word string) int {
	return slices.Index([]string{"discouraged", "preferred", "required"}, word)
}

func (p *Party) check() error {
	if err := checkDomain(p.ID); err != nil {
		return fmt.Errorf("relying party id %q: %w", p.ID, err)
	}
	if len(p.Origins) == 0 {
		return fmt.Errorf("relying party %s has no origins; https://%s is the usual one", p.ID, p.ID)
	}
	for i, o := range p.Origins {
		if err := checkOrigin(o); err != nil {
			return fmt.Errorf("relying party %s: origin %q: %w", p.ID, o, err)
		}
		if slices.Contains(p.Origins[:i], o) {
			return fmt.Errorf("relying party %s: origin %q is there twice", p.ID, o)
		}
	}
	return nil
}

// checkDomain wants a domain name as a browser compares it: lower case, ASCII,
// no address.
func checkDomain(name string) error {
	if name == "localhost" {
		return nil
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("it is an address; browsers want a name")
	}
	labels := strings.Split(name, ".")
	if len(name) > 253 || len(labels) < 2 {
		return fmt.Errorf("it is not a domain name of two labels or more")
	}
	for _, l := range labels {
		if len(l) < 1 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' ||
			strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("it is not a domain name in lower case (other scripts as A-labels, xn--...)")
		}
	}
	return nil
}

// checkOrigin wants an origin as browsers serialise it, because it is compared
// byte by byte.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil {
		return fmt.Errorf("it is not a URL")
	}
	host := u.Hostname()
	if u.Scheme+"://"+u.Host != origin || host == "" {
		return fmt.Errorf("an origin is scheme, host and port, and nothing after them, such as https://login.example.org")
	}
	if err := checkDomain(host); err != nil {
		return err
	}
	switch {
	case u.Scheme == "https" && u.Port() == "443", u.Scheme == "http" && u.Port() == "80", strings.HasSuffix(u.Host, ":"):
		return fmt.Errorf("browsers leave out the usual port; so must it")
	case u.Scheme == "http" && (host == "localhost" || strings.HasSuffix(host, ".localhost")):
		return nil
	case u.Scheme != "https":
		return fmt.Errorf("only https is possible (and http for localhost)")
	}
	return nil
}

// printable is a string from outside as it may stand in an error.
func printable(s string) string {
	const most = 64
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}
