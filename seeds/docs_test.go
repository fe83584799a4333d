package seeds

import (
	"os"
	"slices"
	"strings"
	"testing"

	"watchword/tokens"
)

// What docs/formats.md shows as a file of a format is told and read as one.
func TestExamplesInTheManualAreRead(t *testing.T) {
	text, err := os.ReadFile("../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{} // by section and first line
	section, block := "", ""
	for _, line := range strings.Split(string(text)+"\nend", "\n") {
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented:
			block += code + "\n"
			continue
		case strings.HasPrefix(line, "## "):
			section = line[3:]
		}
		if block != "" {
			first, _, _ := strings.Cut(block, "\n")
			blocks[section+": "+first[:min(len(first), 12)]] = block
			block = ""
		}
	}
	for _, c := range []struct {
		block, format string
		choices       Choices
		records       int
	}{
		{"OATH CSV: 24680017,313", "oath-csv", Choices{}, 3},
		{"OATH CSV: model,serial", "oath-csv", Choices{}, 1},
		{"OATH CSV: # version: 2", "oath-csv", Choices{}, 1},
		{"Microsoft Entra, Token2 and Deepnet SafeID: upn,serial n", "entra", Choices{}, 1},
		{"PingID: 230873470038", "pingid", Choices{Type: tokens.HOTP}, 2},
		{"PhenixID: TOTP;2468001", "phenixid", Choices{}, 3},
		{"multiOTP: 24680017;Fei", "multiotp", Choices{}, 2},
		{"Feitian and Hypersecu: 26001350040", "feitian", Choices{Type: tokens.TOTP, Period: 60}, 2},
		{"otpauth URIs: otpauth://to", "otpauth", Choices{}, 2},
		{"Google Authenticator's export: otpauth-migr", "otpauth-migration", Choices{}, 1},
		{"SafeNet XML: <Tokens>", "safenet-xml", Choices{}, 1},
		{"SafeWord .dat: dn: sccAuthe", "safeword", Choices{}, 1},
		{"Yubico's Personalization Tool: OATH-HOTP", "yubico", Choices{}, 1},
		{"Yubico's Personalization Tool: 7654321", "yubico", Choices{Digits: 8}, 1},
		{"Yubico's Personalization Tool: 7654322", "yubico", Choices{}, 1},
	} {
		file := ""
		for name, b := range blocks {
			if strings.HasPrefix(name, c.block) {
				file = b
			}
		}
		if file == "" {
			t.Errorf("the manual has no example %q", c.block)
			continue
		}
		f, _, err := Detect([]byte(file), true)
		if c.format == "pingid" { // without a counter in the first row
			f, err = FormatNamed("pingid")
		}
		if err != nil || f.Name != c.format {
			t.Errorf("%s: told to be %v, %v", c.block, f, err)
			continue
		}
		if list, why := refusal(f, file, c.choices); why != "" || len(list) != c.records {
			t.Errorf("%s: %d records, %s", c.block, len(list), why)
		}
	}
	for _, f := range slices.Concat(csvFormats, deviceFormats) {
		if !strings.Contains(string(text), "| `"+f.Name+"` |") {
			t.Errorf("the manual's table lacks %s", f.Name)
		}
	}
}
