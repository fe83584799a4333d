package seeds

// refuseSDTID recognises the files that RSA ships with SecurID tokens (.sdtid),
// and says why they cannot be imported; empty for every other file.
func refuseSDTID(prefix []byte) string {
	root, child, _ := xmlRoot(prefix)
	if root == "TKNBatch" || root == "TKNHeader" || root == "TKN" || child == "TKNHeader" {
		return "this is a file of RSA SecurID tokens (.sdtid); their codes come from an algorithm of RSA's own, not from OATH (HOTP, TOTP), so that only RSA's server can check them"
	}
	return ""
}
