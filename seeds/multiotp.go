package seeds

// multiOTP is the table that multiOTP imports (its README, "-import-csv", and
// ImportTokensFromCsv in multiotp.class.php):
//
//	serial_number;manufacturer;algorithm;seed;digits;interval_or_event
//
// separated by semicolons, tabs or commas. The algorithm is totp or hotp here;
// mOTP and Yubico OTP are refused. For HOTP the last column is the next counter
// expected. multiOTP takes all tokens for SHA-1; the hash of a long seed must be
// chosen all the same, as the table does not name it.
var multiOTP = Format{Name: "multiotp", Title: "multiOTP token file", Detect: detectMultiOTP, Open: multiLayout.open}

var multiLayout = layout{
	columns:    []column{colSerial, colMaker, colType, colSeed, colDigits, colMoving},
	separators: ";\t,",
	encoding:   Hex,
	full:       true,
}

func detectMultiOTP(prefix []byte, whole bool) (bool, string) {
	return multiLayout.detect(prefix, whole, nil, func(fields [][]byte) string {
		switch {
		case len(fields) != len(multiLayout.columns):
			return "there are not six columns"
		case typeNamed(fields[2]) == "":
			return "column 3 is neither totp nor hotp"
		case !hexSeed(fields[3]):
			return "column 4 is not a seed in hex"
		}
		return ""
	}, "a row of six columns with a type in the third and a seed in hex in the fourth")
}
