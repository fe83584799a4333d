package tokens

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Firsts receives what a new installation shows once.
type Firsts interface {
	// Save keeps the first administrator's API key and the shared secret of the
	// RADIUS client 127.0.0.1, durably, before they are of any use.
	Save(adminKey, radiusSecret string) error
}

// Open prepares a database and an HSM for each other and starts the core on
// them, under the database's lock: migrations, HSM keys (made only if the
// database records none), the self-test, in a database without an administrator
// the first API key and RADIUS client, and the keys that sign statements.
func Open(ctx context.Context, cfg Config, keys hsm.Provisioner, firsts Firsts) (s *Service, err error) {
	unlock, err := cfg.Database.Lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for the database's migration lock: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := cfg.Database.Migrate(ctx); err != nil {
		return nil, fmt.Errorf("migrate the database: %w", err)
	}
	if err := attach(ctx, cfg.Database, keys); err != nil {
		return nil, err
	}
	if err := keys.SelfTest(ctx); err != nil {
		return nil, fmt.Errorf("the HSM failed the self-test with the vectors of RFC 4226 and RFC 6238: %w", err)
	}
	if s, err = New(ctx, cfg); err != nil {
		return nil, err
	}
	if err := s.install(ctx, firsts); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	if err := s.startStatements(ctx); err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// attach finds the HSM keys that the database records; for a database that
// records none it makes them. Keys made before a crash that were not recorded
// stay in the HSM and are never used.
func attach(ctx context.Context, db Setup, keys hsm.Provisioner) error {
	recorded, err := db.HSMKeys(ctx)
	if err != nil {
		return fmt.Errorf("read which HSM keys belong to this database: %w", err)
	}
	if len(recorded) == 0 {
		for _, name := range hsm.KeyNames() {
			k, err := keys.Create(ctx, name, 1)
			if err != nil {
				return fmt.Errorf("make the %s key in the HSM: %w", name, err)
			}
			recorded = append(recorded, k)
		}
		if err := db.AddHSMKeys(ctx, recorded); err != nil {
			return fmt.Errorf("record the HSM keys: %w", err)
		}
	}
	if err := keys.Attach(ctx, recorded); err != nil {
		return fmt.Errorf("find this database's keys in the HSM: %w", err)
	}
	return nil
}

// install makes the first API key and RADIUS client in a database without an
// administrator. They are saved first: a key nobody knows would lock everyone
// out, while one that was saved and not committed is made again.
func (s *Service) install(ctx context.Context, firsts Firsts) error {
	for _, k := range s.reg.Load().keys {
		if isAdmin(&k.APIKey) {
			return nil
		}
	}
	p := Principal{Kind: KindSystem, Scope: policy.ScopeSystem}
	key, text, err := s.makeKey(ctx, p, NewKey{Name: "first administrator", Scope: string(policy.ScopeAdmin)})
	if err != nil {
		return err
	}
	// Hexadecimal: programs take it on their command lines, where a secret that
	// begins with a dash would be an option.
	random := make([]byte, 20)
	if _, err := io.ReadFull(s.cfg.Rand, random); err != nil {
		return fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	secret := hex.EncodeToString(random)
	local := Client{
		Name: "localhost", Prefix: netip.MustParsePrefix("127.0.0.1/32"), Realm: DefaultRealm,
		RequireMA: true, NameRule: NamePlain, Created: s.started.UTC(), SecretSize: len(secret),
	}
	if local.Secret, err = s.custody.Seal(ctx, []byte(secret), clientContext(&local)); err != nil {
		return translate(err)
	}
	if err := firsts.Save(text, secret); err != nil {
		return fmt.Errorf("save the first administrator's key: %w", err)
	}
	c := Change{Keys: []KeyWrite{{Key: key}}, Clients: []ClientWrite{{Client: local, Replace: true}}}
	events := []audit.Event{
		s.event(p, policy.KeyAdd, audit.Event{Detail: []audit.Field{{Name: "key", Value: key.ID}, {Name: "name", Value: key.Name}, {Name: "scope", Value: key.Scope}}}),
		s.event(p, policy.ClientPut, audit.Event{Realm: DefaultRealm, Detail: []audit.Field{{Name: "client", Value: local.Name}, {Name: "address", Value: local.Prefix.String()}}}),
	}
	if err := s.ledger.commit(ctx, &c, events); err != nil {
		return err
	}
	return s.reloadRegistry(ctx)
}
