package seeds_test

import (
	"context"
	"strings"
	"testing"

	"watchword/seeds"
	"watchword/tokens"
)

// The makers' own formats go in, and the tokens' codes are those that oathtool
// makes of the same seeds, also of those whose clock counts from 2000.
func TestCodesOfMakersTokensAreOathtools(t *testing.T) {
	core, root := newCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	ctx := context.Background()
	const twenty = "3132333435363738393031323334353637383930"
	long := strings.Repeat("5a", 32)
	safeword := func(serial, data string) string {
		return "dn: sccAuthenticatorId=" + serial + "\nsccAuthenticatorId: " + serial + "\nsccTokenData: " + data + "\n\n"
	}
	for _, f := range []struct {
		format, file string
		o            seeds.Options
		want         int
	}{
		{"yubico", "LOGGING START,1\nOATH-HOTP,24.12.20 18:01,1,ubhvcccccccd,," + twenty + ",,,0,1,0,8,16,0,0,0,0,0\n", seeds.Options{}, 1},
		{"yubico", "7654321,,32," + twenty + ",,2020-12-24T18:01:02,\n", seeds.Options{Choices: seeds.Choices{Digits: 6}}, 1},
		{"safenet-xml", "<Tokens><Token serial=\"N1\"><Applications><Application><Seed>" + twenty + "</Seed><MovingFactor>7</MovingFactor></Application></Applications></Token></Tokens>", seeds.Options{}, 1},
		{"safeword", safeword("W1", "sccKey="+twenty+";sccMode=E;sccPwLen=6") +
			safeword("W2", "sccKey="+twenty+";sccMode=T;sccPwLen=6;sccTick=30;sccPrTime=2013/03/12 00:00:00") +
			safeword("W3", "sccKey="+long+";sccMode=T;sccPwLen=8;sccTick=60;sccPrTime=2013/03/12 00:00:00;crypto=HmacSHA256;"), seeds.Options{}, 3},
	} {
		r, err := im.Import(ctx, root, f.o, strings.NewReader(f.file))
		if err != nil || r.Created != f.want || !r.Published || r.Format != f.format {
			t.Fatalf("%s: %+v, %v", f.format, r, err)
		}
	}
	const y2k = "--start-time=2000-01-01 00:00:00 UTC"
	for serial, args := range map[string][]string{
		"ubhv00000002": {"-d8", "-c16", twenty}, "7654321": {"-c32", twenty}, "N1": {"-c7", twenty},
		"W1": {"-c0", twenty}, "W2": {"--totp", y2k, twenty}, "W3": {"--totp=sha256", "-d8", "-s60", y2k, long},
	} {
		user := "user-" + serial
		if _, err := core.AddUser(ctx, root, "", user); err != nil {
			t.Fatal(err)
		}
		if _, err := core.Assign(ctx, root, "", serial, user); err != nil {
			t.Fatal(err)
		}
		code := strings.TrimSpace(output(t, "", "oathtool", args...))
		r, err := core.Verify(ctx, root, tokens.Attempt{User: user, Code: code, Transport: "http"})
		if err != nil || !r.Accept || r.Serial != serial {
			t.Errorf("%s: oathtool's code is answered %+v, %v", serial, r, err)
		}
	}
}
