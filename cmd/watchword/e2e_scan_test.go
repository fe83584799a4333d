package main

import (
	"bufio"
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"watchword/tokens/storetest"
)

// A scanner looks for many byte strings at once.
type scanner struct {
	needles []needle
	first   []bool // by the first three bytes: does any needle begin so?
	starts  map[[3]byte][]int
	longest int
}

type needle struct {
	what string // says what was found, without showing it
	text []byte
}

func newScanner() *scanner {
	return &scanner{first: make([]bool, 1<<24), starts: map[[3]byte][]int{}}
}

func (s *scanner) add(what string, text []byte) {
	if len(text) < 8 {
		panic("a needle that short is found everywhere")
	}
	s.longest = max(s.longest, len(text))
	s.first[int(text[0])<<16|int(text[1])<<8|int(text[2])] = true
	s.starts[[3]byte(text)] = append(s.starts[[3]byte(text)], len(s.needles))
	s.needles = append(s.needles, needle{what, text})
}

// addSeed adds a seed in each form that it may have in memory or in a file.
func (s *scanner) addSeed(name string, seed []byte) {
	text32 := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(seed)
	s.add(name+" raw", seed)
	s.add(name+" hex", []byte(hex.EncodeToString(seed)))
	s.add(name+" HEX", []byte(strings.ToUpper(hex.EncodeToString(seed))))
	s.add(name+" base32", []byte(text32))
	s.add(name+" base32 in lower case", []byte(strings.ToLower(text32)))
	s.add(name+" base64", []byte(base64.RawStdEncoding.EncodeToString(seed)))
}

// look finds the needles in b, and calls found with the place of each. It goes
// over every byte of a server's memory, which the race detector makes slow.
//
//go:norace
func (s *scanner) look(b []byte, found func(what string, at int)) {
	if len(b) < 8 {
		return
	}
	key := int(b[0])<<8 | int(b[1])
	for i := 2; i < len(b); i++ {
		key = key<<8&0xffffff | int(b[i])
		if !s.first[key] {
			continue
		}
		for _, n := range s.starts[[3]byte(b[i-2:])] {
			if bytes.HasPrefix(b[i-2:], s.needles[n].text) {
				found(s.needles[n].what, i-2)
			}
		}
	}
}

// read looks through a stream piece by piece.
func (s *scanner) read(r io.Reader, found func(what string, at int)) error {
	const piece = 1 << 20
	buf := make([]byte, piece+s.longest)
	kept, base := 0, 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		s.look(buf[:kept+n], func(what string, at int) { found(what, base+at) })
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
		// What may be the beginning of a needle is looked at again.
		base += kept + n - (s.longest - 1)
		copy(buf, buf[kept+n-(s.longest-1):kept+n])
		kept = s.longest - 1
	}
}

// memory scans all memory that a process can read, and answers what was found
// where: what -> names of the mappings.
func (s *scanner) memory(t testing.TB, pid int) (found map[string][]string, scanned int) {
	t.Helper()
	found = map[string][]string{}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatalf("the memory of the server cannot be read: %v", err)
	}
	defer mem.Close()
	maps, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()

	type mapping struct {
		from, to uint64
		name     string
	}
	var all []mapping
	var now *mapping
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		f := strings.Fields(lines.Text())
		var m mapping
		if n, _ := fmt.Sscanf(f[0], "%x-%x", &m.from, &m.to); n == 2 {
			m.name = "anonymous"
			if len(f) > 5 {
				m.name = f[5]
			}
			now = nil
			if f[1][0] == 'r' && m.name != "[vvar]" && m.name != "[vsyscall]" {
				now = &m
			}
			continue
		}
		// Pages that were never touched, or lie in the program's file alone, are
		// not read: reading would make them.
		if now != nil && (f[0] == "Rss:" || f[0] == "Swap:") && f[1] != "0" {
			all = append(all, *now)
			now = nil
		}
	}
	buf := make([]byte, 1<<20)
	for _, m := range all {
		overlap := 0
		for at := m.from; at < m.to; {
			want := min(uint64(len(buf)-overlap), m.to-at)
			n, err := mem.ReadAt(buf[overlap:uint64(overlap)+want], int64(at))
			if n == 0 {
				// A page that is not there any more.
				if err != nil {
					at, overlap = at+4096, 0
				}
				continue
			}
			scanned += n
			s.look(buf[:overlap+n], func(what string, off int) {
				place := fmt.Sprintf("%s+%#x", m.name, at-uint64(overlap)+uint64(off)-m.from)
				if k := len(found[what]); k == 0 || found[what][k-1] != place {
					found[what] = append(found[what], place)
				}
			})
			keep := min(overlap+n, s.longest-1)
			copy(buf, buf[overlap+n-keep:overlap+n])
			overlap, at = keep, at+uint64(n)
		}
	}
	return found, scanned
}

// files scans every file below a folder.
func (s *scanner) files(t testing.TB, root string) (found map[string][]string) {
	t.Helper()
	found = map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file that is gone again
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return s.read(f, func(what string, at int) {
			found[what] = append(found[what], fmt.Sprintf("%s+%#x", strings.TrimPrefix(path, root), at))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func describe(found map[string][]string) string {
	var lines []string
	for what, where := range found {
		lines = append(lines, fmt.Sprintf("  %s: %d times, %s", what, len(where), where[0]))
	}
	sort.Strings(lines)
	if len(lines) > 20 {
		lines = append(lines[:20], fmt.Sprintf("  and %d more", len(lines)-20))
	}
	return strings.Join(lines, "\n")
}

// TestTheScannerFindsASeedInEachForm proves the scanner itself, on a process
// whose memory holds seeds and on a folder whose files do.
func TestTheScannerFindsASeedInEachForm(t *testing.T) {
	s := newScanner()
	list := newTokens("S", 50, false)
	dir := t.TempDir()
	var text bytes.Buffer
	for _, k := range list {
		for i := range k.seed {
			k.seed[i] |= 0x81 // nothing that a shell drops from its input
		}
		s.addSeed(k.serial, k.seed)
	}
	for _, n := range s.needles {
		text.Write(n.text)
		text.WriteByte('\n')
	}
	file := filepath.Join(dir, "seeds")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := s.files(t, dir); len(found) != len(s.needles) {
		t.Errorf("in the file, %d of %d were found", len(found), len(s.needles))
	}

	// A process that has read them and waits.
	shell := exec.Command("bash", "-c", `LC_ALL=C; mapfile -t seeds <"$0"; echo read; read -r`, file)
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = shell.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "read\n" {
		t.Fatalf("the shell said %q, %v", line, err)
	}
	if found, _ := s.memory(t, shell.Process.Pid); len(found) != len(s.needles) {
		t.Errorf("in the process, %d of %d were found", len(found), len(s.needles))
	}
}

// TestNoSeedIsInMemoryOrOnDisk is the first promise: seeds imported from files,
// the server restarted, codes verified, and nothing of them is anywhere.
func TestNoSeedIsInMemoryOrOnDisk(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		n := startNode(t, nodeOptions{plain: true})
		noSeedAnywhere(t, n, filepath.Dir(n.dir))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		pg := storetest.NewCluster(t)
		url := pg.Database()
		n := startNode(t, nodeOptions{plain: true, database: url})
		noSeedAnywhere(t, n, filepath.Dir(n.dir), psql(t, url, "SHOW data_directory"))
	})
}

func noSeedAnywhere(t *testing.T, n *node, folders ...string) {
	csv := append(newTokens("CSV-T", 30, false), newTokens("CSV-H", 30, true)...)
	pskc := newTokens("PSKC-", 30, false)
	all := append(append([]*hardToken(nil), csv...), pskc...)
	s := newScanner()
	for _, k := range all {
		s.addSeed(k.serial, k.seed)
	}
	// What surely is there: that it is found says that the scan reaches it.
	s.add("known secret", []byte(n.secret))
	s.add("known user", []byte(csv[0].user))

	n.importFile(shipment(csv), len(csv))
	n.importFile(pskcFile(pskc), len(pskc))
	n.assign(all...)
	useAll(t, n, all)
	t.Run("before a restart", func(t *testing.T) { wantNoSeed(t, s, n, folders) })

	n.term()
	n.start()
	n.waitReady()
	for _, k := range all {
		k.period = max(k.period, 1)
	}
	useAllAgain(t, n, all)
	t.Run("after a restart", func(t *testing.T) { wantNoSeed(t, s, n, folders) })
}

// useAll has each token let its owner in.
func useAll(t *testing.T, n *node, list []*hardToken) {
	t.Helper()
	for _, k := range list {
		code := ""
		if k.hotp {
			code = k.press()
		} else {
			soonInStep(t, 2e9)
			code, _ = k.shown()
		}
		if got := n.verify(k.user, code); got != sawAccept {
			t.Fatalf("token %s: %s", k.serial, got)
		}
	}
}

// useAllAgain verifies codes of tokens that were used before: the next one of
// HOTP; of TOTP the one after the last that was shown, which the window still
// takes.
func useAllAgain(t *testing.T, n *node, list []*hardToken) {
	t.Helper()
	for _, k := range list {
		code := ""
		if k.hotp {
			code = k.press()
		} else {
			_, step := k.shown()
			code = k.code(step + 1)
		}
		if got := n.verify(k.user, code); got != sawAccept {
			t.Fatalf("token %s: %s (%s)", k.serial, got, n.lastAttempt(k.user).Reason)
		}
	}
}

func wantNoSeed(t *testing.T, s *scanner, n *node, folders []string) {
	t.Helper()
	found, scanned := s.memory(t, n.pid())
	if len(found["known secret"]) == 0 {
		t.Errorf("the scan of %d MB of memory did not find the known secret, which is there: it proves nothing", scanned>>20)
	}
	delete(found, "known secret")
	delete(found, "known user") // as a rule it is there too, but nothing keeps it
	if len(found) > 0 {
		t.Errorf("seeds are in the server's memory (%d MB scanned):\n%s", scanned>>20, describe(found))
	}
	files := map[string][]string{}
	for _, folder := range folders {
		for what, where := range s.files(t, folder) {
			files[what] = append(files[what], where...)
		}
	}
	for _, known := range []string{"known secret", "known user"} {
		if len(files[known]) == 0 {
			t.Errorf("the scan of the files did not find the %s, which is there: it proves nothing", known)
		}
		delete(files, known)
	}
	if len(files) > 0 {
		t.Errorf("seeds are on disk:\n%s", describe(files))
	}
}

// pskcFile is a vendor's PSKC file (RFC 6030) with seeds in the clear.
func pskcFile(list []*hardToken) io.Reader {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc">` + "\n")
	for _, k := range list {
		fmt.Fprintf(&b, `<KeyPackage><DeviceInfo><Manufacturer>ACME</Manufacturer><SerialNo>%s</SerialNo></DeviceInfo>`+
			`<Key Id="%s" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:totp"><AlgorithmParameters><ResponseFormat Length="%d" Encoding="DECIMAL"/></AlgorithmParameters>`+
			`<Data><Secret><PlainValue>%s</PlainValue></Secret><TimeInterval><PlainValue>%d</PlainValue></TimeInterval></Data></Key></KeyPackage>`+"\n",
			k.serial, k.serial, digits, base64.StdEncoding.EncodeToString(k.seed), k.period)
	}
	b.WriteString("</KeyContainer>\n")
	return &b
}
