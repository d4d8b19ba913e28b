// A RADIUS load generator: many NAS ports in one thread, in a closed loop or at a fixed rate, every reply verified.
//
// load -p PORT -s SECRET [-m pap|chap|mschap2|acct] [-u USERS] [-d SECONDS] [-x WARM_UP_SECONDS] [-w WINDOW]
//      [-k SOCKETS] [-r RATE] [-t TIMEOUT_SECONDS] [-i INTERIMS] [-n (no Message-Authenticator)] [-c (no Class)]
//
// To 127.0.0.1 alone. Users are user%07u with password pw%07u, numbers below USERS, taken at random; acct plays
// Start, INTERIMS Interim-Updates (1 unless told) and Stop of one session after the other in each place of the window,
// five minutes of the session's own time apart, each with the Class that sms-aaa would have put into the Accept (the
// user's number + 1 as service, a token of the session's own). One line of JSON tells what was measured after the
// warm-up. Latency counts from the first try of a request to its reply; "behind_ms" is
// how late, at a fixed rate, the latest request was sent, because the window was full or this process had no turn.
#define _GNU_SOURCE
#include "digests.h"
#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ACCESS_REQUEST = 1, ACCESS_ACCEPT, ACCESS_REJECT, ACCOUNTING_REQUEST, ACCOUNTING_RESPONSE };
enum { START = 1, STOP, INTERIM };
enum { PAP, CHAP, MSCHAP2, ACCT };
enum { SOCKETS_MAX = 256, IDENTIFIERS = 256, INTERIMS_MAX = 1000, TRIES_MAX = 4, REQUEST_OCTETS_MAX = 512, REPLY_OCTETS_MAX = 4096 };

typedef struct { // a place of the window: one socket, one Identifier
    bool waiting, counts;
    int fd, identifier, tries, octets, status, done; // done: interims of the session so far
    uint32_t user, session;
    double first, last;
    char proof[41]; // what MS-CHAP2-Success must say
    uint8_t request[REQUEST_OCTETS_MAX];
} Place;

static const char *const METHODS[] = {"pap", "chap", "mschap2", "acct"};
static struct {
    int port, method, users, window, sockets, interims;
    double seconds, warm_up, rate, timeout;
    bool is_signed, has_class;
} asked = {1812, PAP, 1000, 256, 64, 1, 5, 0, 0, 1, true, true};
static Secret secret;
static struct { uint64_t sent, accepted, rejected, unverified, retransmissions, lost; double behind; } tally;
static float *latencies;
static size_t latency_count, latency_room;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint64_t number(void) { // xorshift: quick, and good enough for load
    static uint64_t state;
    while (!state) if (getrandom(&state, sizeof state, 0) < 0) exit(1);
    state ^= state << 13, state ^= state >> 7;
    return state ^= state << 17;
}

static uint8_t *put(uint8_t *at, int type, const void *value, size_t octets) {
    *at++ = type, *at++ = octets + 2;
    memcpy(at, value, octets);
    return at + octets;
}

static uint8_t *put_integer(uint8_t *at, int type, uint32_t value) {
    value = htonl(value);
    return put(at, type, &value, 4);
}

static uint8_t *put_microsoft(uint8_t *at, int type, const void *value, size_t octets) {
    *at++ = 26, *at++ = octets + 8;
    memcpy(at, "\0\0\1\67", 4); // vendor 311
    return put(at + 4, type, value, octets);
}

static uint8_t *put_device(uint8_t *at, uint32_t user) {
    char text[32];
    at = put(at, 1, text, sprintf(text, "user%07u", user));
    at = put_integer(at, 4, INADDR_LOOPBACK);
    at = put_integer(at, 5, user & 0xffff);
    at = put_integer(at, 6, 2), at = put_integer(at, 7, 1); // Framed-User, PPP
    const uint32_t high = user >> 16, low = user & 0xffff;
    at = put(at, 31, text, sprintf(text, "02-00-%02X-%02X-%02X-%02X", high >> 8, high & 255, low >> 8, low & 255));
    at = put(at, 32, "bench-nas", 9);
    return put_integer(at, 61, 15); // Ethernet
}

static uint8_t *put_proof(uint8_t *at, Place *place) {
    uint8_t *request = place->request, value[128];
    char user[16], password[16];
    sprintf(user, "user%07u", place->user), sprintf(password, "pw%07u", place->user);
    if (asked.method == PAP) return put(at, 2, value, hide_password(&secret, password, request + 4, value));
    if (asked.method == CHAP) { // RFC 2865 section 5.3; the Request Authenticator is the challenge
        uint8_t text[64] = {place->identifier}, response[17] = {place->identifier};
        size_t octets = 1 + strlen(password) + 16;
        memcpy(text + 1, password, octets - 17), memcpy(text + octets - 16, request + 4, 16);
        MD5(text, octets, response + 1);
        return put(at, 3, response, 17);
    }
    uint64_t random[4] = {number(), number(), number(), number()}; // challenge, peer's challenge
    uint8_t *challenge = (uint8_t *)random, *peer = challenge + 16;
    uint8_t hash[16], hashed[8], response[50] = {place->identifier};
    nt_hash(password, hash);
    challenge_hash(peer, challenge, user, hashed);
    memcpy(response + 2, peer, 16);
    nt_response(hashed, hash, response + 26); // RFC 2548 section 2.3.2: after the peer's challenge and 8 zeros
    authenticator_response(hash, response + 26, hashed, place->proof);
    return put_microsoft(put_microsoft(at, 11, challenge, 16), 25, response, 50);
}

static void make_login(Place *place) {
    uint8_t *request = place->request, *at = request + 20;
    uint64_t random[2] = {number(), number()};
    request[0] = ACCESS_REQUEST, request[1] = place->identifier;
    memcpy(request + 4, random, 16);
    if (asked.is_signed) at = put(at, 80, (uint8_t[16]){0}, 16);
    at = put_proof(put_device(at, place->user), place);
    place->octets = at - request;
    request[2] = place->octets >> 8, request[3] = place->octets;
    uint8_t digest[16];
    hmac_md5(&secret, request, place->octets, digest);
    if (asked.is_signed) memcpy(request + 22, digest, 16);
}

static uint8_t *put_class(uint8_t *at, const Place *place) {
    uint32_t value[5] = {0, 0, htonl(place->user + 1), htonl(place->session), htonl(place->user)};
    memcpy(value, "SMS\1", 4);
    return put(at, 25, value, sizeof value);
}

static void make_record(Place *place) {
    uint8_t *request = place->request, *at = put_device(request + 20, place->user), digest[16];
    uint32_t done = place->status == STOP ? place->done + 1 : place->done;
    char text[32];
    request[0] = ACCOUNTING_REQUEST, request[1] = place->identifier;
    at = put_integer(at, 8, 0x0a000000 + (place->user & 0xffffff));
    if (asked.has_class) at = put_class(at, place);
    at = put_integer(at, 40, place->status);
    at = put(at, 44, text, sprintf(text, "%08x%08x", place->session, place->user));
    at = put_integer(at, 55, time(NULL) - 300 * (asked.interims + 1 - done));
    if (done) {
        at = put_integer(at, 42, 1000000 * done), at = put_integer(at, 43, 5000000 * done);
        at = put_integer(at, 46, 300 * done), at = put_integer(at, 47, 1000 * done);
        at = put_integer(at, 48, 4000 * done);
    }
    if (place->status == STOP) at = put_integer(at, 49, 1);
    place->octets = at - request;
    request[2] = place->octets >> 8, request[3] = place->octets;
    memset(request + 4, 0, 16);
    md5_with_secret(&secret, request, place->octets, digest);
    memcpy(request + 4, digest, 16);
}

static void ask(Place *place, double at, bool counts) {
    if (asked.method == ACCT) {
        bool ended = !place->status || place->status == STOP;
        place->status = ended ? START : place->done < asked.interims ? INTERIM : STOP;
        if (ended) place->session = number(), place->user = number() % asked.users, place->done = 0;
        place->done += place->status == INTERIM;
        make_record(place);
    } else {
        place->user = number() % asked.users;
        make_login(place);
    }
    place->waiting = true, place->counts = counts, place->tries = 1, place->first = place->last = at;
    tally.sent += counts;
    send(place->fd, place->request, place->octets, 0); // refused or no room: lost, as any datagram may be
}

// The value of Message-Authenticator or of a Microsoft attribute in a reply; NULL without one.
static uint8_t *find(uint8_t *reply, int octets, int type, int microsoft_type, int *length) {
    for (int at = 20; at + 2 <= octets && reply[at + 1] >= 2 && at + reply[at + 1] <= octets; at += reply[at + 1]) {
        if (reply[at] != type) continue;
        int header = type == 26 ? 8 : 2;
        if (type == 26 && (reply[at + 1] < 8 || memcmp(reply + at + 2, "\0\0\1\67", 4))) continue;
        if (type == 26 && reply[at + 6] != microsoft_type) continue;
        *length = reply[at + 1] - header;
        return reply + at + header;
    }
    return NULL;
}

static bool is_authentic(const Place *place, uint8_t *reply, int octets) {
    uint8_t authenticator[16], digest[16];
    int length;
    memcpy(authenticator, reply + 4, 16), memcpy(reply + 4, place->request + 4, 16);
    md5_with_secret(&secret, reply, octets, digest);
    if (memcmp(digest, authenticator, 16)) return false;
    uint8_t *signature = find(reply, octets, 80, 0, &length);
    if (signature) { // over the Request Authenticator, which is in place, and itself zero
        uint8_t seen[16];
        if (length != 16) return false;
        memcpy(seen, signature, 16), memset(signature, 0, 16);
        hmac_md5(&secret, reply, octets, digest);
        if (memcmp(seen, digest, 16)) return false;
    }
    if (asked.method != MSCHAP2 || reply[0] != ACCESS_ACCEPT) return true;
    uint8_t *success = find(reply, octets, 26, 26, &length); // identifier, "S=" and 40 digits
    return success && length >= 43 && !memcmp(success + 3, place->proof, 40);
}

static void note_latency(double seconds) {
    if (latency_count == latency_room) {
        latency_room = latency_room ? 2 * latency_room : 1 << 16;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
        if (!latencies) exit(1);
    }
    latencies[latency_count++] = seconds;
}

// A reply that came for this place: true when the place is free again.
static bool take(Place *place, uint8_t *reply, int octets) {
    if (octets < 20 || octets != (reply[2] << 8 | reply[3]) || !place->waiting || !is_authentic(place, reply, octets)) {
        tally.unverified++;
        return false;
    }
    place->waiting = false;
    if (!place->counts) return true;
    note_latency(now() - place->first);
    *(reply[0] == ACCESS_ACCEPT || reply[0] == ACCOUNTING_RESPONSE ? &tally.accepted : &tally.rejected) += 1;
    return true;
}

// The same octets again after the timeout, or given up: true when the place is free again.
static bool try_again(Place *place, double at) {
    if (!place->waiting || at - place->last < asked.timeout) return false;
    if (place->tries == TRIES_MAX) {
        tally.lost += place->counts;
        return !(place->waiting = false);
    }
    place->tries++, place->last = at;
    tally.retransmissions += place->counts;
    send(place->fd, place->request, place->octets, 0);
    return false;
}

static int by_size(const void *left, const void *right) {
    float a = *(const float *)left, b = *(const float *)right;
    return (a > b) - (a < b);
}

static double latency_ms(double share) {
    return latency_count ? 1e3 * latencies[(size_t)(share * (latency_count - 1))] : 0;
}

static void report(double seconds) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(latencies, latency_count, sizeof *latencies, by_size);
    printf("{\"method\": \"%s\", \"sent\": %lu, ", METHODS[asked.method], tally.sent);
    printf("\"accepted\": %lu, \"rejected\": %lu, \"lost\": %lu, ", tally.accepted, tally.rejected, tally.lost);
    printf("\"retransmissions\": %lu, \"unverified\": %lu, ", tally.retransmissions, tally.unverified);
    printf("\"rate\": %.0f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"behind_ms\": %.3f, ",
           latency_count / seconds, latency_ms(.5), latency_ms(.99), latency_ms(1), 1e3 * tally.behind);
    double whole = used.ru_utime.tv_sec + used.ru_stime.tv_sec, rest = used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    printf("\"cpu_seconds\": %.2f}\n", whole + 1e-6 * rest);
}

static int find_method(const char *word) {
    for (int method = PAP; method <= ACCT; method++) if (!strcmp(METHODS[method], word)) return method;
    fprintf(stderr, "load: there is no method %s\n", word);
    exit(2);
}

static void read_words(int count, char **words) {
    const char *text = "";
    for (int option; (option = getopt(count, words, "p:s:m:u:d:x:w:k:r:t:i:nc")) != -1;) switch (option) {
        case 'p': asked.port = atoi(optarg); break;
        case 's': text = optarg; break;
        case 'm': asked.method = find_method(optarg); break;
        case 'u': asked.users = atoi(optarg); break;
        case 'd': asked.seconds = atof(optarg); break;
        case 'x': asked.warm_up = atof(optarg); break;
        case 'w': asked.window = atoi(optarg); break;
        case 'k': asked.sockets = atoi(optarg); break;
        case 'r': asked.rate = atof(optarg); break;
        case 't': asked.timeout = atof(optarg); break;
        case 'i': asked.interims = atoi(optarg); break;
        case 'n': asked.is_signed = false; break;
        case 'c': asked.has_class = false; break;
        default: exit(2);
    }
    bool is_window = asked.sockets <= asked.window && asked.window <= asked.sockets * IDENTIFIERS;
    bool are_sockets = 1 <= asked.sockets && asked.sockets <= SOCKETS_MAX;
    bool are_interims = 0 <= asked.interims && asked.interims <= INTERIMS_MAX;
    if (!*text || strlen(text) > 64 || asked.users < 1 || !are_interims || !are_sockets || !is_window) {
        fprintf(stderr, "load: it takes a secret of 1 to 64 octets, users, and a window of 1 to 256 a socket\n");
        exit(2);
    }
    secret_prepare(&secret, text);
}

// All places of the window, each socket's one after the other; and those that wait for their turn, in a ring, so that
// all sockets take theirs whatever the rate.
static Place *places, **idle;
static int places_count, each, idle_first, idle_count;
static struct pollfd polled[SOCKETS_MAX];

static void set_free(Place *place) { idle[(idle_first + idle_count++) % places_count] = place; }

static void open_places(void) {
    each = asked.window / asked.sockets, places_count = each * asked.sockets;
    places = calloc(places_count, sizeof *places), idle = malloc(places_count * sizeof *idle);
    if (!places || !idle) exit(1);
    for (int i = 0; i < asked.sockets; i++) {
        struct sockaddr_in there = {AF_INET, htons(asked.port), {htonl(INADDR_LOOPBACK)}, {0}};
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), buffer = 4 << 20;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
        if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof there)) perror("connect"), exit(1);
        polled[i] = (struct pollfd){fd, POLLIN, 0};
        for (int j = 0; j < each; j++) places[i * each + j].fd = fd, places[i * each + j].identifier = j;
    }
    for (int j = 0; j < each; j++) for (int i = 0; i < asked.sockets; i++) set_free(&places[i * each + j]);
}

// Waits for replies, but no longer than to `due` and a millisecond at most, and takes what has come.
static void hear(double due) {
    double rest = due - now();
    struct timespec wait = {0, rest > .001 ? 1000000 : rest > 0 ? rest * 1e9 : 0};
    if (ppoll(polled, asked.sockets, &wait, NULL) <= 0) return;
    for (int i = 0; i < asked.sockets; i++) {
        uint8_t reply[REPLY_OCTETS_MAX];
        if (!polled[i].revents) continue;
        for (ssize_t octets; (octets = recv(polled[i].fd, reply, sizeof reply, 0)) >= 0;) {
            Place *place = &places[i * each + (octets > 1 && reply[1] < each ? reply[1] : 0)];
            if (take(place, reply, octets)) set_free(place);
        }
    }
}

int main(int count, char **words) {
    read_words(count, words);
    open_places();
    double began = now(), counted = began + asked.warm_up, end = counted + asked.seconds, looked = began, at = began;
    uint64_t asked_for = 0;
    while (at < end || (idle_count < places_count && at < end + TRIES_MAX * asked.timeout)) {
        double due = asked.rate ? began + asked_for / asked.rate : at; // when the next request is to be sent
        for (; idle_count && at < end && due <= at; due = asked.rate ? began + asked_for / asked.rate : at) {
            if (at >= counted && at - due > tally.behind) tally.behind = at - due;
            Place *place = idle[idle_first];
            idle_first = (idle_first + 1) % places_count, idle_count--, asked_for++;
            ask(place, at, at >= counted);
            at = now();
        }
        hear(idle_count && at < end ? due : at + .001);
        at = now();
        if (at - looked < .1) continue;
        looked = at;
        for (int i = 0; i < places_count; i++) if (try_again(&places[i], at)) set_free(&places[i]);
    }
    for (int i = 0; i < places_count; i++) tally.lost += places[i].waiting && places[i].counts;
    report(asked.seconds);
    return 0;
}
