package pkcs11

import (
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// SessionKeys counts the session objects in the HSM: the seeds that are
// unwrapped at the moment.
func (k *Keystore) SessionKeys(t testing.TB) int {
	t.Helper()
	k.m.inside.Lock()
	defer k.m.inside.Unlock()
	g := k.gen.Load()
	if g == nil {
		t.Fatal(k.why())
	}
	return len(k.sessionObjects(t, g)) - len(k.copies(t, g))
}

// sessionObjects are the session objects in the HSM. k.m.inside is held.
func (k *Keystore) sessionObjects(t testing.TB, g *generation, more ...*pkcs11.Attribute) (all []pkcs11.ObjectHandle) {
	t.Helper()
	if err := k.m.p11.FindObjectsInit(g.anchor.h, append(more, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false))); err != nil {
		t.Fatal(err)
	}
	defer k.m.p11.FindObjectsFinal(g.anchor.h)
	for {
		found, _, err := k.m.p11.FindObjects(g.anchor.h, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			return all
		}
		all = append(all, found...)
	}
}

// copies are those of the session objects that are copies of token objects: they
// have their CKA_ID.
func (k *Keystore) copies(t testing.TB, g *generation) (list []pkcs11.ObjectHandle) {
	t.Helper()
	for _, r := range k.Records() {
		list = append(list, k.sessionObjects(t, g, pkcs11.NewAttribute(pkcs11.CKA_ID, r.ID))...)
	}
	return list
}

// Copies counts the session copies of token objects in the HSM, and those in use.
func (k *Keystore) Copies(t testing.TB) (there, used int) {
	t.Helper()
	k.m.inside.Lock()
	defer k.m.inside.Unlock()
	g := k.gen.Load()
	if g == nil || g.keys == nil {
		t.Fatal(k.why())
	}
	return len(k.copies(t, g)), len(g.keys.copies)
}

// DestroyKey destroys the token object with a CKA_ID.
func (k *Keystore) DestroyKey(t testing.TB, id []byte) {
	t.Helper()
	k.m.inside.Lock()
	defer k.m.inside.Unlock()
	g := k.gen.Load()
	h, err := find(g.anchor, pkcs11.CKO_SECRET_KEY, id)
	if err == nil {
		err = g.anchor.destroy(h)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Attributes reads boolean attributes of all session objects: what the HSM lets
// be done with an unwrapped seed.
func (k *Keystore) Attributes(t testing.TB, attribute uint) []bool {
	t.Helper()
	k.m.inside.Lock()
	defer k.m.inside.Unlock()
	g := k.gen.Load()
	copies, got := k.copies(t, g), []bool(nil)
	for _, o := range k.sessionObjects(t, g) {
		if slices.Contains(copies, o) {
			continue
		}
		a, err := k.m.p11.GetAttributeValue(g.anchor.h, o, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a[0].Value[0] != 0)
	}
	return got
}

// Generation is the number of the current generation, 0 if there is none.
func (k *Keystore) Generation() uint64 {
	if g := k.gen.Load(); g != nil {
		return g.number
	}
	return 0
}

// Records are those of the keys that are attached.
func (k *Keystore) Records() []hsm.KeyRecord {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.records)
}

// Made generates an object as Generate does, reads boolean attributes of it and
// destroys it.
func (k *Keystore) Made(t testing.TB, attributes ...uint) []bool {
	t.Helper()
	var got []bool
	_, err := k.do(t.Context(), k.gen.Load(), func(c conn, _ *generation) error {
		object, err := c.generate(20)
		if err != nil {
			return err
		}
		for _, a := range attributes {
			v, err := c.m.p11.GetAttributeValue(c.h, pkcs11.ObjectHandle(object), []*pkcs11.Attribute{pkcs11.NewAttribute(a, nil)})
			if err != nil {
				return err
			}
			got = append(got, v[0].Value[0] != 0)
		}
		return c.destroy(object)
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TokenObjects counts the objects that stay in the token.
func (k *Keystore) TokenObjects(t testing.TB) int {
	t.Helper()
	k.m.inside.Lock()
	defer k.m.inside.Unlock()
	g := k.gen.Load()
	if err := k.m.p11.FindObjectsInit(g.anchor.h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}); err != nil {
		t.Fatal(err)
	}
	defer k.m.p11.FindObjectsFinal(g.anchor.h)
	found, _, err := k.m.p11.FindObjects(g.anchor.h, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}
