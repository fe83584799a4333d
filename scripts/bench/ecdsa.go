package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"time"
)

// bareECDSA is how many P-256 signatures this machine verifies in a second on all
// its cores, when it does nothing else: what an assertion cannot be cheaper than.
func bareECDSA(ctx context.Context, limit time.Duration) (rate, error) {
	const keys = 64 // no more than one is hardly what a server sees
	type signed struct {
		key       *ecdsa.PrivateKey
		digest    [32]byte
		signature []byte
	}
	var list []signed
	for i := range keys {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return rate{}, err
		}
		s := signed{key: key, digest: sha256.Sum256([]byte{byte(i)})}
		if s.signature, err = ecdsa.SignASN1(rand.Reader, key, s.digest[:]); err != nil {
			return rate{}, err
		}
		list = append(list, s)
	}
	return drive(ctx, runtime.NumCPU(), 0, limit, func() (func() error, func(), error) {
		i := 0
		return func() error {
			s := &list[i%keys]
			i++
			if !ecdsa.VerifyASN1(&s.key.PublicKey, s.digest[:], s.signature) {
				return errors.New("a right signature is not right")
			}
			return nil
		}, func() {}, nil
	})
}

// beside makes a measurement, and measures bare ECDSA right before and right after it:
// what the machine can do changes from minute to minute.
func beside(ctx context.Context, run func() (rate, error)) (r, bare rate, err error) {
	before, err := bareECDSA(ctx, time.Second)
	if err != nil {
		return r, bare, err
	}
	if r, err = run(); err != nil {
		return r, bare, err
	}
	after, err := bareECDSA(ctx, time.Second)
	bare.perSecond = (before.perSecond + after.perSecond) / 2
	return r, bare, err
}

var opensslRate = regexp.MustCompile(`(?m)ecdsa \(nistp256\)\s+\S+\s+\S+\s+\S+\s+([0-9.]+)`)

// opensslECDSA is the same by openssl, if there is one.
func opensslECDSA(ctx context.Context) (perSecond float64, ok bool) {
	out, err := exec.CommandContext(ctx, "openssl", "speed", "-seconds", "2", "-multi", strconv.Itoa(runtime.NumCPU()), "ecdsap256").Output()
	m := opensslRate.FindSubmatch(out)
	if err != nil || m == nil {
		return 0, false
	}
	perSecond, err = strconv.ParseFloat(string(m[1]), 64)
	return perSecond, err == nil
}
