package tokens

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// A sealed document is its data behind a MAC under the HSM's binding key, so that
// whoever can write to the database can neither change what it says nor put
// another document in its place:
//
//	64 hex digits of the MAC, a line feed, the data
//
// What could be put back is what the same document said before: whoever must know
// that it does not writes the version into the data.

// sealHead is how long what precedes the data is.
const sealHead = 2*sha256.Size + 1

// sealMessage is what the MAC of a document is over. No ceremony's state begins so.
func sealMessage(name string, data []byte) []byte {
	return append([]byte(ceremony+"watchword-document-1\x00"+name+"\x00"), data...)
}

func (s *Service) sealMAC(ctx context.Context, name string, data []byte) ([]byte, error) {
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, sealMessage(name, data))
	if err != nil {
		return nil, translate(err)
	}
	return hex.AppendEncode(make([]byte, 0, sealHead+len(data)), macs[0]), nil
}

// sealed is a document's data with the seal before it; nil, which deletes the
// document, stays nil.
func (s *Service) sealed(ctx context.Context, name string, data []byte) ([]byte, error) {
	if data == nil {
		return nil, nil
	}
	out, err := s.sealMAC(ctx, name, data)
	if err != nil {
		return nil, err
	}
	return append(append(out, '\n'), data...), nil
}

// unsealed is what was sealed.
func (s *Service) unsealed(ctx context.Context, d *Document) ([]byte, error) {
	wrong := fmt.Errorf("%w (document %s)", ErrTampered, d.Name)
	if len(d.Data) < sealHead || d.Data[sealHead-1] != '\n' {
		return nil, wrong
	}
	mac, err := s.sealMAC(ctx, d.Name, d.Data[sealHead:])
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac, d.Data[:sealHead-1]) {
		return nil, wrong
	}
	return d.Data[sealHead:], nil
}

// SealedDocument is Document for one that PutSealed wrote, and answers the data
// that was given to it. It fails with ErrTampered if somebody else wrote it, and
// then answers its version beside. Neither a round trip nor the HSM is needed
// where it is known here.
func (s *Service) SealedDocument(ctx context.Context, name string) (Document, error) {
	known := &s.reg.Load().documents
	d, err := s.document(ctx, known, name)
	if err != nil {
		return Document{}, err
	}
	known.mu.Lock()
	plain, ok := known.opened[name]
	known.mu.Unlock()
	if !ok {
		plain.data, plain.err = s.unsealed(ctx, &d)
		if plain.err != nil && !isTampered(plain.err) {
			return Document{}, plain.err
		}
		known.mu.Lock()
		if known.opened == nil {
			known.opened = map[string]proven{}
		}
		known.opened[name] = plain
		known.mu.Unlock()
	}
	d.Data = plain.data
	return d, plain.err
}

// PutSealed is PutDocument for a document that nobody but Watchword may write. The
// document that it answers holds the data as they were given.
func (s *Service) PutSealed(ctx context.Context, p Principal, action policy.Action, realm string, w DocumentWrite, detail []audit.Field) (Document, error) {
	plain := w.Data
	var err error
	if w.Data, err = s.sealed(ctx, w.Name, plain); err != nil {
		return Document{}, err
	}
	d, err := s.PutDocument(ctx, p, action, realm, w, detail)
	d.Data = plain
	return d, err
}
