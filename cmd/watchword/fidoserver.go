package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"watchword/webauthn"
)

// openFIDO makes what runs the ceremonies of FIDO keys, if there are relying
// parties.
func (a *appliance) openFIDO(ctx context.Context, metrics prometheus.Registerer) (err error) {
	c := &a.config.FIDO
	if len(c.Parties) == 0 {
		return nil
	}
	config := webauthn.Config{
		Core: a.core, Parties: c.relyingParties(), UserVerification: c.UserVerification, Synced: c.AllowSynced,
		Attestation: c.Attestation, TTL: c.CeremonyTTL, SuspendOnStatus: c.SuspendOnStatus,
		MetadataURL: c.MetadataURL, MetadataGrace: c.MetadataGrace, Log: a.log,
	}
	if c.MetadataRoots != "" {
		if config.MetadataRoots, err = readRoots(c.MetadataRoots); err != nil {
			return &failure{What: "start FIDO", Why: "fido.metadata_roots: " + err.Error(), Do: "name a PEM file of certificates, or leave it out for the FIDO Alliance's"}
		}
	}
	if a.fido, err = webauthn.New(ctx, config); err != nil {
		return &failure{What: "start FIDO", Why: err.Error(), Do: "'watchword config --manual' explains every key under fido"}
	}
	return metrics.Register(metadataMetrics{a.fido.MetadataNumbers})
}

func readRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, plainCause(err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}

// metadataMetrics tells how the FIDO metadata is.
type metadataMetrics struct {
	numbers func() webauthn.MetadataNumbers
}

var metadataDescs = []struct {
	desc  *prometheus.Desc
	value func(*webauthn.MetadataNumbers) float64

	ofSome bool // it says nothing where there is no metadata, and is absent then
}{
	{metadataDesc("number", "Number of the FIDO metadata in use; 0 if there is none."), func(n *webauthn.MetadataNumbers) float64 { return n.Number }, false},
	{metadataDesc("age_seconds", "Time since the FIDO metadata was issued; absent if there is none."), func(n *webauthn.MetadataNumbers) float64 { return n.Age }, true},
	{metadataDesc("due_seconds", "Time until the next FIDO metadata is overdue; negative once it is, absent if there is none."), func(n *webauthn.MetadataNumbers) float64 { return n.DueIn }, true},
	{metadataDesc("entries", "Models that the FIDO metadata describes."), func(n *webauthn.MetadataNumbers) float64 { return n.Entries }, false},
	{metadataDesc("unread", "Entries of the FIDO metadata, and parts of them, that were not understood."), func(n *webauthn.MetadataNumbers) float64 { return n.Unread }, false},
	{metadataDesc("stale", "1 if newer FIDO metadata is overdue, or what is stored cannot be used."), func(n *webauthn.MetadataNumbers) float64 { return n.Stale }, false},
	{prometheus.NewDesc("watchword_fido_keys_concerned", "Enrolled keys whose model a status report says is not to be trusted.", nil, nil), func(n *webauthn.MetadataNumbers) float64 { return n.Concerned }, false},
}

func metadataDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("watchword_fido_metadata_"+name, help, nil, nil)
}

func (m metadataMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range metadataDescs {
		c <- d.desc
	}
}

func (m metadataMetrics) Collect(c chan<- prometheus.Metric) {
	n := m.numbers()
	for _, d := range metadataDescs {
		if d.ofSome && n.Number == 0 {
			continue
		}
		c <- prometheus.MustNewConstMetric(d.desc, prometheus.GaugeValue, d.value(&n))
	}
}
