"""The simulation by name: `make simulate`, or

    python tests/simulation/simulate.py --pure --seeds 20000
    python tests/simulation/simulate.py --pure --seed 17

Each seed is a world (world.py) whose records travel over a bad network (network.py) and are settled; the auditor counts
again. A seed that fails is told as the shortest story that still fails, and shows itself again with `--seed`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

import pure
from auditor import audit
from network import SECOND, Delivery, carry
from speech import counters_of
from world import World, make_world

if TYPE_CHECKING:
    from faults import Fault

PROGRESS_SECONDS = 20.0
FAILURES_MAX = 5


@dataclass(slots=True)
class Campaign:
    faults: Counter[Fault] = field(default_factory=Counter)
    sessions: int = 0
    records: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)


def run_pure(first: int, seeds: int, *, failures_max: int = FAILURES_MAX) -> Campaign:
    campaign = Campaign()
    said = time.monotonic()
    for seed in range(first, first + seeds):
        world = make_world(seed)
        deliveries, faults = carry(world)
        if complaints(world, deliveries):
            campaign.failures.append((seed, tell(world, shrink(world, deliveries))))
            if len(campaign.failures) >= failures_max:
                break
        campaign.faults.update(faults + world.faults)
        campaign.sessions += len(world.sessions)
        campaign.records += len(deliveries)
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            print(f"  {seed - first + 1:,} seeds, {campaign.records:,} records", flush=True)
    return campaign


def complaints(world: World, deliveries: list[Delivery]) -> list[str]:
    return audit(world, deliveries, pure.settle(world, deliveries))


def shrink(world: World, deliveries: list[Delivery]) -> list[Delivery]:
    """As few of them as still fail: what is left out was lost, which is a story as well."""
    for number in range(len(world.sessions)):
        rest = [one for one in deliveries if one.saying.session != number]
        if len(rest) < len(deliveries) and complaints(world, rest):
            deliveries = rest
    index = 0
    while index < len(deliveries):
        rest = deliveries[:index] + deliveries[index + 1 :]
        if complaints(world, rest):
            deliveries = rest
        else:
            index += 1
    return deliveries


def tell(world: World, deliveries: list[Delivery]) -> str:
    """The story in words: what each record said when it was settled, what became of it, what is wrong."""
    lines = []
    for one in deliveries:
        nas, saying = one.nas, one.saying
        octets_in, octets_out = counters_of(nas, saying)
        whose = world.sessions[saying.session].name if saying.session >= 0 else "-"
        lines.append(
            f"  {one.settled / SECOND:9.1f} {one.node} {nas.name} {whose} session {saying.session}: {saying.status}"
            f"{'' if saying.spoilt is None else ' ' + saying.spoilt.name} of {saying.at}, received "
            f"{one.received / SECOND:.1f}, delay {one.delay}, time {saying.seconds if nas.session_time else None}, "
            f"run {saying.run}, counters {octets_in:,} / {octets_out:,}"
        )
    outcome = pure.settle(world, deliveries)
    lines += [f"  NAS {nas}" for nas in {one.nas for one in deliveries}]
    for life in outcome.lives:
        lines.append(
            f"  life {life.life} of {life.key}: {life.state.name}, {life.octets_in:,} / {life.octets_out:,}, "
            f"{life.started_at} to {life.stopped_at}, {sorted(life.names)}"
        )
    return "\n".join([*lines, *(f"  WRONG: {one}" for one in audit(world, deliveries, outcome))])


def report(campaign: Campaign, seconds: float) -> None:
    print(f"{campaign.sessions:,} sessions, {campaign.records:,} records in {seconds:.0f} s")
    print(
        "  "
        + ", ".join(
            f"{fault.name.lower()} {times:,}"
            for fault, times in sorted(campaign.faults.items(), key=lambda pair: pair[0].value)
        )
    )
    for seed, story in campaign.failures:
        print(f"FAILED, seed {seed}:\n{story}")
    if not campaign.failures:
        print("the auditor is content")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Seeded worlds, a bad network, and an auditor who counts again.")
    parser.add_argument("--pure", action="store_true", help="through the rules alone")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of them (default 1)")
    parser.add_argument("--seed", type=int, help="this one alone")
    asked = parser.parse_args(words)
    first, seeds = (asked.seed, 1) if asked.seed is not None else (asked.first, asked.seeds)
    began = time.monotonic()
    campaign = run_pure(first, seeds)
    report(campaign, time.monotonic() - began)
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
