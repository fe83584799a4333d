package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"watchword/api"
)

// rootsForm are own attestation roots, in PEM: here, or in the file that is named.
type rootsForm struct {
	Kind    string `json:"kind"`
	PEM     string `json:"pem"`
	PEMFile string `json:"pem_file"`
}

// root is one of them.
type root struct {
	subject, pem string
}

// rootsIn are the certificates of a text in PEM, by their fingerprints in hex.
func rootsIn(text string) (map[string]root, error) {
	all := map[string]root{}
	rest := []byte(text)
	for n := 1; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is no certificate", n)
		}
		sum := sha256.Sum256(c.Raw)
		all[hex.EncodeToString(sum[:])] = root{c.Subject.String(), string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: c.Raw}))}
	}
	if strings.TrimSpace(text) != "" && len(all) == 0 || strings.Contains(string(rest), "-----BEGIN") {
		return nil, errors.New("it is not PEM with certificates")
	}
	return all, nil
}

func (w *wanted) ownRoots(d *document) error {
	var f rootsForm
	if err := d.into(&f, kindRoots); err != nil {
		return err
	}
	at := d.of("pem")
	if f.PEMFile != "" {
		at = d.of("pem_file")
	}
	text, err := d.pemOf(f.PEM, f.PEMFile, "pem", at)
	if err != nil {
		return err
	}
	found, err := rootsIn(text)
	if err != nil {
		return at.wrong("%v", err)
	}
	if w.roots == nil {
		w.roots = map[string]root{}
	}
	maps.Copy(w.roots, found)
	return nil
}

func (c *client) liveRoots(cmd *cobra.Command) (map[string]root, error) {
	page, _, err := get[api.RootPage](cmd, c, call{what: "list the own roots", path: pathTo("fido", "roots")})
	all := map[string]root{}
	for _, r := range page.Items {
		all[r.SHA256] = root{r.Subject, r.PEM}
	}
	return all, err
}

// ownRoots replaces all roots at once.
func (p *planner) ownRoots() error {
	live, err := p.c.liveRoots(p.cmd)
	if err != nil {
		return err
	}
	next := maps.Clone(p.w.roots)
	if next == nil {
		next = map[string]root{}
	}
	var diffs []*difference
	for _, sum := range slices.Sorted(maps.Keys(next)) {
		if _, ok := live[sum]; !ok {
			diffs = append(diffs, &difference{Does: "add", Kind: kindRoots, Name: sum, Fields: []field{{"subject", "", next[sum].subject}}})
		}
	}
	for _, sum := range slices.Sorted(maps.Keys(live)) {
		switch _, ok := next[sum]; {
		case ok:
		case p.prune:
			diffs = append(diffs, &difference{Does: "delete", Kind: kindRoots, Name: sum, Fields: []field{{"subject", live[sum].subject, ""}}})
		default:
			next[sum] = live[sum]
		}
	}
	if len(diffs) > 0 {
		p.step(call{what: "set the own roots", method: http.MethodPut, path: pathTo("fido", "roots"), body: api.AttestationRoots{Pem: joinedRoots(next)}}, diffs...)
	}
	return nil
}

func joinedRoots(all map[string]root) string {
	var b strings.Builder
	for _, sum := range slices.Sorted(maps.Keys(all)) {
		b.WriteString(all[sum].pem)
	}
	return b.String()
}

func rootsText(all map[string]root) string {
	if len(all) == 0 {
		return ""
	}
	var w writer
	w.line(0, "kind", kindRoots)
	w.text(0, "pem", joinedRoots(all))
	return w.String()
}
