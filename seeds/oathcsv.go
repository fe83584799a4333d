package seeds

import (
	"watchword/hsm"
	"watchword/tokens"
)

// oathCSV is one token a line:
//
//	serial,hexseed[,totp|hotp[,digits[,period|counter[,sha1|sha256|sha512]]]]
//
// with totp, 6 digits, 30 s or counter 0 and sha1 where a column is missing or
// empty, and nothing else was chosen. For HOTP the fifth column is the next
// counter expected. A header row may change the order.
//
// privacyIDEA reads and writes the same columns without the last one
// (parseOATHcsv in lib/importotp.py, and its manual, "Import"), but takes a
// missing type for hotp and tells the hash from the seed's length; NetIQ Advanced
// Authentication takes a missing type for hotp too. Tables that leave this open
// are read as said above, and the notes tell. In privacyIDEA's version 2, which
// the comment "# version: 2" announces, user, resolver and realm stand in front;
// there it must be chosen.
var oathCSV = Format{Name: "oath-csv", Title: "OATH CSV", Detect: detectOATHCSV, Open: oathLayout.open}

var oathLayout = layout{
	columns:    []column{colSerial, colSeed, colType, colDigits, colMoving, colHash},
	separators: ",",
	header:     true,
	versions:   true,
	assumed:    true,
	encoding:   Hex,
	silence:    Choices{Type: tokens.TOTP, Hash: hsm.SHA1, Digits: 6, Period: 30},
}

func detectOATHCSV(prefix []byte, whole bool) (bool, string) {
	return oathLayout.detect(prefix, whole, nil, func(fields [][]byte) string {
		switch {
		case len(fields) < 2:
			return "there is no second column"
		case !hexSeed(fields[1]):
			return "column 2 is not a seed in hex"
		case len(fields) > 2 && len(fields[2]) > 0 && typeNamed(fields[2]) == "":
			return "column 3 is neither totp nor hotp"
		}
		return ""
	}, "a serial and a seed in hex")
}
