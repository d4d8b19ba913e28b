"""Requests to begin with, of every method and for both ports, and what is done to them.

A draft is changed in its attributes before it is signed, so that the code behind the signature is reached; then its
octets may be changed too, and be signed again or not. Everything comes from one Random: a seed gives the same octets
for ever, but for the MS-CHAP proofs, which are made once a campaign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import wire

from sms_aaa.radius.request import mschap2_attributes, mschap_attributes

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

VECTORS = Path(__file__).parent.parent / "vectors"
USERS = {b"user%d" % number: b"password of %d" % number for number in range(20)}
DEVICES = tuple(b"02-00-00-00-00-%02X" % number for number in range(20))
TIMESTAMP = 1_750_000_000
PROOFS_KEPT = 40
DATAGRAM_OCTETS_MAX = 65_507  # what UDP over IPv4 carries
MSCHAP_CHALLENGE, MSCHAP_RESPONSE, MSCHAP2_RESPONSE = 11, 1, 25


@dataclass(slots=True)
class Draft:
    """A request that is not signed yet. `secret` is that of the NAS, or a wrong one."""

    code: int
    pairs: wire.Pairs
    authenticator: bytes
    secret: bytes

    def encode(self, identifier: int) -> bytes:
        pairs = [(kind & 255, value[: wire.VALUE_OCTETS_MAX]) for kind, value in self.pairs]
        return wire.sign(self.code & 255, identifier, self.authenticator, wire.join(pairs), self.secret)


def integer(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "big")


class Drafts:
    """Makes them. `proofs`: (user, challenge, peer's challenge, response) of every MS-CHAP login that is right."""

    def __init__(self, random: Random) -> None:
        self._mschap = [self._make_mschap(random) for _ in range(PROOFS_KEPT)]
        self._vectors = [message for path in sorted(VECTORS.glob("*.txt")) for message in read_vectors(path)]
        self.proofs = {proof for _, proof in self._mschap}

    def _make_mschap(self, random: Random) -> tuple[wire.Pairs, tuple[bytes, ...]]:
        user = random.choice(list(USERS))
        identifier, challenge, peer = random.randrange(256), random.randbytes(16), random.randbytes(16)
        if random.random() < 0.3:
            challenge = challenge[:8]
            made = mschap_attributes(identifier, USERS[user], challenge)
            peer = b""
        else:
            made = mschap2_attributes(identifier, user, USERS[user], challenge=challenge, peer_challenge=peer)
        pairs = [(wire.USER_NAME, user), *(wire.split(made) or [])]
        return pairs, (user, challenge, peer, made[-24:])

    def access(self, random: Random, secret: bytes) -> Draft:
        authenticator = random.randbytes(16)
        kind = random.random()
        code = wire.ACCESS_REQUEST
        user = random.choice(list(USERS))
        password = USERS[user] if random.random() < 0.9 else random.randbytes(random.randrange(130))
        if kind < 0.35:
            pairs = [(wire.USER_NAME, user), (wire.USER_PASSWORD, wire.hide(password[:128], authenticator, secret))]
        elif kind < 0.55:
            pairs = [(wire.USER_NAME, user), *_chap(random, password, authenticator)]
        elif kind < 0.7:
            pairs = list(random.choice(self._mschap)[0])
        elif kind < 0.78:
            device = random.choice(DEVICES)
            pairs = [(wire.USER_NAME, device), (wire.SERVICE_TYPE, integer(10)), (wire.CALLING_STATION_ID, device)]
        elif kind < 0.84:
            pairs = [(wire.USER_NAME, user), (wire.EAP_MESSAGE, b"\2\0\0\x0a\1" + user)]
        elif kind < 0.9:
            code, pairs = wire.STATUS_SERVER, []
        else:
            found = random.choice(self._vectors)
            return Draft(found.code, list(found.pairs), found.authenticator, secret)
        if kind < 0.84:
            pairs += _whereabouts(random)
        pairs.insert(random.randrange(len(pairs) + 1), (wire.MESSAGE_AUTHENTICATOR, wire.ZEROS))
        return Draft(code, pairs, authenticator, secret)

    def accounting(self, random: Random, secret: bytes) -> Draft:
        kind = random.random()
        if kind < 0.1:
            pairs = [(wire.MESSAGE_AUTHENTICATOR, wire.ZEROS)]
            return Draft(wire.STATUS_SERVER, pairs, random.randbytes(16), secret)
        if kind < 0.2:
            found = random.choice(self._vectors)
            return Draft(found.code, list(found.pairs), found.authenticator, secret)
        pairs = [(wire.USER_NAME, random.choice(list(USERS))), *_whereabouts(random)]
        pairs += [(40, integer(random.choice((1, 2, 3, 3, 3, 7, 8, 9, 15, random.getrandbits(32)))))]
        pairs += [(44, b"session-%d" % random.randrange(200)), (46, integer(random.randrange(100_000)))]
        pairs += [(42, integer(random.getrandbits(32))), (43, integer(random.getrandbits(32)))]
        pairs += [(52, integer(random.randrange(3))), (53, integer(random.randrange(3)))]
        if random.random() < 0.5:
            pairs += [(55, integer(TIMESTAMP + random.randrange(1000)))]
        if random.random() < 0.3:
            pairs += [(25, b"SMS\1" + integer(0) + integer(random.randrange(30)) + random.randbytes(8))]
        if random.random() < 0.2:
            pairs += [(wire.MESSAGE_AUTHENTICATOR, wire.ZEROS)]
        return Draft(wire.ACCOUNTING_REQUEST, pairs, wire.ZEROS, secret)


def read_vectors(path: Path) -> list[wire.Message]:
    """The datagrams of a file of tests/vectors that are sound packets."""
    found = []
    for block in path.read_text().split("\n\n"):
        octets, inside = b"", False
        for line in block.splitlines():
            if not line.startswith("  "):
                inside = line.startswith("datagram:")
            elif inside:
                body, _, times = line.partition(" x ")
                octets += bytes.fromhex(body) * int(times or "1")
        message = wire.read(octets)
        if message is not None:
            found.append(message)
    return found


def _chap(random: Random, password: bytes, authenticator: bytes) -> wire.Pairs:
    import hashlib

    identifier = random.randrange(256)
    challenge = random.randbytes(random.choice((1, 8, 16, 16, 64))) if random.random() < 0.7 else authenticator
    response = hashlib.md5(bytes((identifier,)) + password + challenge).digest()
    pairs = [(wire.CHAP_PASSWORD, bytes((identifier,)) + response)]
    return pairs if challenge is authenticator else [*pairs, (wire.CHAP_CHALLENGE, challenge)]


def _whereabouts(random: Random) -> wire.Pairs:
    pairs = [(4, integer(0x7F000001)), (5, integer(random.randrange(50))), (32, b"fuzz-nas"), (61, integer(15))]
    pairs += [(wire.CALLING_STATION_ID, random.choice(DEVICES)), (87, b"eth 0/%d" % random.randrange(9))]
    pairs += [(wire.PROXY_STATE, random.randbytes(random.randrange(40))) for _ in range(random.choice((0, 0, 0, 1, 2)))]
    return random.sample(pairs, random.randrange(len(pairs) + 1))


# What is done to the attributes of a draft, before it is signed.


def _at(random: Random, draft: Draft) -> int:
    return random.randrange(len(draft.pairs)) if draft.pairs else 0


def _drop(random: Random, draft: Draft) -> None:
    if draft.pairs:
        del draft.pairs[_at(random, draft)]


def _unsign(_random: Random, draft: Draft) -> None:
    draft.pairs = [pair for pair in draft.pairs if pair[0] != wire.MESSAGE_AUTHENTICATOR]


def _repeat(random: Random, draft: Draft) -> None:
    if draft.pairs:
        draft.pairs.insert(_at(random, draft), draft.pairs[_at(random, draft)])


def _shuffle(random: Random, draft: Draft) -> None:
    random.shuffle(draft.pairs)


def _change_value(random: Random, draft: Draft) -> None:
    if not draft.pairs:
        return
    at = _at(random, draft)
    kind, value = draft.pairs[at]
    changed = bytearray(value)
    for _ in range(random.choice((1, 1, 2, 8))):
        if changed:
            changed[random.randrange(len(changed))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    draft.pairs[at] = kind, bytes(changed)


def _resize_value(random: Random, draft: Draft) -> None:
    if draft.pairs:
        at = _at(random, draft)
        kind, value = draft.pairs[at]
        length = random.choice((0, 1, 2, 3, len(value) - 1, len(value) + 1, 253, random.randrange(254)))
        draft.pairs[at] = kind, value[: max(length, 0)].ljust(max(length, 0), b"\0" if random.random() < 0.5 else b"%")


def _change_type(random: Random, draft: Draft) -> None:
    if draft.pairs:
        at = _at(random, draft)
        draft.pairs[at] = random.randrange(256), draft.pairs[at][1]


def _insert_anything(random: Random, draft: Draft) -> None:
    for _ in range(random.choice((1, 1, 5, 40))):
        value = random.randbytes(random.choice((0, 1, 4, 16, 17, 18, 50, 253)))
        draft.pairs.insert(_at(random, draft), (random.randrange(256), value))


def _insert_message_authenticator(random: Random, draft: Draft) -> None:
    value = bytes(random.choice((16, 16, 0, 1, 15, 17, 32, 253)))
    draft.pairs.insert(_at(random, draft), (wire.MESSAGE_AUTHENTICATOR, value))


def _insert_eap(random: Random, draft: Draft) -> None:
    length = random.choice((0, 1, 4, 5, 253))
    draft.pairs.insert(_at(random, draft), (wire.EAP_MESSAGE, random.randbytes(length)))


def _insert_vendor(random: Random, draft: Draft) -> None:
    vendor = random.choice((0, 311, 311, 9, 14988, 0xFFFFFFFF))
    inner = bytes((random.choice((1, 2, 11, 16, 25, 26)), random.choice((0, 1, 2, 3, 52, 255)))) + random.randbytes(
        random.choice((0, 1, 8, 16, 50))
    )
    whole = vendor.to_bytes(4, "big") + inner * random.choice((1, 1, 3))
    draft.pairs.insert(_at(random, draft), (wire.VENDOR_SPECIFIC, whole[: random.choice((3, 4, 5, 253, 253, 253))]))


def _insert_proxy_states(random: Random, draft: Draft) -> None:
    size = random.choice((0, 1, 32, 33, 200, 253))
    for _ in range(random.choice((1, 2, 3, 15, 16, 60, 201))):
        draft.pairs.insert(_at(random, draft), (wire.PROXY_STATE, random.randbytes(size)))


def _add_credential(random: Random, draft: Draft) -> None:
    kind, length = random.choice(((2, 16), (3, 17), (60, 16), (79, 5)))
    draft.pairs.insert(_at(random, draft), (kind, random.randbytes(length)))


def _change_code(random: Random, draft: Draft) -> None:
    draft.code = random.choice((0, 2, 3, 4, 5, 11, 12, 13, 40, 43, 44, 255, random.randrange(256)))


def _change_secret(random: Random, draft: Draft) -> None:
    draft.secret = random.choice((b"", b"not the secret", draft.secret + b"x", random.randbytes(70)))


ATTRIBUTES: tuple[Callable[[Random, Draft], None], ...] = (
    *(_change_value, _resize_value, _drop, _repeat, _shuffle, _change_type) * 2,
    *(_insert_anything, _insert_message_authenticator, _insert_eap, _insert_vendor, _insert_proxy_states),
    *(_add_credential, _change_code, _change_secret, _unsign, _unsign),
)

# What is done to the octets of a whole packet.


def _flip_bits(random: Random, data: bytearray) -> None:
    for _ in range(random.choice((1, 1, 2, 5, 30))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _change_length(random: Random, data: bytearray) -> None:
    length = random.choice((0, 19, 20, len(data) - 1, len(data) + 1, 4096, 4097, 0xFFFF, random.randrange(0x10000)))
    data[2:4] = (length & 0xFFFF).to_bytes(2, "big")


def _change_attribute_length(random: Random, data: bytearray) -> None:
    places, at = [], wire.HEADER_OCTETS
    while at + 1 < len(data) and data[at + 1] >= 2:
        places.append(at + 1)
        at += data[at + 1]
    if places:
        at = random.choice(places)
        data[at] = random.choice((0, 1, 2, 3, 255, data[at] - 1, data[at] + 1 & 255, random.randrange(256))) & 255


def _truncate(random: Random, data: bytearray) -> None:
    del data[random.randrange(len(data)) :]


def _pad(random: Random, data: bytearray) -> None:
    data += random.randbytes(random.choice((1, 2, 3, 20, 1000, 4096)))


def _cut_out(random: Random, data: bytearray) -> None:
    begin = random.randrange(len(data))
    del data[begin : begin + random.choice((1, 2, 6, 18, 100))]


def _double(random: Random, data: bytearray) -> None:
    begin = random.randrange(len(data))
    data[begin:begin] = data[begin : begin + random.choice((1, 2, 18, 100))]


def _replace_all(random: Random, data: bytearray) -> None:
    data[:] = random.randbytes(random.choice((1, 19, 20, 21, 40, 300, 4096)))


OCTETS: tuple[Callable[[Random, bytearray], None], ...] = (
    *(_flip_bits, _flip_bits, _change_length, _change_attribute_length, _change_attribute_length),
    *(_truncate, _pad, _cut_out, _double, _replace_all),
)


def mutate(random: Random, draft: Draft, identifier: int) -> bytes:
    """The draft with something done to it: mostly once, sometimes often; about one in ten stays as it was."""
    data = bytearray()
    kind = random.random()
    if kind < 0.65:
        for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
            random.choice(ATTRIBUTES)(random, draft)
    data += draft.encode(identifier)
    if 0.55 < kind < 0.9:
        for _ in range(random.choice((1, 1, 2, 4))):
            if data:
                random.choice(OCTETS)(random, data)
        if len(data) >= wire.HEADER_OCTETS and random.random() < 0.5:
            data[:] = wire.sign(data[0], data[1], bytes(data[4:20]), bytes(data[20:]), draft.secret)
    return bytes(data[:DATAGRAM_OCTETS_MAX])


def maker(drafts: Drafts, port: str) -> Callable[[Random, bytes], Draft]:
    """Of the drafts for a port: "access" or "accounting"."""
    return partial(Drafts.access if port == "access" else Drafts.accounting, drafts)
