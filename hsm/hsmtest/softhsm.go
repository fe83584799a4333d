// Package hsmtest tests anything that is an hsm.Keystore, and lends keystores to
// the tests of others: SoftHSM tokens to throw away, one in memory, and a PKCS#11
// module that fails on command.
package hsmtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"

	"watchword/hsm"
	"watchword/hsm/pkcs11"
)

// Keystore is all that an HSM does.
type Keystore interface {
	hsm.Keystore
	hsm.Sealer
	hsm.Signer
	hsm.Provisioner
	hsm.Decrypter
	hsm.StatementKeys
	hsm.Generator
}

// softhsm is the folder of this process's SoftHSM tokens. A module is
// initialised once per process, so all tokens of a test process lie together
// and are told apart by label; the folder goes with the last of them.
var softhsm struct {
	sync.Mutex
	dir    string
	users  int
	tokens int
}

// Quiet is a logger for tests that provoke failures.
func Quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// Token makes an empty SoftHSM token and answers how to open it. It is gone
// when the test ends. Its logger fails the test at any warning: a SoftHSM that
// nobody disturbs has no reason to be lost.
func Token(t testing.TB) pkcs11.Config {
	t.Helper()
	module, err := pkcs11.FindSoftHSM()
	if err != nil {
		t.Fatal(err)
	}
	config := token(t, module)
	config.Logger = slog.New(accuser{t})
	return config
}

// An accuser is a log handler that fails the test at warnings.
type accuser struct{ t testing.TB }

func (a accuser) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (a accuser) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(attr slog.Attr) bool {
		text += " " + attr.String()
		return true
	})
	a.t.Errorf("the keystore complains: %s", text)
	return nil
}

func (a accuser) WithAttrs([]slog.Attr) slog.Handler { return a }
func (a accuser) WithGroup(string) slog.Handler      { return a }

// token makes a token through module, which is SoftHSM or the shim around it.
func token(t testing.TB, module string) pkcs11.Config {
	t.Helper()
	softhsm.Lock()
	defer softhsm.Unlock()
	if softhsm.users == 0 {
		dir, err := os.MkdirTemp("", "watchword-softhsm-")
		if err != nil {
			t.Fatal(err)
		}
		softhsm.dir = dir
	}
	softhsm.users++
	softhsm.tokens++
	t.Cleanup(func() {
		softhsm.Lock()
		defer softhsm.Unlock()
		if softhsm.users--; softhsm.users == 0 {
			os.RemoveAll(softhsm.dir)
		}
	})
	label := fmt.Sprintf("test %d-%d", os.Getpid(), softhsm.tokens)
	pin := []byte(randomHex(8))
	if err := pkcs11.InitSoftHSM(context.Background(), softhsm.dir, module, pin, []byte(randomHex(8)), label); err != nil {
		t.Fatal(err)
	}
	return pkcs11.Config{Module: module, TokenLabel: label, PIN: pkcs11.FixedPIN(pin), Logger: Quiet()}
}

// SoftHSM opens a new SoftHSM token with all keys made and attached, and
// answers their records. It is closed when the test ends.
func SoftHSM(t testing.TB) (*pkcs11.Keystore, []hsm.KeyRecord) {
	t.Helper()
	return OpenNew(t, Token(t))
}

// OpenNew opens an empty token, and makes and attaches its keys.
func OpenNew(t testing.TB, config pkcs11.Config) (*pkcs11.Keystore, []hsm.KeyRecord) {
	t.Helper()
	k, err := pkcs11.Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k, Provision(t, k)
}

// Provision makes all keys and attaches them.
func Provision(t testing.TB, k hsm.Provisioner) []hsm.KeyRecord {
	t.Helper()
	var records []hsm.KeyRecord
	for _, name := range hsm.KeyNames() {
		r, err := k.Create(context.Background(), name, 1)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	if err := k.Attach(context.Background(), records); err != nil {
		t.Fatal(err)
	}
	return records
}

// Seal wraps a seed and binds it to row, as an import does.
func Seal(t testing.TB, k hsm.Keystore, hash hsm.Hash, seed, row []byte) *hsm.Sealed {
	t.Helper()
	s, err := seal(context.Background(), k, hash, seed, row)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func seal(ctx context.Context, k hsm.Keystore, hash hsm.Hash, seed, row []byte) (*hsm.Sealed, error) {
	wrapped, err := k.Wrap(ctx, []hsm.Seed{{Hash: hash, Bytes: seed}})
	if err != nil {
		return nil, err
	}
	s := &hsm.Sealed{Wrapped: wrapped[0], Row: row}
	macs, err := k.MAC(ctx, hsm.KeyBinding, s.Message())
	if err != nil {
		return nil, err
	}
	s.Binding = macs[0]
	return s, nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
