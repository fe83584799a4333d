package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"watchword/hsm/pkcs11"
	"watchword/tokens"
	"watchword/tokens/store"
	"watchword/webauthn"
)

// core is the server without HTTP, in this process: ceremonies, the core, a real
// database and SoftHSM.
type core struct {
	keys  *pkcs11.Keystore
	db    *store.DB
	core  *tokens.Service
	fido  *webauthn.Service
	admin tokens.Principal

	key string // the first administrator's
}

// Save is called for the first administrator's key.
func (c *core) Save(key, _ string) error {
	c.key = key
	return nil
}

// startCore starts one in an empty folder. There is one in a process: SoftHSM's
// folder is the process's.
func startCore(ctx context.Context, dir, database string) (_ *core, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if database == "" {
		database = "sqlite:" + filepath.Join(dir, "watchword.db")
	}
	module, err := pkcs11.FindSoftHSM()
	if err != nil {
		return nil, err
	}
	pin, label := []byte("12345678"), "bench "+filepath.Base(filepath.Dir(dir))
	if err := pkcs11.InitSoftHSM(ctx, dir, module, pin, pin, label); err != nil {
		return nil, err
	}
	c := new(core)
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.keys, err = pkcs11.Open(ctx, pkcs11.Config{Module: module, TokenLabel: label, PIN: pkcs11.FixedPIN(pin)}); err != nil {
		return nil, err
	}
	if c.db, err = store.Open(ctx, database, store.Options{}); err != nil {
		return nil, err
	}
	if c.core, err = tokens.Open(ctx, tokens.Config{Database: c.db, Custody: c.keys, Exclusive: true}, c.keys, c); err != nil {
		return nil, err
	}
	if c.admin, err = c.core.Authenticate(ctx, c.key); err != nil {
		return nil, err
	}
	c.fido, err = webauthn.New(ctx, webauthn.Config{
		Core: c.core, Parties: []webauthn.Party{{ID: keyParty, Origins: []string{keyOrigin}}},
	})
	return c, err
}

func (c *core) stop() {
	if c.core != nil {
		_ = c.core.Close(context.Background())
	}
	if c.db != nil {
		_ = c.db.Close()
	}
	if c.keys != nil {
		_ = c.keys.Close()
	}
}

// enrol makes the users and enrols a key for each.
func (c *core) enrol(ctx context.Context, ring *keyring) error {
	if err := c.fido.SetRoots(ctx, c.admin, ring.key.RootPEM()); err != nil {
		return err
	}
	_, err := drive(ctx, 32, ring.users, time.Hour, func() (func() error, func(), error) {
		return func() error {
			user := userName(ring.pick())
			if _, err := c.core.AddUser(ctx, c.admin, "", user); err != nil {
				return err
			}
			begun, err := c.fido.BeginRegistration(ctx, c.admin, webauthn.RegistrationRequest{User: user})
			if err != nil {
				return err
			}
			response, err := ring.key.Register(begun.Options, keyOrigin)
			if err != nil {
				return err
			}
			_, err = c.fido.FinishRegistration(ctx, c.admin, begun.Session, response)
			return err
		}, func() {}, nil
	})
	ring.next.Store(0)
	return err
}

// touched is an answer of a key, and to what.
type touched struct {
	session  string
	response []byte
}

// touch is server.touch.
func (c *core) touch(ctx context.Context, ring *keyring, n int) ([][]touched, error) {
	ready := make([][]touched, ring.users)
	var next atomic.Int64
	for range (n + ring.users - 1) / ring.users {
		next.Store(0)
		if _, err := drive(ctx, 32, ring.users, time.Hour, func() (func() error, func(), error) {
			return func() error {
				i := int(next.Add(1) - 1)
				begun, err := c.fido.BeginLogin(ctx, c.admin, webauthn.LoginRequest{User: userName(i)})
				if err != nil {
					return err
				}
				response, err := ring.key.Assert(begun.Options, keyOrigin)
				ready[i] = append(ready[i], touched{begun.Session, response})
				return err
			}, func() {}, nil
		}); err != nil {
			return nil, err
		}
	}
	return ready, nil
}

func (c *core) finishWorker(ctx context.Context, ring *keyring, n int, ready [][]touched) worker {
	turns := ring.turns(n)
	return func() (func() error, func(), error) {
		next := turns()
		return func() error {
			user := next()
			if len(ready[user]) == 0 {
				return errNoneLeft
			}
			x := ready[user][0]
			ready[user] = ready[user][1:]
			got, err := c.fido.FinishLogin(ctx, c.admin, x.session, x.response, "http")
			if err == nil && !got.Accept {
				err = errors.New("a right answer is rejected")
			}
			return err
		}, func() {}, nil
	}
}

// measureCore measures what a login's end costs without HTTP and the network.
func measureCore(ctx context.Context, t *table, dir, db string, pg *postgres, o options, bare rate) error {
	url := ""
	if db == "postgres" {
		var err error
		if url, err = pg.create(ctx, "core"); err != nil {
			return err
		}
	}
	c, err := startCore(ctx, filepath.Join(dir, "core"), url)
	if err != nil {
		return err
	}
	defer c.stop()
	ring, err := newKeyring(o.keys)
	if err != nil {
		return err
	}
	say("%s, without HTTP: enrolling %d keys", db, o.keys)
	if err := c.enrol(ctx, ring); err != nil {
		return err
	}
	for _, n := range o.outstanding {
		ready, err := c.touch(ctx, ring, int(bare.perSecond*o.seconds.Seconds())+ring.users)
		if err != nil {
			return err
		}
		say("%s, without HTTP: finish, %d outstanding", db, n)
		finish, around, err := beside(ctx, func() (rate, error) {
			return drive(ctx, n, 0, o.seconds, c.finishWorker(ctx, ring, n, ready))
		})
		if err != nil {
			return fmt.Errorf("without HTTP: %w", err)
		}
		t.add(db+" finish without HTTP, in process", n, finish, &around)
	}
	return nil
}
