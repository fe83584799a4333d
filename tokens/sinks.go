package tokens

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// sinksDocument holds all sinks, sealed: who can write to the database can neither
// add one, nor lead one elsewhere. One document for all, so that no two nodes put
// the seventeenth at once. It says its own version, so that an old one is not put back.
const sinksDocument = "sinks"

type sinkList struct {
	Version int64  `json:"version"`
	Sinks   []Sink `json:"sinks"` // by name
}

// sinks reads them.
func (s *Service) sinks(ctx context.Context) (sinkList, error) {
	d, err := s.SealedDocument(ctx, sinksDocument)
	if errors.Is(err, ErrNotFound) {
		return sinkList{}, nil
	}
	if err != nil {
		return sinkList{}, err
	}
	var list sinkList
	if err := json.Unmarshal(d.Data, &list); err != nil {
		return sinkList{}, fmt.Errorf("%w: document %s cannot be read", ErrState, sinksDocument)
	}
	if list.Version != d.Version {
		return sinkList{}, fmt.Errorf("%w (document %s: an old one was put back)", ErrTampered, sinksDocument)
	}
	return list, nil
}

// find is where a sink of that name is, -1 if there is none.
func (l *sinkList) find(name string) int {
	return slices.IndexFunc(l.Sinks, func(k Sink) bool { return k.Name == name })
}

// putSinks writes the list, as long as it is the one that was read.
func (s *Service) putSinks(ctx context.Context, p Principal, action policy.Action, list sinkList, detail []audit.Field) error {
	w, err := list.next()
	if err != nil {
		return err
	}
	_, err = s.PutSealed(ctx, p, action, "", w, detail)
	return err
}

// next is the write of the list in its next version.
func (l sinkList) next() (DocumentWrite, error) {
	expect := l.Version
	l.Version++
	data, err := json.Marshal(l)
	if err != nil {
		return DocumentWrite{}, fmt.Errorf("write the sinks: %w", err)
	}
	return DocumentWrite{Name: sinksDocument, Expect: expect, Data: data}, nil
}

// sinkContext is what a sink's secret is sealed with, so that none serves another.
func sinkContext(k *Sink, what string) []byte {
	return []byte("watchword-sink-1\x00" + what + "\x00" + k.ID)
}

// secrets opens a sink's secrets.
func (s *Service) secrets(ctx context.Context, k *Sink) (open SinkSecrets, err error) {
	if len(k.Secret) > 0 {
		if open.Webhook, err = s.custody.Open(ctx, k.Secret, sinkContext(k, "webhook")); err != nil {
			return SinkSecrets{}, translate(err)
		}
	}
	if len(k.Key) > 0 {
		if open.Key, err = s.custody.Open(ctx, k.Key, sinkContext(k, "key")); err != nil {
			open.Wipe()
			return SinkSecrets{}, translate(err)
		}
	}
	return open, nil
}

// delivery readies the way to a sink.
func (s *Service) delivery(ctx context.Context, k *Sink) (Delivery, error) {
	secrets, err := s.secrets(ctx, k)
	if err != nil {
		return nil, err
	}
	defer secrets.Wipe()
	return s.cfg.Deliver.Open(k, &secrets)
}

// SinkState is a sink, and how far it was told.
type SinkState struct {
	Sink                // without its secrets
	Lag       int64     // records that it was not told yet
	Behind    time.Time // when the oldest of them was made; zero if there is none
	Telling   bool      // this server tells it
	Failures  int64     // of this server, since it started
	LastError string    // of this server, since it last told it something; empty if there is none
	FailedAt  time.Time
}

// Sinks lists the sinks by name, without their secrets.
func (s *Service) Sinks(ctx context.Context, p Principal) ([]SinkState, error) {
	var e audit.Event
	if err := s.authorise(ctx, p, policy.SinkList, &e); err != nil {
		return nil, err
	}
	states, err := s.SinkStates(ctx)
	if err != nil {
		return nil, s.refuse(ctx, p, policy.SinkList, e, err)
	}
	return states, s.record(ctx, p, policy.SinkList, e)
}

// Sink shows one.
func (s *Service) Sink(ctx context.Context, p Principal, name string) (SinkState, error) {
	e := sinkEvent(name)
	if err := s.authorise(ctx, p, policy.SinkList, &e); err != nil {
		return SinkState{}, err
	}
	states, err := s.SinkStates(ctx)
	if err != nil {
		return SinkState{}, s.refuse(ctx, p, policy.SinkList, e, err)
	}
	i := slices.IndexFunc(states, func(k SinkState) bool { return k.Name == name })
	if i < 0 {
		return SinkState{}, s.refuse(ctx, p, policy.SinkList, e, noSink(name))
	}
	return states[i], s.record(ctx, p, policy.SinkList, e)
}

func noSink(name string) error { return fmt.Errorf("%w: there is no sink %.64q", ErrNotFound, name) }

// sinkEvent names a sink in the audit, if it can be one's name.
func sinkEvent(name string) audit.Event {
	if !validSinkName(name) {
		return audit.Event{}
	}
	return audit.Event{Detail: []audit.Field{{Name: "sink", Value: name}}}
}

// SinkStates is Sinks for the server itself.
func (s *Service) SinkStates(ctx context.Context) ([]SinkState, error) {
	list, err := s.sinks(ctx)
	if err != nil || len(list.Sinks) == 0 {
		return []SinkState{}, err
	}
	heads, err := s.db.Heads(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	states := make([]SinkState, len(list.Sinks))
	for i, k := range list.Sinks {
		if states[i], err = s.sinkState(ctx, k, heads); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// sinkState finds out how far a sink was told.
func (s *Service) sinkState(ctx context.Context, k Sink, heads []audit.Head) (SinkState, error) {
	state := SinkState{Sink: k}
	told, err := s.db.Told(ctx, k.ID)
	if err != nil {
		return state, unavailable(err)
	}
	looked := 0
	for _, h := range heads {
		from := k.from(told, h.Chain)
		if h.Seq <= from {
			continue
		}
		state.Lag += h.Seq - from
		if looked++; looked > 8 { // it is long ago in any case
			continue
		}
		first, err := s.db.After(ctx, h.Chain, from, 1)
		if err != nil {
			return state, unavailable(err)
		}
		if len(first) > 0 && (state.Behind.IsZero() || first[0].Time.Before(state.Behind)) {
			state.Behind = first[0].Time
		}
	}
	s.shipping.describe(&state)
	state.Secret, state.Key, state.Begin = nil, nil, nil
	return state, nil
}

// from is the last record of a chain that a sink need not be told any more.
func (k *Sink) from(told map[int64]int64, chain int64) int64 { return max(told[chain], k.Begin[chain]) }

// webhookSecret is how a webhook's secret is written: what the signature is made
// with, in base64, behind a prefix that says what it is.
const webhookSecret = "whsec_"

// PutSink makes a sink, or changes the one of that name, which goes on where it is. A
// webhook's secret is answered where one was made, this once.
func (s *Service) PutSink(ctx context.Context, p Principal, n NewSink) (SinkState, string, error) {
	defer clear(n.Key)
	defer clear(n.Secret)
	k, err := n.check()
	if err != nil {
		return SinkState{}, "", err
	}
	e := sinkEvent(k.Name)
	if err := s.authorise(ctx, p, policy.SinkPut, &e); err != nil {
		return SinkState{}, "", err
	}
	if s.cfg.Deliver == nil {
		return SinkState{}, "", s.refuse(ctx, p, policy.SinkPut, e, fmt.Errorf("%w: this server tells its audit to nobody", ErrState))
	}
	list, err := s.sinks(ctx)
	if err != nil {
		return SinkState{}, "", s.refuse(ctx, p, policy.SinkPut, e, err)
	}
	i := list.find(k.Name)
	secret, err := s.settle(ctx, &k, &n, &list, i)
	if err != nil {
		if errors.Is(err, ErrUnavailable) {
			return SinkState{}, "", err
		}
		return SinkState{}, "", s.refuse(ctx, p, policy.SinkPut, e, err)
	}
	// What leads nowhere is refused before anybody relies on it.
	way, err := s.delivery(ctx, &k)
	if err != nil {
		return SinkState{}, "", s.refuse(ctx, p, policy.SinkPut, e, err)
	}
	if err := way.Close(); err != nil {
		s.log.Warn("a way to a sink could not be closed", "sink", k.Name, "error", err)
	}
	var was Sink
	if i >= 0 {
		was = list.Sinks[i]
	}
	if i < 0 {
		list.Sinks = append(list.Sinks, k)
		slices.SortFunc(list.Sinks, func(a, b Sink) int { return strings.Compare(a.Name, b.Name) })
	} else {
		list.Sinks[i] = k
	}
	detail := append(sinkEvent(k.Name).Detail, audit.Field{Name: "kind", Value: string(k.Kind)})
	if at := k.place(); at != "" {
		detail = append(detail, audit.Field{Name: "at", Value: at})
	}
	if k.Plain() {
		detail = append(detail, audit.Field{Name: "plaintext", Value: "true"})
	}
	for _, f := range []struct {
		name    string
		was, is []byte
	}{{"secret", was.Secret, k.Secret}, {"key", was.Key, k.Key}} {
		if len(f.is) > 0 && !bytes.Equal(f.was, f.is) {
			detail = append(detail, audit.Field{Name: f.name, Value: "new"})
		}
	}
	if err := s.putSinks(ctx, p, policy.SinkPut, list, detail); err != nil {
		return SinkState{}, "", err
	}
	k.Secret, k.Key, k.Begin = nil, nil, nil
	return SinkState{Sink: k}, secret, nil
}

// settle gives a sink what the one before it has and keeps, or what a new one
// needs; i is where that one is in the list, -1 if there is none. It answers the
// webhook's secret if that is new.
func (s *Service) settle(ctx context.Context, k *Sink, n *NewSink, list *sinkList, i int) (secret string, err error) {
	now := s.cfg.Now().UTC().Truncate(time.Microsecond)
	k.Updated, k.Revision = now, list.Version+1
	var before Sink
	if i >= 0 {
		before = list.Sinks[i]
		if before.Kind != k.Kind {
			return "", otherKind(&before)
		}
		k.ID, k.Created, k.Begin, k.Secret = before.ID, before.Created, before.Begin, before.Secret
	} else {
		if len(list.Sinks) >= maxSinks {
			return "", fmt.Errorf("%w: there are %d sinks, and no more can be", ErrState, maxSinks)
		}
		id, err := s.random(8)
		if err != nil {
			return "", err
		}
		k.ID, k.Created = hex.EncodeToString(id), now
		if n.FromNow != nil && *n.FromNow || n.FromNow == nil && k.Kind == SinkWebhook {
			heads, err := s.db.Heads(ctx)
			if err != nil {
				return "", unavailable(err)
			}
			k.Begin = map[int64]int64{}
			for _, h := range heads {
				k.Begin[h.Chain] = h.Seq
			}
		}
	}
	switch {
	case len(n.Key) > 0:
		if k.Key, err = s.custody.Seal(ctx, n.Key, sinkContext(k, "key")); err != nil {
			return "", translate(err)
		}
	case k.Certificate != "" && k.Certificate == before.Certificate:
		k.Key = before.Key
	case k.Certificate != "":
		return "", fmt.Errorf("%w: sink %s: a certificate comes with its key", ErrInvalid, k.Name)
	}
	given, err := n.plainSecret()
	if err != nil {
		return "", fmt.Errorf("%w: sink %s: %w", ErrInvalid, k.Name, err)
	}
	if k.Kind != SinkWebhook || len(k.Secret) > 0 && !n.NewSecret && given == nil {
		return "", nil
	}
	key := given
	if key == nil {
		if key, err = s.random(32); err != nil {
			return "", err
		}
	}
	defer clear(key)
	if k.Secret, err = s.custody.Seal(ctx, key, sinkContext(k, "webhook")); err != nil {
		return "", translate(err)
	}
	if given != nil {
		return "", nil
	}
	return webhookSecret + base64.StdEncoding.EncodeToString(key), nil
}

// CompareSink answers the sink that PutSink would make of one, without its secrets, and
// what would be other than it is now, "secret" and "key" among it: "sink" if there is
// none of the name, nothing if PutSink would change nothing. Nothing is done.
func (s *Service) CompareSink(ctx context.Context, p Principal, n NewSink) (SinkState, []string, error) {
	defer clear(n.Key)
	defer clear(n.Secret)
	k, err := n.check()
	if err != nil {
		return SinkState{}, nil, err
	}
	e := sinkEvent(k.Name)
	if err := s.authorise(ctx, p, policy.SinkPut, &e); err != nil {
		return SinkState{}, nil, err
	}
	changes, err := s.compareSink(ctx, &k, &n)
	if errors.Is(err, ErrUnavailable) {
		return SinkState{}, nil, err
	}
	if err != nil {
		return SinkState{}, nil, s.refuse(ctx, p, policy.SinkPut, e, err)
	}
	e.Detail = append(e.Detail, audit.Field{Name: "dry_run", Value: "true"})
	e.Reason = string(ReasonUnchanged)
	return SinkState{Sink: k}, changes, s.record(ctx, p, policy.SinkPut, e)
}

// compareSink finds what is other than it is.
func (s *Service) compareSink(ctx context.Context, k *Sink, n *NewSink) ([]string, error) {
	list, err := s.sinks(ctx)
	if err != nil {
		return nil, err
	}
	k.Created = s.cfg.Now().UTC().Truncate(time.Microsecond)
	k.Updated = k.Created
	i := list.find(k.Name)
	if i < 0 {
		return []string{"sink"}, nil
	}
	was := &list.Sinks[i]
	if was.Kind != k.Kind {
		return nil, otherKind(was)
	}
	k.Created, k.Updated = was.Created, was.Updated
	var changes []string
	for _, f := range []struct {
		name  string
		other bool
	}{
		{"format", was.Format != k.Format}, {"max_bytes", was.MaxBytes != k.MaxBytes}, {"keep", was.Keep != k.Keep},
		{"address", was.Address != k.Address}, {"allow_plaintext", was.AllowPlaintext != k.AllowPlaintext},
		{"server_name", was.ServerName != k.ServerName}, {"ca", was.CA != k.CA}, {"certificate", was.Certificate != k.Certificate},
		{"url", was.URL != k.URL}, {"events", !slices.Equal(was.Events, k.Events)},
		{"secret", n.NewSecret},
	} {
		if f.other {
			changes = append(changes, f.name)
		}
	}
	if len(n.Key)+len(n.Secret) == 0 {
		return changes, nil
	}
	open, err := s.secrets(ctx, was)
	if err != nil {
		return nil, err
	}
	defer open.Wipe()
	secret, err := n.plainSecret()
	if err != nil {
		return nil, fmt.Errorf("%w: sink %s: %w", ErrInvalid, k.Name, err)
	}
	defer clear(secret)
	if len(n.Key) > 0 && !hmac.Equal(open.Key, n.Key) {
		changes = append(changes, "key")
	}
	if secret != nil && !hmac.Equal(open.Webhook, secret) {
		changes = append(changes, "secret")
	}
	return changes, nil
}

// otherKind refuses to make one kind of sink of another.
func otherKind(was *Sink) error {
	return fmt.Errorf("%w: sink %s is of kind %s; delete it first", ErrState, was.Name, was.Kind)
}

func (s *Service) random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.cfg.Rand, b); err != nil {
		return nil, fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	return b, nil
}

// DeleteSink has a sink told nothing any more, and forgets how far it was told.
func (s *Service) DeleteSink(ctx context.Context, p Principal, name string) error {
	e := sinkEvent(name)
	if err := s.authorise(ctx, p, policy.SinkDelete, &e); err != nil {
		return err
	}
	list, err := s.sinks(ctx)
	if err != nil {
		return s.refuse(ctx, p, policy.SinkDelete, e, err)
	}
	i := list.find(name)
	if i < 0 {
		return s.refuse(ctx, p, policy.SinkDelete, e, noSink(name))
	}
	gone := list.Sinks[i]
	list.Sinks = slices.Delete(slices.Clone(list.Sinks), i, i+1)
	if err := s.putSinks(ctx, p, policy.SinkDelete, list, sinkEvent(name).Detail); err != nil {
		return err
	}
	// No later sink has its ID, so that what stays is of no use, and no harm.
	if err := s.db.Forget(ctx, gone.ID); err != nil {
		s.log.Warn("how far a sink was told could not be forgotten", "sink", name, "error", err)
	}
	return nil
}

// TestSink finds out whether a sink would take records from this server. It fails
// with ErrState, and the reason in words, if it would not.
func (s *Service) TestSink(ctx context.Context, p Principal, name string) error {
	e := sinkEvent(name)
	if err := s.authorise(ctx, p, policy.SinkTest, &e); err != nil {
		return err
	}
	list, err := s.sinks(ctx)
	if err != nil {
		return s.refuse(ctx, p, policy.SinkTest, e, err)
	}
	i := list.find(name)
	if i < 0 {
		return s.refuse(ctx, p, policy.SinkTest, e, noSink(name))
	}
	if s.cfg.Deliver == nil {
		return s.refuse(ctx, p, policy.SinkTest, e, fmt.Errorf("%w: this server tells its audit to nobody", ErrState))
	}
	if err := s.tryOut(ctx, &list.Sinks[i]); err != nil {
		return s.refuse(ctx, p, policy.SinkTest, e, fmt.Errorf("%w: sink %s: %w", ErrState, name, err))
	}
	s.shipping.nudge(list.Sinks[i].ID)
	return s.record(ctx, p, policy.SinkTest, e)
}

func (s *Service) tryOut(ctx context.Context, k *Sink) (err error) {
	way, err := s.delivery(ctx, k)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, way.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return way.Test(ctx)
}

// untold are the sinks, by name, that were not told a chain up to a record yet, so
// that nobody removes what somebody still waits for.
func (s *Service) untold(ctx context.Context, chain, seq int64) ([]string, error) {
	list, err := s.sinks(ctx)
	if err != nil {
		return nil, err
	}
	var waiting []string
	for _, k := range list.Sinks {
		told, err := s.db.Told(ctx, k.ID)
		if err != nil {
			return nil, unavailable(err)
		}
		if k.from(told, chain) < seq {
			waiting = append(waiting, k.Name)
		}
	}
	return waiting, nil
}
