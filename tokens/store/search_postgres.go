package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// allCandidates is how many rows that have all trigrams of a part are looked at for
// the part itself.
const allCandidates = 3000

// parted answers the ids of rows in which an expression has the part, at most one more
// than allHits. It answers so many too where more rows than are looked at have all of
// the part's trigrams, or where it has none. PostgreSQL only.
//
// Where a trigram comes twice in a part, each is a condition of its own, which the index
// meets exactly. By the part as a whole PostgreSQL would find all rows that have the
// trigram, and look at them where no limit counts: at every token, where a part has more
// zeros in a row than any serial. Else the part as a whole is what leads to the fewest
// rows, with the least work.
func (s *session) parted(table, expression, part string) ([]int64, error) {
	texts, ok := lettersIn(part)
	if !ok {
		return make([]int64, allHits+1), nil
	}
	var f filter
	for _, text := range texts {
		f.where("watchword_parts("+expression+") LIKE ?", "%"+text+"%")
	}
	if n, err := s.guessed(`SELECT id FROM `+table+f.String(), f.args...); err != nil || n > allGuessed {
		return make([]int64, allHits+1), err
	}
	// The limits are outside: for a few rows PostgreSQL would rather look at every one
	// until it has met them.
	rows, err := s.query(`WITH hit AS MATERIALIZED (SELECT id, `+expression+` AS whole FROM `+table+f.String()+`)
		SELECT CASE WHEN n > ? THEN 0 ELSE id END FROM (SELECT id, whole, row_number() OVER () AS n FROM hit LIMIT ?) AS h
		WHERE n > ? OR strpos(whole, ?) > 0 LIMIT ?`,
		append(f.args, int64(allCandidates), int64(allCandidates+1), int64(allCandidates), part, int64(allHits+1))...)
	ids, err := list(rows, err, 1, (*fields).int)
	if err == nil && slices.Contains(ids, 0) {
		ids = make([]int64, allHits+1)
	}
	return ids, err
}

// allGuessed is how many rows PostgreSQL may take a part to lead to: those are more than
// allHits then, though it guesses from some hundred rows.
const allGuessed = 4 * allHits

// guessed is how many rows PostgreSQL takes a query to have, by what it keeps of tables.
func (s *session) guessed(query string, args ...any) (float64, error) {
	var text []byte
	if err := s.one(explaining+query, args, &text); err != nil {
		return 0, err
	}
	var plans []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	if err := json.Unmarshal(text, &plans); err != nil || len(plans) != 1 {
		return 0, errors.New("a plan of PostgreSQL's is not readable")
	}
	return plans[0].Plan.Rows, nil
}

// explaining begins a statement that looks at no row.
const explaining = `EXPLAIN (FORMAT JSON) `

// lettersIn is watchword_parts of a part, or the trigrams of that, if one comes twice in
// it. Few of a long one will do: what is found is looked at. It is not ok if there are
// none.
func lettersIn(part string) (texts []string, ok bool) {
	var b strings.Builder
	for i := range len(part) {
		switch c := part[i]; {
		case c < ' ' || c == 0x7f: // nobody has it in a name
			return nil, false
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b.WriteByte(c)
		case 'A' <= c && c <= 'Z':
			b.WriteByte(c - 'A' + 'a')
		case c < 0x80:
			b.WriteByte('z')
		default:
			fmt.Fprintf(&b, "z%03o", c)
		}
		if b.Len() >= 64 {
			break
		}
	}
	letters := b.String()
	for i := 0; i+3 <= len(letters); i++ {
		if gram := letters[i : i+3]; !slices.Contains(texts, gram) {
			texts = append(texts, gram)
		}
	}
	if len(texts) == len(letters)-2 {
		return []string{letters}, true
	}
	return texts, len(texts) > 0
}
