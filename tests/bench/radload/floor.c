// floor PORT WORKERS SECRET: answers every request with an empty Accept or Accounting-Response, signed, and does
// nothing else. No server can be faster on the same machine; the share of it is what a figure is worth elsewhere.
#include "digests.h"
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
    if (count != 4) return fprintf(stderr, "floor PORT WORKERS SECRET\n"), 2;
    Secret secret;
    secret_prepare(&secret, words[3]);
    for (int worker = 1; worker < atoi(words[2]); worker++)
        if (!fork()) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            break;
        }
    int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1, buffer = 16 << 20;
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    struct sockaddr_in here = {AF_INET, htons(atoi(words[1])), {htonl(INADDR_LOOPBACK)}, {0}};
    if (bind(fd, (struct sockaddr *)&here, sizeof here)) return perror("bind"), 1;
    for (;;) {
        uint8_t packet[4096], digest[16];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        if (recvfrom(fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &size) < 20) continue;
        packet[0] = packet[0] == 4 ? 5 : 2, packet[2] = 0, packet[3] = 20;
        md5_with_secret(&secret, packet, 20, digest); // over the Request Authenticator, which stands there already
        memcpy(packet + 4, digest, 16);
        sendto(fd, packet, 20, 0, (struct sockaddr *)&from, size);
    }
}
