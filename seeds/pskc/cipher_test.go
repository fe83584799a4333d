package pskc

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"testing"
)

// The vectors of RFC 3713, appendix A.
func TestCamelliaHasTheRFCsValues(t *testing.T) {
	plain := mustHex("0123456789abcdeffedcba9876543210")
	for key, want := range map[string]string{
		"0123456789abcdeffedcba9876543210":                                 "67673138549669730857065648eabe43",
		"0123456789abcdeffedcba98765432100011223344556677":                 "b4993401b3e996f84ee5cee7d79b09b9",
		"0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff": "9acc237dff16d76c20ef7c919e3a7509",
	} {
		c, err := newCamellia(mustHex(key))
		if err != nil {
			t.Fatal(err)
		}
		var got, back [16]byte
		c.Encrypt(got[:], plain)
		c.Decrypt(back[:], got[:])
		if hex.EncodeToString(got[:]) != want || !bytes.Equal(back[:], plain) {
			t.Errorf("key of %d bytes: %x and back %x, want %s", len(key)/2, got, back, want)
		}
	}
	if _, err := newCamellia(make([]byte, 17)); err == nil {
		t.Error("a key of 17 bytes is taken")
	}
}

// The vectors of RFC 3394, section 4, and RFC 5649, section 6.
func TestKeyWrapHasTheRFCsValues(t *testing.T) {
	const key256 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	for _, c := range []struct{ key, wrapped, want string }{
		{key256[:32], "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5", "00112233445566778899aabbccddeeff"},
		{key256[:48], "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d", "00112233445566778899aabbccddeeff"},
		{key256, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21", "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f"},
		{"5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a", "c37b7e6492584340bed12207808941155068f738"},
		{"5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "afbeb0f07dfbf5419200f2ccb50bb24f", "466f7250617369"},
	} {
		block, err := aes.NewCipher(mustHex(c.key))
		if err != nil {
			t.Fatal(err)
		}
		got, ok := unwrapAES(block, mustHex(c.wrapped))
		if !ok || hex.EncodeToString(got) != c.want {
			t.Errorf("%s: %x, %v", c.wrapped, got, ok)
		}
		for i := range mustHex(c.wrapped) {
			broken := mustHex(c.wrapped)
			broken[i] ^= 1
			if _, ok := unwrapAES(block, broken); ok {
				t.Errorf("%s: byte %d may be changed", c.wrapped, i)
			}
		}
	}
}

// What is of no possible length is refused, and does not panic.
func TestCiphertextOfAnyLengthIsSafeToOpen(t *testing.T) {
	for name, a := range algorithms {
		if a.mode == rsaWrap {
			continue
		}
		for _, length := range a.keys {
			block, err := a.block(make([]byte, length))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for n := range 100 {
				if a.mode == cbc { // zeros need not be padded wrongly
					a.open(block, make([]byte, n))
				} else if _, ok := a.open(block, make([]byte, n)); ok {
					t.Errorf("%s: %d zeros are taken for a value", name, n)
				}
			}
		}
	}
}

func TestCBCPaddingMayHoldAnythingButItsLength(t *testing.T) {
	block, err := aes.NewCipher(mustHex(figureKey))
	if err != nil {
		t.Fatal(err)
	}
	for last, want := range map[byte]int{0: -1, 1: 15, 7: 9, 16: 0, 17: -1, 255: -1} {
		text := bytes.Repeat([]byte{0xee}, 16)
		text[15] = last
		value := make([]byte, 32)
		cipher.NewCBCEncrypter(block, value[:16]).CryptBlocks(value[16:], text)
		got, ok := openCBC(block, value)
		if ok != (want >= 0) || ok && len(got) != want {
			t.Errorf("padding of %d: %d bytes, %v", last, len(got), ok)
		}
	}
}
