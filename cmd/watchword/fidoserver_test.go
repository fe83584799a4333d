package main

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"watchword/webauthn"
)

// How old metadata is, and when the next is due, is said only of metadata that
// there is: an alarm for less than a day would go off, or one for too old not.
func TestNoMetadataIsNeitherOldNorDue(t *testing.T) {
	names := func(n webauthn.MetadataNumbers) (list []string) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(metadataMetrics{func() webauthn.MetadataNumbers { return n }})
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			list = append(list, f.GetName())
		}
		return list
	}
	all, none := names(webauthn.MetadataNumbers{Number: 7, DueIn: -5}), names(webauthn.MetadataNumbers{})
	if len(all) != len(metadataDescs) {
		t.Errorf("with metadata: %q", all)
	}
	want := slices.DeleteFunc(all, func(name string) bool {
		return name == "watchword_fido_metadata_age_seconds" || name == "watchword_fido_metadata_due_seconds"
	})
	if len(want) != len(metadataDescs)-2 || !slices.Equal(none, want) {
		t.Errorf("without metadata: %q", none)
	}
}
