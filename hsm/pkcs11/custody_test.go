package pkcs11_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

const (
	custodySeeds, custodySeedLen = 25, 20
	custodyKeys, custodyKeyLen   = 25, 16 // AES
)

// TestMain runs this binary as the server's stand-in where custody asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("WATCHWORD_TEST_CUSTODY") != "" {
		if err := custody(os.Getenv("WATCHWORD_TEST_CUSTODY")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("WATCHWORD_TEST_TRANSPORT_CUSTODY"); dir != "" {
		if err := transportCustody(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("WATCHWORD_TEST_GENERATE_CUSTODY"); dir != "" {
		if err := generateCustody(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// custody imports the seeds from standard input, computes an HMAC of each,
// prints them and stays until standard input ends.
func custody(dir string) error {
	ctx := context.Background()
	// What must be found, so that finding nothing means something.
	canary := make([]byte, custodySeedLen)
	if _, err := io.ReadFull(os.Stdin, canary); err != nil {
		return err
	}
	module, err := pkcs11.FindSoftHSM()
	if err != nil {
		return err
	}
	if err := pkcs11.InitSoftHSM(ctx, dir, module, []byte("1234"), []byte("5678"), "custody"); err != nil {
		return err
	}
	k, err := pkcs11.Open(ctx, pkcs11.Config{Module: module, TokenLabel: "custody", PIN: pkcs11.FixedPIN([]byte("1234"))})
	if err != nil {
		return err
	}
	var records []hsm.KeyRecord
	for _, name := range hsm.KeyNames() {
		r, err := k.Create(ctx, name, 1)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	if err := k.Attach(ctx, records); err != nil {
		return err
	}
	raw := make([]byte, custodySeeds*custodySeedLen+custodyKeys*custodyKeyLen)
	if _, err := io.ReadFull(os.Stdin, raw); err != nil {
		return err
	}
	var all []hsm.Seed
	for i := range custodySeeds {
		all = append(all, hsm.Seed{Hash: hsm.SHA1, Bytes: raw[i*custodySeedLen : (i+1)*custodySeedLen]})
	}
	for i := range custodyKeys {
		from := custodySeeds*custodySeedLen + i*custodyKeyLen
		all = append(all, hsm.Seed{Hash: hsm.AES128, Bytes: raw[from : from+custodyKeyLen]})
	}
	wrapped, err := k.Wrap(hsm.Bulk(ctx), all)
	if err != nil {
		return err
	}
	clear(raw)
	var jobs []*hsm.Job
	var blocks []*hsm.DecryptJob
	for i, w := range wrapped {
		s := &hsm.Sealed{Wrapped: w, Row: fmt.Appendf(nil, "row %d", i)}
		macs, err := k.MAC(ctx, hsm.KeyBinding, s.Message())
		if err != nil {
			return err
		}
		s.Binding = macs[0]
		if w.Hash == hsm.AES128 {
			blocks = append(blocks, &hsm.DecryptJob{Key: s})
			continue
		}
		jobs = append(jobs, &hsm.Job{Key: s, Factors: []uint64{1}})
	}
	if err := k.HMAC(ctx, jobs); err != nil {
		return err
	}
	if err := k.Decrypt(ctx, blocks); err != nil {
		return err
	}
	for _, j := range jobs {
		if j.Err != nil {
			return j.Err
		}
		fmt.Printf("%x\n", j.MACs[0])
	}
	for _, j := range blocks {
		if j.Err != nil {
			return j.Err
		}
		fmt.Printf("%x\n", j.Plain)
	}
	io.Copy(io.Discard, os.Stdin)
	if len(canary) == 0 {
		return io.EOF
	}
	fmt.Printf("%x\n", canary) // keeps it alive until here
	return k.Close()
}

// The first promise: after import no seed is in the server's memory, while the
// HSM still computes with all of them.
func TestNoSeedIsInMemoryAfterImport(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WATCHWORD_TEST_CUSTODY="+t.TempDir(), "GODEBUG=asyncpreemptoff=1") // as the server runs
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	watchdog := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer watchdog.Stop()

	canary := random(custodySeedLen)
	raw := random(custodySeeds*custodySeedLen + custodyKeys*custodyKeyLen)
	var secrets [][]byte
	for i := range custodySeeds {
		secrets = append(secrets, raw[i*custodySeedLen:(i+1)*custodySeedLen])
	}
	for keys := raw[custodySeeds*custodySeedLen:]; len(keys) > 0; keys = keys[custodyKeyLen:] {
		secrets = append(secrets, keys[:custodyKeyLen])
	}
	if _, err := in.Write(append(bytes.Clone(canary), raw...)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i, secret := range secrets {
		if !lines.Scan() {
			t.Fatalf("the importing process ended after %d of %d answers", i, len(secrets))
		}
		if len(secret) == custodyKeyLen {
			plain, err := hex.DecodeString(lines.Text())
			if err != nil || len(plain) != 16 || hsmtest.TrueBlock(secret, [16]byte(plain)) != [16]byte{} {
				t.Fatalf("key %d: another plaintext", i)
			}
			continue
		}
		if lines.Text() != hex.EncodeToString(hsmtest.True(hsm.SHA1, secret, 1)) {
			t.Fatalf("seed %d: another HMAC", i)
		}
	}

	memory := memoryOf(t, cmd.Process.Pid)
	if !contains(memory, canary) {
		t.Fatal("the scan does not find what is there")
	}
	for i, seed := range secrets {
		// The first twelve bytes are enough to know a seed by.
		low := hex.EncodeToString(seed[:12])
		for form, b := range map[string][]byte{
			"raw":            seed[:12],
			"in hex":         []byte(low),
			"in capital hex": []byte(strings.ToUpper(low)),
			"in base32":      []byte(base32.StdEncoding.EncodeToString(seed)[:19]),
		} {
			if contains(memory, b) {
				t.Errorf("seed %d, of %d bytes, is in memory %s", i, len(seed), form)
			}
		}
	}
}

var zeroPage [4096]byte

// memoryOf reads all memory of a process that can be written to.
func memoryOf(t *testing.T, pid int) [][]byte {
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
	var all [][]byte
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		// Most of it was never touched: only pages that hold something count.
		var kept []byte
		chunk := make([]byte, 1<<20)
		for ; from < to; from += uint64(len(chunk)) {
			n, _ := mem.ReadAt(chunk[:min(uint64(len(chunk)), to-from)], int64(from))
			for page := range slices.Chunk(chunk[:n], 4096) {
				if !bytes.Equal(page, zeroPage[:len(page)]) {
					kept = append(kept, page...)
				}
			}
		}
		all = append(all, kept)
	}
	return all
}

func contains(memory [][]byte, b []byte) bool {
	for _, m := range memory {
		if bytes.Contains(m, b) {
			return true
		}
	}
	return false
}
