package softkey

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// platform is the other side of the PIN protocols.
type platform struct {
	t        *testing.T
	k        *Key
	protocol int
}

func newPlatform(t *testing.T, o Options, protocol int) *platform {
	t.Helper()
	k, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &platform{t, k, protocol}
}

// run runs a command and answers its status and its CBOR map.
func (p *platform) run(cmd byte, parameters map[int]any) (status, map[int]cbor.RawMessage) {
	p.t.Helper()
	request := []byte{cmd}
	if parameters != nil {
		b, err := encode(parameters)
		if err != nil {
			p.t.Fatal(err)
		}
		request = append(request, b...)
	}
	answer := p.k.Command(context.Background(), request)
	var m map[int]cbor.RawMessage
	if len(answer) > 1 {
		if err := cbor.Unmarshal(answer[1:], &m); err != nil {
			p.t.Fatal(err)
		}
	}
	return status(answer[0]), m
}

// want runs a command that has to answer the status.
func (p *platform) want(s status, cmd byte, parameters map[int]any) map[int]cbor.RawMessage {
	p.t.Helper()
	got, m := p.run(cmd, parameters)
	if got != s {
		p.t.Errorf("command %02x %v answers 0x%02x, want 0x%02x", cmd, parameters, byte(got), byte(s))
	}
	return m
}

// agree does the key agreement: the platform's public key and the shared keys.
func (p *platform) agree() (map[int]any, *shared) {
	p.t.Helper()
	var theirs coseAgreement
	if err := cbor.Unmarshal(p.want(statusOK, cmdClientPIN, map[int]any{1: p.protocol, 2: subKeyAgreement})[1], &theirs); err != nil {
		p.t.Fatal(err)
	}
	mine, err := newAgreement(p.protocol)
	if err != nil {
		p.t.Fatal(err)
	}
	keys, err := mine.agree(&theirs)
	if err != nil {
		p.t.Fatal(err)
	}
	return mine.publicCOSE(), keys
}

func (p *platform) encrypt(keys *shared, plain []byte) []byte {
	p.t.Helper()
	b, err := keys.encrypt(plain)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *platform) mac(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, b := range parts {
		mac.Write(b)
	}
	if p.protocol == 1 {
		return mac.Sum(nil)[:16]
	}
	return mac.Sum(nil)
}

func pad(pin string) []byte { return append([]byte(pin), make([]byte, 64-len(pin))...) }

func hashed(pin string) []byte {
	sum := sha256.Sum256([]byte(pin))
	return sum[:16]
}

func (p *platform) setPIN(pin string) {
	p.t.Helper()
	public, keys := p.agree()
	encrypted := p.encrypt(keys, pad(pin))
	p.want(statusOK, cmdClientPIN, map[int]any{1: p.protocol, 2: subSetPIN, 3: public, 4: p.mac(keys.mac, encrypted), 5: encrypted})
}

// token gets a PIN token.
func (p *platform) token(pin string, permissions int, rpID string) []byte {
	p.t.Helper()
	public, keys := p.agree()
	r := map[int]any{1: p.protocol, 2: subTokenByPIN, 3: public, 6: p.encrypt(keys, hashed(pin)), 9: permissions}
	if rpID != "" {
		r[10] = rpID
	}
	var encrypted []byte
	if err := cbor.Unmarshal(p.want(statusOK, cmdClientPIN, r)[2], &encrypted); err != nil {
		p.t.Fatal(err)
	}
	token, err := keys.decrypt(encrypted)
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

var dataHash = bytes.Repeat([]byte{7}, 32)

func newMake(rpID, user string, resident bool) map[int]any {
	return map[int]any{
		1: dataHash, 2: map[string]any{"id": rpID}, 3: map[string]any{"id": []byte(user), "name": user},
		4: []any{map[string]any{"alg": -7, "type": "public-key"}}, 7: map[string]any{"rk": resident},
	}
}

// with is a request with further parameters.
func with(request map[int]any, more map[int]any) map[int]any {
	out := map[int]any{}
	for _, m := range []map[int]any{request, more} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func TestAMalformedCommandHasItsStatus(t *testing.T) {
	p := newPlatform(t, Options{}, 2)
	full := newMake("example.com", "alice", false)
	without := func(n int) map[int]any {
		m := with(full, nil)
		delete(m, n)
		return m
	}
	listed := []any{}
	for range p.k.o.MaxListed + 1 {
		listed = append(listed, map[string]any{"id": dataHash, "type": "public-key"})
	}
	for name, c := range map[string]struct {
		cmd  byte
		r    map[int]any
		want status
	}{
		"unknown command":       {0x55, nil, statusInvalidCommand},
		"no parameters":         {cmdMakeCredential, nil, statusInvalidCBOR},
		"no hash":               {cmdMakeCredential, without(1), statusMissingParameter},
		"no relying party":      {cmdMakeCredential, without(2), statusMissingParameter},
		"no party's ID":         {cmdMakeCredential, with(full, map[int]any{2: map[string]any{"name": "x"}}), statusMissingParameter},
		"no user":               {cmdMakeCredential, without(3), statusMissingParameter},
		"no algorithms":         {cmdMakeCredential, without(4), statusMissingParameter},
		"a hash of another":     {cmdMakeCredential, with(full, map[int]any{1: "text"}), statusCBORUnexpectedType},
		"a short hash":          {cmdMakeCredential, with(full, map[int]any{1: dataHash[1:]}), statusInvalidLength},
		"a long user ID":        {cmdMakeCredential, with(full, map[int]any{3: map[string]any{"id": make([]byte, 65)}}), statusInvalidLength},
		"a long list":           {cmdMakeCredential, with(full, map[int]any{5: listed}), statusLimitExceeded},
		"unknown algorithms":    {cmdMakeCredential, with(full, map[int]any{4: []any{map[string]any{"alg": -9, "type": "public-key"}}}), statusUnsupportedAlgorithm},
		"no touch":              {cmdMakeCredential, with(full, map[int]any{7: map[string]any{"up": false}}), statusInvalidOption},
		"no verification here":  {cmdMakeCredential, with(full, map[int]any{7: map[string]any{"uv": true}}), statusInvalidOption},
		"no enterprise":         {cmdMakeCredential, with(full, map[int]any{10: 1}), statusInvalidParameter},
		"an odd enterprise":     {cmdMakeCredential, with(full, map[int]any{10: 3}), statusInvalidOption},
		"an odd protection":     {cmdMakeCredential, with(full, map[int]any{6: map[string]any{"credProtect": 4}}), statusInvalidOption},
		"a token of nothing":    {cmdMakeCredential, with(full, map[int]any{8: dataHash, 9: 2}), statusPINAuthInvalid},
		"a token of no kind":    {cmdMakeCredential, with(full, map[int]any{8: dataHash}), statusMissingParameter},
		"a token of odd kind":   {cmdMakeCredential, with(full, map[int]any{8: dataHash, 9: 3}), statusInvalidParameter},
		"which key is touched":  {cmdMakeCredential, with(full, map[int]any{8: []byte{}, 9: 2}), statusPINNotSet},
		"assert: no hash":       {cmdGetAssertion, map[int]any{1: "example.com"}, statusMissingParameter},
		"assert: rk":            {cmdGetAssertion, map[int]any{1: "example.com", 2: dataHash, 5: map[string]any{"rk": true}}, statusUnsupportedOption},
		"assert: a long list":   {cmdGetAssertion, map[int]any{1: "example.com", 2: dataHash, 3: listed}, statusLimitExceeded},
		"assert: nothing":       {cmdGetAssertion, map[int]any{1: "example.com", 2: dataHash}, statusNoCredentials},
		"next of nothing":       {cmdGetNextAssertion, nil, statusNotAllowed},
		"PIN: nothing":          {cmdClientPIN, map[int]any{}, statusMissingParameter},
		"PIN: no such":          {cmdClientPIN, map[int]any{1: 2, 2: 99}, statusInvalidSubcommand},
		"PIN: no protocol":      {cmdClientPIN, map[int]any{2: subKeyAgreement}, statusMissingParameter},
		"PIN: protocol 3":       {cmdClientPIN, map[int]any{1: 3, 2: subKeyAgreement}, statusInvalidParameter},
		"PIN: no key":           {cmdClientPIN, map[int]any{1: 2, 2: subSetPIN}, statusMissingParameter},
		"PIN: off the curve":    {cmdClientPIN, map[int]any{1: 2, 2: subSetPIN, 3: map[int]any{1: 2, 3: -25, -1: 1, -2: dataHash, -3: dataHash}}, statusInvalidParameter},
		"PIN: no UV":            {cmdClientPIN, map[int]any{2: subUVRetries}, statusInvalidSubcommand},
		"manage: nothing":       {cmdCredentialManagement, map[int]any{}, statusMissingParameter},
		"manage: no such":       {cmdCredentialManagement, map[int]any{1: 99}, statusInvalidSubcommand},
		"manage: no token":      {cmdCredentialManagement, map[int]any{1: subMetadata}, statusPUATRequired},
		"manage: wrong token":   {cmdCredentialManagement, map[int]any{1: subMetadata, 3: 2, 4: dataHash}, statusPINAuthInvalid},
		"manage: next party":    {cmdCredentialManagement, map[int]any{1: subPartiesNext}, statusNotAllowed},
		"manage: next of party": {cmdCredentialManagement, map[int]any{1: subListNext}, statusNotAllowed},
		"config: nothing":       {cmdConfig, map[int]any{}, statusMissingParameter},
		"config: no such":       {cmdConfig, map[int]any{1: 99}, statusInvalidSubcommand},
		"config: no serial":     {cmdConfig, map[int]any{1: subEnterprise}, statusInvalidSubcommand},
		"config: no PIN":        {cmdConfig, map[int]any{1: subLeastPIN, 2: map[int]any{3: true}}, statusPINNotSet},
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			p.want(c.want, c.cmd, c.r)
		})
	}
	p.t = t
	for name, request := range map[string][]byte{
		"nothing": {}, "too much": make([]byte, maxMessage+1), "nested": append([]byte{cmdMakeCredential, 0xa1, 1}, bytes.Repeat([]byte{0x81}, 100)...),
		"twice": {cmdClientPIN, 0xa2, 2, 1, 2, 1}, "a tag": {cmdClientPIN, 0xa1, 2, 0xc1, 1}, "endless": {cmdClientPIN, 0xbf, 2, 1, 0xff}, "more": {cmdClientPIN, 0xa1, 2, 1, 0},
	} {
		if got := p.k.Command(t.Context(), request); len(got) != 1 || got[0] == byte(statusOK) || got[0] == byte(statusOther) {
			t.Errorf("%s is answered with %x", name, got)
		}
	}
	p.want(statusOK, cmdMakeCredential, full)
}

func TestATokenIsGoodForWhatItPermits(t *testing.T) {
	for _, protocol := range []int{1, 2} {
		p := newPlatform(t, Options{}, protocol)
		p.setPIN("1234")
		// A PIN that is set is not set again, and a changed hash is noticed.
		public, keys := p.agree()
		encrypted := p.encrypt(keys, pad("4321"))
		p.want(statusPINAuthInvalid, cmdClientPIN, map[int]any{1: protocol, 2: subSetPIN, 3: public, 4: p.mac(keys.mac, encrypted), 5: encrypted})
		p.want(statusPINAuthInvalid, cmdClientPIN, map[int]any{1: protocol, 2: subChangePIN, 3: public, 4: p.mac(keys.mac, encrypted), 5: encrypted, 6: p.encrypt(keys, hashed("1234"))})
		p.want(statusPUATRequired, cmdMakeCredential, newMake("example.com", "alice", true))
		p.want(statusPINInvalid, cmdMakeCredential, with(newMake("example.com", "alice", true), map[int]any{8: []byte{}, 9: protocol}))

		made := func(token []byte, rpID string, want status) {
			t.Helper()
			p.want(want, cmdMakeCredential, with(newMake(rpID, "alice", true), map[int]any{8: p.mac(token, dataHash), 9: protocol}))
		}
		token := p.token("1234", permitMake, "example.com")
		made(token, "example.org", statusPINAuthInvalid)
		made(token, "example.com", statusOK)
		made(token, "example.com", statusPINAuthInvalid) // its permission was used
		made(p.token("1234", permitAssert, "example.com"), "example.com", statusPINAuthInvalid)
		made(p.token("1234", permitManage, ""), "example.com", statusPINAuthInvalid)
		old := p.token("1234", permitMake, "example.com")
		p.token("1234", permitMake, "example.com")
		made(old, "example.com", statusPINAuthInvalid) // there is a newer one
		token = p.token("1234", permitMake, "example.com")
		p.k.PowerCycle()
		made(token, "example.com", statusPINAuthInvalid)

		for name, c := range map[string]struct {
			more map[int]any
			want status
		}{
			"no permissions":       {nil, statusMissingParameter},
			"none":                 {map[int]any{9: 0}, statusInvalidParameter},
			"fingerprints":         {map[int]any{9: 0x08}, statusUnauthorizedPermission},
			"make for nobody":      {map[int]any{9: permitMake}, statusMissingParameter},
			"a PIN of odd length":  {map[int]any{6: []byte("odd"), 9: permitManage}, statusPINInvalid},
			"a PIN that is no PIN": {map[int]any{6: bytes.Repeat([]byte{1}, 32), 9: permitManage}, statusPINInvalid},
		} {
			public, keys := p.agree()
			r := with(map[int]any{1: protocol, 2: subTokenByPIN, 3: public, 6: p.encrypt(keys, hashed("1234"))}, c.more)
			if got, _ := p.run(cmdClientPIN, r); got != c.want {
				t.Errorf("protocol %d, %s: 0x%02x, want 0x%02x", protocol, name, byte(got), byte(c.want))
			}
		}
		// After a wrong PIN the same key agreement is no good for another guess.
		p.k.PowerCycle()
		public, keys = p.agree()
		p.want(statusPINInvalid, cmdClientPIN, map[int]any{1: protocol, 2: subPINToken, 3: public, 6: p.encrypt(keys, hashed("0000"))})
		p.want(statusPINInvalid, cmdClientPIN, map[int]any{1: protocol, 2: subPINToken, 3: public, 6: p.encrypt(keys, hashed("1234"))})
	}
}

func TestATokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform(t, Options{}, 2)
		p.setPIN("1234")
		fresh := func() map[int]any {
			return map[int]any{1: subMetadata, 3: 2, 4: p.mac(p.token("1234", permitManage, ""), []byte{subMetadata})}
		}
		r := fresh()
		time.Sleep(tokenFirst - time.Second)
		p.want(statusOK, cmdCredentialManagement, r)
		time.Sleep(tokenLife - tokenFirst)
		p.want(statusOK, cmdCredentialManagement, r)
		time.Sleep(2 * time.Second)
		p.want(statusPINAuthInvalid, cmdCredentialManagement, r)
		r = fresh() // is not used soon
		time.Sleep(tokenFirst + time.Second)
		p.want(statusPINAuthInvalid, cmdCredentialManagement, r)
	})
}

func TestAPINHasFourToSixtyThreeBytes(t *testing.T) {
	for pin, want := range map[string]status{
		"": statusPINPolicyViolation, "123": statusPINPolicyViolation, "1234": statusOK, strings.Repeat("1", 63): statusOK,
		strings.Repeat("1", 64): statusPINPolicyViolation, "ab\xff\xfe": statusPINPolicyViolation, "äöüß": statusOK, "äöü": statusPINPolicyViolation,
	} {
		p := newPlatform(t, Options{}, 2)
		public, keys := p.agree()
		encrypted := p.encrypt(keys, pad(pin))
		r := map[int]any{1: 2, 2: subSetPIN, 3: public, 4: p.mac(keys.mac, encrypted), 5: encrypted}
		if got, _ := p.run(cmdClientPIN, r); got != want {
			t.Errorf("a PIN of %d bytes: 0x%02x, want 0x%02x", len(pin), byte(got), byte(want))
		}
	}
	p := newPlatform(t, Options{}, 1)
	public, keys := p.agree()
	for _, n := range []int{16, 48, 80} {
		encrypted := p.encrypt(keys, make([]byte, n))
		p.want(statusInvalidParameter, cmdClientPIN, map[int]any{1: 1, 2: subSetPIN, 3: public, 4: p.mac(keys.mac, encrypted), 5: encrypted})
	}
}

func TestNextAssertionsComeInTurnAndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform(t, Options{}, 2)
		for _, user := range []string{"alice", "bob", "carol"} {
			p.want(statusOK, cmdMakeCredential, newMake("example.com", user, true))
		}
		ask := map[int]any{1: "example.com", 2: dataHash}
		user := func(m map[int]cbor.RawMessage) string {
			var u userEntity
			if err := cbor.Unmarshal(m[4], &u); err != nil {
				t.Fatal(err)
			}
			if u.Name != "" {
				t.Errorf("an unverified user's name %q is told", u.Name)
			}
			return string(u.ID)
		}
		m := p.want(statusOK, cmdGetAssertion, ask)
		if user(m) != "carol" || !bytes.Equal(m[5], []byte{3}) {
			t.Errorf("first %s of %x, want carol of 3", user(m), m[5])
		}
		for _, want := range []string{"bob", "alice"} {
			time.Sleep(nextTimeout - time.Second)
			if got := user(p.want(statusOK, cmdGetNextAssertion, nil)); got != want {
				t.Errorf("next %s, want %s", got, want)
			}
		}
		p.want(statusNotAllowed, cmdGetNextAssertion, nil)
		p.want(statusOK, cmdGetAssertion, ask)
		time.Sleep(nextTimeout + time.Second)
		p.want(statusNotAllowed, cmdGetNextAssertion, nil)
		p.want(statusOK, cmdGetAssertion, ask)
		p.want(statusOK, cmdGetInfo, nil) // another command between ends it
		p.want(statusNotAllowed, cmdGetNextAssertion, nil)
	})
}

func TestProtectedCredentialsHideFromTheUnverified(t *testing.T) {
	p := newPlatform(t, Options{}, 2)
	ids := map[int][]byte{}
	for level := 1; level <= 3; level++ {
		m := p.want(statusOK, cmdMakeCredential, with(newMake("example.com", strings.Repeat("u", level), true), map[int]any{6: map[string]any{"credProtect": level}}))
		var authData []byte
		if err := cbor.Unmarshal(m[2], &authData); err != nil {
			t.Fatal(err)
		}
		n := int(authData[53])<<8 | int(authData[54])
		ids[level] = authData[55 : 55+n]
	}
	p.setPIN("1234")
	for level, id := range ids {
		named := map[int]any{1: "example.com", 2: dataHash, 3: []any{map[string]any{"id": id, "type": "public-key"}}}
		want := statusOK
		if level == 3 {
			want = statusNoCredentials
		}
		p.want(want, cmdGetAssertion, named)
		token := p.token("1234", permitAssert, "example.com")
		p.want(statusOK, cmdGetAssertion, with(named, map[int]any{6: p.mac(token, dataHash), 7: 2}))
		p.want(statusNoCredentials, cmdGetAssertion, with(named, map[int]any{1: "example.org"}))
		p.want(statusOK, cmdMakeCredential, newMake("example.net", "x", false))
		excluded := statusCredentialExcluded
		if level == 3 { // a key does not tell of it
			excluded = statusOK
		}
		p.want(excluded, cmdMakeCredential, with(newMake("example.com", "z", false), map[int]any{5: named[3]}))
	}
	if m := p.want(statusOK, cmdGetAssertion, map[int]any{1: "example.com", 2: dataHash}); m[5] != nil {
		t.Errorf("%x unprotected passkeys, want one", m[5])
	}
	token := p.token("1234", permitAssert, "example.com")
	m := p.want(statusOK, cmdGetAssertion, map[int]any{1: "example.com", 2: dataHash, 6: p.mac(token, dataHash), 7: 2})
	if !bytes.Equal(m[5], []byte{3}) {
		t.Errorf("%x passkeys for a verified user, want 3", m[5])
	}
}

func TestVerificationByTheKeyGivesATokenToo(t *testing.T) {
	p := newPlatform(t, Options{UserVerification: true}, 2)
	p.want(statusOK, cmdClientPIN, map[int]any{2: subUVRetries})
	p.want(statusPUATRequired, cmdMakeCredential, newMake("example.com", "alice", true))
	public, keys := p.agree()
	m := p.want(statusOK, cmdClientPIN, map[int]any{1: 2, 2: subTokenByUV, 3: public, 9: permitMake, 10: "example.com"})
	var encrypted []byte
	if err := cbor.Unmarshal(m[2], &encrypted); err != nil {
		t.Fatal(err)
	}
	token, err := keys.decrypt(encrypted)
	if err != nil {
		t.Fatal(err)
	}
	p.want(statusOK, cmdMakeCredential, with(newMake("example.com", "alice", true), map[int]any{8: p.mac(token, dataHash), 9: 2}))
	unable := newPlatform(t, Options{}, 2)
	public, _ = unable.agree()
	unable.want(statusNotAllowed, cmdClientPIN, map[int]any{1: 2, 2: subTokenByUV, 3: public, 9: permitMake, 10: "example.com"})
}

func TestAFullKeySaysSo(t *testing.T) {
	p := newPlatform(t, Options{Capacity: 2}, 2)
	p.want(statusOK, cmdMakeCredential, newMake("example.com", "alice", true))
	p.want(statusOK, cmdMakeCredential, newMake("example.com", "bob", true))
	p.want(statusKeyStoreFull, cmdMakeCredential, newMake("example.com", "carol", true))
	p.want(statusOK, cmdMakeCredential, newMake("example.com", "bob", true)) // in place of the old one
	p.want(statusOK, cmdMakeCredential, newMake("example.com", "carol", false))
	p.want(statusOK, cmdReset, nil)
	p.want(statusOK, cmdMakeCredential, newMake("example.com", "carol", true))
}

func TestLongNamesAreCutBetweenCharacters(t *testing.T) {
	for in, want := range map[string]int{"alice": 5, strings.Repeat("a", 65): 64, strings.Repeat("ä", 33): 64, "a" + strings.Repeat("ä", 33): 63, strings.Repeat("€", 22): 63} {
		if got := shorten(in); len(got) != want || !strings.HasPrefix(in, got) {
			t.Errorf("%d bytes are cut to %d, want %d", len(in), len(got), want)
		}
	}
}

func TestACloneHasThePINToo(t *testing.T) {
	p := newPlatform(t, Options{}, 2)
	p.setPIN("1234")
	clone := &platform{t, p.k.Clone(), 2}
	if len(clone.token("1234", permitManage, "")) != 32 {
		t.Error("no token")
	}
	if p.k.AAGUID() != DefaultAAGUID || clone.k.Vendor() != p.k.Vendor() || clone.k.Vendor().Intermediate().CheckSignatureFrom(p.k.Root()) != nil {
		t.Error("the clone is of another model or vendor")
	}
}

func TestOptionsThatDoNotGoTogetherAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"nine retries":      {PINRetries: 9},
		"no retry":          {PINRetries: -1},
		"a PIN of three":    {MinPINLength: 3},
		"a PIN of 64":       {MinPINLength: 64},
		"an endless list":   {MaxListed: mostElements + 1},
		"less than no room": {Capacity: -1},
		"a reset before":    {ResetWithin: -time.Second},
		"an odd model":      {AAGUID: "7761746"},
		"an odd algorithm":  {Algorithm: -9},
		"an odd format":     {Format: "packet"},
		"EdDSA in a TPM":    {Format: TPM, Algorithm: EdDSA},
		"U2F with RSA":      {Format: U2F, Algorithm: RS256},
		"a serial of none":  {Format: None, Serial: "1"},
	} {
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "softkey: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// configured sends a setting with a fresh token.
func (p *platform) configured(want status, pin string, subcommand int, parameters map[int]any) {
	p.t.Helper()
	r := map[int]any{1: subcommand, 3: p.protocol}
	message := append(bytes.Repeat([]byte{0xff}, 32), cmdConfig, byte(subcommand))
	if parameters != nil {
		b, err := encode(parameters)
		if err != nil {
			p.t.Fatal(err)
		}
		r[2] = cbor.RawMessage(b)
		message = append(message, b...)
	}
	r[4] = p.mac(p.token(pin, permitConfig, ""), message)
	p.want(want, cmdConfig, r)
}

func TestTheLeastLengthOfAPINIsToldToWhomItConcerns(t *testing.T) {
	for _, protocol := range []int{1, 2} {
		p := newPlatform(t, Options{MinPINLength: 5}, protocol)
		told := func(rpID string) any {
			t.Helper()
			var authData []byte
			m := p.want(statusOK, cmdMakeCredential, with(newMake(rpID, "alice", false), map[int]any{6: map[string]any{"minPinLength": true}}))
			if err := cbor.Unmarshal(m[2], &authData); err != nil {
				t.Fatal(err)
			}
			if authData[32]&flagED == 0 {
				return nil
			}
			rest := authData[55+(int(authData[53])<<8|int(authData[54])):]
			var public, extensions map[any]any
			rest, err := cbor.UnmarshalFirst(rest, &public)
			if err != nil {
				t.Fatal(err)
			}
			if err := cbor.Unmarshal(rest, &extensions); err != nil {
				t.Fatal(err)
			}
			return extensions["minPinLength"]
		}
		p.setPIN("12345")
		if got := told("example.com"); got != nil {
			t.Errorf("nobody is to be told, example.com is told %v", got)
		}
		p.configured(statusOK, "12345", subLeastPIN, map[int]any{2: []string{"example.com", "example.net"}})
		if got := told("example.com"); got != uint64(5) {
			t.Errorf("example.com is told %v, want 5", got)
		}
		if got := told("example.org"); got != nil {
			t.Errorf("example.org is told %v", got)
		}
		many := make([]string, maxInformed+1)
		p.configured(statusKeyStoreFull, "12345", subLeastPIN, map[int]any{1: 7, 2: many, 3: true})
		p.configured(statusPINPolicyViolation, "12345", subLeastPIN, map[int]any{1: 4, 2: []string{"example.org"}})
		p.configured(statusPINPolicyViolation, "12345", subLeastPIN, map[int]any{1: 64})
		if got := told("example.com"); got != uint64(5) { // of what was refused nothing is done
			t.Errorf("example.com is told %v, want 5", got)
		}
		// A PIN that is too short now is good for being changed only.
		p.configured(statusOK, "12345", subLeastPIN, map[int]any{1: 6})
		if got := told("example.net"); got != uint64(6) {
			t.Errorf("example.net is told %v, want 6", got)
		}
		for subcommand, want := range map[int]status{subPINToken: statusPINInvalid, subTokenByPIN: statusPINPolicyViolation} {
			public, keys := p.agree()
			r := map[int]any{1: protocol, 2: subcommand, 3: public, 6: p.encrypt(keys, hashed("12345"))}
			if subcommand == subTokenByPIN {
				r[9] = permitConfig
			}
			p.want(want, cmdClientPIN, r)
		}
		p.want(statusOK, cmdReset, nil)
		if got := told("example.com"); got != nil || p.k.device.pin.least != 5 {
			t.Errorf("after a reset example.com is told %v, and a PIN has at least %d characters", got, p.k.device.pin.least)
		}
	}
}

func TestASettingThatIsRefusedChangesNothing(t *testing.T) {
	p := newPlatform(t, Options{}, 2)
	p.want(statusPINNotSet, cmdConfig, map[int]any{1: subLeastPIN, 2: map[int]any{1: 8, 2: []string{"example.com"}, 3: true}})
	if pin := p.k.device.pin; pin.least != pinLeast || pin.informed != nil || pin.change {
		t.Errorf("a refused setting leaves %+v", pin)
	}
}

func TestAKeyIsResetSoonAfterItWasPluggedIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlatform(t, Options{ResetWithin: 10 * time.Second}, 2)
		p.setPIN("1234")
		time.Sleep(9 * time.Second)
		p.want(statusOK, cmdReset, nil)
		time.Sleep(2 * time.Second)
		p.want(statusNotAllowed, cmdReset, nil) // the reset did not plug it in anew
		p.k.PowerCycle()
		p.want(statusOK, cmdReset, nil)
	})
}

func TestTheFirstWrongPINsBlockAKeyOfFewRetries(t *testing.T) {
	p := newPlatform(t, Options{PINRetries: 2}, 2)
	p.setPIN("1234")
	guess := func(pin string, want status) {
		t.Helper()
		public, keys := p.agree()
		p.want(want, cmdClientPIN, map[int]any{1: 2, 2: subTokenByPIN, 3: public, 6: p.encrypt(keys, hashed(pin)), 9: permitManage})
	}
	guess("0000", statusPINInvalid)
	guess("1234", statusOK)
	guess("0000", statusPINInvalid)
	guess("0000", statusPINBlocked)
	p.k.PowerCycle()
	guess("1234", statusPINBlocked)
	p.want(statusOK, cmdReset, nil)
	p.setPIN("4321")
	guess("4321", statusOK)
}

// TestALongListIsOneMessage has lists as long as the key says that it takes: the
// credential that it holds is found, wherever in them it stands.
func TestALongListIsOneMessage(t *testing.T) {
	p := newPlatform(t, Options{}, 2)
	m := p.want(statusOK, cmdMakeCredential, newMake("example.com", "alice", false))
	var authData []byte
	if err := cbor.Unmarshal(m[2], &authData); err != nil {
		t.Fatal(err)
	}
	held := authData[55 : 55+(int(authData[53])<<8|int(authData[54]))]
	for _, at := range []int{0, p.k.o.MaxListed / 2, p.k.o.MaxListed - 1} {
		var listed []any
		for i := range p.k.o.MaxListed {
			id := bytes.Repeat([]byte{byte(i)}, len(held))
			if i == at {
				id = held
			}
			listed = append(listed, map[string]any{"id": id, "type": "public-key"})
		}
		p.want(statusCredentialExcluded, cmdMakeCredential, with(newMake("example.com", "bob", false), map[int]any{5: listed}))
		p.want(statusOK, cmdGetAssertion, map[int]any{1: "example.com", 2: dataHash, 3: listed})
		listed[at].(map[string]any)["type"] = "password"
		p.want(statusOK, cmdMakeCredential, with(newMake("example.com", "bob", false), map[int]any{5: listed}))
		p.want(statusNoCredentials, cmdGetAssertion, map[int]any{1: "example.com", 2: dataHash, 3: listed})
	}
}
