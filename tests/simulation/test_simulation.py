"""Some hundred seeds through the rules; and the auditor finds what it is there to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pure
import simulate
from auditor import Counted, Outcome, audit, judge_quarantine, key_of
from faults import RESET, Fault
from network import carry
from through_daemon import TROUBLES
from world import make_world

if TYPE_CHECKING:
    import pytest
    from network import Delivery
    from world import World

SEEDS = 300


def content(seed: int):
    world = make_world(seed)
    deliveries, _ = carry(world)
    return world, deliveries, pure.settle(world, deliveries)


def a_life(outcome: Outcome) -> Counted:
    return next(life for life in outcome.lives if len(life.deltas) > 2)


def a_reset() -> tuple[World, list[Delivery], Outcome, Counted]:
    """A seed in which a counter began anew before everybody's eyes."""
    for seed in range(1, 500):
        world, deliveries, outcome = content(seed)
        for session in world.sessions:
            of_it = [life for life in outcome.lives if life.key == key_of(session)]
            if Fault.COUNTER_RESET in session.faults and len(of_it) == 1 and of_it[0].names == {RESET}:
                return world, deliveries, outcome, of_it[0]
    raise AssertionError("no seed has a reset")


def test_the_auditor_is_content_with_what_the_rules_make_of_some_hundred_worlds() -> None:
    campaign = simulate.run_pure(1, SEEDS)
    assert not campaign.failures, "\n".join(f"seed {seed}:\n{story}" for seed, story in campaign.failures)
    assert set(Fault) - campaign.faults.keys() == set(TROUBLES), "every fault that needs no daemon occurs"


def test_a_seed_tells_the_same_story_again() -> None:
    first, again = content(7), content(7)
    assert first[1] == again[1]
    assert [(life.key, life.octets_in, life.octets_out) for life in first[2].lives] == [
        (life.key, life.octets_in, life.octets_out) for life in again[2].lives
    ]


def test_an_octet_counted_twice_is_found() -> None:
    world, deliveries, outcome = content(1)
    assert audit(world, deliveries, outcome) == []
    life = a_life(outcome)
    octets_in, octets_out, _, ends, _ = life.deltas[-1]
    life.octets_in, life.octets_out = life.octets_in + octets_in, life.octets_out + octets_out
    life.deltas.append((octets_in, octets_out, ends, ends, False))
    assert any("too many" in one for one in audit(world, deliveries, outcome))


def test_a_lost_octet_is_found() -> None:
    world, deliveries, outcome = content(1)
    life = a_life(outcome)
    octets_in, octets_out, *others = life.deltas[-1]
    life.octets_out -= 1
    life.deltas[-1] = (octets_in, octets_out - 1, *others)
    assert any("1 octets out lost" in one for one in audit(world, deliveries, outcome))


def test_a_delta_that_its_session_does_not_know_is_found() -> None:
    world, deliveries, outcome = content(1)
    a_life(outcome).deltas.pop()
    assert any("not the sum of its deltas" in one for one in audit(world, deliveries, outcome))


def test_a_phantom_session_is_found_under_a_new_name_and_under_one_that_is_known() -> None:
    world, deliveries, outcome = content(1)
    strange = Outcome([*outcome.lives, Counted((1, "", "nobody"), 1)], outcome.quarantined, outcome.base)
    assert any("phantom" in one for one in audit(world, deliveries, strange))
    again = Outcome([*outcome.lives, Counted(key_of(world.sessions[0]), 2)], outcome.quarantined, outcome.base)
    assert any("phantom life" in one for one in audit(world, deliveries, again))


def test_a_session_that_is_missing_is_found() -> None:
    world, deliveries, outcome = content(1)
    outcome.lives.remove(a_life(outcome))
    assert any("lost life" in one for one in audit(world, deliveries, outcome))


def test_an_anomaly_that_is_missing_and_one_without_a_cause_are_found() -> None:
    world, deliveries, outcome, life = a_reset()
    life.names.remove(RESET)
    assert any("not named: counter-reset" in one for one in audit(world, deliveries, outcome))
    world, deliveries, outcome = content(1)
    a_life(outcome).names.add(RESET)
    assert any("without a cause: counter-reset" in one for one in audit(world, deliveries, outcome))


def test_a_session_that_ended_otherwise_is_found() -> None:
    world, deliveries, outcome = content(1)
    life = a_life(outcome)
    life.estimated = not life.estimated
    assert any("ended as" in one for one in audit(world, deliveries, outcome))


def test_a_record_that_vanished_instead_of_being_quarantined_is_found() -> None:
    seed = next(seed for seed in range(1, 500) if content(seed)[2].quarantined)
    _, deliveries, outcome = content(seed)
    assert judge_quarantine(deliveries, outcome.quarantined) == []
    assert any("quarantine: 0 records" in one for one in judge_quarantine(deliveries, {}))


def test_a_rule_that_breaks_is_told_as_a_short_story(monkeypatch: pytest.MonkeyPatch) -> None:
    right = pure.find_life

    def forgetful(lives, reading):
        found = right(lives, reading)
        return found if reading.event is not pure.Event.STOP else None

    monkeypatch.setattr(pure, "find_life", forgetful)
    campaign = simulate.run_pure(1, 20, failures_max=1)
    story = campaign.failures[0][1]
    assert "WRONG: phantom life" in story
    assert 1 <= sum(" delay " in line for line in story.splitlines()) <= 2
