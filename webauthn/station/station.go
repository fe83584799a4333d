package station

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// PINs says where the PIN of a key comes from.
type PINs string

// The ways to a PIN.
const (
	PINRandom PINs = "random" // made up, for each key another one, and written on its label
	PINGiven  PINs = "given"  // the same for all
	PINKept   PINs = "kept"   // the keys have it already
	PINNone   PINs = "none"   // they get none: whoever finds one can use it
)

// Order is what a batch of keys is made into.
type Order struct {
	Users []string // one key each; none: stock
	Stock int      // how many keys of stock; zero: until it is broken off

	RPID        string // relying party; empty: the server's default one
	Passkey     bool   // the credential is found without a user name
	Attestation string // direct or enterprise; empty: as the server says

	PINs        PINs
	PINLength   int  // of random ones; zero: 8, or what the key wants
	MinPIN      int  // least length of PINs from now on, where the key can; zero: as it is
	ForceChange bool // the PIN is good for nothing but being changed, where the key can
	AlwaysUV    bool // the PIN is asked for whatever the key is used for, where the key can
	Reset       bool // the key is reset first, whatever it holds
}

// Check says what does not go together.
func (o *Order) Check(labels bool) error {
	switch {
	case o.PINs == PINRandom && !labels:
		return errors.New("random PINs are known from the labels only: name a file for them")
	case !slices.Contains([]PINs{PINRandom, PINGiven, PINKept, PINNone}, o.PINs):
		return fmt.Errorf("PINs are random, given, kept or none, not %q", o.PINs)
	case o.PINLength != 0 && (o.PINLength < 4 || o.PINLength > maxPIN), o.MinPIN != 0 && (o.MinPIN < 4 || o.MinPIN > maxPIN):
		return fmt.Errorf("PINs have 4 to %d characters", maxPIN)
	case o.PINs == PINNone && (o.ForceChange || o.AlwaysUV || o.MinPIN != 0):
		return errors.New("keys without a PIN have no settings of PINs")
	case o.Reset && o.PINs == PINKept:
		return errors.New("a key that is reset does not keep its PIN")
	case !slices.Contains([]string{"", "direct", "enterprise"}, o.Attestation):
		return fmt.Errorf("attestation is direct or enterprise, not %q", o.Attestation)
	}
	return nil
}

// Event is something that happens at the station, for people and for scripts.
type Event struct {
	Event  string   `json:"event"` // next, plugged, model, touch, enrolled, aside, skipped, doubt, resumed, server, end
	Number int      `json:"number,omitempty"`
	User   string   `json:"user,omitempty"`
	Key    *Key     `json:"key,omitempty"`
	Info   *Info    `json:"info,omitempty"`
	Model  *Model   `json:"model,omitempty"`
	Token  *Token   `json:"token,omitempty"`
	Reason string   `json:"reason,omitempty"` // why not
	Left   string   `json:"left,omitempty"`   // what is on a key that was set aside, and what to do
	Notes  []string `json:"notes,omitempty"`  // what the key could not do, and was enrolled without

	Enrolled int `json:"enrolled,omitempty"` // end: in the whole batch
	Aside    int `json:"aside,omitempty"`
}

// Station enrols the keys of a batch, one after another.
type Station struct {
	Server  *Server
	Order   Order
	Given   *Secret // the PIN of PINGiven and PINKept
	Journal *Journal
	Labels  *Labels // nil: none
	Tell    func(Event)
	Random  io.Reader // nil: crypto/rand

	origins map[string]string
	left    []string // users who have no key yet, in order
}

// Stopped is why a batch cannot go on now. It goes on when it is begun again.
type Stopped struct{ Why error }

func (e *Stopped) Error() string { return e.Why.Error() }
func (e *Stopped) Unwrap() error { return e.Why }

// Run enrols keys as they come until the batch is done or ctx ends, which is no error.
func (s *Station) Run(ctx context.Context, w *Watcher) error {
	if s.Random == nil {
		s.Random = rand.Reader
	}
	s.origins = map[string]string{}
	defer func() {
		s.Tell(Event{Event: "end", Enrolled: s.Journal.Stock + len(s.Journal.Done), Aside: len(s.Journal.Aside)})
	}()
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	for _, u := range s.Order.Users {
		if !s.Journal.Done[u] && !slices.Contains(s.left, u) {
			s.left = append(s.left, u)
		}
	}
	for !s.done() {
		next := Event{Event: "next", Number: s.Journal.Number + 1}
		if len(s.left) > 0 {
			next.User = s.left[0]
		}
		s.Tell(next)
		k, err := w.Next(ctx)
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.one(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// ready makes sure that the server enrols keys at all, and the API key is good for it,
// so that what is refused later is about a user or a key.
func (s *Station) ready(ctx context.Context) error {
	err := s.ask(ctx, func(ctx context.Context) error {
		_, err := s.Server.Allowed(ctx, formatAAGUID([16]byte{}))
		return err
	})
	if err != nil && ctx.Err() == nil {
		return &Stopped{err}
	}
	return nil
}

// done says whether there is nothing left to do.
func (s *Station) done() bool {
	if len(s.Order.Users) > 0 {
		return len(s.left) == 0
	}
	return s.Order.Stock > 0 && s.Journal.Stock >= s.Order.Stock
}

// settle finds out what became of the key that the batch was at when it ended.
func (s *Station) settle(ctx context.Context) error {
	open := s.Journal.Open
	if open == nil {
		if s.Labels != nil {
			if err := s.Labels.drop(s.Journal.id); err != nil { // of a key that was never told of
				return &Stopped{err}
			}
		}
		return nil
	}
	if open.Labeled && (s.Labels == nil || !s.Labels.pins) {
		return &Stopped{fmt.Errorf("the PIN of key %d waits for its label; name the same file of labels again, with random PINs", open.Number)}
	}
	token, err := s.finish(ctx, *open.Finish, true)
	if err != nil && !decided(err) {
		return &Stopped{fmt.Errorf("it is not known whether key %d was enrolled: %w", open.Number, err)}
	}
	if err != nil {
		return s.setAside(open.Number, open.User, "it was not enrolled: "+err.Error(), func() string {
			return "it holds a credential and a PIN that are good for nothing; reset it before it is used again"
		})
	}
	var notes []string
	if s.Order.ForceChange {
		notes = append(notes, "it may not want another PIN at first use, as the batch was broken off before")
	}
	return s.enrolled(*open, token, false, notes, "resumed")
}

// enrolled writes down that the key of a record was.
func (s *Station) enrolled(r Record, token Token, forced bool, notes []string, event string) error {
	number, user := r.Number, r.User
	if s.Labels != nil {
		pin, err := s.Labels.kept(s.Journal.id)
		if err != nil {
			return &Stopped{err}
		}
		defer pin.Wipe()
		there, err := s.Labels.has(number, token.Serial)
		if err != nil {
			return err
		}
		if !there && r.Labeled && pin == nil {
			return &Stopped{fmt.Errorf("key %d is enrolled, and its PIN does not wait beside these labels; name the same file of labels again", number)}
		}
		if !there {
			if err := s.Labels.append(label{number: number, token: token, pin: pin, forced: forced}); err != nil {
				return err
			}
		}
		if err := s.Labels.drop(s.Journal.id); err != nil {
			return err
		}
	}
	if err := s.Journal.write(Record{What: whatDone, Number: number, User: user, Serial: token.Serial, Model: token.Model, AAGUID: token.AAGUID}); err != nil {
		return err
	}
	if i := slices.Index(s.left, user); i >= 0 {
		s.left = slices.Delete(s.left, i, i+1)
	}
	s.Tell(Event{Event: event, Number: number, User: user, Token: &token, Notes: notes})
	return nil
}

// setAside writes down that a key was refused, then has it put in order as far as that
// is possible, and writes down what is left on it.
func (s *Station) setAside(number int, user, reason string, undo func() (left string)) error {
	err := s.Journal.write(Record{What: whatAside, Number: number, User: user, Reason: reason})
	left := undo()
	s.Tell(Event{Event: "aside", Number: number, User: user, Reason: reason, Left: left})
	if err == nil {
		err = s.Journal.write(Record{What: whatLeft, Number: number, Left: left})
	}
	if s.Labels != nil && err == nil {
		err = s.Labels.drop(s.Journal.id)
	}
	return err
}

// How long the server is waited for, and how often it is asked meanwhile.
const (
	serverPatience = 30 * time.Second
	serverEvery    = time.Second
)

// ask asks the server until it decides, or patience ends.
func (s *Station) ask(ctx context.Context, f func(context.Context) error) error {
	for end := time.Now().Add(serverPatience); ; {
		once, cancel := context.WithTimeout(ctx, serverPatience)
		err := f(once)
		cancel()
		if err == nil || decided(err) || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		s.Tell(Event{Event: "server", Reason: err.Error()})
		if sleep(ctx, serverEvery) != nil {
			return err
		}
	}
}

// finish has the server enrol what a key made. It goes on when the batch is broken
// off: what was sent is to be known. asked says that it was sent before: then an API key
// that is no longer good, or may no longer do this, says nothing of what became of it. An
// answer that is not the server's never does.
func (s *Station) finish(ctx context.Context, f finish, asked bool) (t Token, err error) {
	err = s.ask(context.WithoutCancel(ctx), func(ctx context.Context) (err error) {
		t, err = s.Server.finish(ctx, f)
		asked = asked || err != nil && !decided(err)
		return err
	})
	var p *Problem
	if errors.As(err, &p) && (p.foreign || asked && (p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden)) {
		return t, errors.New(err.Error()) // which decides nothing
	}
	return t, err
}

// begin begins a registration for the next user of whom the server wants to know, or
// for stock. Users who can have no key are skipped.
func (s *Station) begin(ctx context.Context) (user string, c ceremony, err error) {
	r := registration{RPID: s.Order.RPID, Discoverable: s.Order.Passkey, Attestation: s.Order.Attestation, Stock: len(s.Order.Users) == 0}
	if s.Order.PINs != PINNone {
		r.Verification = "required"
	}
	for {
		if !r.Stock {
			if len(s.left) == 0 {
				return "", c, nil
			}
			r.User = s.left[0]
		}
		err = s.ask(ctx, func(ctx context.Context) (err error) {
			c, err = s.Server.begin(ctx, r)
			return err
		})
		var p *Problem
		if err == nil || r.Stock || !errors.As(err, &p) || p.foreign || p.Status != 404 && p.Status != 409 {
			return r.User, c, err
		}
		if err := s.Journal.write(Record{What: whatSkip, User: r.User, Reason: err.Error()}); err != nil {
			return "", c, err
		}
		s.Tell(Event{Event: "skipped", User: r.User, Reason: err.Error()})
		s.left = s.left[1:]
	}
}

// origin is where the server takes a relying party's answers from.
func (s *Station) origin(ctx context.Context, rpID string) (string, error) {
	if o, ok := s.origins[rpID]; ok {
		return o, nil
	}
	var o string
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		o, err = s.Server.origin(ctx, rpID)
		return err
	})
	if err == nil {
		s.origins[rpID] = o
	}
	return o, err
}
