package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"watchword/webauthn/station"
)

// serverFlags say where the server is, and what opens it.
type serverFlags struct {
	url, keyFile, realm, caFile string
}

func (f *serverFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.url, "server", "", "where the server is (default $WATCHWORD_URL or http://127.0.0.1:8080)")
	flags.StringVar(&f.keyFile, "api-key-file", "", "file with an API key of scope station (default $WATCHWORD_API_KEY_FILE or ./station.key)")
	flags.StringVar(&f.realm, "realm", "", "realm to enrol in (default $WATCHWORD_REALM, or the key's)")
	flags.StringVar(&f.caFile, "ca-file", "", "PEM file of the authority that signed the server's certificate (default $WATCHWORD_CA_FILE)")
}

func orEnv(v *string, name, otherwise string) {
	if *v == "" {
		*v = os.Getenv(name)
	}
	if *v == "" {
		*v = otherwise
	}
}

// open makes the client of the API.
func (f *serverFlags) open() (*station.Server, error) {
	orEnv(&f.url, "WATCHWORD_URL", "http://127.0.0.1:8080")
	orEnv(&f.keyFile, "WATCHWORD_API_KEY_FILE", "station.key")
	orEnv(&f.realm, "WATCHWORD_REALM", "")
	orEnv(&f.caFile, "WATCHWORD_CA_FILE", "")
	at, err := url.Parse(f.url)
	if err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" {
		return nil, errors.New("the server's address is not one; it is like https://login.example.org")
	}
	if at.Scheme == "http" && !local(at.Hostname()) {
		return nil, errors.New("the API key would go over the network in clear; name the server by https://")
	}
	text, err := os.ReadFile(f.keyFile)
	if err != nil {
		return nil, fmt.Errorf("the API key: %w; make one with 'watchword key add station --scope station --out station.key'", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, fmt.Errorf("there is no API key in %s", f.keyFile)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("the authority's certificate: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("there is no certificate in %s", f.caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &station.Server{
		URL: f.url, Key: key, Realm: f.realm,
		HTTP: &http.Client{
			Transport: transport, Timeout: time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("it sends elsewhere") },
		},
	}, nil
}

// local says whether a host is this machine. A name that begins like an address is none.
func local(host string) bool {
	at, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && at.IsLoopback()
}
