package pkcs11

import (
	"context"
	"fmt"

	"watchword/hsm"
)

// decryption is the work of one Decrypt call, or a part of it. It holds copies,
// as a run does.
type decryption struct {
	k    *Keystore
	jobs []blockJob
}

type blockJob struct {
	lock
	in, out [16]byte
	err     error
}

// Decrypt runs the jobs.
func (k *Keystore) Decrypt(ctx context.Context, jobs []*hsm.DecryptJob) error {
	if len(jobs) == 0 {
		return nil
	}
	for _, j := range jobs {
		j.Plain, j.Err = [16]byte{}, nil
	}
	g, err := k.current(ctx)
	if err != nil {
		return failBlocks(jobs, err)
	}
	if hsm.IsBulk(ctx) && len(jobs) > slice {
		return split(jobs, slice, false, func(part []*hsm.DecryptJob) error { return k.runBlocks(ctx, g, part) })
	}
	if n := len(k.workers); k.config.Spread && n > 1 && len(jobs) > 1 {
		return split(jobs, (len(jobs)+n-1)/n, true, func(part []*hsm.DecryptJob) error { return k.runBlocks(ctx, g, part) })
	}
	return k.runBlocks(ctx, g, jobs)
}

func failBlocks(jobs []*hsm.DecryptJob, err error) error {
	err = fmt.Errorf("decrypt: %w", err)
	for _, j := range jobs {
		j.Plain, j.Err = [16]byte{}, err
	}
	return err
}

// runBlocks runs jobs in one task. What was decrypted is wiped here, but for
// what the jobs get.
func (k *Keystore) runBlocks(ctx context.Context, g *generation, jobs []*hsm.DecryptJob) error {
	size := 0
	for _, j := range jobs {
		size += lockLen(j.Key)
	}
	d := &decryption{k: k, jobs: make([]blockJob, len(jobs))}
	buf := make([]byte, 0, size)
	for i, j := range jobs {
		d.jobs[i].in = j.Block
		buf = d.jobs[i].set(buf, j.Key, toDecrypt)
	}
	if _, err := k.do(ctx, g, d.do); err != nil {
		// The task may still run; then it wipes what it makes only as the
		// collector does.
		return failBlocks(jobs, err)
	}
	for i, j := range jobs {
		j.Plain, j.Err = d.jobs[i].out, d.jobs[i].err
		d.jobs[i].out = [16]byte{}
	}
	return nil
}

// do runs all jobs on one session. An error ends it: then nothing of it counts.
func (d *decryption) do(c conn, g *generation) error {
	for i := range d.jobs {
		// The generation may have ended in another session meanwhile.
		if d.k.gen.Load() != g {
			return d.k.why()
		}
		j := &d.jobs[i]
		if err := j.run(c, g); isLost(err) {
			return err
		} else if err != nil {
			j.out, j.err = [16]byte{}, err
		}
	}
	return nil
}

func (j *blockJob) run(c conn, g *generation) error {
	e, err := j.hold(c, g)
	if err != nil {
		return err
	}
	err = c.decrypt(e.handle, &j.in, &j.out)
	return letGo(c, g, e, err)
}
