package hsm

import (
	"errors"
	"testing"
	"time"
)

func TestOnlySoManyWrongAttemptsAnHour(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := &Attempts{Now: func() time.Time { return now }}
	try := func(wrong bool) error {
		err := a.Begin()
		if err == nil {
			a.End(wrong)
		}
		return err
	}
	for range 1000 {
		if err := try(false); err != nil {
			t.Fatalf("a right attempt used up the limit: %v", err)
		}
	}
	for i := range WrongAttempts {
		if err := try(true); err != nil {
			t.Fatalf("wrong attempt %d: %v", i, err)
		}
		now = now.Add(time.Minute)
	}
	if err := try(true); !errors.Is(err, ErrTransportLimit) {
		t.Fatalf("one more wrong attempt than the limit: %v", err)
	}
	now = now.Add(AttemptsIn - WrongAttempts*time.Minute - time.Second)
	if err := try(true); !errors.Is(err, ErrTransportLimit) {
		t.Fatalf("a second too early: %v", err)
	}
	now = now.Add(time.Second)
	if err := try(true); err != nil {
		t.Fatalf("after the oldest has passed: %v", err)
	}
	if err := try(true); !errors.Is(err, ErrTransportLimit) {
		t.Fatalf("one passed, one was used up: %v", err)
	}
}

// Attempts at the same moment must not exceed the limit together.
func TestAttemptsUnderWayCountAsWrong(t *testing.T) {
	var a Attempts
	for range WrongAttempts {
		if err := a.Begin(); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Begin(); !errors.Is(err, ErrTransportLimit) {
		t.Fatalf("one more under way than may be wrong: %v", err)
	}
	a.End(false)
	if err := a.Begin(); err != nil {
		t.Fatalf("after one was right: %v", err)
	}
}
