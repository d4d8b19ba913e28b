"""The campaign of killed raters in small (the long one runs by name, see rater_kills.py), and what it would see."""

from __future__ import annotations

from rater_kills import BOOKS, differences, run


def test_a_rater_that_is_killed_leaves_the_books_of_one_that_was_not(tmp_path, new_database):
    outcome = run(tmp_path, new_database(), new_database(), kills=2, deltas=320, seed=1)
    assert outcome.complaints == []
    assert outcome.rows > 500
    assert outcome.rerated > 0


def test_each_difference_is_seen():
    peace = {name: [(1, "x")] for name in BOOKS} | {"waiting": []}
    assert differences(peace, peace) == []
    for name in BOOKS:
        assert differences(peace, peace | {name: [(1, "y")]})
        assert differences(peace, peace | {name: [*peace[name], (1, "x")]})
