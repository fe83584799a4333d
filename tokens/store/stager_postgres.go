package store

import (
	"watchword/tokens"
)

var stageTokens = `INSERT INTO tokens (` + stageColumns + `)
	SELECT $1::bigint, * FROM unnest($2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[], $8::text[], $9::text[],
		$10::bigint[], $11::text[], $12::bigint[], $13::int[], $14::int[], $15::bytea[], $16::bytea[], $17::bigint[],
		$18::int[], $19::text[], $20::text[], $21::bytea[], $22::bigint[])
	ON CONFLICT (realm, serial) DO NOTHING RETURNING realm, serial`

func stagePostgres(s *session, batch int64, staged []tokens.Token) ([]bool, error) {
	created := make([]bool, len(staged))
	if len(staged) == 0 {
		return created, nil
	}
	var a arrays
	a.values = append(a.values, batch)
	a.of(len(staged),
		func(i int) any { return staged[i].Realm },
		func(i int) any { return staged[i].Serial },
		func(i int) any { return string(staged[i].Type) },
		func(i int) any { return int64(staged[i].Algorithm) },
		func(i int) any { return int64(staged[i].Digits) },
		func(i int) any { return int64(staged[i].Period) },
		func(i int) any { return string(staged[i].State) },
		func(i int) any { return staged[i].Model },
		func(i int) any { return micros(staged[i].Created) },
		func(i int) any { return staged[i].Wrapped.Mechanism },
		func(i int) any { return int64(staged[i].Wrapped.KEK) },
		func(i int) any { return int64(staged[i].Wrapped.Hash) },
		func(i int) any { return int64(staged[i].Wrapped.SeedLen) },
		func(i int) any { return nullBytes(staged[i].Wrapped.Blob) },
		func(i int) any { return nullBytes(staged[i].Binding) },
		func(i int) any { return staged[i].Last },
		func(i int) any { return int64(staged[i].Drift) },
		func(i int) any { return staged[i].Hint },
		func(i int) any { return nullText(staged[i].PublicID) },
		func(i int) any { return nullBytes(staged[i].PrivateMAC) },
		func(i int) any { return micros(staged[i].Expires) })

	type place struct{ realm, serial string }
	rows, err := s.query(stageTokens, a.values...)
	stored, err := list(rows, err, 2, func(f *fields) place { return place{f.str(), f.str()} })
	if err != nil {
		return nil, err
	}
	fresh := make(map[place]bool, len(stored))
	for _, p := range stored {
		fresh[p] = true
	}
	for i := range staged {
		p := place{staged[i].Realm, staged[i].Serial}
		created[i] = fresh[p]
		delete(fresh, p) // a second one of the same serial was not created
	}
	return created, nil
}

func presentPostgres(s *session, realm string, serials []string) ([]tokens.Presence, error) {
	present := make([]tokens.Presence, len(serials))
	var a arrays
	a.of(len(serials), func(i int) any { return serials[i] })
	rows, err := s.query(`SELECT t.serial, `+stagedIn+` FROM tokens t WHERE t.realm = ? AND t.serial = ANY (?::text[])`, realm, a.values[0])
	type place struct {
		serial string
		tokens.Presence
	}
	stored, err := list(rows, err, 2, func(f *fields) place {
		return place{f.str(), tokens.Presence{There: true, Staging: f.int()}}
	})
	if err != nil {
		return nil, err
	}
	has := make(map[string]tokens.Presence, len(stored))
	for _, p := range stored {
		has[p.serial] = p.Presence
	}
	for i, serial := range serials {
		present[i] = has[serial]
	}
	return present, nil
}
