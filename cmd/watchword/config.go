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

	HTTP     HTTPConfig     `yaml:"http"`
	RADIUS   RADIUSConfig   `yaml:"radius"`
	HSM      HSMConfig      `yaml:"hsm"`
	Verify   VerifyConfig   `yaml:"verify"`
	Throttle ThrottleConfig `yaml:"throttle"`
	Log      LogConfig      `yaml:"log"`
}

// HTTPConfig is about the API.
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
}

// RADIUSConfig is about RADIUS. Its clients are in the database: see
// 'watchword client'.
type RADIUSConfig struct {
	// Addresses to listen on (UDP). [none] switches RADIUS off.
	// Default: [127.0.0.1:1812]
	Listen []string `yaml:"listen"`

	// Requests in work at once, over all addresses; beyond it the newest are
	// dropped and counted. Default: 4096
	MaxInWork int `yaml:"max_in_work"`

	// How long a request may take, after which it is not answered; set it to what
	// the gateways wait at most. Default: 10s
	Timeout time.Duration `yaml:"timeout"`

	// How long a reply is held for retransmissions. Default: 30s
	ReplyLife time.Duration `yaml:"reply_life"`
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
		HTTP:                HTTPConfig{Listen: []string{"127.0.0.1:8080"}, Timeout: 30 * time.Second},
		RADIUS: RADIUSConfig{
			Listen: []string{"127.0.0.1:1812"}, MaxInWork: 4096,
			Timeout: 10 * time.Second, ReplyLife: 30 * time.Second,
		},
		HSM: HSMConfig{Sessions: 2, Handles: 100_000, Mechanism: "auto", StuckAfter: 5 * time.Second},
		Verify: VerifyConfig{
			Steps: 1, MaxSteps: 5, Widen: 30 * 24 * time.Hour, LookAhead: 10,
			ResyncSteps: 120, ResyncCounters: 1000, ClockSkew: 5 * time.Second, Queue: 8192,
		},
		Throttle: ThrottleConfig{Free: 5, Wait: time.Second, Max: 15 * time.Minute, LockAt: 100},
		Log:      LogConfig{Level: "info", Format: "text"},
	}
}
