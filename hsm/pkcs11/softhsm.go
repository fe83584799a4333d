package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/pkcs11"
)

// FindSoftHSM finds SoftHSM's module where Debian and its relatives put it.
func FindSoftHSM() (string, error) {
	places := []string{
		"/usr/lib/softhsm/libsofthsm2.so",
		"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
		"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
		"/usr/lib64/pkcs11/libsofthsm2.so",
		"/usr/lib64/softhsm/libsofthsm2.so",
		"/usr/local/lib/softhsm/libsofthsm2.so",
	}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("SoftHSM is not installed: libsofthsm2.so is in none of %s; install the package softhsm2 or configure a PKCS#11 module",
		strings.Join(places, ", "))
}

// UseSoftHSM makes this process's SoftHSM keep its tokens in dir/tokens: it
// writes dir/softhsm2.conf anew and sets SOFTHSM2_CONF. It must be called before
// each first use of the module in a process, also when the token exists.
func UseSoftHSM(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if strings.ContainsAny(dir, "#\n") {
		return fmt.Errorf("SoftHSM cannot use the folder %q: its name has a # or a line break", dir)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return fmt.Errorf("make SoftHSM's token folder: %w", err)
	}
	text := "# Written at each start.\n" +
		"directories.tokendir = " + tokens + "\n" +
		"objectstore.backend = file\n" +
		"log.level = ERROR\n" +
		"slots.removable = false\n" +
		"slots.mechanisms = " + strings.Join(softMechanisms, ",") + "\n"
	conf := filepath.Join(dir, "softhsm2.conf")
	if old, err := os.ReadFile(conf); err != nil || !bytes.Equal(old, []byte(text)) {
		// Whole or not at all: another server may be starting on the same folder.
		tmp, err := os.CreateTemp(dir, "softhsm2.conf.")
		if err != nil {
			return fmt.Errorf("write SoftHSM's configuration: %w", err)
		}
		_, err = tmp.WriteString(text)
		err = errors.Join(err, tmp.Close())
		if err == nil {
			err = os.Rename(tmp.Name(), conf)
		}
		if err != nil {
			os.Remove(tmp.Name())
			return fmt.Errorf("write SoftHSM's configuration: %w", err)
		}
	}
	return os.Setenv("SOFTHSM2_CONF", conf)
}

// softMechanisms are all that this package asks of a token: no others are to be had
// from SoftHSM. It copies the list at each operation, node by node, so that its
// length costs as much as the HMAC of a code. A name that a version does not know is
// passed over.
var softMechanisms = []string{
	"CKM_SHA_1_HMAC", "CKM_SHA256_HMAC", "CKM_SHA512_HMAC",
	"CKM_SHA224_HMAC", "CKM_SHA384_HMAC", // of transport keys' tests of what they unwrap
	"CKM_AES_KEY_GEN", "CKM_AES_KEY_WRAP_PAD", "CKM_AES_KEY_WRAP_KWP", "CKM_AES_KEY_WRAP", "CKM_AES_GCM", "CKM_AES_ECB",
	"CKM_GENERIC_SECRET_KEY_GEN", "CKM_CONCATENATE_BASE_AND_DATA",
	"CKM_RSA_PKCS_KEY_PAIR_GEN", "CKM_RSA_PKCS", "CKM_RSA_PKCS_OAEP",
	"CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA",
	"CKM_SHA_1", "CKM_SHA224", "CKM_SHA256", "CKM_SHA384", "CKM_SHA512",
}

// InitSoftHSM makes a SoftHSM token called label, of at most 32 bytes, in dir,
// and calls UseSoftHSM. It fails with os.ErrExist, and changes nothing, if
// there is one of that name.
func InitSoftHSM(ctx context.Context, dir, modulePath string, pin, soPIN []byte, label string) error {
	if len(label) == 0 || len(label) > 32 {
		return fmt.Errorf("a token's label has 1 to 32 bytes, not %d", len(label))
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := UseSoftHSM(dir); err != nil {
		return err
	}
	m, err := acquireModule(modulePath, "")
	if err != nil {
		return err
	}
	defer m.release()
	m.inside.Lock()
	defer m.inside.Unlock()
	if err := initToken(m, pin, soPIN, label); err != nil {
		return fmt.Errorf("make SoftHSM token %q in %s: %w", label, dir, err)
	}
	return nil
}

func initToken(m *module, pin, soPIN []byte, label string) error {
	// Asked without a buffer, C_GetSlotList offers a new slot if the last one
	// was taken.
	slots, err := m.p11.GetSlotList(false)
	if err != nil {
		return opError("C_GetSlotList", err)
	}
	free, found := uint(0), false
	for _, s := range slots {
		info, err := m.p11.GetTokenInfo(s)
		if err != nil {
			continue
		}
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			free, found = s, true
		} else if strings.TrimRight(info.Label, " \x00") == label {
			return os.ErrExist
		}
	}
	if !found {
		return errors.New("the module offers no slot for a new token")
	}
	if err := m.p11.InitToken(free, string(soPIN), label); err != nil {
		return opError("C_InitToken", err)
	}
	h, err := m.p11.OpenSession(free, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return opError("C_OpenSession", err)
	}
	defer m.p11.CloseSession(h)
	if err := m.p11.Login(h, pkcs11.CKU_SO, string(soPIN)); err != nil {
		return opError("C_Login", err)
	}
	defer m.p11.Logout(h)
	if err := m.p11.InitPIN(h, string(pin)); err != nil {
		return opError("C_InitPIN", err)
	}
	return nil
}
