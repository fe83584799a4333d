package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"watchword/tokens"
)

// check refuses what cannot be meant, and fills in what follows from the rest:
// the database's URL, the token's label, and lists that are switched off.
func (c *Config) check() error {
	err := firstOf(c.checkDatabase(), c.checkListeners(), c.checkPages(), c.checkFIDO(), c.checkHSM(), c.checkVerify(), c.checkSessions(), c.checkAudit(), c.checkTimeZone(), c.checkLog())
	if err != nil {
		return &failure{What: "check the configuration", Why: err.Error(), Do: "'watchword config --manual' explains every key"}
	}
	return nil
}

func (c *Config) checkDatabase() error {
	if c.DataDir == "" {
		return errors.New("data_dir is empty")
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	c.DataDir = dir
	if c.Database != "" && c.DatabaseFile != "" {
		return errors.New("database and database_file exclude each other")
	}
	if c.DatabaseFile != "" {
		if c.Database, err = readLine(c.DatabaseFile); err != nil {
			return fmt.Errorf("database_file: %w", err)
		}
	}
	switch {
	case c.Database == "" || c.Database == "sqlite:":
		c.Database = "sqlite:" + filepath.Join(dir, "watchword.db")
	case strings.HasPrefix(c.Database, "sqlite:"):
	case strings.HasPrefix(c.Database, "postgres://"), strings.HasPrefix(c.Database, "postgresql://"):
		if _, err := url.Parse(c.Database); err != nil {
			// The parser's own words hold the password.
			return errors.New("database is no valid URL; it is postgres://USER:PASSWORD@HOST/NAME, where special characters of the password are percent-encoded")
		}
	default:
		return errors.New("database begins with sqlite: or postgres://")
	}
	if c.RequireSync && c.sqlite() {
		return errors.New("require_sync is about PostgreSQL, and the database is SQLite")
	}
	return within("database_connections", c.DatabaseConnections, 1, 1000)
}

// sqlite says whether the database is for this server alone.
func (c *Config) sqlite() bool { return strings.HasPrefix(c.Database, "sqlite:") }

func (c *Config) checkListeners() error {
	for _, l := range []struct {
		key  string
		list *[]string
	}{{"http.listen", &c.HTTP.Listen}, {"radius.listen", &c.RADIUS.Listen}} {
		if len(*l.list) == 0 {
			return fmt.Errorf("%s is empty; name an address, or none to switch it off", l.key)
		}
		if slices.Equal(*l.list, []string{"none"}) {
			*l.list = nil
		}
		for _, address := range *l.list {
			if _, port, err := net.SplitHostPort(address); err != nil || !validPort(port) {
				return fmt.Errorf("%s: %q is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:1812", l.key, address)
			}
		}
	}
	if len(c.HTTP.Listen)+len(c.RADIUS.Listen) == 0 {
		return errors.New("http.listen and radius.listen are both switched off: nobody could ask")
	}
	if (c.HTTP.TLSCert == "") != (c.HTTP.TLSKey == "") {
		return errors.New("http.tls_cert and http.tls_key need each other")
	}
	for _, address := range c.HTTP.Listen {
		// Of other names the API finds out when they are resolved.
		host, _, _ := net.SplitHostPort(address)
		if ip := net.ParseIP(host); c.HTTP.TLSCert == "" && !c.HTTP.AllowPlaintext && (host == "" || ip != nil && !ip.IsLoopback()) {
			return fmt.Errorf("http.listen: plain HTTP on %s would show API keys and codes to the network: set http.tls_cert and http.tls_key, or http.allow_plaintext if something in front does TLS", address)
		}
	}
	return firstOf(
		positive("http.timeout", c.HTTP.Timeout), positive("radius.timeout", c.RADIUS.Timeout),
		positive("radius.reply_life", c.RADIUS.ReplyLife),
		within("radius.readers", c.RADIUS.Readers, 1, 64),
		within("radius.max_in_work", c.RADIUS.MaxInWork, 1, 1<<20),
	)
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && (n > 0 || port == "0")
}

// checkPages is about what people see.
func (c *Config) checkPages() error {
	if c.HTTP.PublicURL != "" {
		u, err := url.Parse(strings.TrimSuffix(c.HTTP.PublicURL, "/"))
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Scheme+"://"+u.Host != u.String() {
			return errPublicURL
		}
	}
	if n := c.Statements.Issuer; n == "" || len(n) > 255 || strings.ContainsFunc(n, unicode.IsControl) {
		return errors.New("statements.issuer is 1 to 255 bytes of text in one line")
	}
	return nil
}

// checkFIDO looks at what webauthn does not know. What relying parties and origins
// may be it says itself, at start.
func (c *Config) checkFIDO() error {
	f := &c.FIDO
	if len(f.Parties) > 0 && len(c.HTTP.Listen) == 0 {
		return errors.New("fido.parties needs http.listen: keys are used over HTTP")
	}
	if !slices.Contains([]string{"required", "preferred", "discouraged"}, f.UserVerification) {
		return errors.New("fido.user_verification is required, preferred or discouraged")
	}
	if !slices.Contains([]string{"direct", "enterprise", "none"}, f.Attestation) {
		return errors.New("fido.attestation is direct, enterprise or none")
	}
	if f.CeremonyTTL < 10*time.Second || f.CeremonyTTL > time.Hour {
		return errors.New("fido.ceremony_ttl is 10s to 1h")
	}
	if u, err := url.Parse(f.MetadataURL); f.MetadataURL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		return errors.New("fido.metadata_url begins with https://")
	}
	if f.MetadataGrace == 0 {
		return errors.New("fido.metadata_grace is a duration such as 24h, or -1s for ever")
	}
	return nil
}

func (c *Config) checkHSM() error {
	h := &c.HSM
	if h.Module == "" {
		for _, s := range []struct{ key, value string }{
			{"pin", h.PIN}, {"pin_file", h.PINFile}, {"token_serial", h.TokenSerial}, {"slot", h.Slot}, {"token_label", h.TokenLabel},
		} {
			if s.value != "" {
				return fmt.Errorf("hsm.%s needs hsm.module", s.key)
			}
		}
		h.TokenLabel = softTokenLabel
	}
	if h.PIN != "" && h.PINFile != "" {
		return errors.New("hsm.pin and hsm.pin_file exclude each other")
	}
	if _, err := h.slot(); err != nil {
		return err
	}
	if h.Handles < -1 || h.Handles == 0 {
		return errors.New("hsm.handles is a positive number, or -1 for none")
	}
	return firstOf(within("hsm.sessions", h.Sessions, 1, 1024), positive("hsm.stuck_after", h.StuckAfter))
}

// slot is the configured slot, nil if there is none.
func (h *HSMConfig) slot() (*uint, error) {
	if h.Slot == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(h.Slot, 0, 64)
	if err != nil {
		return nil, errors.New("hsm.slot is a number")
	}
	slot := uint(n)
	return &slot, nil
}

func (c *Config) checkVerify() error {
	v, t := &c.Verify, &c.Throttle
	if v.MaxSteps < v.Steps {
		return errors.New("verify.max_steps is below verify.steps")
	}
	if v.Widen < 0 {
		return errors.New("verify.widen is negative")
	}
	if t.Max < t.Wait {
		return errors.New("throttle.max is below throttle.wait")
	}
	if t.LockAt <= t.Free {
		return errors.New("throttle.lock_at is not above throttle.free")
	}
	return firstOf(
		within("verify.steps", v.Steps, 0, 20), within("verify.max_steps", v.MaxSteps, 0, 60),
		within("verify.look_ahead", v.LookAhead, 1, 100),
		within("verify.resync_steps", v.ResyncSteps, 1, 2000), within("verify.resync_counters", v.ResyncCounters, 1, 20000),
		within("verify.queue", v.Queue, 1, 1<<20), positive("verify.clock_skew", v.ClockSkew),
		within("throttle.free", t.Free, 0, 100), within("throttle.lock_at", t.LockAt, 1, 10000),
		positive("throttle.wait", t.Wait), positive("throttle.max", t.Max),
	)
}

func (c *Config) windows() tokens.Windows {
	v := &c.Verify
	return tokens.Windows{
		Steps: v.Steps, MaxSteps: v.MaxSteps, Widen: v.Widen, LookAhead: v.LookAhead,
		ResyncSteps: v.ResyncSteps, ResyncCounters: v.ResyncCounters,
	}
}

func (c *Config) throttle() tokens.Throttle {
	t := &c.Throttle
	return tokens.Throttle{Free: t.Free, Wait: t.Wait, Max: t.Max, LockAt: t.LockAt}
}

// What sessions.bind may be.
const (
	bindAddress = "address"
	bindNone    = "none"
)

func (c *Config) checkSessions() error {
	v := &c.Sessions
	if v.Bind != bindAddress && v.Bind != bindNone {
		return errors.New("sessions.bind is neither address nor none")
	}
	for _, l := range []struct {
		name string
		life time.Duration
	}{{"sessions.life_admin", v.LifeAdmin}, {"sessions.life_user", v.LifeUser}} {
		if l.life < tokens.ShortestSession || l.life > tokens.LongestSession {
			return fmt.Errorf("%s is not between 15m and 36h", l.name)
		}
	}
	return nil
}

func (c *Config) sessions() tokens.SessionRules {
	v := &c.Sessions
	return tokens.SessionRules{Unbound: v.Bind == bindNone, LifeAdmin: v.LifeAdmin, LifeUser: v.LifeUser}
}

// The shortest and the longest audit.keep: a month, and a century.
const (
	shortestKeep = 30 * 24 * time.Hour
	longestKeep  = 36_500 * 24 * time.Hour
)

func (c *Config) checkAudit() error {
	if k := c.Audit.Keep; k != 0 && (k < shortestKeep || k > longestKeep) {
		return errors.New("audit.keep is not between 720h (30 days) and 876000h; 0s keeps all")
	}
	return nil
}

func (c *Config) checkLog() error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		return errors.New("log.level is debug, info, warn or error")
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		return errors.New("log.format is text or json")
	}
	return nil
}

func within(key string, n, low, high int) error {
	if n < low || n > high {
		return fmt.Errorf("%s is %d; %d to %d are possible", key, n, low, high)
	}
	return nil
}

func positive(key string, d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%s is not positive", key)
	}
	return nil
}

// readLine reads a file of one line, which a secret is. It is not trimmed but
// for the line's end.
func readLine(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%s: %s", path, plainCause(err))
	}
	if !info.Mode().IsRegular() && info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) == 0 {
		return "", fmt.Errorf("%s is not a file", path)
	}
	if info.Size() > 64<<10 {
		return "", fmt.Errorf("%s is larger than 64 KiB", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %s", path, plainCause(err))
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case line == "":
		return "", fmt.Errorf("%s is empty", path)
	case strings.ContainsAny(line, "\r\n"):
		return "", fmt.Errorf("%s has more than one line", path)
	}
	return line, nil
}

// redactURL is a database URL without its password.
func redactURL(text string) string {
	if !strings.HasPrefix(text, "postgres") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "postgres://(not shown)"
	}
	if _, ok := u.User.Password(); ok {
		u.User = url.UserPassword(u.User.Username(), "xxxxx")
	}
	query := u.Query()
	for key := range query {
		if strings.Contains(strings.ToLower(key), "password") {
			query.Set(key, "xxxxx")
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// shortDuration is a duration as people write it: 15m, not 15m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
