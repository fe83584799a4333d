package seeds

import (
	"slices"

	"watchword/tokens"
)

// entraCSV is the table that Microsoft Entra ID takes for hardware tokens
// (learn.microsoft.com, "Upload hardware OATH tokens in CSV format"), with a
// header row:
//
//	upn,serial number,secret key,time interval,manufacturer,model
//
// The secret key is base32 there. Token2 and Deepnet SafeID ship the same table
// without the user's name, and SafeID's also in hex (wiki.deepnetsecurity.com,
// "SafeID Help Desk", "Token Secret File"); other products that borrow it, like
// HelloID, keep to Entra's. So the encoding is told from the seeds of the whole
// file. Entra has TOTP with 6 digits only, and SHA-1 only: but makers use the
// table for SHA-256 tokens too, so the hash of a long seed must be chosen. The
// model may have a quote in it, doubled.
var entraCSV = Format{Name: "entra", Title: "Entra CSV", Detect: detectEntra, Open: entraLayout.open}

var entraLayout = layout{
	columns:    []column{colUser, colSerial, colSeed, colPeriod, colMaker, colModel},
	separators: ",",
	header:     true,
	headed:     true,
	silence:    Choices{Type: tokens.TOTP, Digits: 6},
}

func detectEntra(prefix []byte, whole bool) (bool, string) {
	return entraLayout.detect(prefix, whole, func(columns []column) bool {
		// With more than this it is not Entra's, but says so much that it is OATH CSV.
		for _, c := range []column{colType, colDigits, colCounter, colMoving, colResolver, colRealm, colEpoch} {
			if slices.Contains(columns, c) {
				return false
			}
		}
		for _, c := range []column{colSerial, colSeed, colPeriod, colMaker, colModel} {
			if !slices.Contains(columns, c) {
				return false
			}
		}
		return true
	}, nil, "")
}
