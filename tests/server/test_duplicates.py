"""RFC 5080 section 2.2.2, with a clock that the test moves."""

from sms_aaa.server.duplicates import ENTRIES_MAX, DuplicateCache, Standing

KEY = ("192.0.2.1", 1645, 256 | 7)
FIRST, SECOND = b"a" * 16, b"b" * 16


def test_a_retransmission_is_pending_until_the_answer_is_out_and_then_replayed() -> None:
    cache = DuplicateCache(10)
    assert cache.look_up(KEY, FIRST, 0) is Standing.NEW
    assert cache.look_up(KEY, FIRST, 0) is Standing.PENDING
    cache.remember(KEY, FIRST, b"reply")
    assert cache.look_up(KEY, FIRST, 9) == b"reply"


def test_another_authenticator_takes_the_identifier_over() -> None:
    cache = DuplicateCache(10)
    cache.look_up(KEY, FIRST, 0)
    assert cache.look_up(KEY, SECOND, 1) is Standing.NEW
    cache.remember(KEY, FIRST, b"late answer to the first")
    assert cache.look_up(KEY, SECOND, 1) is Standing.PENDING


def test_source_port_and_code_tell_requests_apart() -> None:
    cache = DuplicateCache(10)
    cache.look_up(KEY, FIRST, 0)
    assert cache.look_up(("192.0.2.1", 1646, KEY[2]), FIRST, 0) is Standing.NEW
    assert cache.look_up(("192.0.2.1", 1645, 4 << 8 | 7), FIRST, 0) is Standing.NEW


def test_an_entry_is_forgotten_after_its_time_or_when_it_was_not_answered() -> None:
    cache = DuplicateCache(10)
    cache.look_up(KEY, FIRST, 0)
    cache.remember(KEY, FIRST, b"reply")
    cache.expire(9.9)
    assert cache.look_up(KEY, FIRST, 9.9) == b"reply"
    cache.expire(10.1)
    assert cache.look_up(KEY, FIRST, 10.1) is Standing.NEW
    cache.forget(KEY, FIRST)
    assert cache.look_up(KEY, FIRST, 10.2) is Standing.NEW


def test_the_cache_is_bounded() -> None:
    cache = DuplicateCache(1000)
    for number in range(ENTRIES_MAX + 10):
        cache.look_up(("192.0.2.1", number % 65536, number >> 16), FIRST, 0)
    assert len(cache) <= ENTRIES_MAX
    assert cache.look_up(("192.0.2.1", 0, 0), FIRST, 0) is Standing.NEW
