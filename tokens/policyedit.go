package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// PolicySet is what an installation wrote, in one version.
type PolicySet struct {
	PolicyVersion // zero where nothing was written yet
	Source        policy.Source
}

// PolicyEdit changes policies, templates and links: what is named is put in the place
// of what has the id, or made; or taken away. No id is in it twice.
type PolicyEdit struct {
	Put             []policy.Item
	Delete          []string
	PutTemplates    []policy.Item
	DeleteTemplates []string
	PutLinks        []policy.Link
	DeleteLinks     []string
}

// Policies answers the installation's own policies as they are now. They concern all
// realms: who may act in one only is not told.
func (s *Service) Policies(ctx context.Context, p Principal) (PolicySet, error) {
	var e audit.Event
	if err := s.authorise(ctx, p, policy.PolicyShow, &e); err != nil {
		return PolicySet{}, err
	}
	d, index, err := s.storedPolicies(ctx)
	if err != nil {
		return PolicySet{}, s.refuse(ctx, p, policy.PolicyShow, e, err)
	}
	set := PolicySet{}
	if d.Version > 0 {
		if set.PolicyVersion, set.Source, err = s.policiesOf(ctx, d.Version); err == nil && set.Sum != index.Versions[0].Sum {
			err = errPolicies
		}
		if err != nil {
			return PolicySet{}, s.refuse(ctx, p, policy.PolicyShow, e, err)
		}
	}
	e.Detail = []audit.Field{{Name: "version", Value: itoa(set.Version)}}
	return set, s.record(ctx, p, policy.PolicyShow, e)
}

// storedPolicies is the document "policies" as it is stored, with version zero if there
// is none, and what it says.
func (s *Service) storedPolicies(ctx context.Context) (Document, *policiesIndex, error) {
	d, err := s.db.Document(ctx, policiesDocument)
	switch {
	case errors.Is(err, ErrNotFound):
		return Document{Name: policiesDocument}, &policiesIndex{}, nil
	case err != nil:
		return Document{}, nil, unavailable(err)
	}
	index, err := s.policiesIndex(ctx, &d)
	return d, index, err
}

// PolicyVersions lists the versions that can be gone back to, the newest first; a
// hundred are kept.
func (s *Service) PolicyVersions(ctx context.Context, p Principal, n int) ([]PolicyVersion, error) {
	var e audit.Event
	if err := s.authorise(ctx, p, policy.PolicyList, &e); err != nil {
		return nil, err
	}
	d, index, err := s.storedPolicies(ctx)
	list := []PolicyVersion{}
	switch {
	case isTampered(err): // then the versions themselves say what they are
		if list, err = s.heads(ctx, d.Version); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		list = append(list, index.Versions...)
	}
	return list[:min(len(list), limit(n))], s.record(ctx, p, policy.PolicyList, e)
}

// heads are the heads of the versions up to one that are as Watchword wrote them.
func (s *Service) heads(ctx context.Context, last int64) ([]PolicyVersion, error) {
	list := []PolicyVersion{}
	for v := last; v > 0 && v > last-policyVersions; v-- {
		head, _, err := s.policiesOf(ctx, v)
		switch {
		case err == nil:
			list = append(list, head)
		case errors.Is(err, ErrUnavailable):
			return nil, err
		}
	}
	return list, nil
}

// PutPolicies changes the policies if their version is still expect: zero for none; -1:
// whatever there is. ErrState says that it is not. All of the edit is done, in one
// version, or nothing of it. What is wrong with the policies as they would be is an
// error that wraps ErrInvalid and a *policy.Errors. An edit that changes nothing makes
// no version. The next act on any node follows it.
//
// If what is stored was altered outside Watchword, the edit is made to the newest
// version that was not.
func (s *Service) PutPolicies(ctx context.Context, p Principal, expect int64, edit PolicyEdit) (PolicySet, error) {
	acts := edit.acts()
	if len(acts) == 0 {
		return PolicySet{}, fmt.Errorf("%w: the edit names nothing to put or to delete", ErrInvalid)
	}
	events := make([]audit.Event, len(acts))
	for i, a := range acts {
		events[i].Detail = a.detail()
		if err := s.authorise(ctx, p, a.action, &events[i]); err != nil {
			return PolicySet{}, err
		}
	}
	return s.writePolicies(ctx, p, acts, events, func(now *storedSet) (policy.Source, int64, error) {
		src, err := edit.apply(now.Source)
		if expect < 0 || expect == now.stored {
			return src, 0, err
		}
		if sortSource(&src); err == nil && !now.altered && sameSource(&src, &now.Source) { // asked for again
			return src, 0, nil
		}
		return src, 0, fmt.Errorf("%w: the policies have version %d, not %d: someone else changed them meanwhile; read them again, and change that", ErrState, now.stored, expect)
	})
}

// RollBackPolicies makes a version that says what an earlier one did, and answers it.
// ErrNotFound if that is not kept any more; a *policy.Errors if what it says is not
// right any more.
func (s *Service) RollBackPolicies(ctx context.Context, p Principal, version int64) (PolicySet, error) {
	events := []audit.Event{{Detail: []audit.Field{{Name: "to", Value: itoa(version)}}}}
	if err := s.authorise(ctx, p, policy.PolicyRollBack, &events[0]); err != nil {
		return PolicySet{}, err
	}
	acts := []policyAct{{action: policy.PolicyRollBack}}
	return s.writePolicies(ctx, p, acts, events, func(now *storedSet) (policy.Source, int64, error) {
		if version == 0 { // as it was before anything was written
			return policy.Source{}, 0, nil
		}
		if version < 0 || version > now.stored {
			return policy.Source{}, 0, fmt.Errorf("%w: there is no version %d of the policies", ErrNotFound, version)
		}
		_, src, err := s.policiesOf(ctx, version)
		if errors.Is(err, errGone) {
			err = fmt.Errorf("%w: version %d of the policies is not kept any more", ErrNotFound, version)
		}
		return src, version, err
	})
}

// storedSet is what is stored now, for whoever changes it.
type storedSet struct {
	PolicySet       // the version that counts, or the newest that was not altered
	stored    int64 // of the document, whatever it says
	altered   bool  // by somebody else
	versions  []PolicyVersion
}

// nowPolicies reads what is stored.
func (s *Service) nowPolicies(ctx context.Context) (*storedSet, error) {
	d, index, err := s.storedPolicies(ctx)
	now := &storedSet{stored: d.Version}
	switch {
	case err == nil && d.Version == 0:
		return now, nil
	case err == nil:
		now.versions = index.Versions
		now.PolicyVersion, now.Source, err = s.policiesOf(ctx, d.Version)
		if err == nil && now.Sum == index.Versions[0].Sum {
			return now, nil
		}
	}
	if err != nil && !isTampered(err) && !errors.Is(err, errGone) {
		return nil, err
	}
	now.altered, now.PolicySet = true, PolicySet{}
	if now.versions, err = s.heads(ctx, d.Version); err != nil || len(now.versions) == 0 {
		return now, err
	}
	now.PolicyVersion, now.Source, err = s.policiesOf(ctx, now.versions[0].Version)
	return now, err
}

// writePolicies makes a version of what next answers, with a record for each act.
// from, if not zero, is the version that it goes back to.
func (s *Service) writePolicies(ctx context.Context, p Principal, acts []policyAct, events []audit.Event,
	next func(now *storedSet) (src policy.Source, from int64, err error),
) (PolicySet, error) {
	for range conflicts {
		set, err := s.tryPolicies(ctx, p, acts, events, next)
		switch {
		case errors.Is(err, ErrConflict): // another node was first
			continue
		case err != nil:
			return PolicySet{}, s.refuse(ctx, p, acts[0].action, events[0], err)
		}
		return set, nil
	}
	return PolicySet{}, fmt.Errorf("%w: the policies are changed elsewhere all the time", ErrUnavailable)
}

func (s *Service) tryPolicies(ctx context.Context, p Principal, acts []policyAct, events []audit.Event,
	next func(now *storedSet) (policy.Source, int64, error),
) (PolicySet, error) {
	now, err := s.nowPolicies(ctx)
	if err != nil {
		return PolicySet{}, err
	}
	src, from, err := next(now)
	if err != nil {
		return PolicySet{}, err
	}
	if err := checkSource(&src); err != nil {
		return PolicySet{}, err
	}
	sortSource(&src)
	set, err := policy.Compile(src)
	if err != nil {
		return PolicySet{}, wrongPolicies(err)
	}
	records := make([]audit.Event, len(acts))
	told := func(more ...audit.Field) {
		for i, a := range acts {
			e := events[i]
			e.Detail = append(e.Detail[:len(e.Detail):len(e.Detail)], more...)
			records[i] = s.event(p, a.action, e)
		}
	}
	if !now.altered && sameSource(&src, &now.Source) {
		told(audit.Field{Name: "version", Value: itoa(now.Version)})
		for i := range records {
			records[i].Reason = string(ReasonUnchanged)
		}
		return now.PolicySet, s.ledger.commit(ctx, &Change{}, records)
	}
	head := PolicyVersion{
		Version: now.stored + 1, Time: s.cfg.Now().UTC().Truncate(1000), Actor: p.Actor(), From: from,
		Policies: len(src.Policies), Templates: len(src.Templates), Links: len(src.Links),
	}
	documents, err := s.policiesDocuments(ctx, &src, &head, now.versions)
	if err != nil {
		return PolicySet{}, err
	}
	more := []audit.Field{{Name: "version", Value: itoa(now.stored) + " -> " + itoa(head.Version)}, {Name: "sha256", Value: head.Sum}}
	if now.altered {
		more = append(more, audit.Field{Name: "before", Value: "altered outside Watchword"}, audit.Field{Name: "based_on", Value: itoa(now.Version)})
	}
	told(more...)
	if err := s.ledger.commit(ctx, &Change{Documents: documents}, records); err != nil {
		return PolicySet{}, err
	}
	s.compiled.Store(&compiledSet{head.Sum, set})
	s.takeUp(ctx)
	return PolicySet{head, src}, nil
}

// CheckPolicies says what is wrong with policies, as PutPolicies would: nil if nothing
// is. Nothing is stored.
func (s *Service) CheckPolicies(ctx context.Context, p Principal, src policy.Source) error {
	var e audit.Event
	if err := s.authorise(ctx, p, policy.PolicySimulate, &e); err != nil {
		return err
	}
	e.Detail = []audit.Field{{Name: "for", Value: "check"}}
	if _, err := compileDraft(&src); err != nil {
		return s.refuse(ctx, p, policy.PolicySimulate, e, err)
	}
	return s.record(ctx, p, policy.PolicySimulate, e)
}

// compileDraft checks and compiles what is not stored.
func compileDraft(src *policy.Source) (*policy.Set, error) {
	if err := checkSource(src); err != nil {
		return nil, err
	}
	set, err := policy.Compile(*src)
	if err != nil {
		return nil, wrongPolicies(err)
	}
	return set, nil
}

// wrongPolicies makes the error for whoever wrote them.
func wrongPolicies(err error) error {
	return fmt.Errorf("%w: the policies are not right: %w", ErrInvalid, err)
}

// checkSource says what is too much of policies, or nil.
func checkSource(src *policy.Source) error {
	if n := len(src.Policies) + len(src.Templates) + len(src.Links); n > maxPolicyItems {
		return fmt.Errorf("%w: %d policies, templates and links; %d are possible", ErrInvalid, n, maxPolicyItems)
	}
	all := 0
	for _, list := range [][]policy.Item{src.Policies, src.Templates} {
		for _, item := range list {
			if len(item.Text) > maxPolicyText || len(item.Note) > maxPolicyText {
				return fmt.Errorf("%w: %s has more than %d bytes of text", ErrInvalid, strconv.Quote(fileName(item.ID)), maxPolicyText)
			}
			all += len(item.Text) + len(item.Note)
			if err := askable(item.ID, item.Note); err != nil {
				return err
			}
		}
	}
	for _, l := range src.Links {
		all += len(l.ID) + len(l.Template) + len(l.Principal) + len(l.Resource)
	}
	if all > maxPolicyBody {
		return fmt.Errorf("%w: the policies are %d bytes in all; %d are possible", ErrInvalid, all, maxPolicyBody)
	}
	return nil
}

func sortSource(src *policy.Source) {
	byID := func(a, b policy.Item) int { return strings.Compare(a.ID, b.ID) }
	slices.SortStableFunc(src.Policies, byID)
	slices.SortStableFunc(src.Templates, byID)
	slices.SortStableFunc(src.Links, func(a, b policy.Link) int { return strings.Compare(a.ID, b.ID) })
}

func sameSource(a, b *policy.Source) bool {
	return slices.Equal(a.Policies, b.Policies) && slices.Equal(a.Templates, b.Templates) && slices.Equal(a.Links, b.Links)
}

// apply makes the edit to a source, which stays as it is.
func (e *PolicyEdit) apply(to policy.Source) (policy.Source, error) {
	policies, err := edited(to.Policies, "policy", e.Put, e.Delete, func(i policy.Item) string { return i.ID })
	if err != nil {
		return to, err
	}
	templates, err := edited(to.Templates, "template", e.PutTemplates, e.DeleteTemplates, func(i policy.Item) string { return i.ID })
	if err != nil {
		return to, err
	}
	links, err := edited(to.Links, "link", e.PutLinks, e.DeleteLinks, func(l policy.Link) string { return l.ID })
	if err != nil {
		return to, err
	}
	for _, id := range e.DeleteTemplates {
		n := 0
		for _, l := range links {
			if l.Template == id {
				n++
			}
		}
		if n > 0 {
			return to, fmt.Errorf("%w: template %s has %d links; delete them first, or with it", ErrState, id, n)
		}
	}
	return policy.Source{Policies: policies, Templates: templates, Links: links}, nil
}

// edited is one list with an edit made to it.
func edited[T any](list []T, what string, put []T, remove []string, id func(T) string) ([]T, error) {
	at := make(map[string]int, len(list))
	for i, x := range list {
		at[id(x)] = i
	}
	next := slices.Clone(list)
	named := map[string]bool{}
	gone := map[int]bool{}
	twice := func(name string) error {
		if named[name] {
			return fmt.Errorf("%w: the edit names %s %s twice", ErrInvalid, what, strconv.Quote(fileName(name)))
		}
		named[name] = true
		return nil
	}
	for _, name := range remove {
		if err := twice(name); err != nil {
			return nil, err
		}
		i, ok := at[name]
		if !ok {
			return nil, fmt.Errorf("%w: no %s %s", ErrNotFound, what, strconv.Quote(fileName(name)))
		}
		gone[i] = true
	}
	for _, x := range put {
		if err := twice(id(x)); err != nil {
			return nil, err
		}
		if i, ok := at[id(x)]; ok {
			next[i] = x
		} else {
			next = append(next, x)
		}
	}
	kept := next[:0]
	for i, x := range next {
		if !gone[i] {
			kept = append(kept, x)
		}
	}
	return kept, nil
}

// policyAct is one kind of thing that an edit does.
type policyAct struct {
	action policy.Action
	ids    []string
}

// acts are the kinds of things that an edit does.
func (e *PolicyEdit) acts() []policyAct {
	var list []policyAct
	add := func(action policy.Action, ids []string) {
		if len(ids) > 0 {
			list = append(list, policyAct{action, ids})
		}
	}
	add(policy.PolicyPut, itemIDs(e.Put))
	add(policy.PolicyDelete, e.Delete)
	add(policy.PolicyTemplatePut, itemIDs(e.PutTemplates))
	add(policy.PolicyTemplateDelete, e.DeleteTemplates)
	links := make([]string, len(e.PutLinks))
	for i, l := range e.PutLinks {
		links[i] = l.ID
	}
	add(policy.PolicyLinkPut, links)
	add(policy.PolicyLinkDelete, e.DeleteLinks)
	return list
}

func itemIDs(list []policy.Item) []string {
	ids := make([]string, len(list))
	for i, item := range list {
		ids[i] = item.ID
	}
	return ids
}

// maxTold bounds how many ids a record names.
const maxTold = 20

// detail names what an act is about. An id may be anything as yet.
func (a *policyAct) detail() []audit.Field {
	var ids []string
	for _, id := range a.ids[:min(len(a.ids), maxTold)] {
		ids = append(ids, fileName(strings.ToValidUTF8(id, "\uFFFD")))
	}
	list := []audit.Field{{Name: "ids", Value: strings.Join(ids, ",")}}
	if len(a.ids) > maxTold {
		list = append(list, audit.Field{Name: "count", Value: strconv.Itoa(len(a.ids))})
	}
	return list
}
