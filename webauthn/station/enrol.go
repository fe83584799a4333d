package station

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// work is a key while it is enrolled.
type work struct {
	s      *Station
	number int
	user   string
	key    Key
	dev    *Device
	info   *Info
	pin    *Secret  // nil: none
	set    bool     // the PIN was set here
	made   *Created // a credential that the server may not know
	notes  []string
}

// aside is why a key cannot be enrolled, however often it is tried.
type aside struct{ why string }

func (e *aside) Error() string { return e.why }

// one enrols a key, or sets it aside. Its error ends the batch for now.
func (s *Station) one(ctx context.Context, k Key) error {
	s.Tell(Event{Event: "plugged", Number: s.Journal.Number + 1, Key: &k})
	user, c, err := s.begin(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return &Stopped{err}
	case c.Session == "": // nobody is left
		return nil
	}
	w := &work{s: s, number: s.Journal.Number + 1, user: user, key: k}
	defer w.close()
	token, err := w.enrol(ctx, c)
	var stopped *Stopped
	switch {
	case err == nil:
		return s.enrolled(Record{Number: w.number, User: user, Labeled: w.labeled()}, token, w.force(), w.notes, "enrolled")
	case errors.As(err, &stopped):
		return err
	case ctx.Err() != nil:
		err = errors.New("the station was ended")
	}
	return s.setAside(w.number, user, err.Error(), w.undo)
}

func (w *work) close() {
	if w.dev != nil {
		w.dev.Close()
	}
	if w.set && w.s.Order.PINs == PINRandom {
		w.pin.Wipe()
	}
}

// enrol does all that is done to a key. An error that is not *Stopped sets it aside.
func (w *work) enrol(ctx context.Context, c ceremony) (Token, error) {
	o := &w.s.Order
	if err := w.open(ctx); err != nil {
		return Token{}, err
	}
	if err := w.judge(ctx); err != nil {
		return Token{}, err
	}
	opts, err := readOptions(c.Options)
	if err != nil {
		return Token{}, &Stopped{err}
	}
	origin, err := w.s.origin(ctx, opts.RP.ID)
	if err != nil {
		return Token{}, &Stopped{err}
	}
	clientData, err := opts.clientData(origin)
	if err != nil {
		return Token{}, &Stopped{err}
	}
	// From here on the key is changed.
	if o.Reset {
		w.tell("touch", "to reset it")
		if err := w.dev.Reset(ctx); err != nil {
			return Token{}, err
		}
		if err := w.look(); err != nil {
			return Token{}, err
		}
	}
	if err := w.givePIN(opts.RP.ID); err != nil {
		return Token{}, err
	}
	if err := w.settings(); err != nil {
		return Token{}, err
	}
	w.tell("touch", "to make a credential")
	m := opts.creation(w.info, clientData)
	if w.made, err = w.dev.MakeCredential(ctx, m, w.pin); err != nil {
		return Token{}, err
	}
	response, err := w.made.response(clientData, m.Resident, w.info.Transports)
	if err != nil {
		return Token{}, err
	}
	if err := ctx.Err(); err != nil {
		return Token{}, err
	}
	return w.present(ctx, finish{Session: c.Session, Response: response})
}

// present shows the server what the key made. Before, it is written down, with the PIN
// where it goes on a label.
func (w *work) present(ctx context.Context, f finish) (Token, error) {
	s := w.s
	if w.labeled() {
		if err := s.Labels.keep(w.pin, s.Journal.id); err != nil {
			return Token{}, err
		}
	}
	r := Record{What: whatMade, Number: w.number, User: w.user, AAGUID: w.info.Model, Finish: &f, Labeled: w.labeled()}
	if err := s.Journal.write(r); err != nil {
		return Token{}, err
	}
	token, err := s.finish(ctx, f, false)
	switch {
	case err == nil:
		return token, nil
	case decided(err):
		return Token{}, &aside{"the server refused it: " + err.Error()}
	}
	s.Tell(Event{Event: "doubt", Number: w.number, User: w.user, Reason: err.Error()})
	return Token{}, &Stopped{fmt.Errorf("it is not known whether key %d was enrolled: keep it, and go on with the same journal: %w", w.number, err)}
}

// labeled says whether its PIN goes on a label.
func (w *work) labeled() bool { return w.s.Labels != nil && w.s.Labels.pins && w.pin != nil }

func (w *work) tell(event, reason string) {
	w.s.Tell(Event{Event: event, Number: w.number, User: w.user, Key: &w.key, Info: w.info, Reason: reason})
}

// openPatience is how long a key that was just plugged in is waited for: udev gives it
// to people a moment later, and it may be busy with what another program began, and not
// say what it is.
const openPatience = 3 * time.Second

func (w *work) open(ctx context.Context) (err error) {
	for end := time.Now().Add(openPatience); ; {
		if w.dev, err = Open(w.key.Path); err == nil {
			if err = w.look(); err == nil {
				return nil
			}
			w.dev.Close()
			w.dev = nil
		}
		if time.Now().After(end) {
			return err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (w *work) look() (err error) {
	w.info, err = w.dev.Info()
	return err
}

// judge asks the server about the model before anything is done to the key.
func (w *work) judge(ctx context.Context) error {
	var v Verdict
	err := w.s.ask(ctx, func(ctx context.Context) (err error) {
		v, err = w.s.Server.Allowed(ctx, w.info.Model)
		return err
	})
	if err != nil {
		return &Stopped{err}
	}
	w.s.Tell(Event{Event: "model", Number: w.number, User: w.user, Key: &w.key, Info: w.info, Model: v.Model})
	if !v.Allowed {
		return &aside{"its model is not allowed: " + strings.Join(v.Reasons, "; ")}
	}
	return nil
}

// givePIN gives the key its PIN, or makes sure that it has the one that is known.
func (w *work) givePIN(rpID string) error {
	o := &w.s.Order
	has := w.info.On("clientPin")
	switch {
	case o.PINs == PINNone && has, o.PINs != PINNone && o.PINs != PINKept && has:
		return &aside{"it has a PIN already, so it is not new; reset it first, or have the station do so (--reset)"}
	case o.PINs == PINNone:
		return nil
	case o.PINs == PINKept && !has:
		return &aside{"it has no PIN"}
	case o.PINs == PINKept && w.info.PINDue:
		return &aside{"its PIN must be changed before it is good for anything"}
	case o.PINs == PINKept:
		w.pin = w.s.Given
		return w.unused(rpID)
	case !w.info.Has("clientPin"):
		return &aside{"it can have no PIN"}
	}
	pin := w.s.Given
	if o.PINs == PINRandom {
		var err error
		if pin, err = RandomPIN(w.s.Random, max(cmp.Or(o.PINLength, usualPIN), o.MinPIN, w.info.MinPIN)); err != nil {
			return &Stopped{err}
		}
	}
	if err := w.dev.SetPIN(pin, nil); err != nil {
		if o.PINs == PINRandom && !Gone(err) {
			pin.Wipe()
			return err
		}
		// Whether it was set before the key was pulled out, nobody knows.
		w.pin, w.set = pin, true
		return err
	}
	w.pin, w.set = pin, true
	return w.look()
}

// usualPIN is the length of random PINs.
const usualPIN = 8

// unused makes sure that a key with a PIN was not enrolled before.
func (w *work) unused(rpID string) error {
	if !w.info.On("credMgmt") && !w.info.On("credentialMgmtPreview") {
		return nil // the server would say so
	}
	held, err := w.dev.Credentials(w.pin, rpID)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return &aside{"it holds a credential of " + rpID + " already"}
	}
	return nil
}

// settings are made before the credential, as far as the key can.
func (w *work) settings() error {
	o, i := &w.s.Order, w.info
	changed := false
	for _, x := range []struct {
		want bool
		can  bool
		is   bool
		what string
		do   func() error
	}{
		{o.Attestation == "enterprise", i.Has("ep"), i.On("ep"), "tell its serial number", func() error { return w.dev.EnableEnterprise(w.pin) }},
		{o.MinPIN > 0, i.On("setMinPINLength"), i.MinPIN >= o.MinPIN, "want longer PINs", func() error { return w.dev.SetMinPIN(o.MinPIN, w.pin) }},
		{o.AlwaysUV, i.Has("alwaysUv"), i.On("alwaysUv"), "always ask for its PIN", func() error { return w.dev.ToggleAlwaysUV(w.pin) }},
	} {
		switch {
		case !x.want || x.can && x.is:
		case !x.can:
			w.notes = append(w.notes, "it cannot "+x.what)
		default:
			if err := x.do(); err != nil {
				return err
			}
			changed = true
		}
	}
	if changed {
		return w.look()
	}
	return nil
}

// force has the key want another PIN at first use: the last thing that is done to it.
// That it does not is no reason to set it aside.
func (w *work) force() bool {
	if !w.s.Order.ForceChange {
		return false
	}
	if !w.info.On("setMinPINLength") {
		w.notes = append(w.notes, "it cannot want another PIN at first use")
		return false
	}
	if err := w.dev.ForcePINChange(w.pin); err != nil {
		w.notes = append(w.notes, "it does not want another PIN at first use: "+err.Error())
		return false
	}
	return true
}

// undo puts a key in order that was set aside: nothing that was done to it stays on it,
// if that is possible. It says what stays.
func (w *work) undo() string {
	if w.dev == nil || !w.set && w.made == nil {
		return ""
	}
	if w.set && w.s.Order.PINs == PINRandom {
		// Nobody will ever know its PIN, so it is good for nothing as it is.
		ctx, cancel := context.WithTimeout(context.Background(), touchTimeout)
		defer cancel()
		w.tell("touch", "to reset it")
		err := w.dev.Reset(ctx)
		if err == nil {
			return "it was reset, and is as it was"
		}
		left := "it has a PIN that nobody knows"
		if !Gone(err) && w.made != nil && w.dev.Delete(w.made.ID, w.pin) != nil || Gone(err) {
			left = "it has a PIN that nobody knows, and may hold a credential that the server does not"
		}
		return left + ": reset it before it is used again (" + err.Error() + ")"
	}
	var left []string
	if w.made != nil {
		switch err := w.dev.Delete(w.made.ID, w.pin); {
		case err == nil:
			left = append(left, "the credential was deleted from it")
		case w.s.Order.Passkey:
			left = append(left, "it holds a credential that the server does not know: delete it, or reset the key ("+err.Error()+")")
		}
	}
	if w.set {
		left = append(left, "it has the PIN that was given")
	}
	return strings.Join(left, "; ")
}
