package tokens_test

import (
	"crypto"
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
	records, _, err := mem.Records(ctx, tokens.RecordQuery{Action: "hsm.transport-key", Limit: 10})
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

// A wrong MAC under RSA-1_5 is a wrong ciphertext to the audit as to the caller;
// under RSA-OAEP it is told as what it is, and nothing is to be learnt of it.
func TestWrongMACsUnderTheTransportKeyAreToldByMechanism(t *testing.T) {
	h, to := vendor(t)
	mac := func(n tokens.NewToken) tokens.NewToken {
		with := hsmtest.MACTo(t, to, *n.Transported, hsm.TransportMAC{Hash: crypto.SHA256}, []byte("0123456789abcdef0123456789abcdef"))
		n.Transported = &with
		return n
	}
	wrong := func(n tokens.NewToken) tokens.NewToken {
		n = mac(n)
		n.Transported.MAC.Value[3] ^= 1
		return n
	}
	i := h.begin(tokens.NewImport{Name: "a.pskc", AllowPKCS1: true})
	added := h.add(i, mac(sealed(t, "T1", to, false)), mac(sealed(t, "T2", to, true)), wrong(sealed(t, "T3", to, false)), wrong(sealed(t, "T4", to, true)))
	for k, want := range []string{"", "", hsm.ErrTransportMAC.Error(), hsm.ErrTransport.Error()} {
		if a := added[k]; a.Reason != want || (a.Outcome == tokens.OutcomeCreated) != (want == "") || (a.Path == hsm.PathHSM) != (want == "") {
			t.Errorf("record %d: %+v", k, a)
		}
	}
	records := h.records("import.transport", "")
	if len(records) != 1 || records[0].Serial != "T4" || records[0].Outcome != "refused" || records[0].Reason != "wrong_ciphertext" {
		t.Errorf("audited: %+v", records)
	}
	h.publish(i, 2)
	h.intact()
}
