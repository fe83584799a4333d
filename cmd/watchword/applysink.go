package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/tokens"
)

// sinkForm says where the audit is told to: exactly one of file, syslog and webhook.
// What is secret is in files beside this one; without, a sink keeps what it has.
type sinkForm struct {
	Kind    string       `json:"kind"`
	Name    string       `json:"name"`
	From    string       `json:"from"` // start or now; of a sink that is not there yet
	File    *fileForm    `json:"file"`
	Syslog  *syslogForm  `json:"syslog"`
	Webhook *webhookForm `json:"webhook"`
}

type fileForm struct {
	Format   string `json:"format"`    // default: json
	MaxBytes int64  `json:"max_bytes"` // default: 100 MiB
	Keep     int    `json:"keep"`      // default: all
}

type syslogForm struct {
	Address         string `json:"address"`
	AllowPlaintext  bool   `json:"allow_plaintext"`
	ServerName      string `json:"server_name"`
	CA              string `json:"ca"` // PEM
	CAFile          string `json:"ca_file"`
	Certificate     string `json:"certificate"` // PEM
	CertificateFile string `json:"certificate_file"`
	KeyFile         string `json:"key_file"`
}

type webhookForm struct {
	URL        string   `json:"url"`
	Events     []string `json:"events"` // default: all
	CA         string   `json:"ca"`
	CAFile     string   `json:"ca_file"`
	SecretFile string   `json:"secret_file"`
}

// sinkShape is what is shown of a sink, and compared.
type sinkShape struct {
	Kind           string   `json:"kind"`
	Format         string   `json:"format,omitempty"`
	MaxBytes       int64    `json:"max_bytes,omitempty"`
	Keep           int      `json:"keep,omitempty"`
	Address        string   `json:"address,omitempty"`
	AllowPlaintext bool     `json:"allow_plaintext,omitempty"`
	ServerName     string   `json:"server_name,omitempty"`
	CA             string   `json:"ca,omitempty"`
	Certificate    string   `json:"certificate,omitempty"`
	URL            string   `json:"url,omitempty"`
	Events         []string `json:"events,omitempty"`
}

type wantedSink struct {
	name   string
	from   string
	shape  sinkShape
	key    []byte // nil: it has one, or needs none
	secret []byte // the same
	at     spot
}

// settings are the sink as the API takes it.
func (k *wantedSink) settings() api.SinkSettings {
	body := api.SinkSettings{
		Kind: api.SinkKind(k.shape.Kind), From: ptr(k.from), Format: ptr(k.shape.Format), Address: ptr(k.shape.Address), ServerName: ptr(k.shape.ServerName),
		Ca: ptr(k.shape.CA), Certificate: ptr(k.shape.Certificate), Url: ptr(k.shape.URL), Key: ptr(string(k.key)), Secret: ptr(string(k.secret)),
	}
	if k.shape.Kind == string(tokens.SinkFile) {
		body.MaxBytes, body.Keep = &k.shape.MaxBytes, &k.shape.Keep
	}
	if k.shape.AllowPlaintext {
		body.AllowPlaintext = &k.shape.AllowPlaintext
	}
	if len(k.shape.Events) > 0 {
		body.Events = &k.shape.Events
	}
	return body
}

// beside is a file seen from the one that names it.
func (d *document) beside(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(filepath.Dir(d.file), file)
}

// maxPEM bounds a file of certificates or keys, in bytes.
const maxPEM = 1 << 20

// pemOf is PEM that stands in a document, or in the file that it names.
func (d *document) pemOf(text, file, what string, at spot) (string, error) {
	switch {
	case file == "":
		return text, nil
	case text != "":
		return "", at.wrong("%s and %s_file exclude each other", what, what)
	}
	b, err := readPEM(d.beside(file))
	if err != nil {
		return "", at.wrong("%v", err)
	}
	// What else is in a file is not for differences to show, whoever wrote its name there.
	if !bytes.Contains(b, []byte("-----BEGIN CERTIFICATE-----")) || bytes.Contains(b, []byte("PRIVATE KEY-----")) {
		return "", at.wrong("%s does not hold certificates in PEM and nothing secret", d.beside(file))
	}
	return string(b), nil
}

func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, plainCause(err))
	}
	if info.Size() > maxPEM {
		return nil, fmt.Errorf("%s is larger than %d KiB", path, maxPEM>>10)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, plainCause(err))
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return b, nil
}

// secretBeside is the file with a secret: the one that is named, or the one of that name
// in the directory of secrets; empty if there is neither.
func (d *document) secretBeside(named, dir, own string) string {
	if named != "" {
		return d.beside(named)
	}
	if path := filepath.Join(dir, own); dir != "" && exists(path) {
		return path
	}
	return ""
}

func (w *wanted) sink(d *document, secrets string) error {
	var f sinkForm
	if err := d.into(&f, kindSink); err != nil {
		return err
	}
	k := wantedSink{name: f.Name, from: f.From, at: d.of("name")}
	n := tokens.NewSink{Name: f.Name}
	var err error
	kinds := 0
	if f.File != nil {
		kinds++
		n.Kind, n.Format, n.MaxBytes, n.Keep = tokens.SinkFile, f.File.Format, f.File.MaxBytes, f.File.Keep
	}
	if s := f.Syslog; s != nil {
		kinds++
		n.Kind, n.Address, n.AllowPlaintext, n.ServerName = tokens.SinkSyslog, s.Address, s.AllowPlaintext, s.ServerName
		if n.CA, err = d.pemOf(s.CA, s.CAFile, "ca", d.of("syslog")); err != nil {
			return err
		}
		if n.Certificate, err = d.pemOf(s.Certificate, s.CertificateFile, "certificate", d.of("syslog")); err != nil {
			return err
		}
		if file := d.secretBeside(s.KeyFile, secrets, f.Name+".key"); file != "" && kinds == 1 {
			if k.key, err = readPEM(file); err != nil {
				return d.of("syslog").wrong("%v", err)
			}
		}
	}
	if h := f.Webhook; h != nil {
		kinds++
		n.Kind, n.URL, n.Events = tokens.SinkWebhook, h.URL, h.Events
		if n.CA, err = d.pemOf(h.CA, h.CAFile, "ca", d.of("webhook")); err != nil {
			return err
		}
		if file := d.secretBeside(h.SecretFile, secrets, f.Name+".whsec"); file != "" && kinds == 1 {
			line, err := readLine(file)
			if err != nil {
				return d.of("webhook").wrong("%v", err)
			}
			k.secret = []byte(line)
		}
	}
	switch {
	case kinds != 1:
		return d.of("name").wrong("a Sink has exactly one of file, syslog and webhook")
	case !slices.Contains([]string{"", "start", "now"}, f.From):
		return d.of("from").wrong("from is start or now")
	case slices.ContainsFunc(w.sinks, func(o wantedSink) bool { return o.name == f.Name }):
		return d.of("name").wrong("there is another Sink %s", f.Name)
	}
	n.Key, n.Secret = k.key, k.secret
	made, err := n.Sink()
	if err != nil {
		return d.of(string(n.Kind)).wrong("%s", says(err))
	}
	k.shape = sinkShape{
		Kind: string(made.Kind), Format: made.Format, MaxBytes: made.MaxBytes, Keep: made.Keep, Address: made.Address, AllowPlaintext: made.AllowPlaintext,
		ServerName: made.ServerName, CA: made.CA, Certificate: made.Certificate, URL: made.URL, Events: made.Events,
	}
	w.sinks = append(w.sinks, k)
	return nil
}

// shapeOf is a live sink as a file would have it.
func shapeOf(k *api.Sink) sinkShape {
	return sinkShape{
		Kind: string(k.Kind), Format: valueOf(k.Format), MaxBytes: valueOf(k.MaxBytes), Keep: valueOf(k.Keep), Address: valueOf(k.Address), AllowPlaintext: k.Plaintext,
		ServerName: valueOf(k.ServerName), CA: valueOf(k.Ca), Certificate: valueOf(k.Certificate), URL: valueOf(k.Url), Events: valueOf(k.Events),
	}
}

func (c *client) liveSinks(cmd *cobra.Command) ([]api.Sink, error) {
	page, _, err := get[api.SinkPage](cmd, c, call{what: "list the sinks", path: pathTo("sinks")})
	return page.Items, err
}

func (p *planner) sinks() error {
	list, err := p.c.liveSinks(p.cmd)
	if err != nil {
		return err
	}
	live := map[string]sinkShape{}
	for i := range list {
		live[list[i].Name] = shapeOf(&list[i])
	}
	for i := range p.w.sinks {
		k := &p.w.sinks[i]
		was, ok := live[k.name]
		delete(live, k.name)
		d, err := p.sinkDifference(k, was, ok)
		if err != nil {
			return err
		}
		if d != nil {
			p.step(call{what: "put sink " + k.name, method: http.MethodPut, path: pathTo("sinks", k.name), body: k.settings()}, d)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(live)) {
		if p.prune {
			p.step(call{what: "delete sink " + name, method: http.MethodDelete, path: pathTo("sinks", name)}, &difference{Does: "delete", Kind: kindSink, Name: name})
		}
	}
	return nil
}

// sinkDifference is how a sink differs from the one of its name; nil if it does not.
func (p *planner) sinkDifference(k *wantedSink, was sinkShape, there bool) (*difference, error) {
	switch {
	case there && was.Kind != k.shape.Kind:
		return nil, k.at.wrong("Sink %s is of kind %s, and cannot become a %s; delete it first", k.name, was.Kind, k.shape.Kind)
	case !there && k.shape.Kind == string(tokens.SinkWebhook) && k.secret == nil:
		return nil, k.at.wrong("Sink %s is not there yet, so it needs its secret: name the file with secret_file, or its directory with --secret-dir", k.name)
	case k.shape.Certificate != "" && k.key == nil && (!there || was.Certificate != k.shape.Certificate):
		return nil, k.at.wrong("Sink %s has another certificate, which needs its key: name the file with key_file, or its directory with --secret-dir", k.name)
	case !there:
		fields := fieldsThatDiffer(nil, k.shape)
		if k.from != "" {
			fields = append(fields, field{"from", "", k.from})
		}
		return &difference{Does: "add", Kind: kindSink, Name: k.name, Fields: fields}, nil
	}
	fields := fieldsThatDiffer(was, k.shape)
	if k.key != nil || k.secret != nil {
		would, _, err := get[api.Sink](p.cmd, p.c, call{
			what: "compare sink " + k.name, method: http.MethodPut, path: pathTo("sinks", k.name), body: k.settings(), query: p.c.pairs("dry_run", "true"),
		})
		if err != nil {
			return nil, err
		}
		for _, name := range []string{"key", "secret"} {
			if slices.Contains(valueOf(would.Changes), name) {
				fields = append(fields, field{name, "another", "as in the file"})
			}
		}
	}
	if len(fields) == 0 {
		return nil, nil
	}
	return &difference{Does: "change", Kind: kindSink, Name: k.name, Fields: fields}, nil
}

func sinkText(name string, k *sinkShape) string {
	var w writer
	w.line(0, "kind", kindSink)
	w.line(0, "name", scalar(name))
	w.line(0, k.Kind, "")
	switch tokens.SinkKind(k.Kind) {
	case tokens.SinkFile:
		w.line(1, "format", scalar(k.Format))
		w.line(1, "max_bytes", fmt.Sprint(k.MaxBytes))
		w.line(1, "keep", itoa(k.Keep))
	case tokens.SinkSyslog:
		w.line(1, "address", quoted(k.Address))
		if k.AllowPlaintext {
			w.flag(1, "allow_plaintext", true)
		}
		if k.ServerName != "" {
			w.line(1, "server_name", quoted(k.ServerName))
		}
	case tokens.SinkWebhook:
		w.line(1, "url", quoted(k.URL))
		if len(k.Events) > 0 {
			w.line(1, "events", flow(k.Events))
		}
	}
	for _, pem := range [][2]string{{"ca", k.CA}, {"certificate", k.Certificate}} {
		if pem[1] != "" {
			w.text(1, pem[0], pem[1])
		}
	}
	return w.String()
}
