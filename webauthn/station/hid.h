// The reports of a key, as libfido2 has others read and write them
// (fido_dev_set_io_functions). What is particular here: nothing but a character device
// is opened, it becomes nobody's controlling terminal, and makeCredential can ask for
// enterprise attestation, for which libfido2 1.12 has no call.

#ifndef WATCHWORD_STATION_HID_H
#define WATCHWORD_STATION_HID_H

#include <stddef.h>

void *hid_open(const char *path);
void hid_close(void *handle);
int hid_read(void *handle, unsigned char *buf, size_t len, int ms);
int hid_write(void *handle, const unsigned char *buf, size_t len);

// hid_enterprise sets the enterpriseAttestation of the credentials that are made from
// now on (CTAP 2.1, section 6.1): 1 by the list of relying parties that the vendor put
// into the key, 0 none.
void hid_enterprise(void *handle, int level);

#endif
