package seeds

import (
	"watchword/tokens"
)

// phenixID is the table that PhenixID Authentication Services takes
// (document.phenixid.net, "Import hardware tokens"):
//
//	HOTP;serial;key;counter
//	TOTP;serial;SHA;key;epoch;timeinterval;otplength
//	serial;key;counter
//
// where the last is an HOTP token too. The manual does not say how the key is
// written; it is told from the keys of the whole file, as hex or base32. How many
// digits an HOTP token has is a setting of that product.
var phenixID = Format{Name: "phenixid", Title: "PhenixID token file", Detect: detectPhenixID, Open: phenixLayout.open}

var phenixLayout = layout{
	columns:    []column{colSerial, colSeed, colCounter},
	separators: ";",
	rowColumns: phenixColumns,
	full:       true,
	assumed:    true,
	silence:    Choices{Digits: 6},
}

var (
	phenixHOTP  = []column{colType, colSerial, colSeed, colCounter}
	phenixTOTP  = []column{colType, colSerial, colHash, colSeed, colEpoch, colPeriod, colDigits}
	phenixPlain = []column{colSerial, colSeed, colCounter}
)

func phenixColumns(fields [][]byte) ([]column, tokens.Type) {
	if len(fields) > 3 { // a plain row has three, and its serial may be any
		switch typeNamed(fields[0]) {
		case tokens.HOTP:
			return phenixHOTP, ""
		case tokens.TOTP:
			return phenixTOTP, ""
		}
	}
	return phenixPlain, tokens.HOTP
}

// detectPhenixID does not take a plain row for a sign: it may be anyone's.
func detectPhenixID(prefix []byte, whole bool) (bool, string) {
	return phenixLayout.detect(prefix, whole, nil, func(fields [][]byte) string {
		switch {
		case len(fields) < 4 || typeNamed(fields[0]) == "":
			return "it is no row of at least four columns that begins with HOTP; or TOTP;"
		case typeNamed(fields[0]) == tokens.HOTP && len(fields) != len(phenixHOTP), typeNamed(fields[0]) == tokens.TOTP && len(fields) != len(phenixTOTP):
			return "it has more or fewer columns than a token of that type"
		}
		return ""
	}, "a row that begins with its type")
}
