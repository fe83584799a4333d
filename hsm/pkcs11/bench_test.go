package pkcs11_test

import (
	"fmt"
	"testing"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

// The batches are those of the server: 64 jobs are a flush under load, 500
// seeds a part of an import.
const (
	flush = 64
	part  = 500
)

func bench(b *testing.B, handles int) *pkcs11.Keystore {
	b.Helper()
	config := hsmtest.Token(b)
	config.Handles = handles
	k, _ := hsmtest.OpenNew(b, config)
	return k
}

func seeds(n int) []hsm.Seed {
	all := make([]hsm.Seed, n)
	for i := range all {
		all[i] = hsm.Seed{Hash: hsm.SHA1, Bytes: random(20)}
	}
	return all
}

func rate(b *testing.B, what string, n int) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), what+"/s")
}

// bound wraps n seeds and binds them to rows.
func bound(tb testing.TB, k hsm.Keystore, n int) []*hsm.Sealed {
	tb.Helper()
	wrapped, err := k.Wrap(hsm.Bulk(tb.Context()), seeds(n))
	if err != nil {
		tb.Fatal(err)
	}
	all := make([]*hsm.Sealed, n)
	messages := make([][]byte, n)
	for i, w := range wrapped {
		all[i] = &hsm.Sealed{Wrapped: w, Row: fmt.Appendf(nil, "default|serial%08d|totp|sha1|6|30|alice%08d|active|", i, i)}
		messages[i] = all[i].Message()
	}
	macs, err := k.MAC(hsm.Bulk(tb.Context()), hsm.KeyBinding, messages...)
	if err != nil {
		tb.Fatal(err)
	}
	for i, m := range macs {
		all[i].Binding = m
	}
	return all
}

func BenchmarkWrap(b *testing.B) {
	k := bench(b, 0)
	all := seeds(part)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := k.Wrap(hsm.Bulk(b.Context()), all); err != nil {
			b.Fatal(err)
		}
		n += part
	}
	rate(b, "seeds", n)
}

// BenchmarkWrapAndBind is what an import asks of the HSM.
func BenchmarkWrapAndBind(b *testing.B) {
	k := bench(b, 0)
	n := 0
	for b.Loop() {
		bound(b, k, part)
		n += part
	}
	rate(b, "seeds", n)
}

func BenchmarkMAC(b *testing.B) {
	k := bench(b, 0)
	message := random(200)
	messages := make([][]byte, flush)
	for i := range messages {
		messages[i] = message
	}
	n := 0
	for b.Loop() {
		if _, err := k.MAC(b.Context(), hsm.KeyBinding, messages...); err != nil {
			b.Fatal(err)
		}
		n += flush
	}
	rate(b, "MACs", n)
}

// hmacs runs batches of jobs over all the seeds in turn.
func hmacs(b *testing.B, k *pkcs11.Keystore, all []*hsm.Sealed, batch int) {
	b.ReportAllocs()
	jobs := make([]*hsm.Job, batch)
	factors := []uint64{1, 2, 3}
	stop := func(int, []byte) bool { return true }
	next, n := 0, 0
	for b.Loop() {
		for i := range jobs {
			jobs[i] = &hsm.Job{Key: all[next%len(all)], Factors: factors, Stop: stop}
			next++
		}
		if err := k.HMAC(b.Context(), jobs); err != nil {
			b.Fatal(err)
		}
		for _, j := range jobs {
			if j.Err != nil {
				b.Fatal(j.Err)
			}
		}
		n += batch
	}
	rate(b, "HMACs", n)
}

func BenchmarkColdHMAC(b *testing.B) {
	k := bench(b, -1)
	hmacs(b, k, bound(b, k, 2000), flush)
}

func BenchmarkWarmHMAC(b *testing.B) {
	for _, batch := range []int{1, flush} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			k := bench(b, 0)
			all := bound(b, k, 2048)
			for i := 0; i < len(all); i += flush {
				var jobs []*hsm.Job
				for _, s := range all[i : i+flush] {
					jobs = append(jobs, &hsm.Job{Key: s})
				}
				if err := k.HMAC(b.Context(), jobs); err != nil {
					b.Fatal(err)
				}
			}
			hmacs(b, k, all, batch)
		})
	}
}

// BenchmarkWarmHMACTwoCallers is two flushes at once, on one session and on two.
func BenchmarkWarmHMACTwoCallers(b *testing.B) {
	for _, sessions := range []int{1, 2} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			config := hsmtest.Token(b)
			config.Sessions, config.Spread = sessions, sessions > 1
			k, _ := hsmtest.OpenNew(b, config)
			all := bound(b, k, 2048)
			b.SetParallelism(1)
			b.RunParallel(func(pb *testing.PB) {
				for n := 0; pb.Next(); n += flush {
					jobs := make([]*hsm.Job, flush)
					for i := range jobs {
						jobs[i] = &hsm.Job{Key: all[(n+i)%len(all)], Factors: []uint64{1}}
					}
					if err := k.HMAC(b.Context(), jobs); err != nil {
						b.Fatal(err)
					}
				}
			})
			rate(b, "HMACs", b.N*flush)
		})
	}
}
