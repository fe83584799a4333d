package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

const (
	// rewrapSlice is how many seeds a task takes over: an RSA operation takes
	// milliseconds, and between two tasks other work gets its turn.
	rewrapSlice = 4

	// rewrapGrain is what the time of a task with a failed RSA-1_5 ciphertext is
	// rounded up to. It is far more than the task takes whatever the ciphertexts
	// (two dozen RSA operations at most: each seed and its MAC's key, tried twice,
	// and the canary after each), so that the time does not tell one failure from
	// another.
	rewrapGrain = 500 * time.Millisecond
)

// pkcs1Lens are the lengths of seeds that RSA-1_5 is believed to hold. A module
// that resists Bleichenbacher's attack answers a wrong ciphertext with random
// bytes of any length that fits; of those, about one in fifty passes for a seed.
var pkcs1Lens = []int{10, 16, 20, 24, 32, 48, 64}

// A rewrapping is the work of one task. It holds copies of all it needs, since
// the caller may leave before it is done.
type rewrapping struct {
	k       *Keystore
	version uint32 // of the transport key
	options hsm.TransportOptions
	items   []hsm.Transported
	done    []hsm.Rewrapped
	mac     macKey
}

// Rewrap takes over seeds that were encrypted to a transport key.
func (k *Keystore) Rewrap(ctx context.Context, items []hsm.Transported, options hsm.TransportOptions) ([]hsm.Rewrapped, error) {
	g, err := k.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("take over seeds: %w", err)
	}
	version, err := g.keys.transportTo(options.To)
	if err != nil {
		return nil, fmt.Errorf("take over seeds: %w", err)
	}
	options.To = nil
	all := make([]hsm.Rewrapped, 0, len(items))
	for part := range slices.Chunk(items, rewrapSlice) {
		r := &rewrapping{k: k, version: version, options: options, items: cloneTransported(part)}
		began := time.Now()
		if _, err := k.do(ctx, g, r.do); err != nil {
			return nil, fmt.Errorf("take over seeds: %w", err)
		}
		if r.failedPKCS1() {
			if err := k.roundUp(ctx, began); err != nil {
				return nil, fmt.Errorf("take over seeds: %w", err)
			}
		}
		all = append(all, r.done...)
	}
	return all, nil
}

// transportTo is the version of the transport key that public belongs to, or
// that of the newest if it is nil.
func (ks *keyset) transportTo(public *rsa.PublicKey) (uint32, error) {
	if len(ks.transport) == 0 {
		return 0, hsm.ErrNoTransportKey
	}
	if public == nil {
		return ks.transport[0].version, nil
	}
	for _, t := range ks.transport {
		if t.public.Equal(public) {
			return t.version, nil
		}
	}
	return 0, fmt.Errorf("%w: they were encrypted to another key than the transport key", hsm.ErrKeyMismatch)
}

func cloneTransported(items []hsm.Transported) []hsm.Transported {
	items = slices.Clone(items)
	for i := range items {
		items[i].Label = bytes.Clone(items[i].Label)
		items[i].Ciphertext = bytes.Clone(items[i].Ciphertext)
		if m := items[i].MAC; m != nil {
			mac := *m
			mac.Label, mac.Key, mac.Value = bytes.Clone(m.Label), bytes.Clone(m.Key), bytes.Clone(m.Value)
			items[i].MAC = &mac
		}
	}
	return items
}

func (r *rewrapping) failedPKCS1() bool {
	for i := range r.done {
		if r.items[i].Mechanism == hsm.TransportPKCS1 && errors.Is(r.done[i].Err, hsm.ErrTransport) {
			return true
		}
	}
	return false
}

// roundUp waits until a whole number of grains has passed since began.
func (k *Keystore) roundUp(ctx context.Context, began time.Time) error {
	spent := time.Since(began)
	timer := time.NewTimer((spent/rewrapGrain+1)*rewrapGrain - spent)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-k.stop:
		return errClosed
	}
}

// do takes over all items on one session. An error ends it: then nothing of it
// counts.
func (r *rewrapping) do(c conn, g *generation) (err error) {
	t, ok := g.keys.transportVersion(r.version)
	if !ok {
		return hsm.ErrNoTransportKey
	}
	defer func() { err = r.mac.drop(c, err) }()
	r.done = make([]hsm.Rewrapped, 0, len(r.items))
	for i := range r.items {
		w, path, err := r.one(c, g, t, &r.items[i])
		if isLost(err) {
			return err
		}
		if err != nil {
			w, path = hsm.Wrapped{}, ""
		}
		r.done = append(r.done, hsm.Rewrapped{Wrapped: w, Path: path, Err: err})
	}
	return nil
}

// one takes over one item. An error that is a loss ends all.
func (r *rewrapping) one(c conn, g *generation, t *transportKey, item *hsm.Transported) (hsm.Wrapped, hsm.TransportPath, error) {
	if item.Hash.Size() == 0 {
		return hsm.Wrapped{}, "", fmt.Errorf("unknown digest %d", item.Hash)
	}
	in, mac, err := r.admit(c, g, t, item)
	if err != nil {
		return hsm.Wrapped{}, "", err
	}
	if item.Mechanism != hsm.TransportPKCS1 {
		return r.authentic(c, g, t, in, mac, item)
	}
	if err := r.k.attempts.Begin(); err != nil {
		return hsm.Wrapped{}, "", err
	}
	w, path, err := r.authentic(c, g, t, in, mac, item)
	r.k.attempts.End(err != nil)
	if err != nil && !isLost(err) {
		err = hsm.ErrTransport
	}
	return w, path, err
}

// admit judges what does not depend on the ciphertexts: whether the mechanism is
// allowed, and whether the HSM has it. It answers how the seed was encrypted, and
// how the key of its MAC, if it has one.
func (r *rewrapping) admit(c conn, g *generation, t *transportKey, item *hsm.Transported) (in, mac rsaWrap, err error) {
	m := item.MAC
	if m != nil && macMechanisms[m.Hash] == 0 {
		return in, mac, fmt.Errorf("%w: MACs by HMAC with digest %d are unknown", hsm.ErrUnsupported, m.Hash)
	}
	switch item.Mechanism {
	case hsm.TransportPKCS1:
		if !r.options.AllowPKCS1 {
			return in, mac, hsm.ErrPKCS1
		}
		if !g.profile.pkcs1 {
			return in, mac, fmt.Errorf("%w: it does not unwrap by RSA-1_5; ask the vendor for RSA-OAEP", hsm.ErrUnsupported)
		}
		return in, mac, nil
	case hsm.TransportOAEP:
		if in, err = t.oaep(c, item.OAEPHash, item.MGFHash, item.Label); err == nil && m != nil {
			mac, err = t.oaep(c, m.OAEPHash, m.MGFHash, m.Label)
		}
		return in, mac, err
	}
	return in, mac, fmt.Errorf("%w: seeds encrypted by %q are unknown", hsm.ErrUnsupported, string(item.Mechanism))
}

// oaep is how something was encrypted by OAEP with these parameters, if the HSM
// unwraps that.
func (t *transportKey) oaep(c conn, hash, mgf crypto.Hash, label []byte) (rsaWrap, error) {
	kind := oaepKind{hash: hash, mgf: mgf, labelled: len(label) > 0}
	if kind.hash == 0 {
		kind.hash = crypto.SHA1
	}
	if kind.mgf == 0 {
		kind.mgf = crypto.SHA1
	}
	in, ok := kind.wrapOf(label)
	if ok {
		var err error
		if ok, err = t.supports(c, kind); err != nil {
			return rsaWrap{}, err
		}
	}
	if !ok {
		return rsaWrap{}, fmt.Errorf("%w: it does not unwrap by %v; ask the vendor for SHA-1 in both and no label, which every HSM has", hsm.ErrUnsupported, kind)
	}
	return in, nil
}

// authentic takes the seed over if its MAC, should it have one, is right.
func (r *rewrapping) authentic(c conn, g *generation, t *transportKey, in, mac rsaWrap, item *hsm.Transported) (hsm.Wrapped, hsm.TransportPath, error) {
	if item.MAC == nil {
		return r.open(c, g, t, in, item)
	}
	host, err := r.verify(c, g, t, mac, item)
	if err != nil {
		return hsm.Wrapped{}, "", err
	}
	w, path, err := r.open(c, g, t, in, item)
	if host {
		path = hsm.PathHost
	}
	return w, path, err
}

// open unwraps the seed and wraps it under the KEK.
func (r *rewrapping) open(c conn, g *generation, t *transportKey, in rsaWrap, item *hsm.Transported) (w hsm.Wrapped, path hsm.TransportPath, err error) {
	if !t.fits(item.Ciphertext) {
		return w, "", hsm.ErrTransport
	}
	object, err := r.take(c, g, t, in, item.Ciphertext, false)
	if err != nil {
		return w, "", err
	}
	defer func() { err = dropped(c, object, err) }()
	n, err := seedLen(c, object, t.public.Size())
	if isLost(err) {
		return w, "", err
	}
	if err == nil {
		if !r.plausible(item, n) {
			return w, "", hsm.ErrTransport
		}
		if w, err = wrapInside(c, g, object, item.Hash, n); err == nil || isLost(err) {
			return w, hsm.PathHSM, err
		}
	}
	if !r.options.AllowHost {
		return w, "", fmt.Errorf("%w: %w; %w", hsm.ErrUnsupported, err, hsm.ErrNeedsHost)
	}
	w, err = r.outside(c, g, t, in, item)
	return w, hsm.PathHost, err
}

// fits says whether something can be a ciphertext under t.
func (t *transportKey) fits(ciphertext []byte) bool {
	return len(ciphertext) == t.public.Size() && new(big.Int).SetBytes(ciphertext).Cmp(t.public.N) < 0
}

func (r *rewrapping) plausible(item *hsm.Transported, n int) bool {
	if item.Mechanism == hsm.TransportPKCS1 {
		return slices.Contains(pkcs1Lens, n)
	}
	return n > 0
}

// take unwraps a ciphertext. Whatever the module answers to one that it does not
// unwrap, the ciphertext is to blame if the HSM is well, and only if it fails
// again then; otherwise the HSM is lost.
func (r *rewrapping) take(c conn, g *generation, t *transportKey, in rsaWrap, ciphertext []byte, readable bool) (handle, error) {
	for attempt := 1; ; attempt++ {
		object, err := c.take(in, t.key, ciphertext, readable)
		if err == nil {
			return object, nil
		}
		if isFull(err) {
			if attempt == 2 {
				return 0, ill(err)
			}
			for _, old := range g.cache.shrink() {
				if err := c.destroy(old); err != nil {
					return 0, err
				}
			}
		}
		if err := t.well(c); err != nil {
			return 0, ill(err)
		}
		if attempt == 2 {
			return 0, hsm.ErrTransport
		}
	}
}

// dropped destroys a temporary object. If that fails the HSM counts as lost, since
// that ends the sessions, and with them all that they made.
func dropped(c conn, object handle, err error) error {
	if err2 := c.destroy(object); err2 != nil && !isLost(err) {
		return ill(err2)
	}
	return err
}

// wrapInside wraps a seed of n bytes that is in the HSM, padded if the HSM can pad
// it, and proves that what comes of it computes the same HMAC.
func wrapInside(c conn, g *generation, object handle, hash hsm.Hash, n int) (w hsm.Wrapped, err error) {
	seed := object
	if pad := paddedLen(hash, n) - n; pad > 0 && n < hash.BlockSize() {
		// It is tried whether or not the module lists it: softokn has it and does
		// not say so.
		longer, err2 := g.roomFor(c, func() (handle, error) { return c.concatenate(object, make([]byte, pad)) })
		switch {
		case err2 == nil:
			seed = longer
			defer func() { err = dropped(c, longer, err) }()
		case !unable(err2, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT):
			return w, ill(err2)
		}
	}
	kek := g.keys.kek[g.keys.kekVersion]
	blob, err := c.wrapObject(g.profile.wrap, kek, seed, make([]byte, paddedLen(hash, n)+32))
	if err != nil {
		return w, cannot("wrap", hash, n, err)
	}
	key, err := g.roomFor(c, func() (handle, error) { return c.unwrap(g.profile.wrap, kek, blob) })
	if err != nil {
		return w, cannot("unwrap again", hash, n, err)
	}
	defer func() { err = dropped(c, key, err) }()
	same, err := sameMAC(c, hash, seed, key)
	if err == nil && seed != object {
		// Where the HSM takes the short seed as it came, that too must agree.
		if same2, err2 := sameMAC(c, hash, object, key); err2 == nil {
			same = same && same2
		} else if !unable(err2) {
			err = err2
		}
	}
	if err != nil {
		return w, cannot("pad", hash, n, err)
	}
	if !same {
		return w, fmt.Errorf("it does not wrap a seed of %d bytes as it is", n)
	}
	return hsm.Wrapped{Mechanism: g.profile.wrapName, KEK: g.keys.kekVersion, Hash: hash, SeedLen: uint16(n), Blob: blob}, nil
}

// cannot says what the HSM cannot do with a seed of n bytes, if err is about that.
func cannot(do string, hash hsm.Hash, n int, err error) error {
	if !unable(err) {
		return ill(err)
	}
	return fmt.Errorf("it cannot %s a seed of %d bytes for HMAC-%v (%v)", do, n, hash, err)
}

// sameMAC says whether two keys compute the same HMAC of something random.
func sameMAC(c conn, hash hsm.Hash, a, b handle) (bool, error) {
	challenge := make([]byte, 16)
	rand.Read(challenge)
	macs := make([]byte, 2*hash.Size())
	for i, key := range []handle{a, b} {
		if err := c.sign(macMechanism(hash), key, challenge, macs[i*hash.Size():(i+1)*hash.Size()]); err != nil {
			return false, err
		}
	}
	return bytes.Equal(macs[:hash.Size()], macs[hash.Size():]), nil
}

// outside does what wrapInside cannot, through this process's memory.
func (r *rewrapping) outside(c conn, g *generation, t *transportKey, in rsaWrap, item *hsm.Transported) (w hsm.Wrapped, err error) {
	room := make([]byte, t.public.Size())
	defer clear(room)
	value, err := r.read(c, g, t, in, item.Ciphertext, room)
	if err != nil {
		return w, err
	}
	if !r.plausible(item, len(value)) {
		return w, hsm.ErrTransport
	}
	seed := hsm.Seed{Hash: item.Hash, Bytes: value}
	key := make([]byte, keyLen(seed))
	defer clear(key)
	hmacKey(key, seed)
	blob, err := c.wrap(g.profile.wrap, g.keys.kek[g.keys.kekVersion], key, make([]byte, len(key)+32))
	if err != nil {
		return w, ill(err)
	}
	return hsm.Wrapped{Mechanism: g.profile.wrapName, KEK: g.keys.kekVersion, Hash: item.Hash, SeedLen: uint16(len(value)), Blob: blob}, nil
}

// read unwraps a ciphertext into this process's memory, to the beginning of room.
func (r *rewrapping) read(c conn, g *generation, t *transportKey, in rsaWrap, ciphertext, room []byte) ([]byte, error) {
	object, err := r.take(c, g, t, in, ciphertext, true)
	if err != nil {
		return nil, err
	}
	value, err := c.value(object, room)
	if err = dropped(c, object, err); err != nil && !unable(err) {
		return nil, ill(err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: it does not let a key out either (%v)", hsm.ErrUnsupported, err)
	}
	return value, nil
}
