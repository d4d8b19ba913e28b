"""The simulation by name: `make simulate`, or

    python tests/simulation/simulate.py --pure --seeds 20000
    python tests/simulation/simulate.py --pure --seed 17
    python tests/simulation/simulate.py --daemon --seeds 200

Each seed is a world (world.py) whose records travel over a bad network (network.py) and are settled; the auditor counts
again. A seed that fails is told as the shortest story that still fails, and shows itself again with `--seed`. Through
the daemon the worlds of WORLDS_A_RUN seeds share a run, which `--from` with its first seed plays again: the same
records, troubles in the same order at the same shares of them, if not at the same microsecond.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pure
import through_daemon
from auditor import audit, judge_quarantine
from faults import Fault
from network import SECOND, Delivery, carry
from speech import counters_of
from world import World, make_world

PROGRESS_SECONDS = 20.0
FAILURES_MAX = 5
WORLDS_A_RUN = 20


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
    outcome = pure.settle(world, deliveries)
    return audit(world, deliveries, outcome) + judge_quarantine(deliveries, outcome.quarantined)


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


def run_daemon(first: int, seeds: int) -> Campaign:
    campaign = Campaign()
    for begin in range(first, first + seeds, WORLDS_A_RUN):
        count = min(WORLDS_A_RUN, first + seeds - begin)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="sms-aaa-simulation-") as folder:
            run = through_daemon.run(Path(folder), first=begin, seeds=count)
            if run.complaints:
                campaign.failures.append((begin, "\n".join(f"  WRONG: {one}" for one in run.complaints)))
        campaign.faults.update(run.faults)
        campaign.sessions += run.sessions
        campaign.records += run.answered
        print(
            f"  seeds {begin} to {begin + count - 1}: {run.answered:,} records answered, {run.asked_again} asked "
            f"again, {len(run.complaints)} complaints, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    if Fault.DISK_FULL not in campaign.faults:
        print("the disk was never full: this user cannot mount a small one")
    return campaign


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
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--pure", action="store_true", help="through the rules alone")
    way.add_argument("--daemon", action="store_true", help="through real daemons, with troubles")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of them (default 1)")
    parser.add_argument("--seed", type=int, help="this one alone")
    asked = parser.parse_args(words)
    first, seeds = (asked.seed, 1) if asked.seed is not None else (asked.first, asked.seeds)
    began = time.monotonic()
    campaign = run_pure(first, seeds) if asked.pure else run_daemon(first, seeds)
    report(campaign, time.monotonic() - began)
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
