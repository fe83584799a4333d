package tokens_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

var ctx = context.Background()

// start is when the tests begin.
var start = time.Date(2026, 3, 1, 12, 0, 10, 0, time.UTC)

// house is a core on a database and an HSM in memory, with a clock of its own.
type house struct {
	testing.TB
	*tokens.Service
	mem   *storetest.Memory
	db    *editor
	keys  *meter
	clock *clock
	log   *lockedBuffer
	admin tokens.Principal
	vpn   tokens.Principal // the RADIUS client 127.0.0.1

	broken bool // nothing can be written any more, nor the end
}

// clock is a clock that stands still until it is moved.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) set(t time.Time)         { c.ns.Store(t.UnixNano()) }
func (c *clock) forward(d time.Duration) { c.ns.Add(int64(d)) }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// firsts keeps what a new installation shows once.
type firsts struct {
	key, secret string
	err         error
}

func (f *firsts) Save(key, secret string) error {
	f.key, f.secret = key, secret
	return f.err
}

// newHouse opens a core on a new database. It is closed when the test ends.
func newHouse(t testing.TB, edits ...func(*tokens.Config)) *house {
	t.Helper()
	mem := storetest.NewMemory(t)
	h := &house{TB: t, mem: mem, db: &editor{Memory: mem}, keys: &meter{Keystore: hsmtest.NewMemory(t)}, clock: &clock{}, log: &lockedBuffer{}}
	h.clock.set(start)
	h.open(edits...)
	return h
}

func (h *house) open(edits ...func(*tokens.Config)) {
	h.Helper()
	var f firsts
	h.Service = h.node(&f, edits...)
	var err error
	if h.admin, err = h.Authenticate(ctx, f.key); err != nil {
		h.Fatal(err)
	}
	h.admin = h.admin.From("192.0.2.9")
	local, ok := h.ClientFor(netip.MustParseAddr("127.0.0.1"))
	if !ok || string(local.Plain) != f.secret {
		h.Fatalf("the first RADIUS client: %v, %v", local, ok)
	}
	h.vpn = local.Principal().From("127.0.0.1:9")
}

// node opens one more core on the same database and HSM.
func (h *house) node(f *firsts, edits ...func(*tokens.Config)) *tokens.Service {
	h.Helper()
	cfg := tokens.Config{Database: h.db, Custody: h.keys, Now: h.clock.now, Log: slog.New(slog.NewTextHandler(h.log, nil))}
	for _, edit := range edits {
		edit(&cfg)
	}
	s, err := tokens.Open(ctx, cfg, h.keys, f)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		if err := s.Close(ctx); (err != nil) != h.broken {
			h.Errorf("close: %v", err)
		}
	})
	return s
}

// editor lets a test change what is read, as if somebody had edited the rows.
type editor struct {
	*storetest.Memory
	mu        sync.Mutex
	token     func(*tokens.Token)
	subject   func(*tokens.Subject)
	user      func(*tokens.User)
	client    func(*tokens.Client)
	apiKey    func(*tokens.APIKey)
	grant     func(*tokens.Grant)
	session   func(*tokens.Session)
	document  func(*tokens.Document)
	chain     func([]audit.Record) []audit.Record
	made      []audit.Record // a chain that was made up
	heads     func([]audit.Head) []audit.Head
	chains    func([]int64) []int64
	onward    func([]audit.Record) []audit.Record
	uncut     error // what comes of removing records
	groups    error // what comes of reading a user's groups
	clock     func() time.Time
	loads     atomic.Int64
	lists     atomic.Int64 // readings of the registry
	documents atomic.Int64 // readings of documents
}

func (d *editor) MintChain(ctx context.Context) (int64, []audit.Head, error) {
	id, heads, err := d.Memory.MintChain(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.heads != nil {
		heads = d.heads(heads)
	}
	return id, heads, err
}

func (d *editor) Onward(ctx context.Context, q tokens.RecordQuery, after int64) ([]audit.Record, int64, error) {
	list, next, err := d.Memory.Onward(ctx, q, after)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.onward != nil {
		list = d.onward(list)
	}
	return list, next, err
}

func (d *editor) Cut(ctx context.Context, heads []audit.Head, after, last int64, limit int) (int, int64, error) {
	d.mu.Lock()
	err := d.uncut
	d.mu.Unlock()
	if err != nil {
		return 0, 0, err
	}
	return d.Memory.Cut(ctx, heads, after, last, limit)
}

func (d *editor) Groups(ctx context.Context, user int64) ([]string, error) {
	d.mu.Lock()
	err := d.groups
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return d.Memory.Groups(ctx, user)
}

func (d *editor) Chains(ctx context.Context) ([]int64, error) {
	list, err := d.Memory.Chains(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.chains != nil {
		list = d.chains(list)
	}
	return list, err
}

func (d *editor) edit(f func(d *editor)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

func (d *editor) Recall(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	return d.Load(ctx, refs)
}

func (d *editor) Load(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	d.loads.Add(1)
	v, err := d.Memory.Load(ctx, refs)
	d.mu.Lock()
	defer d.mu.Unlock()
	done := map[*tokens.Subject]bool{}
	for _, s := range v.Subjects {
		if s == nil || done[s] {
			continue
		}
		done[s] = true
		if s.User != nil && d.user != nil {
			d.user(s.User)
		}
		for i := range s.Tokens {
			if d.token != nil {
				d.token(&s.Tokens[i])
			}
		}
		if d.subject != nil {
			d.subject(s)
		}
	}
	if d.clock != nil {
		v.Clock = d.clock()
	}
	return v, err
}

func (d *editor) Document(ctx context.Context, name string) (tokens.Document, error) {
	d.documents.Add(1)
	found, err := d.Memory.Document(ctx, name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.document != nil && err == nil {
		if d.document(&found); found.Version == 0 { // it deletes it
			return tokens.Document{}, tokens.ErrNotFound
		}
	}
	return found, err
}

func (d *editor) Registry(ctx context.Context) (tokens.Registry, error) {
	d.lists.Add(1)
	r, err := d.Memory.Registry(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range r.Clients {
		if d.client != nil {
			d.client(&r.Clients[i])
		}
	}
	for i := range r.Keys {
		if d.apiKey != nil {
			d.apiKey(&r.Keys[i])
		}
	}
	for i := range r.Grants {
		if d.grant != nil {
			d.grant(&r.Grants[i])
		}
	}
	return r, err
}

func (d *editor) Session(ctx context.Context, id string) (tokens.Session, error) {
	v, err := d.Memory.Session(ctx, id)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session != nil && err == nil {
		d.session(&v)
	}
	return v, err
}

func (d *editor) Walk(ctx context.Context, chain int64, f func(*audit.Record) error) error {
	var list []audit.Record
	if err := d.Memory.Walk(ctx, chain, func(r *audit.Record) error {
		list = append(list, *r)
		return nil
	}); err != nil {
		return err
	}
	d.mu.Lock()
	if len(list) == 0 && len(d.made) > 0 && d.made[0].Chain == chain {
		list = d.made
	}
	if d.chain != nil {
		list = d.chain(list)
	}
	d.mu.Unlock()
	for i := range list {
		if err := f(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// meter is an HSM that counts, and that can be made to hang.
type meter struct {
	hsmtest.Keystore
	factors  atomic.Int64 // HMACs computed
	pins     atomic.Int64 // MACs of PINs, and of private ids, computed
	blocks   atomic.Int64 // blocks decrypted
	bindings atomic.Int64 // MACs under the binding key computed
	gate     atomic.Pointer[chan struct{}]
	cut      atomic.Pointer[atomic.Int64] // MACs that are still answered; nil: all
}

// after makes MACs fail after so many calls; none does once it is negative.
func (m *meter) after(calls int64) {
	if calls < 0 {
		m.cut.Store(nil)
		return
	}
	left := new(atomic.Int64)
	left.Store(calls)
	m.cut.Store(left)
}

// hang makes HMACs and MACs wait until the answer is called.
func (m *meter) hang() (heal func()) {
	gate := make(chan struct{})
	m.gate.Store(&gate)
	return sync.OnceFunc(func() {
		m.gate.Store(nil)
		close(gate)
	})
}

func (m *meter) wait(ctx context.Context) error {
	gate := m.gate.Load()
	if gate == nil {
		return nil
	}
	select {
	case <-*gate:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", hsm.ErrUnavailable, ctx.Err())
	}
}

func (m *meter) HMAC(ctx context.Context, jobs []*hsm.Job) error {
	if err := m.wait(ctx); err != nil {
		for _, j := range jobs {
			j.Err = err
		}
		return err
	}
	err := m.Keystore.HMAC(ctx, jobs)
	for _, j := range jobs {
		m.factors.Add(int64(len(j.MACs)))
	}
	return err
}

func (m *meter) MAC(ctx context.Context, key hsm.KeyName, messages ...[]byte) ([][]byte, error) {
	if err := m.wait(ctx); err != nil {
		return nil, err
	}
	if left := m.cut.Load(); left != nil && left.Add(-1) < 0 {
		return nil, fmt.Errorf("%w: it was cut off", hsm.ErrUnavailable)
	}
	if key == hsm.KeyPIN {
		m.pins.Add(int64(len(messages)))
	} else {
		m.bindings.Add(int64(len(messages)))
	}
	return m.Keystore.MAC(ctx, key, messages...)
}

func (m *meter) Decrypt(ctx context.Context, jobs []*hsm.DecryptJob) error {
	if err := m.wait(ctx); err != nil {
		for _, j := range jobs {
			j.Err = err
		}
		return err
	}
	m.blocks.Add(int64(len(jobs)))
	return m.Keystore.Decrypt(ctx, jobs)
}

func (m *meter) memory() *hsmtest.Memory { return m.Keystore.(*hsmtest.Memory) }

var digests = map[hsm.Hash]func() hash.Hash{hsm.SHA1: sha1.New, hsm.SHA256: sha256.New, hsm.SHA512: sha512.New}

// device is a token as its owner holds it.
type device struct {
	tokens.NewToken
	seed    []byte
	private []byte // of a YubiKey
}

// at is the code that the token shows for a moving factor.
func (d *device) at(factor int64) string {
	if d.Type == tokens.YubicoOTP {
		return d.types(uint16(factor>>8), byte(factor), 0)
	}
	m := hmac.New(digests[d.Algorithm], d.seed)
	binary.Write(m, binary.BigEndian, factor)
	sum := m.Sum(nil)
	o := sum[len(sum)-1] & 15
	v := uint64(binary.BigEndian.Uint32(sum[o:]) & 0x7fffffff)
	for n := uint64(1); ; n *= 10 {
		if n == pow10(d.Digits) {
			return fmt.Sprintf("%0*d", d.Digits, v%n)
		}
	}
}

func pow10(n int) uint64 {
	v := uint64(1)
	for range n {
		v *= 10
	}
	return v
}

// code is what the token shows now, and so many steps from now.
func (d *device) code(h *house, ahead int64) string {
	return d.at(h.clock.now().Unix()/int64(d.Period) + ahead)
}

// wrong is a code of the right length that the token does not show around a
// factor.
func (d *device) wrong(around int64) string {
	for n := uint64(0); ; n++ {
		guess := fmt.Sprintf("%0*d", d.Digits, n)
		shown := false
		for f := max(around-20, 0); f <= around+20; f++ {
			shown = shown || d.at(f) == guess
		}
		if !shown {
			return guess
		}
	}
}

func totp(serial string) *device {
	return &device{NewToken: tokens.NewToken{Serial: serial, Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30}}
}

func hotp(serial string) *device {
	return &device{NewToken: tokens.NewToken{Serial: serial, Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6}}
}

// yubico is a YubiKey that makes Yubico OTPs.
func yubico(serial string) *device {
	return &device{NewToken: tokens.NewToken{Serial: serial, Type: tokens.YubicoOTP, Algorithm: hsm.AES128, PublicID: "vvhvcccccccd"}}
}

// types is what a YubiKey types: the OTP of a session and use counter, with some
// timestamp and random number. damage is added to its CRC.
func (d *device) types(session uint16, use byte, damage uint16) string {
	b := append(make([]byte, 0, 16), d.private...)
	b = binary.LittleEndian.AppendUint16(b, session)
	b = append(b, 0x12, 0x34, byte(session), use, use*7, byte(session)^use)
	// The CRC of what precedes, inverted, makes that of the whole what it must be.
	crc := uint16(0xffff)
	for _, x := range b {
		for i := range 8 {
			mix := (crc ^ uint16(x)>>i) & 1
			if crc >>= 1; mix == 1 {
				crc ^= 0x8408
			}
		}
	}
	b = binary.LittleEndian.AppendUint16(b, ^crc+damage)
	block := hsmtest.TrueBlock(d.seed, [16]byte(b))
	text := []byte(d.PublicID)
	for _, x := range block {
		text = append(text, "cbdefghijklnrtuv"[x>>4], "cbdefghijklnrtuv"[x&15])
	}
	return string(text)
}

// ship imports tokens into a realm.
func (h *house) ship(realm string, list ...*device) {
	h.Helper()
	i, err := h.BeginImport(ctx, h.admin, tokens.NewImport{Realm: realm, Name: "shipment.csv", Format: "oath-csv"})
	if err != nil {
		h.Fatal(err)
	}
	var records []tokens.NewToken
	for _, d := range list {
		sum := sha256.Sum256([]byte("seed of " + realm + d.Serial))
		d.seed = slices.Clone(sum[:20])
		n := d.NewToken
		if d.Type == tokens.YubicoOTP {
			d.seed, d.private = d.seed[:16], slices.Clone(sum[20:26])
			n.PrivateID = slices.Clone(d.private)
		}
		h.mem.Watch(d.seed)
		n.Seed = slices.Clone(d.seed)
		records = append(records, n)
	}
	added, err := i.Add(ctx, records)
	if err != nil {
		h.Fatal(err)
	}
	for k, a := range added {
		if a.Outcome != tokens.OutcomeCreated {
			h.Fatalf("token %s: %+v", records[k].Serial, a)
		}
	}
	if _, err := i.Publish(ctx, "00", len(list), 0, 0); err != nil {
		h.Fatal(err)
	}
}

// give imports tokens and assigns them to a user of the default realm, who is
// made if need be.
func (h *house) give(user string, list ...*device) {
	h.Helper()
	h.ship("", list...)
	h.user(user)
	for _, d := range list {
		h.must(h.Assign(ctx, h.admin, "", d.Serial, user))
	}
}

func (h *house) user(name string) {
	h.Helper()
	if _, err := h.AddUser(ctx, h.admin, "", name); err != nil && !isExists(err) {
		h.Fatal(err)
	}
}

// must fails the test if a use case failed.
func (h *house) must(_ any, err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// try is an attempt through the RADIUS client.
func (h *house) try(user, code string) bool {
	h.Helper()
	r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: code, Transport: "radius"})
	if err != nil {
		h.Fatalf("verify %s: %v", user, err)
	}
	return r.Accept
}

// ends says that an attempt is accepted or rejected, and for which reason the
// audit says so.
func (h *house) ends(user, code string, accept bool, reason tokens.Reason) {
	h.Helper()
	got := h.try(user, code)
	last := h.last()
	outcome := map[bool]string{true: "accept", false: "reject"}[accept]
	if got != accept || last.Outcome != outcome || last.Reason != string(reason) {
		h.Errorf("%s with %q: accept %v, audited as %s, %s; want %s, %s", user, code, got, last.Outcome, last.Reason, outcome, reason)
	}
}

// last is the newest record of the audit.
func (h *house) last() audit.Record {
	h.Helper()
	list, _, err := h.mem.Records(ctx, tokens.RecordQuery{Limit: 1})
	if err != nil || len(list) == 0 {
		h.Fatalf("no audit: %v", err)
	}
	return decidedBy(list)[0]
}

// decidedBy gives each record its Policy back, which is the last of its details.
func decidedBy(list []audit.Record) []audit.Record {
	for i := range list {
		if r := &list[i]; len(r.Detail) > 0 && r.Detail[len(r.Detail)-1].Name == audit.FieldPolicy {
			r.Policy = r.Detail[len(r.Detail)-1].Value
			r.Detail = r.Detail[:len(r.Detail)-1]
		}
	}
	return list
}

// records are those of an action and outcome, newest first.
func (h *house) records(action, outcome string) []audit.Record {
	h.Helper()
	list, _, err := h.mem.Records(ctx, tokens.RecordQuery{Action: action, Outcome: outcome, Limit: 1000})
	if err != nil {
		h.Fatal(err)
	}
	return decidedBy(list)
}

// standing is a user's, from the database.
func (h *house) standing(user string) tokens.Standing {
	h.Helper()
	v, err := h.mem.Load(ctx, []tokens.Ref{{Realm: tokens.DefaultRealm, User: user}})
	if err != nil || v.Subjects[0] == nil {
		h.Fatalf("user %s: %v", user, err)
	}
	return v.Subjects[0].Standing
}

// token is a token, from the database.
func (h *house) token(serial string) tokens.Token {
	h.Helper()
	v, err := h.mem.Load(ctx, []tokens.Ref{{Realm: tokens.DefaultRealm, Serial: serial}})
	if err == nil && v.Subjects[0] != nil {
		for _, t := range v.Subjects[0].Tokens {
			if t.Serial == serial {
				return t
			}
		}
	}
	h.Fatalf("token %s: %v", serial, err)
	return tokens.Token{}
}

// intact says that the audit verifies.
func (h *house) intact() {
	h.Helper()
	report, err := h.VerifyAudit(ctx, h.admin)
	if err != nil || !report.Intact {
		h.Errorf("the audit: %v, %q", err, report.Problems)
	}
}

func (h *house) prefix(s string) netip.Prefix {
	h.Helper()
	p, err := netip.ParsePrefix(s)
	if err != nil {
		h.Fatal(err)
	}
	return p
}

func (h *house) prefixes(list ...string) []netip.Prefix {
	h.Helper()
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, h.prefix(s))
	}
	return out
}
