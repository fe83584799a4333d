package tokens_test

import (
	"bytes"
	"errors"
	"testing"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/policy"
	"watchword/tokens/storetest"
)

func TestAPGPKeyIsRecordedAuditedAndFoundAgain(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	s, err := open(t, mem, keys, &firsts{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.PGPKeys(); len(got) != 0 {
		t.Errorf("at first: %+v", got)
	}
	// A transport key's versions are its own.
	if _, err := s.MakeTransportKey(ctx, keys, hsm.MinTransportBits); err != nil {
		t.Fatal(err)
	}
	for want := uint32(1); want <= 2; want++ {
		version, err := s.MakePGPKey(ctx, keys, hsm.MinTransportBits)
		if err != nil || version != want {
			t.Fatalf("PGP key %d: %d, %v", want, version, err)
		}
		if got := s.PGPKeys(); len(got) != int(want) || got[0].Version != want {
			t.Errorf("in use: %+v", got)
		}
	}
	made := s.PGPKeys()
	records, _, err := mem.Records(ctx, tokens.RecordQuery{Action: "hsm.pgp-key", Limit: 10})
	if err != nil || len(records) != 2 || records[0].Outcome != "ok" || records[0].Actor != "system" {
		t.Errorf("audited: %+v, %v", records, err)
	}
	if s, err = open(t, mem, keys, &firsts{}); err != nil {
		t.Fatal(err)
	}
	again := s.PGPKeys()
	if len(again) != 2 || again[0].Version != 2 || !again[0].Made.Equal(made[0].Made) || !again[1].Public.Equal(made[1].Public) {
		t.Errorf("after a start: %+v", again)
	}
	if _, err := open(t, mem, hsmtest.NewMemory(t), &firsts{}); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("with another HSM: %v", err)
	}
}

func TestAPGPKeyThatIsNotMadeIsNotRecorded(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	s, err := open(t, mem, keys, &firsts{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.MakePGPKey(ctx, keys, 1024); err == nil {
		t.Error("a PGP key of 1024 bits was made")
	}
	mem.Inject(storetest.Failed)
	if _, err := s.MakePGPKey(ctx, keys, hsm.MinTransportBits); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("where the audit fails: %v", err)
	}
	recorded, err := mem.HSMKeys(ctx)
	if err != nil || len(recorded) != len(hsm.KeyNames()) || len(s.PGPKeys()) != 0 {
		t.Errorf("%d keys are recorded, %d in use (%v)", len(recorded), len(s.PGPKeys()), err)
	}
}

// Who may not import gets nothing out of the key and uses up no attempt, and what
// is wrong is audited.
func TestAPGPSessionIsOpenedForThoseWhoMayImport(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	s, err := open(t, mem, keys, &firsts{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.MakePGPKey(ctx, keys, hsm.MinTransportBits); err != nil {
		t.Fatal(err)
	}
	plain := hsmtest.PGPSession(9, 32)
	good := hsmtest.EncryptTo(t, s.PGPKeys()[0].Public, hsm.Transported{Mechanism: hsm.TransportPKCS1}, plain).Ciphertext
	admin := tokens.Principal{Kind: tokens.KindSystem, Name: "test", Scope: policy.ScopeAdmin}
	verifier := tokens.Principal{Kind: tokens.KindSystem, Name: "vpn", Scope: policy.ScopeVerify}
	audited := func() int {
		records, _, err := mem.Records(ctx, tokens.RecordQuery{Action: "import.pgp", Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		return len(records)
	}
	for range hsm.WrongAttempts + 1 {
		if got, err := s.OpenPGP(ctx, verifier, "", 1, good[1:]); !errors.Is(err, tokens.ErrForbidden) || got != nil {
			t.Fatalf("for one who may not import: %v", err)
		}
	}
	if got, err := s.OpenPGP(ctx, admin, "", 1, good); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("for an administrator: %v", err)
	}
	if n := audited(); n != 0 {
		t.Errorf("%d wrong ciphertexts are audited", n)
	}
	for i := range hsm.WrongAttempts + 1 {
		got, err := s.OpenPGP(ctx, admin, "", 1, good[1:])
		want := hsm.ErrPGPSession
		if i == hsm.WrongAttempts {
			want = hsm.ErrTransportLimit
		}
		if !errors.Is(err, want) || !errors.Is(err, tokens.ErrInvalid) || got != nil {
			t.Errorf("wrong ciphertext %d: %v", i, err)
		}
	}
	if n := audited(); n != hsm.WrongAttempts+1 {
		t.Errorf("%d wrong ciphertexts are audited", n)
	}
	keys.Fail(errors.New("unplugged"))
	if _, err := s.OpenPGP(ctx, admin, "", 1, good); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("without an HSM: %v", err)
	}
	keys.Heal()
}
