package seeds

import "strconv"

// pingID is the seed file that PingID takes (docs.pingidentity.com, "Configuring
// OATH token authentication"):
//
//	serial,hexseed[,counter]
//
// Whether the tokens are TOTP or HOTP, and their time step, are told to PingID
// beside the file, and must be chosen here. The counter is for HOTP, and is zero
// where there is none. Without a counter in any line the file looks like OATH
// CSV, and is told to be that.
var pingID = Format{Name: "pingid", Title: "PingID seed file", Detect: detectPingID, Open: pingLayout.open}

var pingLayout = layout{
	columns:    []column{colSerial, colSeed, colCounter},
	separators: ",",
	encoding:   Hex,
	assumed:    true,
	silence:    Choices{Digits: 6},
}

func detectPingID(prefix []byte, whole bool) (bool, string) {
	return pingLayout.detect(prefix, whole, nil, func(fields [][]byte) string {
		switch {
		case len(fields) != 3:
			return "there are not three columns"
		case !hexSeed(fields[1]):
			return "column 2 is not a seed in hex"
		case !isNumber(fields[2]):
			return "column 3 is not a counter"
		}
		return ""
	}, "a serial, a seed in hex and a counter")
}

func isNumber(f []byte) bool {
	if len(f) > 20 {
		return false
	}
	_, err := strconv.ParseUint(string(f), 10, 64)
	return err == nil
}
