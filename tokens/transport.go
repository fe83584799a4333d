package tokens

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// TransportMaker is an HSM that makes transport keys.
type TransportMaker interface {
	hsm.Provisioner
	hsm.Transporter
}

// MakeTransportKey makes a transport key of so many bits (0: the usual number) in
// the HSM, records it beside those that there are, and takes it into use; older
// ones still unwrap. It is for the time before the server serves: the HSM does
// nothing else meanwhile, for seconds, and calls under way fail when the key is
// taken into use. Other nodes know the key after their next start. If it fails
// after the key was made, the key stays in the HSM and is never used.
func (s *Service) MakeTransportKey(ctx context.Context, keys TransportMaker, bits int) (version uint32, err error) {
	return s.makeHSMKey(ctx, keys, hsm.KeyTransport, policy.HSMTransportKey, func(version uint32) (hsm.KeyRecord, error) {
		return keys.CreateTransport(ctx, version, bits)
	})
}

// makeHSMKey makes the next version of a key that a server needs not have.
func (s *Service) makeHSMKey(ctx context.Context, keys hsm.Provisioner, name hsm.KeyName, action policy.Action,
	create func(version uint32) (hsm.KeyRecord, error),
) (version uint32, err error) {
	unlock, err := s.cfg.Database.Lock(ctx)
	if err != nil {
		return 0, fmt.Errorf("wait for the database's migration lock: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	recorded, err := s.cfg.Database.HSMKeys(ctx)
	if err != nil {
		return 0, fmt.Errorf("read which HSM keys belong to this database: %w", err)
	}
	for _, r := range recorded {
		if r.Name == name {
			version = max(version, r.Version)
		}
	}
	version++
	made, err := create(version)
	if err != nil {
		return 0, fmt.Errorf("make a %s key in the HSM: %w", name, err)
	}
	// The audit first: a key that is recorded nowhere is of no use, one that is
	// used and audited nowhere must not be.
	p := Principal{Kind: KindSystem, Scope: policy.ScopeSystem}
	if err := s.record(ctx, p, action, audit.Event{Detail: []audit.Field{
		{Name: "version", Value: strconv.FormatUint(uint64(version), 10)},
		{Name: "id", Value: fmt.Sprintf("%x", made.ID)},
	}}); err != nil {
		return 0, err
	}
	if err := s.cfg.Database.AddHSMKeys(ctx, []hsm.KeyRecord{made}); err != nil {
		return 0, fmt.Errorf("record the %s key: %w", name, err)
	}
	if err := keys.Attach(ctx, append(recorded, made)); err != nil {
		return 0, fmt.Errorf("find this database's keys in the HSM: %w", err)
	}
	return version, nil
}
