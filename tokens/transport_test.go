package tokens_test

import (
	"errors"
	"testing"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/storetest"
)

func TestATransportKeyIsRecordedAuditedAndFoundAgain(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	var f firsts
	s, err := open(t, mem, keys, &f)
	if err != nil {
		t.Fatal(err)
	}
	for want := uint32(1); want <= 2; want++ {
		version, err := s.MakeTransportKey(ctx, keys, hsm.MinTransportBits)
		if err != nil || version != want {
			t.Fatalf("transport key %d: %d, %v", want, version, err)
		}
		if got := keys.TransportKeys(); len(got) != int(want) || got[0].Version != want {
			t.Errorf("in use: %+v", got)
		}
	}
	recorded, err := mem.HSMKeys(ctx)
	if err != nil || len(recorded) != len(hsm.KeyNames())+2 {
		t.Fatalf("%d keys are recorded (%v)", len(recorded), err)
	}
	records, err := mem.Records(ctx, tokens.RecordQuery{Action: "hsm.transport-key", Limit: 10})
	if err != nil || len(records) != 2 || records[0].Outcome != "ok" || records[0].Actor != "system" {
		t.Errorf("audited: %+v, %v", records, err)
	}
	// A server that starts on them takes them into use.
	if err := keys.Attach(ctx, recorded[:0:0]); err == nil {
		t.Fatal("no keys at all were attached")
	}
	if _, err := open(t, mem, keys, &firsts{}); err != nil {
		t.Fatal(err)
	}
	if got := keys.TransportKeys(); len(got) != 2 || got[0].Version != 2 {
		t.Errorf("after a start: %+v", got)
	}
	// One whose HSM lost the key refuses.
	if _, err := open(t, mem, hsmtest.NewMemory(t), &firsts{}); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("with another HSM: %v", err)
	}
}

func TestATransportKeyThatIsNotMadeIsNotRecorded(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	s, err := open(t, mem, keys, &firsts{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.MakeTransportKey(ctx, keys, 1024); err == nil {
		t.Error("a transport key of 1024 bits was made")
	}
	mem.Inject(storetest.Failed)
	if _, err := s.MakeTransportKey(ctx, keys, hsm.MinTransportBits); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("where the audit fails: %v", err)
	}
	recorded, err := mem.HSMKeys(ctx)
	if err != nil || len(recorded) != len(hsm.KeyNames()) || len(keys.TransportKeys()) != 0 {
		t.Errorf("%d keys are recorded, %d in use (%v)", len(recorded), len(keys.TransportKeys()), err)
	}
}
