"""RFC 5080 section 2.2.2, with a clock that the test moves."""

from __future__ import annotations

from sms_aaa.server.duplicates import ENTRIES_MAX, DuplicateCache, Entry

KEY = ("192.0.2.1", 1645, b"\1\7")
FIRST, SECOND = b"\1\7 of one request", b"\1\7 of another one"


def new(cache: DuplicateCache, key: tuple[str, int, bytes] = KEY, packet: bytes = FIRST) -> Entry:
    """The entry of a request that the cache did not know."""
    entry = cache.look_up(key, packet)
    assert isinstance(entry, Entry)
    return entry


def test_a_retransmission_is_pending_until_the_answer_is_out_and_then_replayed() -> None:
    cache = DuplicateCache(10)
    entry = new(cache)
    assert cache.look_up(KEY, FIRST) is None
    entry.reply = b"reply"
    assert cache.look_up(KEY, FIRST) == b"reply"
    assert cache.look_up(KEY, bytes(bytearray(FIRST))) == b"reply", "the octets count, not the object"


def test_another_request_takes_the_identifier_over() -> None:
    cache = DuplicateCache(10)
    first = new(cache)
    new(cache, packet=SECOND)
    first.reply = b"late answer to the first"
    assert cache.look_up(KEY, SECOND) is None
    cache.forget(first)
    assert cache.look_up(KEY, SECOND) is None, "who was taken over takes nothing with it"


def test_source_port_code_and_identifier_tell_requests_apart() -> None:
    cache = DuplicateCache(10)
    new(cache)
    new(cache, ("192.0.2.1", 1646, KEY[2]))
    new(cache, ("192.0.2.2", 1645, KEY[2]))
    new(cache, ("192.0.2.1", 1645, b"\4\7"))
    new(cache, ("192.0.2.1", 1645, b"\1\10"))


def test_an_entry_is_forgotten_after_its_time_or_when_it_was_not_answered() -> None:
    cache = DuplicateCache(10)
    new(cache).reply = b"reply"
    cache.expire(0.0)
    cache.expire(9.9)
    assert cache.look_up(KEY, FIRST) == b"reply"
    cache.expire(10.1)
    entry = new(cache)
    cache.forget(entry)
    new(cache)


def test_what_was_taken_over_expires_without_its_successor() -> None:
    cache = DuplicateCache(10)
    new(cache)
    cache.expire(0.0)
    new(cache, packet=SECOND)
    cache.expire(9.0)
    cache.expire(10.1)
    assert cache.look_up(KEY, SECOND) is None
    assert len(cache) == 1


def test_a_renewed_entry_is_worked_on_again() -> None:
    cache = DuplicateCache(10)
    new(cache).reply = b"not believed"
    cache.renew(KEY, FIRST).reply = b"another one"
    assert cache.look_up(KEY, FIRST) == b"another one"


def test_the_cache_is_bounded() -> None:
    cache = DuplicateCache(1000)
    for number in range(ENTRIES_MAX + 10):
        new(cache, ("192.0.2.1", number % 65536, b"\1%c" % (number >> 16)))
        if number % 4096 == 0:
            cache.expire(number / ENTRIES_MAX)
    cache.expire(2)
    assert ENTRIES_MAX - 4096 <= len(cache) <= ENTRIES_MAX
    new(cache, ("192.0.2.1", 0, b"\1\0"))
