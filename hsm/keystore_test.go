package hsm

import (
	"bytes"
	"context"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func drawSealed(t *rapid.T, name string) *Sealed {
	b := func(field string) []byte {
		// Few values and lengths, so that fields are often equal and could
		// run into each other.
		return rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 4}), 0, 5).Draw(t, name+" "+field)
	}
	return &Sealed{
		Wrapped: Wrapped{
			Mechanism: string(b("mechanism")),
			KEK:       rapid.Uint32Range(0, 2).Draw(t, name+" kek"),
			Hash:      Hash(rapid.IntRange(0, 2).Draw(t, name+" hash")),
			SeedLen:   rapid.Uint16Range(0, 2).Draw(t, name+" len"),
			Blob:      b("blob"),
		},
		Row: b("row"),
	}
}

// Two rows that differ in any way must not share a message: else one's binding
// would be good for the other.
func TestMessageIsAnotherForEachRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSealed(t, "a"), drawSealed(t, "b")
		same := a.Mechanism == b.Mechanism && a.KEK == b.KEK && a.Hash == b.Hash && a.SeedLen == b.SeedLen &&
			bytes.Equal(a.Blob, b.Blob) && bytes.Equal(a.Row, b.Row)
		if bytes.Equal(a.Message(), b.Message()) != same {
			t.Fatalf("same row %v, messages %x and %x", same, a.Message(), b.Message())
		}
		if got := a.AppendMessage([]byte("x")); !bytes.Equal(got, append([]byte("x"), a.Message()...)) {
			t.Fatalf("AppendMessage and Message differ")
		}
	})
}

// A field that is added to Wrapped or Sealed must be bound too.
func TestMessageCoversAllFields(t *testing.T) {
	want := map[string]bool{"Mechanism": true, "KEK": true, "Hash": true, "SeedLen": true, "Blob": true,
		"Wrapped": true, "Row": true, "Binding": true}
	for _, typ := range []reflect.Type{reflect.TypeFor[Wrapped](), reflect.TypeFor[Sealed]()} {
		for f := range typ.Fields() {
			if !want[f.Name] {
				t.Errorf("%s.%s is new: bind it in Message, and say so here", typ, f.Name)
			}
		}
	}
}

func TestMessageNeverChanges(t *testing.T) {
	s := &Sealed{Wrapped: Wrapped{Mechanism: "aes-kwp", KEK: 1, Hash: SHA256, SeedLen: 20, Blob: []byte{9, 8}}, Row: []byte("row")}
	// Bindings in databases were computed over exactly these bytes.
	want := "\x00\x00\x00\x03row" + "\x00\x00\x00\x07aes-kwp" + "\x00\x00\x00\x01" + "\x02" + "\x00\x14" + "\x00\x00\x00\x02\x09\x08"
	if got := string(s.Message()); got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}

func TestHashes(t *testing.T) {
	for _, test := range []struct {
		hash        Hash
		size, block int
		name        string
	}{
		{SHA1, 20, 64, "sha1"},
		{SHA256, 32, 64, "sha256"},
		{SHA512, 64, 128, "sha512"},
		{0, 0, 0, "unknown"},
		{4, 0, 0, "unknown"},
	} {
		if test.hash.Size() != test.size || test.hash.BlockSize() != test.block || test.hash.String() != test.name {
			t.Errorf("hash %d: %d, %d, %s", test.hash, test.hash.Size(), test.hash.BlockSize(), test.hash)
		}
	}
}

func TestBulkMarksAContext(t *testing.T) {
	if IsBulk(context.Background()) || !IsBulk(Bulk(context.Background())) {
		t.Error("Bulk and IsBulk do not agree")
	}
}
