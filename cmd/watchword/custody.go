package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"watchword/hsm"
	"watchword/hsm/pkcs11"
)

// softTokenLabel is the label of the SoftHSM token in a data directory.
const softTokenLabel = "watchword"

// errPINRefused is a PIN that the HSM did not take.
var errPINRefused = errors.New("PIN refused")

// openHSM prepares the data directory and opens the HSM that the configuration
// names, or the SoftHSM token in the directory where it names none.
func openHSM(ctx context.Context, c *Config, d *dataDir, log *slog.Logger) (keys *pkcs11.Keystore, err error) {
	config := pkcs11.Config{
		Module: c.HSM.Module, TokenLabel: c.HSM.TokenLabel, Serial: c.HSM.TokenSerial,
		Sessions: c.HSM.Sessions, Spread: c.HSM.Spread, Handles: c.HSM.Handles,
		Mechanism: c.HSM.Mechanism, StuckAfter: c.HSM.StuckAfter, Logger: log,
	}
	if config.Slot, err = c.HSM.slot(); err != nil {
		return nil, err
	}
	leave, err := d.guard()
	if err != nil {
		return nil, err
	}
	if c.HSM.Module != "" {
		if err := firstOf(realHSM(c, d, &config), leave()); err != nil {
			return nil, err
		}
		return login(ctx, config)
	}
	defer func() { err = firstOf(err, leave()) }()
	return openSoftHSM(ctx, d, config, log)
}

// openSoftHSM opens the SoftHSM token in the data directory, under guard.
func openSoftHSM(ctx context.Context, d *dataDir, config pkcs11.Config, log *slog.Logger) (*pkcs11.Keystore, error) {
	if err := softHSM(ctx, d, &config, log); err != nil {
		return nil, err
	}
	dir := filepath.Join(d.path, softHSMDir)
	if err := healSoftTokens(dir, log); err != nil {
		return nil, &failure{What: "open the SoftHSM token", Why: err.Error()}
	}
	config.Turning = func() (func(), error) { return turnSoftTokens(d, dir, log) }
	keys, err := login(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := keepSoftTokens(dir); err != nil {
		return nil, firstOf(&failure{What: "keep a copy of the SoftHSM token", Why: err.Error()}, keys.Close())
	}
	return keys, nil
}

func login(ctx context.Context, config pkcs11.Config) (*pkcs11.Keystore, error) {
	keys, err := pkcs11.Open(ctx, config)
	if err != nil {
		err = hsmFailure("open the HSM", err)
		if f := (*failure)(nil); errors.As(err, &f) && f.Do == "" {
			f.Do = "see hsm.module, hsm.token_label, hsm.token_serial and hsm.slot"
		}
		return nil, err
	}
	return keys, nil
}

// softHSM sets config up for the token in the data directory.
func softHSM(ctx context.Context, d *dataDir, config *pkcs11.Config, log *slog.Logger) error {
	module, err := pkcs11.FindSoftHSM()
	if err != nil {
		return &failure{What: "open the SoftHSM token", Why: err.Error()}
	}
	config.Module = module
	dir := filepath.Join(d.path, softHSMDir)
	fresh, err := d.prepare(func(pin []byte) error {
		soPIN := make([]byte, 16)
		if _, err := rand.Read(soPIN); err != nil {
			return err
		}
		// The SO PIN could only set a new user PIN, which hsm.pin makes needless.
		err := pkcs11.InitSoftHSM(ctx, dir, module, pin, []byte(hex.EncodeToString(soPIN)), softTokenLabel)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return hsmFailure("make a SoftHSM token", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if fresh {
		log.Info("a new data directory was initialised", "directory", d.path)
	}
	if err := pkcs11.UseSoftHSM(dir); err != nil {
		return &failure{What: "open the SoftHSM token", Why: plainCause(err)}
	}
	config.PIN = func() ([]byte, error) {
		pin, err := d.readPIN()
		return []byte(pin), err
	}
	return nil
}

// realHSM sets config up for a module that the configuration names.
func realHSM(c *Config, d *dataDir, config *pkcs11.Config) error {
	if _, err := os.Stat(c.HSM.Module); err != nil && filepath.Base(c.HSM.Module) != c.HSM.Module {
		return &failure{What: "load the PKCS#11 module " + c.HSM.Module, Why: plainCause(err), Do: "set hsm.module to the vendor's library"}
	}
	switch {
	case c.HSM.PINFile != "":
		// Read at each login, so that a changed PIN needs no restart.
		file := c.HSM.PINFile
		if _, err := readLine(file); err != nil {
			return &failure{What: "read the HSM's PIN", Why: err.Error(), Do: "set hsm.pin_file to a file whose only line is the PIN"}
		}
		config.PIN = func() ([]byte, error) {
			pin, err := readLine(file)
			return []byte(pin), err
		}
	case c.HSM.PIN != "":
		config.PIN = pkcs11.FixedPIN([]byte(c.HSM.PIN))
	}
	_, err := d.prepare(nil)
	return err
}

// hsmFailure says what to do about an error of the HSM.
func hsmFailure(what string, err error) error {
	f := &failure{What: what, Why: err.Error()}
	switch {
	case errors.Is(err, hsm.ErrPIN):
		f.Do = "set the right PIN before the next start: an HSM locks itself after a few wrong ones"
		return fmt.Errorf("%w%w", silent{errPINRefused}, f)
	case errors.Is(err, hsm.ErrKeyMismatch):
		f.Do = "point hsm.module and hsm.token_label at the HSM that this database was made with, or restore its token from a backup; no keys are made anew"
	case errors.Is(err, hsm.ErrUnsupported):
		f.Do = "see docs/hsm.md for the mechanisms that are needed; hsm.mechanism names a vendor's own"
	case errors.Is(err, hsm.ErrUnavailable):
		f.Do = "see that the HSM is reachable, and start again"
	}
	return f
}

// silent is an error that only errors.Is hears.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }
