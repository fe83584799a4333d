package pkcs11

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// A run is the work of one HMAC call, or of one session's part of it. It holds
// copies of all it needs from the jobs, since the caller may leave before it is
// done.
type run struct {
	k    *Keystore
	jobs []runJob
	macs []byte // room for MACs, handed out piece by piece

	mu   sync.Mutex // held while Stop is asked
	left bool       // the caller has gone: Stop is not asked any more
}

type runJob struct {
	lock
	factors []uint64
	stop    func(int, []byte) bool

	macs [][]byte
	err  error
}

// HMAC runs the jobs.
func (k *Keystore) HMAC(ctx context.Context, jobs []*hsm.Job) error {
	if len(jobs) == 0 {
		return nil
	}
	for _, j := range jobs {
		j.MACs, j.Err = nil, nil
	}
	g, err := k.current(ctx)
	if err != nil {
		return failAll(jobs, fmt.Errorf("compute HMACs: %w", err))
	}
	if hsm.IsBulk(ctx) && len(jobs) > slice {
		return split(jobs, slice, false, func(part []*hsm.Job) error { return k.runJobs(ctx, g, part) })
	}
	if n := len(k.workers); k.config.Spread && n > 1 && len(jobs) > 1 {
		return split(jobs, (len(jobs)+n-1)/n, true, func(part []*hsm.Job) error { return k.runJobs(ctx, g, part) })
	}
	return k.runJobs(ctx, g, jobs)
}

// split runs f on parts of the jobs, side by side or one after another. It
// fails only if all parts did.
func split[J any](jobs []J, size int, parallel bool, f func([]J) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	failed, parts := 0, 0
	one := func(part []J) {
		if err := f(part); err != nil {
			mu.Lock()
			defer mu.Unlock()
			failed++
			if first == nil {
				first = err
			}
		}
	}
	for len(jobs) > 0 {
		n := min(size, len(jobs))
		part := jobs[:n:n]
		jobs = jobs[n:]
		parts++
		if parallel {
			wg.Go(func() { one(part) })
		} else {
			one(part)
		}
	}
	wg.Wait()
	if failed == parts {
		return first
	}
	return nil
}

func failAll(jobs []*hsm.Job, err error) error {
	for _, j := range jobs {
		j.MACs, j.Err = nil, err
	}
	return err
}

// runJobs runs jobs in one task. Hashing the rows happens here, in the caller's
// goroutine, so that the session does nothing but HSM calls.
func (k *Keystore) runJobs(ctx context.Context, g *generation, jobs []*hsm.Job) error {
	r := newRun(k, jobs)
	_, err := k.do(ctx, g, r.do)
	if err != nil {
		r.leave()
		return failAll(jobs, fmt.Errorf("compute HMACs: %w", err))
	}
	for i, j := range jobs {
		j.MACs, j.Err = r.jobs[i].macs, r.jobs[i].err
	}
	return nil
}

func newRun(k *Keystore, jobs []*hsm.Job) *run {
	bytes, factors := 0, 0
	for _, j := range jobs {
		bytes += lockLen(j.Key)
		factors += len(j.Factors)
	}
	r := &run{k: k, jobs: make([]runJob, len(jobs))}
	buf := make([]byte, 0, bytes)
	fs := make([]uint64, 0, factors)
	for i, j := range jobs {
		fs = append(fs, j.Factors...)
		r.jobs[i] = runJob{factors: fs[len(fs)-len(j.Factors):], stop: j.Stop}
		buf = r.jobs[i].set(buf, j.Key, toSign)
	}
	return r
}

// leave says that the caller goes; after it Stop is not asked any more.
func (r *run) leave() {
	r.mu.Lock()
	r.left = true
	r.mu.Unlock()
}

// do runs all jobs on one session. An error ends the run: then nothing of it
// counts.
func (r *run) do(c conn, g *generation) error {
	for i := range r.jobs {
		// The generation may have ended in another session meanwhile.
		if r.k.gen.Load() != g {
			return r.k.why()
		}
		j := &r.jobs[i]
		if err := r.one(c, g, j); isLost(err) {
			return err
		} else if err != nil {
			j.macs, j.err = nil, err
		}
	}
	return nil
}

func (r *run) one(c conn, g *generation, j *runJob) error {
	e, err := j.hold(c, g)
	if err != nil {
		return err
	}
	err = r.factors(c, e.handle, j)
	return letGo(c, g, e, err)
}

// factors computes the job's HMACs with key.
func (r *run) factors(c conn, key handle, j *runJob) error {
	size, mechanism := j.hash.Size(), macMechanism(j.hash)
	var factor [8]byte
	for i, f := range j.factors {
		if len(r.macs) < size {
			r.macs = make([]byte, size*max(8, min(len(r.jobs), 64)))
		}
		mac := r.macs[:size:size]
		r.macs = r.macs[size:]
		binary.BigEndian.PutUint64(factor[:], f)
		if err := c.sign(mechanism, key, factor[:], mac); err != nil {
			return err
		}
		if j.macs == nil {
			j.macs = make([][]byte, 0, min(len(j.factors), 4))
		}
		j.macs = append(j.macs, mac)
		if j.stop != nil {
			r.mu.Lock()
			stop := r.left || j.stop(i, mac)
			r.mu.Unlock()
			if stop {
				return nil
			}
		}
	}
	return nil
}

// MAC computes HMAC-SHA256 of messages under KeyBinding or KeyPIN.
func (k *Keystore) MAC(ctx context.Context, name hsm.KeyName, messages ...[]byte) ([][]byte, error) {
	if name != hsm.KeyBinding && name != hsm.KeyPIN {
		return nil, fmt.Errorf("the HSM key %q makes no MACs", name)
	}
	g, err := k.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("compute MACs: %w", err)
	}
	macs := make([][]byte, 0, len(messages))
	for len(messages) > 0 {
		n := min(len(messages), slice)
		if macs, err = k.macSlice(ctx, g, name, messages[:n], macs); err != nil {
			return nil, fmt.Errorf("compute MACs: %w", err)
		}
		messages = messages[n:]
	}
	return macs, nil
}

func (k *Keystore) macSlice(ctx context.Context, g *generation, name hsm.KeyName, messages [][]byte, macs [][]byte) ([][]byte, error) {
	size := 0
	for _, m := range messages {
		size += len(m)
	}
	buf := make([]byte, 0, size)
	ends := make([]int, len(messages))
	for i, m := range messages {
		buf = append(buf, m...)
		ends[i] = len(buf)
	}
	out := make([]byte, 32*len(messages))
	_, err := k.do(ctx, g, func(c conn, g *generation) error {
		key := g.keys.binding
		if name == hsm.KeyPIN {
			key = g.keys.pin
		}
		start := 0
		for i, end := range ends {
			if err := c.sign(pkcs11.CKM_SHA256_HMAC, key, buf[start:end], out[32*i:32*i+32]); err != nil {
				return err
			}
			start = end
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range messages {
		macs = append(macs, out[32*i:32*i+32:32*i+32])
	}
	return macs, nil
}
