/* A PKCS#11 module around another one, for tests: it forwards every call, and
 * fails, dawdles and restarts on command.
 *
 * Built with -DREAL_MODULE="..." and -DCONTROL_FILE="...". The control file is
 * looked at before each call; it has lines of these kinds:
 *
 *	fail RV FUNCTIONS EVERY    return RV instead, at every EVERYth call
 *	delay MS FUNCTIONS         wait before each call, until MS are over or the line is gone
 *	restart N                  when N differs from before: forget everything, as an HSM does
 *	                           that was switched off and on
 *
 * FUNCTIONS is a list with commas, or * for all but C_Initialize, C_Finalize and
 * C_GetFunctionList.
 *
 * Sessions and objects have numbers of the shim's own, which begin at 1 after a
 * restart and after C_Initialize: an old number then names something else.
 *
 * CONTROL_FILE.log gets a line for each login ("login RV") and for each call
 * that the module's user must not make at that moment ("violation ..."). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef unsigned long ulong_t;

enum { CKR_GENERAL_ERROR = 5, CKR_KEY_HANDLE_INVALID = 0x60, CKR_SESSION_HANDLE_INVALID = 0xB3 };
enum { functions = 68 };

typedef struct {
	unsigned char major, minor;
	void *fn[functions];
} table;

/* name, and what its arguments are: s session, o object, - anything else;
 * S pointer to a new session, O pointer to a new object, F array of objects
 * found, whose length is what the last argument points at. */
#define ALL(X) \
	X(0, C_Initialize, "-") X(1, C_Finalize, "-") X(2, C_GetInfo, "-") X(3, C_GetFunctionList, "-") \
	X(4, C_GetSlotList, "---") X(5, C_GetSlotInfo, "--") X(6, C_GetTokenInfo, "--") \
	X(7, C_GetMechanismList, "---") X(8, C_GetMechanismInfo, "---") X(9, C_InitToken, "----") \
	X(10, C_InitPIN, "s--") X(11, C_SetPIN, "s----") X(12, C_OpenSession, "----S") \
	X(13, C_CloseSession, "s") X(14, C_CloseAllSessions, "-") X(15, C_GetSessionInfo, "s-") \
	X(16, C_GetOperationState, "s--") X(17, C_SetOperationState, "s--oo") X(18, C_Login, "s---") \
	X(19, C_Logout, "s") X(20, C_CreateObject, "s--O") X(21, C_CopyObject, "so--O") \
	X(22, C_DestroyObject, "so") X(23, C_GetObjectSize, "so-") X(24, C_GetAttributeValue, "so--") \
	X(25, C_SetAttributeValue, "so--") X(26, C_FindObjectsInit, "s--") X(27, C_FindObjects, "sF--") \
	X(28, C_FindObjectsFinal, "s") X(29, C_EncryptInit, "s-o") X(30, C_Encrypt, "s----") \
	X(31, C_EncryptUpdate, "s----") X(32, C_EncryptFinal, "s--") X(33, C_DecryptInit, "s-o") \
	X(34, C_Decrypt, "s----") X(35, C_DecryptUpdate, "s----") X(36, C_DecryptFinal, "s--") \
	X(37, C_DigestInit, "s-") X(38, C_Digest, "s----") X(39, C_DigestUpdate, "s--") \
	X(40, C_DigestKey, "so") X(41, C_DigestFinal, "s--") X(42, C_SignInit, "s-o") X(43, C_Sign, "s----") \
	X(44, C_SignUpdate, "s--") X(45, C_SignFinal, "s--") X(46, C_SignRecoverInit, "s-o") \
	X(47, C_SignRecover, "s----") X(48, C_VerifyInit, "s-o") X(49, C_Verify, "s----") \
	X(50, C_VerifyUpdate, "s--") X(51, C_VerifyFinal, "s--") X(52, C_VerifyRecoverInit, "s-o") \
	X(53, C_VerifyRecover, "s----") X(54, C_DigestEncryptUpdate, "s----") \
	X(55, C_DecryptDigestUpdate, "s----") X(56, C_SignEncryptUpdate, "s----") \
	X(57, C_DecryptVerifyUpdate, "s----") X(58, C_GenerateKey, "s---O") \
	X(59, C_GenerateKeyPair, "s-----OO") X(60, C_WrapKey, "s-oo--") X(61, C_UnwrapKey, "s-o----O") \
	X(62, C_DeriveKey, "s-o--O") X(63, C_SeedRandom, "s--") X(64, C_GenerateRandom, "s--") \
	X(65, C_GetFunctionStatus, "s") X(66, C_CancelFunction, "s") X(67, C_WaitForSlotEvent, "---")

#define NAME(i, name, spec) #name,
#define SPEC(i, name, spec) spec,
static const char *names[functions] = { ALL(NAME) };
static const char *specs[functions] = { ALL(SPEC) };

enum { fn_initialize = 0, fn_finalize = 1, fn_get_function_list = 3, fn_open_session = 12,
	fn_close_session = 13, fn_close_all = 14, fn_login = 18, fn_destroy = 22, fn_generate = 58,
	fn_generate_pair = 59 };

static table *real;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Guarded by lock. */
static struct rule {
	ulong_t rv, every, seen;
	long delay;
} rules[functions];
static struct timespec control_time;
static ino_t control_inode;
static long restarts;
typedef struct {
	ulong_t *real; /* by the shim's number; 0 where there is none */
	size_t len, cap;
} numbers;
static numbers sessions, objects;
static atomic_int inside;     /* calls under way */
static atomic_int alone;      /* of these, calls that must be alone */
static atomic_int busy[4096]; /* calls on a session, by the shim's number */

static void note(const char *format, const char *what, ulong_t n)
{
	FILE *f = fopen(CONTROL_FILE ".log", "a");
	if (f == NULL)
		return;
	fprintf(f, format, what, n);
	fclose(f);
}

static ulong_t number(numbers *t, ulong_t r)
{
	if (t->len == 0)
		t->len = 1;
	if (t->len >= t->cap) {
		t->cap = t->cap ? 2 * t->cap : 1024;
		t->real = realloc(t->real, t->cap * sizeof *t->real);
	}
	t->real[t->len] = r;
	return t->len++;
}

static ulong_t lookup(numbers *t, ulong_t n)
{
	/* After a restart an old number names something else, even where fewer
	 * objects were made since. */
	if (t == &objects && restarts > 0 && n >= t->len && t->len > 1)
		n = 1 + n % (t->len - 1);
	return n > 0 && n < t->len ? t->real[n] : 0;
}

static void forget(void)
{
	sessions.len = objects.len = 0;
}

static int listed(const char *list, int fn)
{
	if (strcmp(list, "*") == 0)
		return fn != fn_initialize && fn != fn_finalize && fn != fn_get_function_list;
	size_t n = strlen(names[fn]);
	for (const char *p = list; (p = strstr(p, names[fn])) != NULL; p += n)
		if ((p == list || p[-1] == ',') && (p[n] == 0 || p[n] == ','))
			return 1;
	return 0;
}

/* Reads the control file again if it is another one. lock is held. */
static void control(void)
{
	struct stat st;
	if (stat(CONTROL_FILE, &st) != 0)
		return;
	if (st.st_ino == control_inode && st.st_mtim.tv_sec == control_time.tv_sec &&
		st.st_mtim.tv_nsec == control_time.tv_nsec)
		return;
	FILE *f = fopen(CONTROL_FILE, "r");
	if (f == NULL)
		return;
	control_inode = st.st_ino;
	control_time = st.st_mtim;
	memset(rules, 0, sizeof rules);
	char line[1024], list[1000];
	while (fgets(line, sizeof line, f) != NULL) {
		ulong_t rv, every;
		long n;
		if (sscanf(line, "fail %li %999s %lu", (long *)&rv, list, &every) == 3) {
			for (int i = 0; i < functions; i++)
				if (listed(list, i)) {
					rules[i].rv = rv;
					rules[i].every = every;
				}
		} else if (sscanf(line, "delay %ld %999s", &n, list) == 2) {
			for (int i = 0; i < functions; i++)
				if (listed(list, i))
					rules[i].delay = n;
		} else if (sscanf(line, "restart %ld", &n) == 1 && n != restarts) {
			/* The real sessions stay open, unknown to all, until
			 * C_CloseAllSessions: another thread may be in one. */
			restarts = n;
			forget();
		}
	}
	fclose(f);
}

static void dawdle(int fn)
{
	struct timespec begin, now, step = { 0, 2000000 };
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (;;) {
		pthread_mutex_lock(&lock);
		control();
		long ms = rules[fn].delay;
		pthread_mutex_unlock(&lock);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 >= ms)
			return;
		nanosleep(&step, NULL);
	}
}

static ulong_t forward(int fn, ulong_t *a)
{
	void *f = real->fn[fn];
	switch (strlen(specs[fn])) {
	case 1: return ((ulong_t(*)(ulong_t))f)(a[0]);
	case 2: return ((ulong_t(*)(ulong_t, ulong_t))f)(a[0], a[1]);
	case 3: return ((ulong_t(*)(ulong_t, ulong_t, ulong_t))f)(a[0], a[1], a[2]);
	case 4: return ((ulong_t(*)(ulong_t, ulong_t, ulong_t, ulong_t))f)(a[0], a[1], a[2], a[3]);
	case 5: return ((ulong_t(*)(ulong_t, ulong_t, ulong_t, ulong_t, ulong_t))f)(a[0], a[1], a[2], a[3], a[4]);
	case 6: return ((ulong_t(*)(ulong_t, ulong_t, ulong_t, ulong_t, ulong_t, ulong_t))f)(a[0], a[1], a[2], a[3], a[4], a[5]);
	default: return ((ulong_t(*)(ulong_t, ulong_t, ulong_t, ulong_t, ulong_t, ulong_t, ulong_t, ulong_t))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
	}
}

/* Whether C_GenerateKey's template asks for a token object; only such an object
 * appears in the searches of others. */
static int makes_token_object(ulong_t *a)
{
	enum { CKA_TOKEN = 1 };
	struct { ulong_t type; void *value; ulong_t len; } *t = (void *)a[2];
	for (ulong_t i = 0; i < a[3]; i++)
		if (t[i].type == CKA_TOKEN && t[i].len == 1)
			return *(unsigned char *)t[i].value;
	return 0;
}

static int wants_alone(int fn, ulong_t *a)
{
	return fn == fn_initialize || fn == fn_finalize || fn == fn_open_session || fn == fn_close_session ||
		fn == fn_close_all || (fn == fn_generate && makes_token_object(a)) || fn == fn_generate_pair;
}

/* Translates the numbers, forwards, and translates back. */
static ulong_t translate(int fn, ulong_t *a)
{
	const char *spec = specs[fn];
	ulong_t session = 0, object = 0;
	pthread_mutex_lock(&lock);
	control();
	struct rule *r = &rules[fn];
	if (r->every > 0 && ++r->seen % r->every == 0) {
		ulong_t rv = r->rv;
		pthread_mutex_unlock(&lock);
		return rv;
	}
	for (int i = 0; spec[i] != 0; i++) {
		ulong_t n = a[i];
		if (spec[i] == 's') {
			session = n;
			a[i] = lookup(&sessions, n);
		} else if (spec[i] == 'o') {
			object = n;
			a[i] = lookup(&objects, n);
		} else
			continue;
		if (a[i] == 0) {
			pthread_mutex_unlock(&lock);
			return spec[i] == 's' ? CKR_SESSION_HANDLE_INVALID : CKR_KEY_HANDLE_INVALID;
		}
	}
	pthread_mutex_unlock(&lock);

	ulong_t rv = forward(fn, a);
	if (rv != 0)
		return rv;

	pthread_mutex_lock(&lock);
	for (int i = 0; spec[i] != 0; i++) {
		ulong_t *out = (ulong_t *)a[i];
		if (spec[i] == 'S')
			*out = number(&sessions, *out);
		else if (spec[i] == 'O')
			*out = number(&objects, *out);
		else if (spec[i] == 'F')
			for (ulong_t n = 0; n < *(ulong_t *)a[3]; n++)
				out[n] = number(&objects, out[n]);
	}
	if (fn == fn_destroy && object < objects.len)
		objects.real[object] = 0;
	if (fn == fn_close_session && session < sessions.len)
		sessions.real[session] = 0;
	if (fn == fn_initialize || fn == fn_finalize || fn == fn_close_all)
		forget();
	pthread_mutex_unlock(&lock);
	return 0;
}

static ulong_t call(int fn, ulong_t *a)
{
	ulong_t session = specs[fn][0] == 's' ? a[0] : 0;
	int single = wants_alone(fn, a);
	int others = atomic_fetch_add(&inside, 1);
	if (single ? others > 0 : atomic_load(&alone) > 0)
		note("violation %s beside %lu other calls\n", names[fn], (ulong_t)others);
	if (single)
		atomic_fetch_add(&alone, 1);
	if (session > 0 && session < 4096 && atomic_fetch_add(&busy[session], 1) > 0)
		note("violation %s on session %lu, which is at work\n", names[fn], session);

	dawdle(fn);
	ulong_t rv = translate(fn, a);
	if (fn == fn_login)
		note("login %s%#lx\n", "", rv);

	if (session > 0 && session < 4096)
		atomic_fetch_sub(&busy[session], 1);
	if (single)
		atomic_fetch_sub(&alone, 1);
	atomic_fetch_sub(&inside, 1);
	return rv;
}

#define DEFINE(i, name, spec) \
	static ulong_t shim_##name(ulong_t a, ulong_t b, ulong_t c, ulong_t d, ulong_t e, ulong_t f, ulong_t g, ulong_t h) \
	{ \
		ulong_t v[] = { a, b, c, d, e, f, g, h }; \
		return call(i, v); \
	}
/* Every function takes eight words: one more than is passed costs a read of
 * the caller's stack, on each platform that Debian has. */
ALL(DEFINE)

#define ENTRY(i, name, spec) (void *)shim_##name,
static table shim = { 2, 40, { ALL(ENTRY) } };

ulong_t C_GetFunctionList(table **out)
{
	pthread_mutex_lock(&lock);
	if (real == NULL) {
		void *lib = dlopen(REAL_MODULE, RTLD_NOW | RTLD_LOCAL);
		ulong_t (*get)(table **) = lib ? (ulong_t(*)(table **))dlsym(lib, "C_GetFunctionList") : NULL;
		if (get == NULL || get(&real) != 0)
			real = NULL;
	}
	pthread_mutex_unlock(&lock);
	if (real == NULL) {
		fprintf(stderr, "shim: cannot load %s: %s\n", REAL_MODULE, dlerror());
		return CKR_GENERAL_ERROR;
	}
	*out = &shim;
	return 0;
}
