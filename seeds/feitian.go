package seeds

import "bytes"

// feitianText is the plain list that Feitian and Hypersecu ship for their OTP
// tokens, and makers who sell them under their own name (Swivel's knowledge base,
// "OATH Seed Conversion", takes one apart):
//
//	serial  hexseed
//
// separated by blanks or tabs. It says neither what type the tokens have nor how
// long their time step is: Feitian's c100 are HOTP, and its c200 TOTP with 60 s
// as a rule, but with 30 s if ordered so. Both must be chosen.
var feitianText = Format{Name: "feitian", Title: "Feitian or Hypersecu seed list", Detect: detectFeitian, Open: feitianLayout.open}

var feitianLayout = layout{
	columns:    []column{colSerial, colSeed},
	separators: string(blanks),
	encoding:   Hex,
	assumed:    true,
	silence:    Choices{Digits: 6},
}

func detectFeitian(prefix []byte, whole bool) (bool, string) {
	return feitianLayout.detect(prefix, whole, nil, func(fields [][]byte) string {
		switch {
		case len(fields) != 2:
			return "it is not a serial and a seed, separated by blanks"
		case bytes.ContainsAny(fields[0], `,;"`):
			return "there are commas, semicolons or quotes in it"
		case !hexSeed(fields[1]):
			return "what follows the blank is not a seed in hex"
		}
		return ""
	}, "a serial and a seed in hex, separated by blanks")
}
