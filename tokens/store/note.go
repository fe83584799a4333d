package store

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"watchword/tokens"
)

// sortNotes looks at the notes to write by themselves, and puts them in the order
// in which rows are locked. Tags are listed divided by commas.
func (p *plan) sortNotes() error {
	p.notes = p.Notes
	byToken := func(a, b tokens.NoteWrite) int { return cmp.Compare(a.TokenID, b.TokenID) }
	if !slices.IsSortedFunc(p.notes, byToken) {
		p.notes = slices.SortedStableFunc(slices.Values(p.notes), byToken)
	}
	for i := range p.notes {
		w := &p.notes[i]
		if i > 0 && w.TokenID == p.notes[i-1].TokenID {
			return refused("token %d is noted on twice", w.TokenID)
		}
		if w.Note != nil {
			if err := text(*w.Note); err != nil {
				return err
			}
		}
		for _, tag := range slices.Concat(w.Add, w.Drop) {
			if tag == "" || strings.Contains(tag, ",") {
				return refused("a tag of token %d is empty, or holds a comma", w.TokenID)
			}
			if err := text(tag); err != nil {
				return err
			}
		}
		for _, tag := range w.Add {
			if slices.Contains(w.Drop, tag) {
				return refused("a tag of token %d is added and dropped", w.TokenID)
			}
		}
	}
	return nil
}

// writeNotes changes notes and tags. Tags are written in order: two changes that
// add the same ones must not wait for each other.
func (p *plan) writeNotes(s *session) error {
	for i := range p.notes {
		w := &p.notes[i]
		// A token that can be noted on has a motion by now.
		var id int64
		lock := ""
		if bounded := len(w.Add) > 0 && w.Most > 0; bounded && s.dollar {
			lock = " FOR UPDATE" // who adds tags at the same time is counted, too
		}
		err := s.one(`SELECT token_id FROM motions WHERE token_id = ?`+lock, []any{w.TokenID}, &id)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: token %d", tokens.ErrNotFound, w.TokenID)
		}
		if err != nil {
			return err
		}
		if w.Note != nil {
			if _, err := s.exec(`UPDATE tokens SET note = ? WHERE id = ?`, *w.Note, id); err != nil {
				return err
			}
		}
		for _, tag := range slices.Sorted(slices.Values(w.Drop)) {
			if _, err := s.exec(`DELETE FROM token_tags WHERE token_id = ? AND tag = ?`, id, tag); err != nil {
				return err
			}
		}
		for _, tag := range slices.Sorted(slices.Values(w.Add)) {
			if _, err := s.exec(`INSERT INTO token_tags (token_id, tag) VALUES (?, ?) ON CONFLICT DO NOTHING`, id, tag); err != nil {
				return err
			}
		}
		if len(w.Add) > 0 && w.Most > 0 {
			var tags int
			if err := s.one(`SELECT count(*) FROM token_tags WHERE token_id = ?`, []any{id}, &tags); err != nil {
				return err
			}
			if tags > w.Most {
				return &tokens.ConflictError{TokenIDs: []int64{id}}
			}
		}
	}
	return nil
}

// listedWidth is how many columns listed reads.
const listedWidth = 4

// listedColumns are what only listings have of the token t.
func (s *session) listedColumns() string {
	join := "group_concat(tag, ',')"
	if s.dollar {
		join = "string_agg(tag, ',')"
	}
	return `t.hint, t.assigned, t.note, (SELECT ` + join + ` FROM token_tags WHERE token_id = t.id)`
}

func (f *fields) listed(t *tokens.Token) {
	t.Hint, t.Assigned, t.Note = f.str(), f.time(), f.str()
	if tags := f.str(); tags != "" {
		t.Tags = strings.Split(tags, ",")
		slices.Sort(t.Tags)
	}
}
