package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"watchword/webauthn/softkey"
	"watchword/webauthn/station"
)

// desk is a station on a desk, with a person who plugs in keys.
type desk struct {
	*server
	place  string // where keys are plugged in
	labels string
	args   []string // of enrol

	cmd    *exec.Cmd
	events chan station.Event
	stderr bytes.Buffer
	at     int // keys plugged in so far
}

func newDesk(s *server, args ...string) *desk {
	d := &desk{server: s, place: s.TempDir()}
	out := s.TempDir()
	d.labels = filepath.Join(out, "labels.csv")
	d.args = append([]string{"enrol", "--json", "--no-usb", "--keys", d.place, "--server", s.url, "--api-key-file", s.stationKey, "--journal", filepath.Join(out, "journal")}, args...)
	return d
}

// start starts the station.
func (d *desk) start(more ...string) {
	d.Helper()
	bin, err := programs()
	if err != nil {
		d.Fatal(err)
	}
	c := exec.Command(filepath.Join(bin, "watchword-station"), append(append([]string(nil), d.args...), more...)...)
	out, err := c.StdoutPipe()
	if err != nil {
		d.Fatal(err)
	}
	d.stderr.Reset()
	c.Stderr = &d.stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		d.Fatal(err)
	}
	events := make(chan station.Event, 1000)
	d.cmd, d.events = c, events
	go func() {
		defer close(events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e station.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				e = station.Event{Event: "garbage", Reason: lines.Text()}
			}
			events <- e
		}
	}()
	d.Cleanup(func() { _ = c.Process.Kill() })
}

// wait answers the next event of these kinds.
func (d *desk) wait(kinds ...string) station.Event {
	d.Helper()
	after := time.After(120 * time.Second)
	for {
		select {
		case e, ok := <-d.events:
			if !ok {
				_ = d.cmd.Wait()
				d.Fatalf("the station ended (%v) before %v: %s", d.cmd.ProcessState, kinds, d.stderr.String())
			}
			for _, k := range kinds {
				if e.Event == k {
					return e
				}
			}
		case <-after:
			d.Fatalf("no %v in time", kinds)
		}
	}
}

// end waits for the station's end, and answers its exit code.
func (d *desk) end() int {
	d.Helper()
	for range d.events {
	}
	_ = d.cmd.Wait()
	return d.cmd.ProcessState.ExitCode()
}

// newKey makes a key of the vendor's.
func (d *desk) newKey(o softkey.Options) *softkey.Key {
	d.Helper()
	if o.Vendor == nil {
		o.Vendor = d.vendor
	}
	k, err := softkey.New(o)
	if err != nil {
		d.Fatal(err)
	}
	return k
}

// plugged is a key that is plugged in.
type plugged struct {
	*softkey.Key
	port *softkey.Port
	link string
}

// plug plugs a key in.
func (d *desk) plug(k *softkey.Key) *plugged {
	d.Helper()
	p, err := softkey.Plug(k)
	if err != nil {
		d.Fatal(err)
	}
	d.at++
	x := &plugged{Key: k, port: p, link: filepath.Join(d.place, fmt.Sprintf("key-%03d", d.at))}
	d.Cleanup(x.pull)
	if err := os.Symlink(p.Path(), x.link); err != nil {
		d.Fatal(err)
	}
	return x
}

// pull pulls it out.
func (p *plugged) pull() {
	_ = os.Remove(p.link)
	_ = p.port.Close()
}

// put takes the key from the station, and keeps it plugged in for other programs.
func (p *plugged) put() { _ = os.Remove(p.link) }

// label is a line of the labels' file, by its head.
func (d *desk) label(number int) map[string]string {
	d.Helper()
	for _, l := range d.allLabels() {
		if l["number"] == fmt.Sprint(number) {
			return l
		}
	}
	d.Fatalf("there is no label of key %d", number)
	return nil
}

func (d *desk) allLabels() []map[string]string {
	d.Helper()
	f, err := os.Open(d.labels)
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o600 {
		d.Errorf("others may read the labels: %v, %v", st.Mode(), err)
	}
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		d.Fatal(err)
	}
	var list []map[string]string
	for _, row := range rows[1:] {
		l := map[string]string{}
		for i, head := range rows[0] {
			l[head] = row[i]
		}
		list = append(list, l)
	}
	return list
}

// tool runs a program of Debian's fido2-tools, or the station; the lines of stdin are
// what it asks for. It must not lead a session, or the key's pseudo-terminal would
// become its terminal.
func tool(t testing.TB, stdin string, command ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", append([]string{"-c", `"$@"; exit $?`, "sh"}, command...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Stdin = strings.NewReader(stdin)
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 127 {
		t.Fatalf("%s is not installed (package fido2-tools)", command[0])
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, problems.String())
	}
	return out.String(), err
}

// info is what fido2-token says of a key.
func (p *plugged) info(t testing.TB) string {
	t.Helper()
	out, err := tool(t, "", "fido2-token", "-I", p.port.Path())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// signIn has fido2-assert answer the server's challenge with a key and its PIN, and
// answers the verdict. Without a user it is as a passkey.
func (d *desk) signIn(p *plugged, user, pin string) (map[string]any, error) {
	d.Helper()
	in := map[string]any{"user_verification": "required"}
	if user != "" {
		in["user"] = user
	}
	begun := d.call("POST", "/v1/webauthn/login/begin", in, 200)
	o := begun["options"].(map[string]any)["publicKey"].(map[string]any)
	clientData, _ := json.Marshal(map[string]any{"type": "webauthn.get", "challenge": o["challenge"], "origin": origin, "crossOrigin": false})
	digest := sha256.Sum256(clientData)
	lines := []string{base64.StdEncoding.EncodeToString(digest[:]), o["rpId"].(string)}
	flags := []string{"fido2-assert", "-G", "-p", "-v"}
	var id []byte
	if user != "" {
		allowed := o["allowCredentials"].([]any)
		if len(allowed) != 1 {
			d.Fatalf("%s may answer with %d credentials", user, len(allowed))
		}
		id, _ = base64.RawURLEncoding.DecodeString(allowed[0].(map[string]any)["id"].(string))
		lines = append(lines, base64.StdEncoding.EncodeToString(id))
	} else {
		flags = append(flags, "-r")
		held, err := station.Open(p.port.Path())
		if err != nil {
			d.Fatal(err)
		}
		secret, err := station.ReadSecret(strings.NewReader(pin))
		if err != nil {
			d.Fatal(err)
		}
		list, err := held.Credentials(secret, party)
		held.Close()
		if err != nil || len(list) != 1 {
			d.Fatalf("the key holds %d credentials, %v", len(list), err)
		}
		id = list[0].ID
	}
	input := filepath.Join(d.TempDir(), "input")
	if err := os.WriteFile(input, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		d.Fatal(err)
	}
	out, err := tool(d, pin+"\n", append(flags, "-i", input, p.port.Path())...)
	if err != nil {
		return nil, err
	}
	said := strings.Split(strings.TrimSpace(out), "\n")
	part := func(i int) []byte {
		b, err := base64.StdEncoding.DecodeString(said[i])
		if err != nil {
			d.Fatal(err)
		}
		return b
	}
	authData := part(2)
	if authData[0] == 0x58 { // a CBOR string
		authData = authData[2:]
	}
	text := base64.RawURLEncoding.EncodeToString
	response := map[string]any{"clientDataJSON": text(clientData), "authenticatorData": text(authData), "signature": text(part(3))}
	if len(said) > 4 {
		response["userHandle"] = text(part(4))
	}
	return d.call("POST", "/v1/webauthn/login/finish", map[string]any{
		"session": begun["session"], "response": map[string]any{"id": text(id), "rawId": text(id), "type": "public-key", "response": response},
	}, 200), nil
}

// memory calls f with all that a process has in its memory, piece by piece.
func memory(t testing.TB, pid int, f func(piece []byte)) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' || strings.Contains(line, "[vvar") || strings.Contains(line, "[vsyscall") {
			continue
		}
		const most, overlap = 16 << 20, 64
		for at := from; at < to; at += most {
			piece := make([]byte, min(to-at, most+overlap))
			if n, err := mem.ReadAt(piece, at); n > 0 && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO)) {
				f(piece[:n])
			}
		}
	}
}
