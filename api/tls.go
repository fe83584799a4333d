package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// watchEvery is how often certificate and key are looked at.
const watchEvery = 10 * time.Second

// certificate is the pair of files that the server proves itself with, and
// what it last read from them.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	mu    sync.Mutex
	tried stamp // the files as they were when last read, well or not
}

// stamp tells whether files changed.
type stamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	if certFile == "" || keyFile == "" {
		return nil, errors.New("TLS needs both a certificate and its key")
	}
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// config is what connections are made with. The certificate is looked up for
// each.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}, // see tlsListener
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

// reload reads the files. If they are broken, what was read before stays.
func (c *certificate) reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried, _ = c.stamp()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read the TLS certificate %s with the key %s: %w", c.certFile, c.keyFile, err)
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		c.log.Warn("the TLS certificate has expired", "file", c.certFile, "expired", pair.Leaf.NotAfter)
	}
	c.current.Store(&pair)
	return nil
}

// stamp looks at the files, behind symbolic links.
func (c *certificate) stamp() (stamp, error) {
	cert, err := os.Stat(c.certFile)
	if err != nil {
		return stamp{}, err
	}
	key, err := os.Stat(c.keyFile)
	if err != nil {
		return stamp{}, err
	}
	return stamp{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}

// changed says whether the files are others than when they were last read.
// Files that are gone are not: whoever replaces them is not done yet.
func (c *certificate) changed() bool {
	now, err := c.stamp()
	c.mu.Lock()
	defer c.mu.Unlock()
	return err == nil && now != c.tried
}

// look reads the files if they changed.
func (c *certificate) look() {
	if !c.changed() {
		return
	}
	if err := c.reload(); err != nil {
		c.log.Error("the TLS certificate changed and cannot be used; the one before stays in use", "error", err)
		return
	}
	c.log.Info("the TLS certificate was read anew", "file", c.certFile, "serial", c.current.Load().Leaf.SerialNumber, "expires", c.current.Load().Leaf.NotAfter)
}

// watch looks at the files now and then, until ctx ends.
func (c *certificate) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.look()
		}
	}
}
