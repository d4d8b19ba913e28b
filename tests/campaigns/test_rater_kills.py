"""The campaign of killed raters in small (the long one runs by name, see rater_kills.py), and what it would see."""

from __future__ import annotations

from rater_kills import BOOKS, BULK, differences, run


def test_a_rater_that_is_killed_leaves_the_books_of_one_that_was_not(tmp_path, new_database):
    """In bulk, against slice by slice: two ways and two fates."""
    [outcome] = run(tmp_path, [new_database(), new_database()], [BULK], kills=1, deltas=640, seed=1)
    assert outcome.complaints == []
    assert outcome.rows > 1900
    assert outcome.rerated > 0
    assert outcome.in_bulk > 100


def test_each_difference_is_seen():
    peace = {name: [(1, "x")] for name in BOOKS} | {"waiting": []}
    assert differences(peace, peace) == []
    for name in BOOKS:
        assert differences(peace, peace | {name: [(1, "y")]})
        assert differences(peace, peace | {name: [*peace[name], (1, "x")]})
