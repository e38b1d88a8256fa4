/* The floor: a server that only sends back what it gets, with the QR bit set,
 * 64 datagrams a system call. No name server can cost less than the kernel
 * makes this one cost.  usage: echo PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, ROOM = 1500 };

int main(int argc, char **argv) {
	static struct mmsghdr msg[BATCH];
	static struct iovec vec[BATCH];
	static struct sockaddr_in from[BATCH];
	static unsigned char room[BATCH][ROOM];
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 4 << 20;
	if (argc != 2) {
		fprintf(stderr, "usage: echo PORT\n");
		return 2;
	}
	at.sin_port = htons(atoi(argv[1]));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) {
		perror("bind");
		return 1;
	}
	for (;;) {
		for (int i = 0; i < BATCH; i++) {
			vec[i] = (struct iovec){room[i], ROOM};
			msg[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &vec[i], .msg_iovlen = 1};
		}
		int n = recvmmsg(fd, msg, BATCH, MSG_WAITFORONE, NULL);
		if (n < 0) {
			perror("recvmmsg");
			return 1;
		}
		for (int i = 0; i < n; i++) {
			vec[i].iov_len = msg[i].msg_len;
			if (msg[i].msg_len > 2)
				room[i][2] |= 0x80;
		}
		for (int sent = 0; sent < n;) {
			int k = sendmmsg(fd, msg + sent, n - sent, 0);
			sent += k > 0 ? k : 1;
		}
	}
}
