package tokens

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// transporter is the HSM where it takes over seeds that were encrypted to a
// transport key; nil if it does not, or has none.
func (s *Service) transporter() hsm.Transporter {
	if t, ok := s.custody.(hsm.Transporter); ok && len(t.TransportKeys()) > 0 {
		return t
	}
	return nil
}

// Transports says whether there is a transport key, so that an import can have
// seeds that were encrypted to it.
func (s *Service) Transports() bool { return s.transporter() != nil }

var errTransportKey = fmt.Errorf("%w: the seeds of this file are encrypted to a public key that is none of the transport keys of this HSM; give the maker the certificate that 'watchword hsm transport-key' writes", ErrInvalid)

// knowsTransport fails if a file's seeds are encrypted to a key that is not here.
func (s *Service) knowsTransport(to *rsa.PublicKey) error {
	t := s.transporter()
	if t == nil {
		return errTransportKey
	}
	for _, k := range t.TransportKeys() {
		if to == nil || to.Equal(k.Public) {
			return nil
		}
	}
	return errTransportKey
}

// rewrap lets the HSM take over the seeds of entries that are encrypted to a
// transport key. Those that it cannot are rejected, each with its reason.
func (i *Import) rewrap(ctx context.Context, list []*entry) error {
	to := list[0].from.TransportKey
	if err := i.s.knowsTransport(to); err != nil {
		return err
	}
	items := make([]hsm.Transported, len(list))
	for k, e := range list {
		if other := e.from.TransportKey; other != to && (to == nil || other == nil || !to.Equal(other)) {
			return fmt.Errorf("%w: seeds that are encrypted to different keys", ErrInvalid)
		}
		items[k] = *e.from.Transported
	}
	out, err := i.s.transporter().Rewrap(ctx, items, hsm.TransportOptions{To: to, AllowHost: i.in.AllowHost, AllowPKCS1: i.in.AllowPKCS1})
	switch {
	case errors.Is(err, hsm.ErrKeyMismatch), errors.Is(err, hsm.ErrNoTransportKey):
		return errTransportKey
	case err != nil && ctx.Err() != nil && i.in.AllowPKCS1:
		return errors.Join(translate(err), i.left(ctx, list))
	case err != nil:
		return translate(err)
	case len(out) != len(list):
		return fmt.Errorf("%w: the HSM answered for %d of %d seeds", ErrUnavailable, len(out), len(list))
	}
	var events []audit.Event
	limited, held := -1, 0 // the event of those that were not tried, and how many
	for k, e := range list {
		err := out[k].Err
		if err == nil {
			err = seedLength(int(out[k].SeedLen))
		}
		if err == nil {
			e.token.Wrapped, e.added.Path = out[k].Wrapped, out[k].Path
			continue
		}
		e.reject("%s", reasonOf(err))
		if errors.Is(err, hsm.ErrNeedsHost) {
			e.added.Reason += " (--allow-host-unwrap)"
		}
		switch {
		case errors.Is(err, hsm.ErrTransportLimit):
			if held++; held == 1 {
				limited = len(events)
				events = append(events, i.suspect(e, "limit"))
			}
		case errors.Is(err, hsm.ErrTransport) && items[k].Mechanism == hsm.TransportPKCS1:
			events = append(events, i.suspect(e, "wrong_ciphertext"))
		}
	}
	if limited >= 0 {
		events[limited].Detail = append(events[limited].Detail, audit.Field{Name: "records", Value: itoa(int64(held))})
	}
	if len(events) == 0 {
		return nil
	}
	return i.s.ledger.commit(ctx, &Change{}, events)
}

// left audits that somebody left while their RSA-1_5 ciphertexts were tried, or
// leaving would be a way to use up all attempts without a trace.
func (i *Import) left(ctx context.Context, list []*entry) error {
	var first *entry
	n := 0
	for _, e := range list {
		if e.from.Transported.Mechanism != hsm.TransportPKCS1 {
			continue
		}
		if n++; n == 1 {
			first = e
		}
	}
	if n == 0 {
		return nil
	}
	event := i.suspect(first, "interrupted")
	event.Outcome = "error"
	event.Detail = append(event.Detail, audit.Field{Name: "records", Value: itoa(int64(n))})
	return i.s.ledger.commit(context.WithoutCancel(ctx), &Change{}, []audit.Event{event})
}

// suspect is the event of an RSA-1_5 ciphertext that was wrong, or not tried any
// more.
func (i *Import) suspect(e *entry, reason string) audit.Event {
	return i.s.event(i.p, policy.ImportTransport, audit.Event{
		Realm: i.in.Realm, Serial: e.token.Serial, Outcome: "refused", Reason: reason, Policy: i.policy,
		Detail: []audit.Field{
			{Name: "batch", Value: itoa(i.batch.ID)}, {Name: "file", Value: i.in.Name}, {Name: "mechanism", Value: string(hsm.TransportPKCS1)},
		},
	})
}
