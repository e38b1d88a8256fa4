/* The load: one connected socket, 64 datagrams a system call, a fixed number of
 * queries outstanding. It checks each reply's ID against what it asked and
 * counts rcodes and octets, so that a server cannot win by answering less.
 * usage: flood FILE PORT SECONDS [WINDOW [RATE]]
 * FILE holds queries in wire form, each behind its length in two octets.
 * With a RATE it asks so many queries a second, one datagram a system call, and
 * spins meanwhile, so that its own wake-ups are in nobody's time.
 * It prints: answers lost seconds octets p50 p99 (in µs) rcode0 .. rcode15 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, ROOM = 4096, IDS = 65536, SLOWEST = 100000 };

/* percentile of times counted by microseconds */
static int percentile(const long *took, long answers, double share) {
	long sum = 0;
	for (int i = 0; i <= SLOWEST; i++)
		if ((sum += took[i]) >= share * answers)
			return i;
	return SLOWEST;
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
	static struct mmsghdr out[BATCH], in[BATCH];
	static struct iovec outv[BATCH][2], inv[BATCH];
	static unsigned char room[BATCH][ROOM];
	static uint16_t ids[BATCH];
	static unsigned char waiting[IDS];
	static double asked[IDS];
	static long took[SLOWEST + 1]; /* answers by microseconds */
	long rcodes[16] = {0}, answers = 0, lost = 0, octets = 0;
	if (argc < 4) {
		fprintf(stderr, "usage: flood FILE PORT SECONDS [WINDOW [RATE]]\n");
		return 2;
	}
	int window = argc > 4 ? atoi(argv[4]) : 512, size = 4 << 20;
	double rate = argc > 5 ? atof(argv[5]) : 0, due = 0;
	FILE *f = fopen(argv[1], "rb");
	if (!f) {
		perror(argv[1]);
		return 1;
	}
	fseek(f, 0, SEEK_END);
	long len = ftell(f), count = 0, room_for = 1 << 16;
	rewind(f);
	unsigned char *data = malloc(len), **query = malloc(room_for * sizeof *query);
	if (fread(data, 1, len, f) != (size_t)len)
		return 1;
	for (long at = 0; at + 2 <= len; at += 2 + (data[at] << 8 | data[at + 1])) {
		if (count == room_for)
			query = realloc(query, (room_for *= 2) * sizeof *query);
		query[count++] = data + at;
	}
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons(atoi(argv[2]))};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
		perror("connect");
		return 1;
	}
	for (int i = 0; i < BATCH; i++) {
		inv[i] = (struct iovec){room[i], ROOM};
		in[i].msg_hdr = (struct msghdr){.msg_iov = &inv[i], .msg_iovlen = 1};
	}
	double start = now(), end = start + atof(argv[3]), moved = start;
	long next = 0;
	int outstanding = 0;
	uint16_t id = 1;
	while (now() < end) {
		int n = 0, most = BATCH;
		double t = now();
		if (rate > 0) {
			if (due == 0)
				due = t;
			most = t >= due;
			due += most / rate;
		}
		for (; n < most && outstanding + n < window; n++) {
			while (waiting[id])
				id++;
			unsigned char *q = query[next++ % count];
			ids[n] = htons(id);
			asked[id] = t;
			waiting[id++] = 1;
			outv[n][0] = (struct iovec){&ids[n], 2};
			outv[n][1] = (struct iovec){q + 4, (q[0] << 8 | q[1]) - 2};
			out[n].msg_hdr = (struct msghdr){.msg_iov = outv[n], .msg_iovlen = 2};
		}
		for (int sent = 0; sent < n;) {
			int k = sendmmsg(fd, out + sent, n - sent, 0);
			sent += k > 0 ? k : 1;
		}
		outstanding += n;
		int got = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL);
		if (got <= 0) {
			struct pollfd p = {.fd = fd, .events = POLLIN};
			if (outstanding >= window && poll(&p, 1, 50) == 0 && now() - moved > 0.05) { /* the rest is lost */
				lost += outstanding;
				outstanding = 0;
				memset(waiting, 0, sizeof waiting);
				moved = now();
			}
			continue;
		}
		moved = now();
		for (int i = 0; i < got; i++) {
			uint16_t have = room[i][0] << 8 | room[i][1];
			if (in[i].msg_len < 12 || !(room[i][2] & 0x80) || !waiting[have])
				continue;
			waiting[have] = 0;
			outstanding--;
			answers++;
			double us = (moved - asked[have]) * 1e6;
			took[us < SLOWEST ? (int)us : SLOWEST]++;
			octets += in[i].msg_len;
			rcodes[room[i][3] & 15]++;
		}
	}
	printf("%ld %ld %.3f %ld %d %d", answers, lost, now() - start, octets, percentile(took, answers, 0.5), percentile(took, answers, 0.99));
	for (int i = 0; i < 16; i++)
		printf(" %ld", rcodes[i]);
	printf("\n");
	return 0;
}
