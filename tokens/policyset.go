package tokens

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"watchword/tokens/policy"
)

// The policies that an installation wrote are one whole, which has versions. The
// document "policies" is sealed, small, and says which version counts; "policies/N"
// holds version N, behind a sealed head:
//
//	64 hex digits of the MAC over the head, a line feed, the head, a line feed, gzip of the Source in JSON
//
// The head has the SHA-256 of what follows it, so that the HSM need not see all of it,
// and its version, so that no version can be put in the place of another.
const policiesDocument = "policies"

func policiesVersion(n int64) string { return policiesDocument + "/" + itoa(n) }

// The bounds of what an installation writes.
const (
	maxPolicyText  = 64 << 10
	maxPolicyItems = 20_000
	maxPolicyBody  = 16 << 20 // of the Source in JSON
	policyVersions = 100      // that are kept
)

// PolicyVersion says what a version is.
type PolicyVersion struct {
	Version   int64     `json:"version"`
	Time      time.Time `json:"time"`
	Actor     string    `json:"actor"`          // who made it, as the audit names them
	From      int64     `json:"from,omitempty"` // the version that it went back to; zero: it was edited
	Policies  int       `json:"policies"`
	Templates int       `json:"templates"`
	Links     int       `json:"links"`
	Sum       string    `json:"sha256"` // of the gzip
}

// policiesIndex is what the document "policies" holds. Its first version is the
// document's own: the one that counts.
type policiesIndex struct {
	Versions []PolicyVersion `json:"versions"` // newest first, policyVersions at most
}

// liveSet are the policies that count, as this node has them.
type liveSet struct {
	version int64
	raw     []byte // the document that said so
	set     *policy.Set
	fault   error // why nothing can be decided; nil as a rule
}

// compiledSet is a version that was compiled, so that it need not be again.
type compiledSet struct {
	sum string
	set *policy.Set
}

var errPolicies = fmt.Errorf("%w: the policies", ErrTampered)

// readPolicies answers the policies that count; was is what it answered before. What
// is wrong with them is no error of its own: it is their fault.
func (s *Service) readPolicies(ctx context.Context, was *liveSet) (*liveSet, error) {
	for range 3 {
		d, err := s.db.Document(ctx, policiesDocument)
		switch {
		case errors.Is(err, ErrNotFound):
			// Nobody here deletes it: whoever did wants to be rid of what it forbids. A node
			// that starts knows it by the first version, as long as that is kept.
			if was != nil && was.version > 0 {
				return &liveSet{version: was.version, fault: errGone}, nil
			}
			switch first, err := s.storedVersion(ctx, policiesVersion(1)); {
			case err != nil:
				return nil, err
			case first == 0:
				return &liveSet{set: policy.Builtin()}, nil
			}
			if now, err := s.storedVersion(ctx, policiesDocument); err != nil || now > 0 { // made just now
				continue
			}
			return &liveSet{fault: errGone}, nil
		case err != nil:
			return nil, unavailable(err)
		case was != nil && was.fault == nil && was.version == d.Version && bytes.Equal(was.raw, d.Data):
			return was, nil
		}
		live := &liveSet{version: d.Version, raw: d.Data}
		index, err := s.policiesIndex(ctx, &d)
		if err == nil {
			live.set, err = s.compiledPolicies(ctx, &index.Versions[0])
		}
		switch {
		case errors.Is(err, errGone): // a hundred versions later it was deleted meanwhile
			live.fault = err
			if now, err := s.db.Document(ctx, policiesDocument); err != nil || now.Version != d.Version {
				continue
			}
		case errors.Is(err, ErrUnavailable):
			return nil, err
		case err != nil:
			live.fault = err
		}
		return live, nil
	}
	return nil, fmt.Errorf("%w: the policies are changed all the time", ErrUnavailable)
}

// policiesIndex is what the document "policies" says.
func (s *Service) policiesIndex(ctx context.Context, d *Document) (*policiesIndex, error) {
	plain, err := s.unsealed(ctx, d)
	if err != nil {
		return nil, err
	}
	var index policiesIndex
	if json.Unmarshal(plain, &index) != nil || len(index.Versions) == 0 || index.Versions[0].Version != d.Version {
		return nil, errPolicies
	}
	return &index, nil
}

// compiledPolicies are those of a version that the index names.
func (s *Service) compiledPolicies(ctx context.Context, v *PolicyVersion) (*policy.Set, error) {
	if known := s.compiled.Load(); known != nil && known.sum == v.Sum {
		return known.set, nil
	}
	head, src, err := s.policiesOf(ctx, v.Version)
	if err != nil {
		return nil, err
	}
	if head.Sum != v.Sum {
		return nil, errPolicies
	}
	set, err := policy.Compile(src)
	if err != nil {
		return nil, fmt.Errorf("version %d of the policies is not right any more: %w", v.Version, err)
	}
	s.compiled.Store(&compiledSet{v.Sum, set})
	return set, nil
}

// errGone says that a version is not there.
var errGone = fmt.Errorf("%w: that version of the policies is not there", ErrNotFound)

// policiesOf reads a version. What it answers is what Watchword wrote, or an error
// that wraps ErrTampered, or errGone.
func (s *Service) policiesOf(ctx context.Context, version int64) (PolicyVersion, policy.Source, error) {
	var head PolicyVersion
	var src policy.Source
	d, err := s.db.Document(ctx, policiesVersion(version))
	switch {
	case errors.Is(err, ErrNotFound):
		return head, src, errGone
	case err != nil:
		return head, src, unavailable(err)
	}
	wrong := fmt.Errorf("%w (version %d)", errPolicies, version)
	mac, rest, _ := bytes.Cut(d.Data, []byte{'\n'})
	line, body, ok := bytes.Cut(rest, []byte{'\n'})
	if !ok || len(mac) != sealHead-1 {
		return head, src, wrong
	}
	right, err := s.sealMAC(ctx, d.Name, line)
	if err != nil {
		return head, src, err
	}
	sum := sha256.Sum256(body)
	if !hmac.Equal(right, mac) || json.Unmarshal(line, &head) != nil || head.Version != version || head.Sum != hex.EncodeToString(sum[:]) {
		return PolicyVersion{}, src, wrong
	}
	unzip, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return head, src, wrong
	}
	plain, err := io.ReadAll(io.LimitReader(unzip, maxPolicyBody+1))
	if err != nil || len(plain) > maxPolicyBody || json.Unmarshal(plain, &src) != nil {
		return head, src, wrong
	}
	return head, src, nil
}

// policiesDocuments makes the two documents of a new version, which follows the
// stored one. head has all but Version and Sum.
func (s *Service) policiesDocuments(ctx context.Context, src *policy.Source, head *PolicyVersion, before []PolicyVersion) ([]DocumentWrite, error) {
	plain, err := json.Marshal(src)
	if err != nil {
		return nil, err
	}
	if len(plain) > maxPolicyBody {
		return nil, fmt.Errorf("%w: the policies are %d bytes in all; %d are possible", ErrInvalid, len(plain), maxPolicyBody)
	}
	var body bytes.Buffer
	zip := gzip.NewWriter(&body)
	if _, err := zip.Write(plain); err != nil {
		return nil, err
	}
	if err := zip.Close(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body.Bytes())
	head.Sum = hex.EncodeToString(sum[:])
	line, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	whole := DocumentWrite{Name: policiesVersion(head.Version), Updated: head.Time}
	if whole.Data, err = s.sealed(ctx, whole.Name, line); err != nil {
		return nil, err
	}
	whole.Data = append(append(whole.Data, '\n'), body.Bytes()...)
	if whole.Expect, err = s.storedVersion(ctx, whole.Name); err != nil {
		return nil, err
	}
	versions := append([]PolicyVersion{*head}, before...)
	index := DocumentWrite{Name: policiesDocument, Expect: head.Version - 1, Updated: head.Time}
	if plain, err = json.Marshal(policiesIndex{versions[:min(len(versions), policyVersions)]}); err != nil {
		return nil, err
	}
	if index.Data, err = s.sealed(ctx, index.Name, plain); err != nil {
		return nil, err
	}
	list := []DocumentWrite{index, whole}
	if old := head.Version - policyVersions; old > 0 {
		name := policiesVersion(old)
		at, err := s.storedVersion(ctx, name)
		if err != nil {
			return nil, err
		}
		if at > 0 {
			list = append(list, DocumentWrite{Name: name, Expect: at, Updated: head.Time})
		}
	}
	return list, nil
}

// storedVersion is the version of a document's row; zero if there is none.
func (s *Service) storedVersion(ctx context.Context, name string) (int64, error) {
	d, err := s.db.Document(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return d.Version, unavailable(err)
}

// keeps says whether p may do something whatever the installation's policies say:
// only the built-in ones are asked. So the server goes on by itself, and no policy
// keeps who looks after them out.
func (p Principal) keeps(action policy.Action) bool {
	switch p.Kind {
	case KindSystem:
		return p.Scope == policy.ScopeSystem
	case KindKey:
		return p.Realm == "" && p.Scope == policy.ScopeAdmin && strings.HasPrefix(string(action), "policy.")
	}
	return false
}

// policies are those that decide whether p may do something; ErrUnavailable where
// those that count cannot be read.
func (s *Service) policies(p Principal, action policy.Action) (*policy.Set, error) {
	live := s.reg.Load().policies
	switch {
	case p.keeps(action):
		return policy.Builtin(), nil
	case live.fault != nil:
		return nil, fmt.Errorf("%w: nothing can be decided, since the installation's policies cannot be read: look at /readyz", ErrUnavailable)
	case action == policy.Verify, action == policy.UserPINChange: // see engine.gate
		return policy.Builtin(), nil
	}
	return live.set, nil
}

// retryPolicies reads the policies anew if they cannot be read: somebody may have put
// the rows back, which nobody tells this node.
func (s *Service) retryPolicies(ctx context.Context) {
	s.regMu.Lock()
	defer s.regMu.Unlock()
	r := s.reg.Load()
	if r.policies.fault == nil {
		return
	}
	live, err := s.readPolicies(ctx, r.policies)
	if err != nil || live.fault != nil {
		return
	}
	// The rest stays as it is, but for the documents: that is read again.
	s.reg.Store(&registry{generation: r.generation, keys: r.keys, clients: r.clients, exact: r.exact, names: r.names, roles: r.roles, policies: live})
	s.notePolicies(r.policies, live)
}

// notePolicies tells the log when the policies cannot be read, and when they can be
// again.
func (s *Service) notePolicies(was, live *liveSet) {
	switch {
	case live.fault != nil && (was == nil || was.fault == nil):
		s.log.Error("the policies cannot be read: everything is refused until someone with an admin key for all realms puts them right (watchword policy versions, watchword policy rollback VERSION)",
			"version", live.version, "error", live.fault)
	case live.fault == nil && was != nil && was.fault != nil:
		s.log.Info("the policies can be read again", "version", live.version)
	}
}
