// MD5 and what RADIUS makes of it, with the state of each secret prepared once; MD4, SHA-1 and DES for MS-CHAPv2.
//
// The low-level functions of libcrypto are deprecated and three times as fast as EVP: a generator that shares the
// machine with the server must cost little.
#pragma once
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/des.h>
#include <openssl/md4.h>
#include <openssl/md5.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *secret;
    size_t octets;
    MD5_CTX hidden, inner, outer; // after the secret; after the inner and outer pad of HMAC (RFC 2104)
} Secret;

static inline void secret_prepare(Secret *secret, const char *text) {
    uint8_t pad[64] = {0};
    secret->secret = text;
    secret->octets = strlen(text);
    memcpy(pad, text, secret->octets); // main() refuses a secret above 64 octets
    for (int i = 0; i < 64; i++) pad[i] ^= 0x36;
    MD5_Init(&secret->inner), MD5_Update(&secret->inner, pad, 64);
    for (int i = 0; i < 64; i++) pad[i] ^= 0x36 ^ 0x5c;
    MD5_Init(&secret->outer), MD5_Update(&secret->outer, pad, 64);
    MD5_Init(&secret->hidden), MD5_Update(&secret->hidden, text, secret->octets);
}

// The Message-Authenticator of a packet in which it is zero (RFC 3579 section 3.2).
static inline void hmac_md5(const Secret *secret, const uint8_t *data, size_t octets, uint8_t digest[16]) {
    MD5_CTX state = secret->inner;
    MD5_Update(&state, data, octets), MD5_Final(digest, &state);
    state = secret->outer;
    MD5_Update(&state, digest, 16), MD5_Final(digest, &state);
}

// MD5 of packet and secret: Response Authenticator, and Request Authenticator of accounting (RFC 2865 section 3).
static inline void md5_with_secret(const Secret *secret, const uint8_t *data, size_t octets, uint8_t digest[16]) {
    MD5_CTX state;
    MD5_Init(&state), MD5_Update(&state, data, octets), MD5_Update(&state, secret->secret, secret->octets);
    MD5_Final(digest, &state);
}

// RFC 2865 section 5.2. `hidden` has room for 128 octets; gives how many were used.
static inline size_t hide_password(const Secret *secret, const char *password, const uint8_t authenticator[16],
                                   uint8_t *hidden) {
    size_t length = strlen(password), octets = length ? (length + 15) / 16 * 16 : 16;
    const uint8_t *previous = authenticator;
    memset(hidden, 0, octets), memcpy(hidden, password, length);
    for (size_t at = 0; at < octets; at += 16) {
        uint8_t mask[16];
        MD5_CTX state = secret->hidden;
        MD5_Update(&state, previous, 16), MD5_Final(mask, &state);
        for (int i = 0; i < 16; i++) hidden[at + i] ^= mask[i];
        previous = hidden + at;
    }
    return octets;
}

// RFC 2759 section 8.3; the passwords of this program are ASCII.
static inline void nt_hash(const char *password, uint8_t hash[16]) {
    uint8_t wide[256];
    size_t length = strlen(password);
    for (size_t i = 0; i < length; i++) wide[2 * i] = password[i], wide[2 * i + 1] = 0;
    MD4(wide, 2 * length, hash);
}

// RFC 2759 section 8.2.
static inline void challenge_hash(const uint8_t peer[16], const uint8_t challenge[16], const char *user,
                                  uint8_t hash[8]) {
    uint8_t whole[20];
    SHA_CTX state;
    SHA1_Init(&state), SHA1_Update(&state, peer, 16), SHA1_Update(&state, challenge, 16);
    SHA1_Update(&state, user, strlen(user)), SHA1_Final(whole, &state);
    memcpy(hash, whole, 8);
}

// RFC 2759 section 8.5: the hash, with zeros to 21 octets, is three DES keys of 7 octets.
static inline void nt_response(const uint8_t challenge[8], const uint8_t hash[16], uint8_t response[24]) {
    uint8_t padded[21] = {0};
    memcpy(padded, hash, 16);
    for (int part = 0; part < 3; part++) {
        const uint8_t *k = padded + 7 * part;
        DES_cblock key = {k[0],
                          k[0] << 7 | k[1] >> 1,
                          k[1] << 6 | k[2] >> 2,
                          k[2] << 5 | k[3] >> 3,
                          k[3] << 4 | k[4] >> 4,
                          k[4] << 3 | k[5] >> 5,
                          k[5] << 2 | k[6] >> 6,
                          k[6] << 1};
        DES_key_schedule schedule;
        DES_set_key_unchecked(&key, &schedule);
        DES_ecb_encrypt((const_DES_cblock *)challenge, (DES_cblock *)(response + 8 * part), &schedule, DES_ENCRYPT);
    }
}

// RFC 2759 section 8.7: the 40 hexadecimal digits with which the server proves that it knows the password.
static inline void authenticator_response(const uint8_t hash[16], const uint8_t response[24], const uint8_t hashed[8],
                                          char digits[41]) {
    static const char magic1[] = "Magic server to client signing constant";
    static const char magic2[] = "Pad to make it do more than one iteration";
    uint8_t hash_of_hash[16], digest[20];
    SHA_CTX state;
    MD4(hash, 16, hash_of_hash);
    SHA1_Init(&state), SHA1_Update(&state, hash_of_hash, 16), SHA1_Update(&state, response, 24);
    SHA1_Update(&state, magic1, 39), SHA1_Final(digest, &state);
    SHA1_Init(&state), SHA1_Update(&state, digest, 20), SHA1_Update(&state, hashed, 8);
    SHA1_Update(&state, magic2, 41), SHA1_Final(digest, &state);
    for (int i = 0; i < 20; i++) {
        digits[2 * i] = "0123456789ABCDEF"[digest[i] >> 4];
        digits[2 * i + 1] = "0123456789ABCDEF"[digest[i] & 15];
    }
    digits[40] = 0;
}
