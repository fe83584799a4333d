// Package courier carries the audit out of the building: to a file on the server's
// disk, to a syslog server, to webhooks. What is sent to whom and when, and what
// is sent again, the core decides (tokens, ship.go); this room knows the ways.
package courier

import (
	"fmt"
	"os"
	"path/filepath"

	"watchword/tokens"
)

// Courier is a tokens.Deliverer. Its methods may be called concurrently.
type Courier struct {
	// Dir is the directory of file sinks; it is made when the first one needs it.
	Dir string
	// Host is how syslog servers know this server; empty: its host name.
	Host string
	// Version is this program's, for receivers.
	Version string
}

var _ tokens.Deliverer = (*Courier)(nil)

// Open implements tokens.Deliverer.
func (c *Courier) Open(k *tokens.Sink, secrets *tokens.SinkSecrets) (tokens.Delivery, error) {
	switch k.Kind {
	case tokens.SinkFile:
		return &file{dir: filepath.Join(c.Dir, k.Name), sink: *k, version: c.Version, safe: map[int64]int64{}}, nil
	case tokens.SinkSyslog:
		return newSyslog(k, secrets, c.host())
	case tokens.SinkWebhook:
		return newWebhook(k, secrets, c.Version)
	}
	return nil, fmt.Errorf("%w: no way leads to a sink of kind %q", tokens.ErrInvalid, k.Kind)
}

func (c *Courier) host() string {
	if c.Host != "" {
		return c.Host
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
