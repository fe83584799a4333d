package softkey

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

// lock is what CTAP 2.1 §6.5.5 says of wrong PINs: each costs a retry; three in a
// row, and the key must be plugged in anew; none left, and only a reset helps.
type lock struct {
	pin     string // "": none is set
	retries int
	inRow   int
}

// try is a PIN typed with a good key agreement.
func (l *lock) try(pin string) status {
	switch {
	case l.pin == "":
		return statusPINNotSet
	case l.retries == 0:
		return statusPINBlocked
	case l.inRow == pinMismatches:
		return statusPINAuthBlocked
	case pin == l.pin:
		l.retries, l.inRow = pinRetries, 0
		return statusOK
	}
	l.retries--
	l.inRow++
	switch {
	case l.retries == 0:
		return statusPINBlocked
	case l.inRow == pinMismatches:
		return statusPINAuthBlocked
	}
	return statusPINInvalid
}

// TestWrongPINsLockAsTheModelSays types PINs, in every way in which one can be
// typed, between power cycles and resets.
func TestWrongPINsLockAsTheModelSays(t *testing.T) {
	vendor, err := NewVendor("Test Keys")
	if err != nil {
		t.Fatal(err)
	}
	pins := rapid.SampledFrom([]string{"1234", "1234", "4321", "0000"})
	rapid.Check(t, func(rt *rapid.T) {
		k, err := New(Options{Vendor: vendor})
		if err != nil {
			rt.Fatal(err)
		}
		l := lock{retries: pinRetries}
		var done []string
		check := func(what string, got, want status) {
			done = append(done, what)
			if got != want {
				rt.Fatalf("%s: 0x%02x, want 0x%02x", strings.Join(done, ", "), byte(got), byte(want))
			}
		}
		protocol := rapid.IntRange(1, 2)
		typed := func(p *platform, more map[int]any) status {
			public, keys := p.agree()
			r := with(map[int]any{1: p.protocol, 3: public}, nil)
			for n, v := range more {
				if plain, ok := v.([]byte); ok {
					v = p.encrypt(keys, plain)
				}
				r[n] = v
			}
			if new, ok := r[5].([]byte); ok {
				old, _ := r[6].([]byte)
				r[4] = p.mac(keys.mac, new, old)
			}
			got, _ := p.run(cmdClientPIN, r)
			return got
		}
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				p, pin := &platform{t, k, protocol.Draw(rt, "protocol")}, pins.Draw(rt, "PIN")
				want := statusPINAuthInvalid
				if l.pin == "" {
					want, l = statusOK, lock{pin: pin, retries: pinRetries}
				}
				check("set "+pin, typed(p, map[int]any{2: subSetPIN, 5: pad(pin)}), want)
			},
			"token": func(rt *rapid.T) {
				p, pin := &platform{t, k, protocol.Draw(rt, "protocol")}, pins.Draw(rt, "PIN")
				more := map[int]any{2: subPINToken, 6: hashed(pin)}
				if rapid.Bool().Draw(rt, "permissions") {
					more[2], more[9] = subTokenByPIN, permitManage
				}
				check(fmt.Sprintf("type %s with protocol %d", pin, p.protocol), typed(p, more), l.try(pin))
			},
			"change": func(rt *rapid.T) {
				p, pin, new := &platform{t, k, protocol.Draw(rt, "protocol")}, pins.Draw(rt, "PIN"), pins.Draw(rt, "new")
				want := l.try(pin)
				if want == statusOK {
					l.pin = new
				}
				check("change "+pin+" to "+new, typed(p, map[int]any{2: subChangePIN, 5: pad(new), 6: hashed(pin)}), want)
			},
			"forge": func(rt *rapid.T) { // who cannot sign cannot guess, and costs nothing
				p := &platform{t, k, protocol.Draw(rt, "protocol")}
				public, keys := p.agree()
				r := map[int]any{1: p.protocol, 2: subChangePIN, 3: public, 4: p.mac(keys.aes[1:], nil), 5: p.encrypt(keys, pad("1234")), 6: p.encrypt(keys, hashed("1234"))}
				want := statusPINAuthInvalid
				switch {
				case l.pin == "":
					want = statusPINNotSet
				case l.retries == 0:
					want = statusPINBlocked
				case l.inRow == pinMismatches:
					want = statusPINAuthBlocked
				}
				got, _ := p.run(cmdClientPIN, r)
				check("forge", got, want)
			},
			"plug in anew": func(rt *rapid.T) {
				k.PowerCycle()
				l.inRow = 0
				check("plug in anew", statusOK, statusOK)
			},
			"reset": func(rt *rapid.T) {
				if !rapid.Bool().Draw(rt, "once in a while") {
					rt.Skip()
				}
				p := &platform{t, k, 2}
				got, _ := p.run(cmdReset, nil)
				l = lock{retries: pinRetries}
				check("reset", got, statusOK)
			},
			"": func(rt *rapid.T) {
				p := &platform{t, k, 2}
				_, m := p.run(cmdClientPIN, map[int]any{2: subPINRetries})
				var retries int
				var cycle bool
				if cbor.Unmarshal(m[3], &retries) != nil || cbor.Unmarshal(m[4], &cycle) != nil ||
					retries != l.retries || cycle != (l.inRow == pinMismatches) {
					rt.Fatalf("%s: %d retries are told, and a power cycle %v; want %+v", strings.Join(done, ", "), retries, cycle, l)
				}
			},
		})
	})
}

// FuzzAuthorised sends what only a platform with the right PIN can send: a PIN's
// plaintext to its decryption, and subcommands with parameters under a token.
func FuzzAuthorised(f *testing.F) {
	commands := []byte{cmdCredentialManagement, cmdConfig, cmdClientPIN, cmdGetAssertion}
	for _, parameters := range []map[int]any{
		{}, {1: dataHash}, {2: map[string]any{"id": dataHash, "type": "public-key"}}, {1: 6, 2: []string{"example.com"}, 3: true},
		{2: map[string]any{"id": dataHash}, 3: map[string]any{"id": []byte("alice"), "name": "a"}},
	} {
		b, err := encode(parameters)
		if err != nil {
			f.Fatal(err)
		}
		for _, subcommand := range []byte{1, 2, 3, 4, 6, 7} {
			f.Add(byte(0), subcommand, b, byte(2))
			f.Add(byte(1), subcommand, b, byte(1))
		}
	}
	f.Add(byte(2), byte(subChangePIN), pad("654321"), byte(2))
	f.Add(byte(2), byte(subTokenByPIN), hashed("1234"), byte(1))
	f.Add(byte(3), byte(0), make([]byte, 64), byte(2))
	vendor, err := NewVendor("Test Keys")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, cmd, subcommand byte, data []byte, protocol byte) {
		cmd = commands[int(cmd)%len(commands)]
		k, err := New(Options{Vendor: vendor, Algorithm: ES256, Capacity: 2, Serial: "1"})
		if err != nil {
			t.Fatal(err)
		}
		p := &platform{t, k, 1 + int(protocol)%2}
		p.setPIN("1234")
		made := p.want(statusOK, cmdMakeCredential, with(newMake("example.com", "alice", false), map[int]any{6: map[string]any{"hmac-secret": true}}))
		token := p.token("1234", permitMake, "example.com")
		p.want(statusOK, cmdMakeCredential, with(newMake("example.com", "bob", true), map[int]any{8: p.mac(token, dataHash), 9: p.protocol}))
		public, keys := p.agree()
		blocks := p.encrypt(keys, data[:len(data)/16*16])
		r := map[int]any{1: int(subcommand), 3: p.protocol}
		switch cmd {
		case cmdClientPIN:
			r = map[int]any{1: p.protocol, 2: int(subcommand), 3: public, 4: p.mac(keys.mac, blocks), 5: blocks}
			if subcommand == subChangePIN {
				r[6] = p.encrypt(keys, hashed("1234"))
				r[4] = p.mac(keys.mac, blocks, r[6].([]byte))
			} else if subcommand != subSetPIN {
				r[6], r[9] = blocks, permitManage
			}
		case cmdGetAssertion:
			var authData []byte
			if err := cbor.Unmarshal(made[2], &authData); err != nil {
				t.Fatal(err)
			}
			id := authData[55 : 55+(int(authData[53])<<8|int(authData[54]))]
			r = map[int]any{1: "example.com", 2: dataHash, 3: []any{map[string]any{"id": id, "type": "public-key"}},
				4: map[string]any{"hmac-secret": map[int]any{1: public, 2: blocks, 3: p.mac(keys.mac, blocks), 4: p.protocol}}}
		case cmdConfig, cmdCredentialManagement:
			message, permission := []byte{subcommand}, permitManage
			if cmd == cmdConfig {
				message, permission = append([]byte(strings.Repeat("\xff", 32)), cmd, subcommand), permitConfig
			}
			if cbor.Wellformed(data) == nil {
				r[2] = cbor.RawMessage(data)
				message = append(message, data...)
			}
			r[4] = p.mac(p.token("1234", permission, ""), message)
		}
		got, _ := p.run(cmd, r)
		switch got {
		case statusOther:
			t.Fatal("a fault of the key's own")
		case statusPINAuthInvalid:
			if cmd != cmdClientPIN { // set, or of no length that can be decrypted
				t.Fatal("a good token is refused")
			}
		}
		if k.device.pin.least < pinLeast || k.device.pin.least > pinMost || k.device.pin.length > pinMost || k.device.pin.length < pinLeast {
			t.Fatalf("the PIN's lengths are %+v", k.device.pin)
		}
	})
}
