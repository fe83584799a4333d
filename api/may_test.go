package api

// mays says of each operation of the contract who may ask for it: the one table of
// who may do what through this API. Each is tried with the keys and with the sessions
// of all of them, and with none: see TestWhoMayDoWhat. An operation without a row
// fails that test, and so does a row without an operation.
//
//	S superuser   H helpdesk   P provisioner   E enroller   A auditor   V verifier
//	R a role of the installation's own, which no policy says anything of
//	O superuser of one realm
//	N who shows no key and no session
//	* everybody; nothing is looked at
//	! a person needs a token that was proved a moment ago
//	# a person and a key are answered otherwise: see personally
//
// In paths and bodies {...} is something that was made for this one try: see
// tries.make. The status is what whoever may is answered: that it was done, where a
// test can have it done at once.
var mays = []may{
	{"POST", "/v1/verify", "SOHV", `{"user":"{user}","code":"000000"}`, 200},
	{"POST", "/v1/pin", "SOV", `{"user":"{user}","code":"000000","new_pin":"280714"}`, 200},

	{"POST", "/v1/webauthn/register/begin", "SOHPE", `{"user":"{user}"}`, 200},
	{"POST", "/v1/webauthn/register/finish", "SOHPE", `{"session":"{registering}","response":{attested}}`, 201},
	{"POST", "/v1/webauthn/login/begin", "SOHVN#", `{"user":"{user}"}`, 200},
	{"POST", "/v1/webauthn/login/finish", "SOHVN#", `{"session":"{login}","response":{},"sign_in":{}}`, 400},

	{"POST", "/v1/statements/check", "SOV", `{"statement":"e30.e30.c2ln","audience":"wiki"}`, 200},
	{"GET", "/v1/statements/keys", "SA", "", 200},
	{"POST", "/v1/statements/keys", "S!", `{"now":true}`, 200},

	{"GET", "/v1/users", "SOHPA", "", 200},
	{"POST", "/v1/users", "SOHP", `{"name":"{new}"}`, 201},
	{"GET", "/v1/users/{user}", "SOHPA", "", 200},
	{"PATCH", "/v1/users/{user}", "SOHP", `{"mail":"x@example.com"}`, 200},
	{"POST", "/v1/users/import", "SOP!", "name\n{new}\n", 200},
	{"GET", "/v1/users/export", "SOA!", "", 200},
	{"POST", "/v1/users/{user}/enable", "SOH", "", 200},
	{"POST", "/v1/users/{user}/disable", "SOH", "", 200},
	{"POST", "/v1/users/{user}/unlock", "SOH", "", 200},
	{"PUT", "/v1/users/{user}/pin", "SOH", `{"pin":"280714"}`, 200},
	{"DELETE", "/v1/users/{user}/pin", "SOH", "", 200},
	{"POST", "/v1/users/{user}/tokens", "SOHP", "", 201},
	{"POST", "/v1/users/{user}/recovery", "SOH", "", 201},
	{"POST", "/v1/users/{user}/temporary", "SOH", "", 201},
	{"GET", "/v1/users/{user}/story", "SOHA", "", 200},
	{"GET", "/v1/users/{user}/why", "SOHA", "", 200},
	{"GET", "/v1/users/{user}/invitations", "SOHPA", "", 200},
	{"POST", "/v1/users/{user}/invitations", "SOHP", "", 201},
	{"DELETE", "/v1/invitations/{invitation}", "SOHP", "", 204},
	{"GET", "/v1/users/{user}/groups", "SOHPA", "", 200},
	{"PUT", "/v1/users/{user}/groups", "SOHP", `{"groups":["staff"]}`, 200},

	{"GET", "/v1/tokens", "SOHPA", "", 200},
	{"GET", "/v1/tokens/{serial}", "SOHPA", "", 200},
	{"PATCH", "/v1/tokens/{serial}", "SOHP", `{"note":"scratched"}`, 200},
	{"PUT", "/v1/tokens/{serial}/expiry", "SOHP", `{"expires":null}`, 200},
	{"POST", "/v1/tokens/{serial}/replace", "SOH!", `{"by":"{free}"}`, 200},
	{"POST", "/v1/tokens/bulk", "SOH", `{"act":"suspend","serials":["{serial}"]}`, 200},
	{"POST", "/v1/tokens/{free}/assign", "SOHP", `{"user":"{user}"}`, 200},
	{"POST", "/v1/tokens/{serial}/unassign", "SOH", "", 200},
	{"POST", "/v1/tokens/{serial}/suspend", "SOH", "", 200},
	{"POST", "/v1/tokens/{serial}/resume", "SOH", "", 200},
	{"POST", "/v1/tokens/{serial}/lost", "SOH", "", 200},
	{"POST", "/v1/tokens/{serial}/revoke", "SOH!", "", 200},
	{"POST", "/v1/tokens/{serial}/resync", "SOH", `{"code1":"{code20}","code2":"{code21}"}`, 200},
	{"POST", "/v1/tokens/{serial}/activate", "SOHP", `{"code1":"000000","code2":"000001"}`, 409},
	{"GET", "/v1/tokens/{clock}/drift", "SOHA", "", 200},
	{"GET", "/v1/tokens/{serial}/story", "SOHA", "", 200},
	{"POST", "/v1/tokens/{serial}/unlock", "SOH", "", 200},

	{"GET", "/v1/imports", "SOHPA", "", 200},
	{"POST", "/v1/imports", "SOP!", "{new},3132333435363738393031323334353637383930\n", 200},
	{"GET", "/v1/imports/{import}", "SOHPA", "", 200},
	{"POST", "/v1/imports/{import}/undo", "SO!", "", 200},

	{"GET", "/v1/fido/metadata", "SOHEA", "", 404},
	{"POST", "/v1/fido/metadata", "S!", "e30.e30.c2ln", 400},
	{"GET", "/v1/fido/models", "SOHEA", "", 200},
	{"GET", "/v1/fido/allowed?aaguid=01020304-0506-0708-0102-030405060708", "SOHEA", "", 200},
	{"GET", "/v1/fido/rules", "SOHEA", "", 200},
	{"PUT", "/v1/fido/rules", "S!", `{"version":{rules},"rules":{"default":{"allow_unknown":true,"required_attestation":"none"}}}`, 200},
	{"GET", "/v1/fido/roots", "SOHEA", "", 200},
	{"PUT", "/v1/fido/roots", "S!", `{"pem":""}`, 200},
	{"GET", "/v1/fido/concerns", "SOHEA", "", 200},

	{"GET", "/v1/realms", "SOHA", "", 200},
	{"GET", "/v1/realms/{realm}/rules", "SOHA", "", 200},
	{"PUT", "/v1/realms/{realm}/rules", "SO!", `{"rules":{anyrules}}`, 200},
	{"DELETE", "/v1/realms/{realm}/rules", "SO!", "", 200},

	{"GET", "/v1/sinks", "SA", "", 200},
	{"GET", "/v1/sinks/{sink}", "SA", "", 200},
	{"PUT", "/v1/sinks/{sink}", "S!", `{"kind":"file","format":"ocsf"}`, 200},
	{"DELETE", "/v1/sinks/{sink}", "S!", "", 204},
	{"POST", "/v1/sinks/{sink}/test", "S", "", 204},

	{"GET", "/v1/clients", "SOA", "", 200},
	{"POST", "/v1/clients", "SO!", `{"name":"{new}","prefix":"{network}","secret":"0123456789abcdef"}`, 201},
	{"PUT", "/v1/clients/{client}", "SO!", `{"prefix":"{network}","secret":"0123456789abcdef"}`, 200},
	{"DELETE", "/v1/clients/{client}", "SO!", "", 204},
	{"POST", "/v1/clients/{client}/test", "SO", `{"user":"{user}","code":"000000"}`, 409}, // there is no RADIUS
	{"GET", "/v1/radius/watch", "SOA", "", 409},

	{"GET", "/v1/keys", "SOA", "", 200},
	{"POST", "/v1/keys", "SO!", `{"name":"{new}","scope":"verify"}`, 201},
	{"DELETE", "/v1/keys/{key}", "SO!", "", 204},
	{"POST", "/v1/keys/{key}/rotate", "SO!", "", 201},

	{"POST", "/v1/session", "SOVN#", `{"user":"{user}","code":"000000"}`, 200},
	{"GET", "/v1/session", "*#", "", 404},
	{"DELETE", "/v1/session", "*#", "", 404},
	{"POST", "/v1/session/renew", "*#", `{"code":"000000"}`, 400},
	{"POST", "/v1/session/check", "SOV", `{"session":"wsn_9c1e5a7702f4d3b8_x"}`, 200},
	{"GET", "/v1/sessions", "SOHA", "", 200},
	{"DELETE", "/v1/sessions/{session}", "SOHV", "", 204},

	{"GET", "/v1/roles", "SOA", "", 200},
	{"PUT", "/v1/roles/auditor/users/{user}", "SO!", "", 200},
	{"DELETE", "/v1/roles/auditor/users/{auditor}", "SO!", "", 204},

	{"GET", "/v1/policies", "SA", "", 200},
	{"PUT", "/v1/policies", "S!", `{"put":[{"id":"{new}","text":{policy}}]}`, 200},
	{"GET", "/v1/policies/versions", "SA", "", 200},
	{"POST", "/v1/policies/rollback", "S!", `{"version":1}`, 200},
	{"POST", "/v1/policies/check", "SA", `{"policies":[{"id":"{new}","text":{policy}}]}`, 204},
	{"POST", "/v1/policies/simulate", "SA", `{"queries":[{"principal":"key:{key}","action":"token.revoke","serial":"1"}]}`, 200},
	{"POST", "/v1/policies/replay", "SA", `{"draft":{},"last":10}`, 200},
	{"GET", "/v1/policies/applying?resource=installation", "SA", "", 200},
	{"GET", "/v1/policies/schema", "SOA", "", 200},
	{"GET", "/v1/policies/{written}", "SA", "", 200},
	{"PUT", "/v1/policies/{new}", "S!", `{"text":{policy}}`, 200},
	{"DELETE", "/v1/policies/{written}", "S!", "", 200},
	{"GET", "/v1/policies/templates/{template}", "SA", "", 200},
	{"PUT", "/v1/policies/templates/{new}", "S!", `{"text":{template text}}`, 200},
	{"DELETE", "/v1/policies/templates/{template}", "S!", "", 200},
	{"POST", "/v1/policies/links", "S!", `{"links":[{"id":"{new}","template":"{template}","principal":"Watchword::Role::\"nobody\""}]}`, 200},
	{"GET", "/v1/policies/links/{link}", "SA", "", 200},
	{"PUT", "/v1/policies/links/{new}", "S!", `{"template":"{template}","principal":"Watchword::Role::\"nobody\""}`, 200},
	{"DELETE", "/v1/policies/links/{link}", "S!", "", 200},

	{"GET", "/v1/reports/credentials", "SOHA", "", 200},
	{"GET", "/v1/reports/summary", "SOHA", "", 200},
	{"GET", "/v1/audit", "SOHA", "", 200},
	{"GET", "/v1/audit/verify", "SOA", "", 200},
	{"POST", "/v1/audit/verify", "SOA", "\n", 200},
	{"POST", "/v1/audit/checkpoint", "S", "", 200},
	{"GET", "/v1/audit/export", "SOA!", "", 200},
	{"POST", "/v1/audit/cut", "S!", `{"before":"2025-01-01T00:00:00Z","dry_run":true}`, 200},

	{"GET", "/.well-known/jwks.json", "*N", "", 200},
	{"GET", "/.well-known/webauthn", "*N", "", 200},
	{"GET", "/openapi.yaml", "*N", "", 200},
	{"GET", "/healthz", "*N", "", 200},
	{"GET", "/readyz", "*N", "", 200},
	{"GET", "/metrics", "*N", "", 200},
}

// personally are the operations that answer persons otherwise than keys: the status,
// whatever role they have.
var personally = map[string]int{
	"POST /v1/session":               400, // they are signed in
	"GET /v1/session":                200,
	"DELETE /v1/session":             204,
	"POST /v1/session/renew":         200, // reject: the code is wrong
	"POST /v1/webauthn/login/begin":  200, // to renew it
	"POST /v1/webauthn/login/finish": 400, // likewise; there is no answer in it
}
