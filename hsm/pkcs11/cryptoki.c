#include "cryptoki.h"

#include <dlfcn.h>
#include <stddef.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

typedef unsigned char ck_bool;

typedef struct {
	ck_ulong type;
	void *value;
	ck_ulong len;
} ck_attribute;

typedef struct {
	ck_ulong type;
	void *parameter;
	ck_ulong len;
} ck_mechanism;

typedef struct {
	unsigned char *iv;
	ck_ulong ivlen;
	ck_ulong ivbits;
	unsigned char *aad;
	ck_ulong aadlen;
	ck_ulong tagbits;
} ck_gcm_params;

typedef struct {
	ck_ulong hash;
	ck_ulong mgf;
	ck_ulong source;
	void *label;
	ck_ulong labellen;
} ck_oaep_params;

typedef struct {
	unsigned char *data;
	ck_ulong len;
} ck_string_data;

/* Positions in CK_FUNCTION_LIST. */
enum {
	fn_login = 18,
	fn_create_object = 20,
	fn_destroy_object = 22,
	fn_get_attribute_value = 24,
	fn_encrypt_init = 29,
	fn_encrypt = 30,
	fn_decrypt_init = 33,
	fn_decrypt = 34,
	fn_digest_init = 37,
	fn_digest_update = 39,
	fn_digest_key = 40,
	fn_digest_final = 41,
	fn_sign_init = 42,
	fn_sign = 43,
	fn_generate_key = 58,
	fn_wrap_key = 60,
	fn_unwrap_key = 61,
	fn_derive_key = 62,
	fn_generate_random = 64,
};

enum {
	cka_class = 0x000,
	cka_token = 0x001,
	cka_private = 0x002,
	cka_value = 0x011,
	cka_key_type = 0x100,
	cka_sensitive = 0x103,
	cka_encrypt = 0x104,
	cka_decrypt = 0x105,
	cka_wrap = 0x106,
	cka_unwrap = 0x107,
	cka_sign = 0x108,
	cka_verify = 0x10A,
	cka_derive = 0x10C,
	cka_value_len = 0x161,
	cka_extractable = 0x162,

	cko_secret_key = 4,
	ckk_generic_secret = 0x10,
	ckk_aes = 0x1F,
	ckm_rsa_pkcs = 0x1,
	ckm_rsa_pkcs_oaep = 0x9,
	ckm_generic_secret_key_gen = 0x350,
	ckm_concatenate_base_and_data = 0x362,
	ckm_aes_ecb = 0x1081,
	ckm_aes_gcm = 0x1087,
	ckz_data_specified = 1,
	cku_user = 1,
};

typedef ck_ulong (*get_function_list_fn)(ck_functions **);
typedef ck_ulong (*login_fn)(ck_ulong, ck_ulong, const unsigned char *, ck_ulong);
typedef ck_ulong (*init_fn)(ck_ulong, ck_mechanism *, ck_ulong);
typedef ck_ulong (*crypt_fn)(ck_ulong, const unsigned char *, ck_ulong, unsigned char *, ck_ulong *);
typedef ck_ulong (*create_fn)(ck_ulong, ck_attribute *, ck_ulong, ck_ulong *);
typedef ck_ulong (*destroy_fn)(ck_ulong, ck_ulong);
typedef ck_ulong (*wrap_fn)(ck_ulong, ck_mechanism *, ck_ulong, ck_ulong, unsigned char *, ck_ulong *);
typedef ck_ulong (*unwrap_fn)(ck_ulong, ck_mechanism *, ck_ulong, const unsigned char *, ck_ulong,
	ck_attribute *, ck_ulong, ck_ulong *);
typedef ck_ulong (*generate_fn)(ck_ulong, ck_mechanism *, ck_attribute *, ck_ulong, ck_ulong *);
typedef ck_ulong (*random_fn)(ck_ulong, unsigned char *, ck_ulong);
typedef ck_ulong (*derive_fn)(ck_ulong, ck_mechanism *, ck_ulong, ck_attribute *, ck_ulong, ck_ulong *);
typedef ck_ulong (*attribute_fn)(ck_ulong, ck_ulong, ck_attribute *, ck_ulong);
typedef ck_ulong (*digest_init_fn)(ck_ulong, ck_mechanism *);
typedef ck_ulong (*digest_update_fn)(ck_ulong, const unsigned char *, ck_ulong);
typedef ck_ulong (*digest_key_fn)(ck_ulong, ck_ulong);
typedef ck_ulong (*digest_final_fn)(ck_ulong, unsigned char *, ck_ulong *);

static ck_bool yes = 1, no = 0;
static ck_ulong secret_key = cko_secret_key, generic_secret = ckk_generic_secret, aes = ckk_aes;

#define BOOL(t, v) { t, &v, sizeof(ck_bool) }
#define ULONG(t, v) { t, &v, sizeof(ck_ulong) }
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

ck_functions *ck_load(const char *path, const char **why)
{
	/* The library stays loaded for the life of the process: modules start
	 * threads and register exit handlers, and do not survive dlclose. */
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (lib == NULL) {
		*why = dlerror();
		return NULL;
	}
	get_function_list_fn get = (get_function_list_fn)dlsym(lib, "C_GetFunctionList");
	if (get == NULL) {
		*why = "it has no C_GetFunctionList, so it is no PKCS#11 module";
		return NULL;
	}
	ck_functions *p = NULL;
	if (get(&p) != 0 || p == NULL) {
		*why = "its C_GetFunctionList failed";
		return NULL;
	}
	return p;
}

ck_ulong ck_login(ck_functions *p, ck_ulong session, const unsigned char *pin, ck_ulong len)
{
	return ((login_fn)p->fn[fn_login])(session, cku_user, pin, len);
}

ck_ulong ck_sign(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong key,
	const unsigned char *in, ck_ulong inlen, unsigned char *out, ck_ulong *outlen)
{
	ck_mechanism m = { mechanism, NULL, 0 };
	ck_ulong rv = ((init_fn)p->fn[fn_sign_init])(session, &m, key);
	if (rv != 0)
		return rv;
	return ((crypt_fn)p->fn[fn_sign])(session, in, inlen, out, outlen);
}

ck_ulong ck_wrap(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	const unsigned char *value, ck_ulong len, unsigned char *out, ck_ulong *outlen)
{
	/* Extractable, because only such a key can be wrapped; it lives for the
	 * length of this call, and sensitive keeps its value from being read. */
	ck_attribute t[] = {
		ULONG(cka_class, secret_key),
		ULONG(cka_key_type, generic_secret),
		BOOL(cka_token, no),
		BOOL(cka_private, yes),
		BOOL(cka_sensitive, yes),
		BOOL(cka_extractable, yes),
		BOOL(cka_sign, no),
		BOOL(cka_verify, no),
		BOOL(cka_derive, no),
		{ cka_value, (void *)value, len },
	};
	ck_ulong key = 0;
	ck_ulong rv = ((create_fn)p->fn[fn_create_object])(session, t, COUNT(t), &key);
	if (rv != 0)
		return rv;
	ck_mechanism m = { mechanism, NULL, 0 };
	rv = ((wrap_fn)p->fn[fn_wrap_key])(session, &m, kek, key, out, outlen);
	ck_ulong rv2 = ck_destroy(p, session, key);
	return rv != 0 ? rv : rv2;
}

ck_ulong ck_unwrap(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	const unsigned char *blob, ck_ulong len, ck_ulong *key)
{
	/* Private on top of sensitive: SoftHSM keeps only private objects
	 * encrypted in its memory. */
	ck_attribute t[] = {
		ULONG(cka_class, secret_key),
		ULONG(cka_key_type, generic_secret),
		BOOL(cka_token, no),
		BOOL(cka_private, yes),
		BOOL(cka_sensitive, yes),
		BOOL(cka_extractable, no),
		BOOL(cka_sign, yes),
		BOOL(cka_verify, no),
		BOOL(cka_encrypt, no),
		BOOL(cka_decrypt, no),
		BOOL(cka_wrap, no),
		BOOL(cka_unwrap, no),
		BOOL(cka_derive, no),
	};
	ck_mechanism m = { mechanism, NULL, 0 };
	return ((unwrap_fn)p->fn[fn_unwrap_key])(session, &m, kek, blob, len, t, COUNT(t), key);
}

ck_ulong ck_unwrap_aes(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	const unsigned char *blob, ck_ulong len, ck_ulong *key)
{
	ck_attribute t[] = {
		ULONG(cka_class, secret_key),
		ULONG(cka_key_type, aes),
		BOOL(cka_token, no),
		BOOL(cka_private, yes),
		BOOL(cka_sensitive, yes),
		BOOL(cka_extractable, no),
		BOOL(cka_decrypt, yes),
		BOOL(cka_encrypt, no),
		BOOL(cka_sign, no),
		BOOL(cka_verify, no),
		BOOL(cka_wrap, no),
		BOOL(cka_unwrap, no),
		BOOL(cka_derive, no),
	};
	ck_mechanism m = { mechanism, NULL, 0 };
	return ((unwrap_fn)p->fn[fn_unwrap_key])(session, &m, kek, blob, len, t, COUNT(t), key);
}

ck_ulong ck_decrypt(ck_functions *p, ck_ulong session, ck_ulong key,
	const unsigned char *in, ck_ulong inlen, unsigned char *out, ck_ulong *outlen)
{
	ck_mechanism m = { ckm_aes_ecb, NULL, 0 };
	ck_ulong rv = ((init_fn)p->fn[fn_decrypt_init])(session, &m, key);
	if (rv != 0)
		return rv;
	return ((crypt_fn)p->fn[fn_decrypt])(session, in, inlen, out, outlen);
}

ck_ulong ck_decrypt_rsa(ck_functions *p, ck_ulong session, ck_ulong key,
	const unsigned char *in, ck_ulong inlen, unsigned char *out, ck_ulong *outlen, int *begun)
{
	ck_mechanism m = { ckm_rsa_pkcs, NULL, 0 };
	ck_ulong rv = ((init_fn)p->fn[fn_decrypt_init])(session, &m, key);
	if (rv != 0)
		return rv;
	*begun = 1;
	return ((crypt_fn)p->fn[fn_decrypt])(session, in, inlen, out, outlen);
}

ck_ulong ck_destroy(ck_functions *p, ck_ulong session, ck_ulong object)
{
	return ((destroy_fn)p->fn[fn_destroy_object])(session, object);
}

ck_ulong ck_take(ck_functions *p, ck_ulong session, ck_ulong key, ck_ulong hash, ck_ulong mgf,
	const unsigned char *label, ck_ulong labellen, const unsigned char *blob, ck_ulong len,
	int readable, ck_ulong *object)
{
	/* Extractable, because only such a key can be wrapped, and able to sign, so
	 * that what was wrapped can be compared with it. */
	ck_attribute t[] = {
		ULONG(cka_class, secret_key),
		ULONG(cka_key_type, generic_secret),
		BOOL(cka_token, no),
		BOOL(cka_private, yes),
		{ cka_sensitive, readable ? &no : &yes, sizeof(ck_bool) },
		BOOL(cka_extractable, yes),
		BOOL(cka_sign, yes),
		BOOL(cka_verify, no),
		BOOL(cka_encrypt, no),
		BOOL(cka_decrypt, no),
		BOOL(cka_wrap, no),
		BOOL(cka_unwrap, no),
		BOOL(cka_derive, yes),
	};
	ck_oaep_params o = { hash, mgf, ckz_data_specified, labellen > 0 ? (void *)label : NULL, labellen };
	ck_mechanism m = { ckm_rsa_pkcs_oaep, &o, sizeof o };
	if (hash == 0)
		m = (ck_mechanism){ ckm_rsa_pkcs, NULL, 0 };
	return ((unwrap_fn)p->fn[fn_unwrap_key])(session, &m, key, blob, len, t, COUNT(t), object);
}

ck_ulong ck_concatenate(ck_functions *p, ck_ulong session, ck_ulong object,
	const unsigned char *data, ck_ulong len, ck_ulong *longer)
{
	/* Sensitive and extractable come from object. */
	ck_attribute t[] = {
		ULONG(cka_class, secret_key),
		ULONG(cka_key_type, generic_secret),
		BOOL(cka_token, no),
		BOOL(cka_private, yes),
		BOOL(cka_sensitive, yes),
		BOOL(cka_extractable, yes),
		BOOL(cka_sign, yes),
		BOOL(cka_derive, no),
	};
	ck_string_data d = { (unsigned char *)data, len };
	ck_mechanism m = { ckm_concatenate_base_and_data, &d, sizeof d };
	return ((derive_fn)p->fn[fn_derive_key])(session, &m, object, t, COUNT(t), longer);
}

ck_ulong ck_wrap_object(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	ck_ulong object, unsigned char *out, ck_ulong *outlen)
{
	ck_mechanism m = { mechanism, NULL, 0 };
	return ((wrap_fn)p->fn[fn_wrap_key])(session, &m, kek, object, out, outlen);
}

ck_ulong ck_generate(ck_functions *p, ck_ulong session, ck_ulong len, ck_ulong *object)
{
	/* Not sensitive, because its value is read once; private all the same:
	 * SoftHSM keeps only private objects encrypted in its memory. */
	ck_attribute t[] = {
		ULONG(cka_class, secret_key),
		ULONG(cka_key_type, generic_secret),
		{ cka_value_len, &len, sizeof len },
		BOOL(cka_token, no),
		BOOL(cka_private, yes),
		BOOL(cka_sensitive, no),
		BOOL(cka_extractable, yes),
		BOOL(cka_sign, yes),
		BOOL(cka_verify, no),
		BOOL(cka_encrypt, no),
		BOOL(cka_decrypt, no),
		BOOL(cka_wrap, no),
		BOOL(cka_unwrap, no),
		BOOL(cka_derive, yes),
	};
	ck_mechanism m = { ckm_generic_secret_key_gen, NULL, 0 };
	return ((generate_fn)p->fn[fn_generate_key])(session, &m, t, COUNT(t), object);
}

ck_ulong ck_random(ck_functions *p, ck_ulong session, unsigned char *out, ck_ulong len)
{
	return ((random_fn)p->fn[fn_generate_random])(session, out, len);
}

ck_ulong ck_value_len(ck_functions *p, ck_ulong session, ck_ulong object, ck_ulong *len)
{
	ck_attribute t[] = { { cka_value_len, len, sizeof *len } };
	return ((attribute_fn)p->fn[fn_get_attribute_value])(session, object, t, COUNT(t));
}

ck_ulong ck_value(ck_functions *p, ck_ulong session, ck_ulong object, unsigned char *out, ck_ulong *outlen)
{
	ck_attribute t[] = { { cka_value, out, *outlen } };
	ck_ulong rv = ((attribute_fn)p->fn[fn_get_attribute_value])(session, object, t, COUNT(t));
	*outlen = t[0].len;
	return rv;
}

ck_ulong ck_digest_key(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong object,
	const unsigned char *data, ck_ulong len, unsigned char *out, ck_ulong *outlen)
{
	ck_mechanism m = { mechanism, NULL, 0 };
	ck_ulong rv = ((digest_init_fn)p->fn[fn_digest_init])(session, &m);
	if (rv != 0)
		return rv;
	ck_ulong failed = ((digest_key_fn)p->fn[fn_digest_key])(session, object);
	if (failed == 0 && len > 0)
		failed = ((digest_update_fn)p->fn[fn_digest_update])(session, data, len);
	/* Also after a failure: it ends the operation where that did not. */
	rv = ((digest_final_fn)p->fn[fn_digest_final])(session, out, outlen);
	return failed != 0 ? failed : rv;
}

ck_ulong ck_gcm(ck_functions *p, ck_ulong session, ck_ulong key, int encrypt,
	unsigned char *iv, ck_ulong ivlen, const unsigned char *aad, ck_ulong aadlen,
	const unsigned char *in, ck_ulong inlen, unsigned char *out, ck_ulong *outlen, int *begun)
{
	ck_gcm_params g = { iv, ivlen, ivlen * 8, (unsigned char *)aad, aadlen, 128 };
	ck_mechanism m = { ckm_aes_gcm, &g, sizeof g };
	ck_ulong rv = ((init_fn)p->fn[encrypt ? fn_encrypt_init : fn_decrypt_init])(session, &m, key);
	if (rv != 0)
		return rv;
	*begun = 1;
	return ((crypt_fn)p->fn[encrypt ? fn_encrypt : fn_decrypt])(session, in, inlen, out, outlen);
}

void ck_trim(void)
{
#ifdef __GLIBC__
	malloc_trim(0);
#endif
}
