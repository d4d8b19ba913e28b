"""The words of `status` about accounting, on a board that a test fills in."""

from __future__ import annotations

from collections import Counter

from sms_aaa.cli.status_accounting import accounting_cells, accounting_of, accounting_words, look
from sms_aaa.metrics import Word, anomaly_word
from sms_aaa.node.journal import JournalFaultKind
from sms_aaa.rules.session import AnomalyKind

SECOND = 10**9


def words(board: dict[int, int], *faults: JournalFaultKind, journaled: int = 0, settled: int = 0) -> list[str]:
    """What is said when so many records came in, and were settled, in two seconds."""
    before = Counter(board)
    first = look(before.__getitem__, SECOND)
    now = before + Counter({Word.RECORDS_JOURNALED: journaled, Word.RECORDS_SETTLED: settled})
    told = accounting_of(now.__getitem__, now.__getitem__, faults, first, look(now.__getitem__, 3 * SECOND))
    return list(accounting_words(told))


def test_a_server_that_does_well_says_little():
    assert words({Word.DATABASE_UP: 1}, journaled=2400, settled=2400) == [
        "1200 records/s come in, 1200 records/s are settled",
        "the settler keeps up",
        "the journal takes 0 B",
    ]


def test_with_the_database_away_it_says_that_nothing_is_lost():
    room = {Word.JOURNAL_OCTETS: 4 * 10**6, Word.JOURNAL_ROOM_OCTETS: 40 * 10**9}
    said = words({Word.BACKLOG_OCTETS: 3 * 10**6, Word.SETTLE_LAG_MS: 65_000, **room}, journaled=20)
    assert said == [
        "10 records/s come in, 0 records/s are settled",
        (
            "PostgreSQL is away: 3.00 MB of the journal wait, the oldest for 00:01:05; records are answered and "
            "nothing is lost, they are settled when it is back"
        ),
        "the journal takes 4.00 MB, room for 40.00 GB more",
    ]


def test_with_the_disk_full_that_comes_first_with_its_remedy():
    said = words({Word.DATABASE_UP: 1, Word.JOURNAL_FAULTS: 7}, JournalFaultKind.NO_SPACE, JournalFaultKind.NO_SPACE)
    assert said[0] == (
        "accounting is not answered: the journal's disk is full; free space there: it goes on by itself. NASes keep "
        "their records and ask again; logins go on"
    )
    assert "7 times a batch was not answered because it could not be made durable: `sms-aaa journal status`" in said


def test_what_is_wrong_is_said_with_the_command_that_shows_more():
    said = words({
        Word.DATABASE_UP: 1, Word.SETTLE_LAG_MS: 600_000, Word.BACKLOG_OCTETS: 10**9, Word.JOURNAL_FAULTS: 2,
        Word.QUARANTINED: 3, Word.RATING_QUEUE: 4, Word.RATING_LAG_MS: 5_000, Word.LAPSED_SILENCE: 6,
        Word.LAPSED_REBOOT: 700, anomaly_word(AnomalyKind.CLOCK): 8, anomaly_word(AnomalyKind.COUNTER_RESET): 9,
    })  # fmt: skip
    assert said[1:] == [
        "the settler is 00:10:00 behind, 1.00 GB of the journal wait: nothing is lost",
        "the journal takes 0 B",
        "2 times a batch was not answered because it could not be made durable: `sms-aaa journal status`",
        "rating: 4 deltas wait, the oldest for 00:00:05",
        "3 records were put aside: `sms-aaa quarantine list` says why",
        "sessions that ended without a Stop: nas-reboot 700, silence 6; `sms-aaa stale` shows where",
        "odd records: counter-reset 9, nas-clock 8; `sms-aaa anomalies` explains them",
    ]


def test_programs_get_the_sums():
    board = Counter({anomaly_word(AnomalyKind.CLOCK): 8, Word.LAPSED_REBOOT: 7})
    looked = look(board.__getitem__, SECOND)
    told = accounting_of(board.__getitem__, board.__getitem__, (), looked, looked)
    assert accounting_cells(told) == {
        "records_per_second": 0, "settled_per_second": 0, "anomalies": 8, "sessions_lapsed": 7,
    }  # fmt: skip
