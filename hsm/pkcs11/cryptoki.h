/* The few PKCS#11 calls of the hot path, each one crossing between Go and C.
 * The layout follows PKCS#11 v2.40: CK_FUNCTION_LIST is a version and then 68
 * function pointers in the order of the specification. */
#ifndef WATCHWORD_CRYPTOKI_H
#define WATCHWORD_CRYPTOKI_H

typedef unsigned long ck_ulong;

typedef struct {
	unsigned char major, minor;
	void *fn[68];
} ck_functions;

/* Answers NULL and sets *why (static or dlerror's text) on failure. */
ck_functions *ck_load(const char *path, const char **why);

ck_ulong ck_login(ck_functions *p, ck_ulong session, const unsigned char *pin, ck_ulong len);

/* C_SignInit and C_Sign. *outlen is the size of out on entry, the length of
 * the signature on return. */
ck_ulong ck_sign(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong key,
	const unsigned char *in, ck_ulong inlen, unsigned char *out, ck_ulong *outlen);

/* C_CreateObject of a generic secret, C_WrapKey and C_DestroyObject of it. */
ck_ulong ck_wrap(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	const unsigned char *value, ck_ulong len, unsigned char *out, ck_ulong *outlen);

/* C_UnwrapKey to a session key that can only sign. */
ck_ulong ck_unwrap(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	const unsigned char *blob, ck_ulong len, ck_ulong *key);

/* C_UnwrapKey of an AES key to a session key that can only decrypt. */
ck_ulong ck_unwrap_aes(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	const unsigned char *blob, ck_ulong len, ck_ulong *key);

/* C_DecryptInit and C_Decrypt by AES-ECB. *outlen is the size of out on entry. */
ck_ulong ck_decrypt(ck_functions *p, ck_ulong session, ck_ulong key,
	const unsigned char *in, ck_ulong inlen, unsigned char *out, ck_ulong *outlen);

/* C_DecryptInit and C_Decrypt by CKM_RSA_PKCS. *outlen is the size of out on
 * entry, at least that of the modulus. *begun is set once in is looked at. */
ck_ulong ck_decrypt_rsa(ck_functions *p, ck_ulong session, ck_ulong key,
	const unsigned char *in, ck_ulong inlen, unsigned char *out, ck_ulong *outlen, int *begun);

ck_ulong ck_destroy(ck_functions *p, ck_ulong session, ck_ulong object);

/* C_UnwrapKey of a seed that was encrypted to an RSA key, by CKM_RSA_PKCS_OAEP,
 * or by CKM_RSA_PKCS if hash is 0. The session key can be wrapped again, can sign
 * and be derived from; it is sensitive unless readable. */
ck_ulong ck_take(ck_functions *p, ck_ulong session, ck_ulong key, ck_ulong hash, ck_ulong mgf,
	const unsigned char *label, ck_ulong labellen, const unsigned char *blob, ck_ulong len,
	int readable, ck_ulong *object);

/* C_DeriveKey by CKM_CONCATENATE_BASE_AND_DATA: object and then data, as a
 * session key like ck_take's. */
ck_ulong ck_concatenate(ck_functions *p, ck_ulong session, ck_ulong object,
	const unsigned char *data, ck_ulong len, ck_ulong *longer);

/* C_WrapKey of an object. */
ck_ulong ck_wrap_object(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong kek,
	ck_ulong object, unsigned char *out, ck_ulong *outlen);

/* C_GenerateKey of len random bytes as a generic secret: a session key that can be
 * read, wrapped, derived from and can sign. */
ck_ulong ck_generate(ck_functions *p, ck_ulong session, ck_ulong len, ck_ulong *object);

/* C_GenerateRandom. */
ck_ulong ck_random(ck_functions *p, ck_ulong session, unsigned char *out, ck_ulong len);

/* CKA_VALUE_LEN, and CKA_VALUE, of an object. */
ck_ulong ck_value_len(ck_functions *p, ck_ulong session, ck_ulong object, ck_ulong *len);
ck_ulong ck_value(ck_functions *p, ck_ulong session, ck_ulong object, unsigned char *out, ck_ulong *outlen);

/* The digest of object's value and then of data, by C_DigestKey. */
ck_ulong ck_digest_key(ck_functions *p, ck_ulong session, ck_ulong mechanism, ck_ulong object,
	const unsigned char *data, ck_ulong len, unsigned char *out, ck_ulong *outlen);

/* AES-GCM with a tag of 16 bytes. Modules that make the IV themselves write it
 * over iv. *begun is set once in is looked at. */
ck_ulong ck_gcm(ck_functions *p, ck_ulong session, ck_ulong key, int encrypt,
	unsigned char *iv, ck_ulong ivlen, const unsigned char *aad, ck_ulong aadlen,
	const unsigned char *in, ck_ulong inlen, unsigned char *out, ck_ulong *outlen, int *begun);

/* Gives free memory back to the system, where the C library can. */
void ck_trim(void);

#endif
