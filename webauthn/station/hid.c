#define _GNU_SOURCE
#include "hid.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// CTAP 2.1, section 11.2: reports of 64 bytes, before which hidraw wants the number of
// the report, 0. A message begins with channel, command, length; what does not fit goes
// on in reports with channel and sequence number.
enum {
	REPORT = 64,
	FIRST = REPORT - 7,
	NEXT = REPORT - 5,
	MOST = FIRST + 128 * NEXT,
	CMD_CBOR = 0x10 | 0x80,
	CMD_CANCEL = 0x11 | 0x80,
	MAKE_CREDENTIAL = 0x01,
	KEY_ENTERPRISE = 0x0a,
};

typedef struct {
	int fd;
	int enterprise;
	unsigned char channel[4];
	unsigned char message[MOST];
	size_t want, have; // of a makeCredential that is held back until it is whole
} hid_t;

void *hid_open(const char *path) {
	hid_t *h = calloc(1, sizeof(*h));
	struct stat st;
	if (h == NULL)
		return NULL;
	h->fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (h->fd < 0 || fstat(h->fd, &st) != 0 || !S_ISCHR(st.st_mode) ||
	    flock(h->fd, LOCK_EX | LOCK_NB) != 0) {
		if (h->fd >= 0)
			close(h->fd);
		free(h);
		return NULL;
	}
	return h;
}

void hid_close(void *handle) {
	hid_t *h = handle;
	close(h->fd);
	free(h);
}

void hid_enterprise(void *handle, int level) { ((hid_t *)handle)->enterprise = level; }

static long long now_ms(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int hid_read(void *handle, unsigned char *buf, size_t len, int ms) {
	hid_t *h = handle;
	long long end = now_ms() + ms;
	if (len != REPORT)
		return -1;
	for (;;) {
		struct pollfd p = {.fd = h->fd, .events = POLLIN};
		int left = -1, n;
		if (ms >= 0 && (left = (int)(end - now_ms())) < 0)
			left = 0;
		n = poll(&p, 1, left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		n = (int)read(h->fd, buf, len);
		if (n < 0 && errno == EINTR)
			continue;
		return n == REPORT ? n : -1; // less: the key is gone
	}
}

static int put(hid_t *h, const unsigned char *report) {
	ssize_t n;
	do
		n = write(h->fd, report, 1 + REPORT);
	while (n < 0 && errno == EINTR);
	return n == 1 + REPORT ? 0 : -1;
}

// send writes the message that was held back.
static int send(hid_t *h) {
	unsigned char report[1 + REPORT];
	size_t at = 0, n;
	for (int seq = -1; at < h->have || seq < 0; seq++) {
		unsigned char *p = report + 1;
		memset(report, 0, sizeof(report));
		memcpy(p, h->channel, 4);
		p += 4;
		if (seq < 0) {
			*p++ = CMD_CBOR;
			*p++ = (unsigned char)(h->have >> 8);
			*p++ = (unsigned char)h->have;
		} else {
			*p++ = (unsigned char)seq;
		}
		n = (size_t)(report + sizeof(report) - p);
		if (n > h->have - at)
			n = h->have - at;
		memcpy(p, h->message + at, n);
		at += n;
		if (put(h, report) != 0)
			return -1;
	}
	return 0;
}

int hid_write(void *handle, const unsigned char *buf, size_t len) {
	hid_t *h = handle;
	const unsigned char *frame = buf + 1, *data;
	size_t room, n;
	if (len != 1 + REPORT)
		return -1;
	if (frame[4] == CMD_CANCEL) // of another thread, and perhaps amid a message
		return put(h, buf) == 0 ? (int)len : -1;
	if (frame[4] & 0x80) {
		h->want = 0;
		if (!h->enterprise || frame[4] != CMD_CBOR || frame[7] != MAKE_CREDENTIAL)
			return put(h, buf) == 0 ? (int)len : -1;
		h->want = (size_t)frame[5] << 8 | frame[6];
		h->have = 0;
		if (h->want < 2 || h->want + 2 > MOST)
			return -1;
		memcpy(h->channel, frame, 4);
		data = frame + 7;
		room = FIRST;
	} else if (h->want != 0) {
		data = frame + 5;
		room = NEXT;
	} else {
		return put(h, buf) == 0 ? (int)len : -1;
	}
	n = h->want - h->have;
	if (n > room)
		n = room;
	memcpy(h->message + h->have, data, n);
	h->have += n;
	if (h->have < h->want)
		return (int)len;
	// The parameters are a map of less than 23 pairs, whose keys rise: this is the last.
	h->want = 0;
	if (h->message[1] < 0xa0 || h->message[1] > 0xb6)
		return -1;
	h->message[1]++;
	h->message[h->have++] = KEY_ENTERPRISE;
	h->message[h->have++] = (unsigned char)h->enterprise;
	return send(h) == 0 ? (int)len : -1;
}
