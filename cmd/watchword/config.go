package main

import (
	_ "embed"
	"time"
)

// Config is the server's configuration: one YAML file, given by --config or
// WATCHWORD_CONFIG. Each key is also a variable: hsm.pin_file is
// WATCHWORD_HSM_PIN_FILE; lists are separated by commas there. A flag goes
// before a variable, a variable before the file, the file before the default.
// 'watchword config' prints what is in effect, 'watchword config --manual' with
// these comments.
type Config struct {
	// The data directory. A directory without watchword.json is initialised;
	// other files in it are left alone. With SQLite one server uses it at a time;
	// servers on PostgreSQL may share one or have one each.
	// Default: ./var
	DataDir string `yaml:"data_dir"`

	// The database: sqlite:PATH, or postgres://USER:PASSWORD@HOST/NAME for more
	// than one node (several hosts may be given, as HOST,HOST).
	// Default: sqlite: with watchword.db in the data directory.
	Database string `yaml:"database" secret:"url"`

	// A file whose only line is the database URL, to keep a password out of the
	// configuration. Excludes database.
	DatabaseFile string `yaml:"database_file"`

	// Connections to PostgreSQL: as many for attempts, and as many again for all
	// else. Default: 8
	DatabaseConnections int `yaml:"database_connections"`

	// Refuse to start on PostgreSQL unless a synchronous standby confirms each
	// commit. Without one, a code may be accepted a second time after a failover.
	// Default: false, which warns.
	RequireSync bool `yaml:"require_sync"`

	// The time zone in which policies see hours and days of the week, such as
	// Europe/Berlin. All nodes must have the same. Default: UTC
	TimeZone string `yaml:"time_zone"`

	HTTP       HTTPConfig       `yaml:"http"`
	RADIUS     RADIUSConfig     `yaml:"radius"`
	FIDO       FIDOConfig       `yaml:"fido"`
	Statements StatementsConfig `yaml:"statements"`
	HSM        HSMConfig        `yaml:"hsm"`
	Verify     VerifyConfig     `yaml:"verify"`
	Throttle   ThrottleConfig   `yaml:"throttle"`
	Sessions   SessionsConfig   `yaml:"sessions"`
	Audit      AuditConfig      `yaml:"audit"`
	Log        LogConfig        `yaml:"log"`
}

// HTTPConfig is about the API and the pages that people see.
type HTTPConfig struct {
	// Addresses to listen on. [none] switches HTTP off.
	// Default: [127.0.0.1:8080]
	Listen []string `yaml:"listen"`

	// PEM files: the certificate with its chain, and its private key. Both or
	// neither; without them the API speaks plain HTTP. Changed files are taken up
	// by themselves, and at once on SIGHUP.
	TLSCert string `yaml:"tls_cert"`
	TLSKey  string `yaml:"tls_key"`

	// Speak plain HTTP also on addresses that other machines can reach: API keys,
	// codes and PINs are then open on the wire, unless something in front of the
	// server does TLS. Default: false, which refuses to start.
	AllowPlaintext bool `yaml:"allow_plaintext"`

	// How long a request may take, but for imports and audit verification.
	// Default: 30s
	Timeout time.Duration `yaml:"timeout"`

	// What the pages, and authenticator apps that were enrolled on them, call this
	// installation. Default: the name of the first of fido.parties, or Watchword.
	Name string `yaml:"name"`

	// Where people reach the pages, such as https://login.example.org: what the
	// links of invitations begin with.
	// Default: the first origin of the first of fido.parties, or else links are
	// given without it.
	PublicURL string `yaml:"public_url"`
}

// RADIUSConfig is about RADIUS. Its clients are in the database: see
// 'watchword client'.
type RADIUSConfig struct {
	// Addresses to listen on (UDP). [none] switches RADIUS off.
	// Default: [127.0.0.1:1812]
	Listen []string `yaml:"listen"`

	// How many goroutines read each address. Default: 2
	Readers int `yaml:"readers"`

	// Give each reader a socket of its own (SO_REUSEPORT), among which the system
	// divides the gateways. Default: false, which has them share one: a single
	// gateway then keeps all of them busy.
	ReusePort bool `yaml:"reuse_port"`

	// Requests in work at once, over all addresses; beyond it the newest are
	// dropped and counted. Default: 4096
	MaxInWork int `yaml:"max_in_work"`

	// How long a request may take, after which it is not answered; set it to what
	// the gateways wait at most. Default: 10s
	Timeout time.Duration `yaml:"timeout"`

	// How long a reply is held for retransmissions. Default: 30s
	ReplyLife time.Duration `yaml:"reply_life"`

	// Files with more attributes for replies, in FreeRADIUS's syntax of dictionaries;
	// the same on all nodes. Default: none
	Dictionaries []string `yaml:"dictionaries"`
}

// FIDOConfig is about FIDO security keys (WebAuthn). Which models may be enrolled
// is in the database: see 'watchword fido'.
type FIDOConfig struct {
	// The relying parties: the names that keys are made for, and the origins whose
	// pages may use them. A list of {id: example.org, name: Example Corp, origins:
	// [https://login.example.org]}; example.org alone stands for {id: example.org,
	// origins: [https://example.org]}. The first is the default. Origins are as
	// browsers write them, http only for localhost; those that are neither the id
	// nor below it are related origins, which browsers look up at
	// https://ID/.well-known/webauthn: it must be served from here. Keys that were
	// enrolled for an id work with no other: choose it for good. The variable takes
	// the list as one line of YAML.
	// Default: none, which switches FIDO keys off.
	Parties []Party `yaml:"parties"`

	// Whether a key must verify its user, by PIN or finger: required, preferred or
	// discouraged. With preferred a key that cannot is accepted, and statements
	// tell the difference. Default: preferred
	UserVerification string `yaml:"user_verification"`

	// Enrol credentials that may be synced to other devices (passkeys of telephones
	// and browsers): where they go is not known then. Rules may say otherwise for a
	// realm or group. Default: false
	AllowSynced bool `yaml:"allow_synced"`

	// What browsers are asked to convey of a key's attestation: direct, enterprise
	// (with serial numbers, where browser and key are provisioned for it) or none,
	// with which nothing proves of what model a key is. Default: direct
	Attestation string `yaml:"attestation"`

	// How long somebody may take from being asked for the key to having touched it,
	// 10s to 1h. Default: 5m
	CeremonyTTL time.Duration `yaml:"ceremony_ttl"`

	// Suspend keys that are enrolled when a status report of the metadata says that
	// their model is not to be trusted any more. Without it they are reported, by
	// 'watchword fido concerns' and in /metrics, and no new ones are enrolled.
	// Default: false
	SuspendOnStatus bool `yaml:"suspend_on_status"`

	// Where the metadata of all models is fetched from, once a day, by https; the
	// FIDO Alliance has it at https://mds3.fidoalliance.org/. HTTPS_PROXY is heeded.
	// Default: none, and then 'watchword fido mds import' brings it.
	MetadataURL string `yaml:"metadata_url"`

	// PEM file of the certificates that sign the metadata, in place of the FIDO
	// Alliance's root: for metadata of one's own. Default: none
	MetadataRoots string `yaml:"metadata_roots"`

	// How long metadata is still used to enrol keys after the day on which the next
	// was due. -1s is for ever. Default: 720h
	MetadataGrace time.Duration `yaml:"metadata_grace"`
}

// StatementsConfig is about the signed statements that applications can ask for
// with an accept.
type StatementsConfig struct {
	// Who gives them (iss), the same on all nodes: as a rule the URL of this
	// installation, which applications compare. Default: watchword
	Issuer string `yaml:"issuer"`
}

// HSMConfig is about the HSM that holds the keys to every seed.
type HSMConfig struct {
	// Path of the PKCS#11 module. Default: none, and then SoftHSM with a token in
	// the data directory, which is no HSM.
	Module string `yaml:"module"`

	// Which token of the module, by its label, its serial or its slot. Those that
	// are set must all fit exactly one token. Default: with SoftHSM in the data
	// directory the token "watchword"; otherwise the only token there is.
	TokenLabel  string `yaml:"token_label"`
	TokenSerial string `yaml:"token_serial"`
	Slot        string `yaml:"slot"`

	// The user PIN, or a file whose only line it is. At most one of them; they
	// need module. With SoftHSM in the data directory the PIN is in its hsm.pin.
	PIN     string `yaml:"pin" secret:"all"`
	PINFile string `yaml:"pin_file"`

	// Sessions, and so operations, at once. SoftHSM gains nothing from more; an
	// HSM on the network does, up to what it allows. Default: 2
	Sessions int `yaml:"sessions"`

	// Divide the work of one batch among the sessions. Helps where the way to the
	// HSM is what takes time. Default: false
	Spread bool `yaml:"spread"`

	// Unwrapped seeds that stay in the HSM as session keys; real HSMs hold fewer
	// than SoftHSM. -1 is none. Default: 100000
	Handles int `yaml:"handles"`

	// How seeds are wrapped: auto, aes-kwp (only CKM_AES_KEY_WRAP_KWP, 0x210B), or
	// the number of a vendor's mechanism such as 0x8000016f. Default: auto
	Mechanism string `yaml:"mechanism"`

	// How long one call into the HSM may take before the server says that it does
	// not answer. Default: 5s
	StuckAfter time.Duration `yaml:"stuck_after"`
}

// VerifyConfig is how far from the expected one a code may lie.
type VerifyConfig struct {
	// TOTP: time steps to each side of the token's drift. Default: 1
	Steps int `yaml:"steps"`
	// TOTP: steps to each side at most, after long disuse. Default: 5
	MaxSteps int `yaml:"max_steps"`
	// TOTP: the disuse that adds one step to each side. 0s never widens.
	// Default: 720h
	Widen time.Duration `yaml:"widen"`
	// HOTP: counters from the next expected one on. Default: 10
	LookAhead int `yaml:"look_ahead"`
	// Resynchronisation: time steps to each side (TOTP). Default: 120
	ResyncSteps int `yaml:"resync_steps"`
	// Resynchronisation: counters ahead (HOTP). Default: 1000
	ResyncCounters int `yaml:"resync_counters"`
	// How far the clock of this machine and the database's may differ; beyond it
	// TOTP is refused, and /readyz says so. Default: 5s
	ClockSkew time.Duration `yaml:"clock_skew"`
	// Attempts that wait at most; beyond it they are turned away at once.
	// Default: 8192
	Queue int `yaml:"queue"`
}

// SessionsConfig is about people who sign in. All nodes should have the same.
type SessionsConfig struct {
	// From where the session of somebody with a role is good: address is the network
	// address where it began, none is any. With something in front of the server that
	// speaks for everybody, it is the address of that. Default: address
	Bind string `yaml:"bind"`

	// How long the session of somebody with a role lasts, 15m to 36h, if they do not
	// say. Default: 8h
	LifeAdmin time.Duration `yaml:"life_admin"`

	// How long temporary credentials last that an application gets for its user, 15m
	// to 36h, if it does not say. Default: 1h
	LifeUser time.Duration `yaml:"life_user"`
}

// ThrottleConfig is how guessing is slowed down.
type ThrottleConfig struct {
	// Consecutive failures of a user through one client that cost nothing.
	// Default: 5
	Free int `yaml:"free"`
	// The unit of waiting: after n failures it is wait * 2^(n-free). Default: 1s
	Wait time.Duration `yaml:"wait"`
	// The longest wait. Default: 15m
	Max time.Duration `yaml:"max"`
	// Consecutive failures over all clients that lock the user until the helpdesk
	// unlocks. Default: 100
	LockAt int `yaml:"lock_at"`
}

// AuditConfig is about the audit. Where it is told to is in the database: see
// 'watchword sink'.
type AuditConfig struct {
	// How long audit records are kept, 720h to 876000h: those that are older the
	// server removes, about once a day, after it has named and signed what goes. All
	// nodes should have the same. Default: 0s, which removes nothing by itself;
	// 'watchword audit cut' removes what is older than 30 days.
	Keep time.Duration `yaml:"keep"`
}

// LogConfig is about the log, on standard error. It never holds a secret.
type LogConfig struct {
	// debug, info, warn or error. Default: info
	Level string `yaml:"level"`
	// text or json. Default: text
	Format string `yaml:"format"`
}

// manual is this file: its comments are what 'watchword config --manual' prints.
//
//go:embed config.go
var manual string

func defaultConfig() *Config {
	return &Config{
		DataDir:             "./var",
		DatabaseConnections: 8,
		TimeZone:            "UTC",
		HTTP:                HTTPConfig{Listen: []string{"127.0.0.1:8080"}, Timeout: 30 * time.Second},
		RADIUS: RADIUSConfig{
			Listen: []string{"127.0.0.1:1812"}, Readers: 2, MaxInWork: 4096,
			Timeout: 10 * time.Second, ReplyLife: 30 * time.Second,
		},
		FIDO: FIDOConfig{
			UserVerification: "preferred", Attestation: "direct", CeremonyTTL: 5 * time.Minute,
			MetadataGrace: 30 * 24 * time.Hour,
		},
		Statements: StatementsConfig{Issuer: "watchword"},
		HSM:        HSMConfig{Sessions: 2, Handles: 100_000, Mechanism: "auto", StuckAfter: 5 * time.Second},
		Verify: VerifyConfig{
			Steps: 1, MaxSteps: 5, Widen: 30 * 24 * time.Hour, LookAhead: 10,
			ResyncSteps: 120, ResyncCounters: 1000, ClockSkew: 5 * time.Second, Queue: 8192,
		},
		Throttle: ThrottleConfig{Free: 5, Wait: time.Second, Max: 15 * time.Minute, LockAt: 100},
		Sessions: SessionsConfig{Bind: bindAddress, LifeAdmin: 8 * time.Hour, LifeUser: time.Hour},
		Log:      LogConfig{Level: "info", Format: "text"},
	}
}
