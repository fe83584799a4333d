package tokens

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// maxAbsent bounds how many documents that there are not are remembered: their names
// may hold what somebody made up, such as a realm.
const maxAbsent = 4096

// documents are the documents that this node has read since the registry was last
// read anew. Each change to a document makes it be read anew.
type documents struct {
	mu     sync.Mutex
	read   map[string]*Document // nil: there is none
	opened map[string]proven    // see SealedDocument
}

// proven is what a sealed document holds, or that it was altered.
type proven struct {
	data []byte
	err  error
}

// Document answers a document that all nodes share, without a round trip if it
// is known here; ErrNotFound. It is for whoever works with it on the server's
// behalf, and not to be changed. What another node has changed is noticed with
// the next attempt or act, and after five seconds at the latest.
func (s *Service) Document(ctx context.Context, name string) (Document, error) {
	return s.document(ctx, &s.reg.Load().documents, name)
}

// document is Document as of one reading of the registry: it is read after that
// was, and never older than that says.
func (s *Service) document(ctx context.Context, known *documents, name string) (Document, error) {
	known.mu.Lock()
	defer known.mu.Unlock()
	d, ok := known.read[name]
	if !ok {
		found, err := s.db.Document(ctx, name)
		switch {
		case err == nil:
			d = &found
		case !errors.Is(err, ErrNotFound):
			return Document{}, unavailable(err)
		}
		if known.read == nil {
			known.read = map[string]*Document{}
		}
		if d != nil || len(known.read) < maxAbsent {
			known.read[name] = d
		}
	}
	if d == nil {
		return Document{}, fmt.Errorf("%w: document %s", ErrNotFound, name)
	}
	return *d, nil
}

// PutDocument replaces a document for all nodes, or makes or deletes it, and
// answers it as it then is. It fails with ErrState if the version that w expects
// is not the one there is. The realm is empty for what concerns all of them.
func (s *Service) PutDocument(ctx context.Context, p Principal, action policy.Action, realm string, w DocumentWrite, detail []audit.Field) (Document, error) {
	if err := askable(w.Name); err != nil || w.Name == "" {
		return Document{}, fmt.Errorf("%w: a document without a name, or with one that is not text", ErrInvalid)
	}
	if w.Updated.IsZero() {
		w.Updated = s.cfg.Now()
	}
	w.Updated = w.Updated.UTC()
	e := audit.Event{Realm: realm, Detail: append([]audit.Field{{Name: "document", Value: w.Name}}, sound(detail)...)}
	if err := s.authorise(ctx, p, action, &e); err != nil {
		return Document{}, err
	}
	c := Change{Documents: []DocumentWrite{w}}
	err := s.ledger.commit(ctx, &c, []audit.Event{s.event(p, action, e)})
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%w: %s was changed by someone else meanwhile; read it again, and change that", ErrState, w.Name)
	}
	if err != nil {
		return Document{}, s.refuse(ctx, p, action, e, err)
	}
	s.takeUp(ctx)
	return Document{Name: w.Name, Version: w.Expect + 1, Updated: w.Updated, Data: w.Data}, nil
}

// May says whether p may do something, before any work is done for it. It leaves
// nothing behind but the audit record of a refusal. The realm is empty for what
// concerns all of them.
func (s *Service) May(ctx context.Context, p Principal, action policy.Action, realm string) error {
	e := audit.Event{Realm: realm}
	return s.authorise(ctx, p, action, &e)
}

// Allow authorises and audits a use case that changes nothing here: one of
// webauthn's that looks something up.
func (s *Service) Allow(ctx context.Context, p Principal, action policy.Action, e audit.Event) error {
	if e.Realm == "" {
		e.Realm = p.Realm
	}
	e.Detail = sound(e.Detail)
	if err := s.authorise(ctx, p, action, &e); err != nil {
		return err
	}
	return s.record(ctx, p, action, e)
}

// sound are details that every database takes: what comes from an attestation may
// hold anything.
func sound(list []audit.Field) []audit.Field {
	out := make([]audit.Field, len(list))
	for i, f := range list {
		out[i] = audit.Field{Name: f.Name, Value: fileName(f.Value)}
	}
	return out
}
