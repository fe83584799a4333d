package pkcs11

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"watchword/hsm"
)

// vectors are RFC 4226, appendix D, and RFC 6238, appendix B, with the codes as
// the RFCs print them.
var vectors = []struct {
	name   string
	hash   hsm.Hash
	seed   string
	factor []uint64
	codes  []uint32
	mod    uint32
}{
	{"RFC 4226 SHA-1", hsm.SHA1, "12345678901234567890",
		[]uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
		[]uint32{755224, 287082, 359152, 969429, 338314, 254676, 287922, 162583, 399871, 520489}, 1e6},
	{"RFC 6238 SHA-1", hsm.SHA1, "12345678901234567890",
		[]uint64{0x1, 0x23523EC, 0x23523ED, 0x273EF07, 0x3F940AA, 0x27BC86AA},
		[]uint32{94287082, 7081804, 14050471, 89005924, 69279037, 65353130}, 1e8},
	{"RFC 6238 SHA-256", hsm.SHA256, "12345678901234567890123456789012",
		[]uint64{0x1, 0x23523EC, 0x23523ED, 0x273EF07, 0x3F940AA, 0x27BC86AA},
		[]uint32{46119246, 68084774, 67062674, 91819424, 90698825, 77737706}, 1e8},
	{"RFC 6238 SHA-512", hsm.SHA512, "1234567890123456789012345678901234567890123456789012345678901234",
		[]uint64{0x1, 0x23523EC, 0x23523ED, 0x273EF07, 0x3F940AA, 0x27BC86AA},
		[]uint32{90693936, 25091201, 99943326, 93441116, 38618901, 47863826}, 1e8},
}

// SelfTest runs the RFCs' vectors through Wrap, MAC and HMAC as a seed would
// go, and a block of FIPS 197 as a Yubico OTP would, checks that an altered binding is refused, and that Seal and Sign work.
func (k *Keystore) SelfTest(ctx context.Context) error {
	if err := k.selfTest(ctx); err != nil {
		return fmt.Errorf("HSM self-test: %w", err)
	}
	return nil
}

func (k *Keystore) selfTest(ctx context.Context) error {
	var seeds []hsm.Seed
	for _, v := range vectors {
		seeds = append(seeds, hsm.Seed{Hash: v.hash, Bytes: []byte(v.seed)})
	}
	wrapped, err := k.Wrap(ctx, seeds)
	if err != nil {
		return err
	}
	var jobs []*hsm.Job
	for i, v := range vectors {
		s := &hsm.Sealed{Wrapped: wrapped[i], Row: []byte("self-test " + v.name)}
		mac, err := k.MAC(ctx, hsm.KeyBinding, s.Message())
		if err != nil {
			return err
		}
		s.Binding = mac[0]
		jobs = append(jobs, &hsm.Job{Key: s, Factors: v.factor})
	}
	altered := *jobs[0].Key
	altered.Binding = bytes.Clone(altered.Binding)
	altered.Binding[0] ^= 1
	jobs = append(jobs, &hsm.Job{Key: &altered, Factors: []uint64{0}})
	if err := k.HMAC(ctx, jobs); err != nil {
		return err
	}
	for i, v := range vectors {
		if err := jobs[i].Err; err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if len(jobs[i].MACs) != len(v.factor) {
			return fmt.Errorf("%s: %d HMACs for %d factors", v.name, len(jobs[i].MACs), len(v.factor))
		}
		for n, mac := range jobs[i].MACs {
			if truncate(mac)%v.mod != v.codes[n] {
				return fmt.Errorf("%s: the HSM computes another code for factor %d", v.name, v.factor[n])
			}
		}
	}
	if last := jobs[len(vectors)]; !errors.Is(last.Err, hsm.ErrTampered) || last.MACs != nil {
		return fmt.Errorf("a seed with an altered binding was not refused (%v)", last.Err)
	}

	if err := k.testAES(ctx); err != nil {
		return err
	}
	sealed, err := k.Seal(ctx, []byte("secret"), []byte("self-test"))
	if err != nil {
		return err
	}
	if plain, err := k.Open(ctx, sealed, []byte("self-test")); err != nil {
		return err
	} else if string(plain) != "secret" {
		return fmt.Errorf("AES-GCM does not give back what it was given")
	}
	if _, err := k.Open(ctx, sealed, []byte("other")); !errors.Is(err, hsm.ErrTampered) {
		return fmt.Errorf("a secret in another context was not refused (%v)", err)
	}
	_, err = k.Sign(ctx, make([]byte, 32))
	return err
}

// testAES decrypts the example of FIPS 197, appendix C.1, under a key that went
// the way of a token's. An HSM without AES-ECB serves all other tokens.
func (k *Keystore) testAES(ctx context.Context) error {
	g, err := k.current(ctx)
	if err != nil {
		return err
	}
	if !g.profile.ecb {
		k.log.Info("hsm: no CKM_AES_ECB (0x1081): tokens that make Yubico OTPs cannot be verified with it")
		return nil
	}
	wrapped, err := k.Wrap(ctx, []hsm.Seed{{Hash: hsm.AES128, Bytes: unhex("000102030405060708090a0b0c0d0e0f")}})
	if err != nil {
		return err
	}
	s := &hsm.Sealed{Wrapped: wrapped[0], Row: []byte("self-test FIPS 197")}
	mac, err := k.MAC(ctx, hsm.KeyBinding, s.Message())
	if err != nil {
		return err
	}
	s.Binding = mac[0]
	job := &hsm.DecryptJob{Key: s, Block: [16]byte(unhex("69c4e0d86a7b0430d8cdb78070b4c55a"))}
	if err := k.Decrypt(ctx, []*hsm.DecryptJob{job}); err != nil {
		return err
	}
	if job.Err != nil {
		return fmt.Errorf("FIPS 197: %w", job.Err)
	}
	if !bytes.Equal(job.Plain[:], unhex("00112233445566778899aabbccddeeff")) {
		return fmt.Errorf("FIPS 197: the HSM decrypts to something else")
	}
	return nil
}

// truncate is RFC 4226's dynamic truncation, section 5.3.
func truncate(mac []byte) uint32 {
	o := mac[len(mac)-1] & 15
	return binary.BigEndian.Uint32(mac[o:]) & 0x7fffffff
}
