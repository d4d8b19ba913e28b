"""The metrics: declared once, named as Prometheus wants it, labels from enums and provisioned names only."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from sms_aaa.metrics import (
    LATENCY_AT,
    LATENCY_BOUNDS_US,
    Collector,
    Names,
    ProcessView,
    Word,
    anomaly_word,
    fault_word,
    observe,
    reason_word,
    set_plan_rows,
)
from sms_aaa.node.board import COUNTERS_PER_SLOT, Board
from sms_aaa.node.nas_rows import LAST_ROW, ROW_WORDS, ROWS_AT, NasWord, assign_rows
from sms_aaa.radius.faults import PacketFault
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas
from sms_aaa.rules.reasons import Reason
from sms_aaa.rules.session import AnomalyKind

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PROCESSES = [
    ProcessView("access-1", 0, is_up=True, restarts=2),
    ProcessView("accounting-1", 1, is_up=False, restarts=0),
]
NAS = NodeNas(7, "bng1", "192.0.2.1/32", [b""], Dialect.GENERIC, MessageAuthenticatorPolicy.AUTO, 3799)
NAMES = Names({7: "bng1"}, {3: "home-100"})


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board.create(tmp_path / "board", slots=2, now_ns=time.time_ns())
    assert isinstance(made, Board)
    yield made
    made.close()


def lines(board: Board) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(Collector(board, lambda: PROCESSES, lambda: NAMES, time.time_ns))
    text = generate_latest(registry).decode()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    }


def test_words_of_the_slots_are_added_up_and_told_under_their_names(board: Board) -> None:
    first, second = board.slot(0).counters, board.slot(1).counters
    first[Word.REPLIES], second[Word.REPLIES] = 3, 4
    first[reason_word(Reason.BAD_PASSWORD)] = 5
    second[fault_word(PacketFault.UNKNOWN_NAS)] = 6
    row = assign_rows(first, [NAS])[7]
    first[row + NasWord.SIGNED], first[row + NasWord.UNSIGNED], first[row + NasWord.EAP] = 4, 3, 2
    first[row + NasWord.MISSING], first[row + NasWord.DROPS], first[row + NasWord.OLD_SECRET] = 5, 6, 8
    set_plan_rows(second, [(3, 11), (99, 1)])
    second[anomaly_word(AnomalyKind.CLOCK)], second[Word.LAPSED_REBOOT] = 12, 13
    observe(first, LATENCY_AT, 600, 4)
    found = lines(board)
    assert found["sms_aaa_replies_total"] == 7
    assert found['sms_aaa_access_decisions_total{reason="bad-password"}'] == 5
    assert found['sms_aaa_packet_drops_total{fault="unknown-nas"}'] == 6
    assert found['sms_aaa_requests_total{kind="access",nas="bng1"}'] == 9
    assert found['sms_aaa_nas_access_requests_total{nas="bng1",signature="unsigned"}'] == 8
    assert found['sms_aaa_nas_access_requests_total{nas="bng1",signature="signed"}'] == 4
    assert found['sms_aaa_nas_secret_proofs_total{nas="bng1",secret="old"}'] == 8
    assert found['sms_aaa_nas_drops_total{nas="bng1"}'] == 6
    assert found['sms_aaa_sessions_online{plan="home-100"}'] == 11
    assert found['sms_aaa_anomalies_total{kind="nas-clock"}'] == 12
    assert found['sms_aaa_sessions_lapsed_total{cause="nas-reboot"}'] == 13
    assert found['sms_aaa_sessions_online{plan="none"}'] == 1
    assert found['sms_aaa_process_up{process="accounting-1"}'] == 0
    assert found['sms_aaa_process_restarts_total{process="access-1"}'] == 2
    assert found['sms_aaa_request_duration_seconds_bucket{le="0.0005",process="access-1"}'] == 0
    assert found['sms_aaa_request_duration_seconds_bucket{le="0.001",process="access-1"}'] == 4
    assert found['sms_aaa_request_duration_seconds_sum{process="access-1"}'] == pytest.approx(0.0024)


def test_every_reason_and_every_fault_has_its_line_before_it_happens(board: Board) -> None:
    found = lines(board)
    assert {f'sms_aaa_access_decisions_total{{reason="{reason.label}"}}' for reason in Reason} <= set(found)
    assert {f'sms_aaa_packet_drops_total{{fault="{fault.label}"}}' for fault in PacketFault} <= set(found)


def test_names_end_in_their_unit_and_counters_in_total(board: Board) -> None:
    registry = CollectorRegistry()
    registry.register(Collector(board, lambda: PROCESSES, lambda: NAMES, time.time_ns))
    for family in registry.collect():
        assert re.fullmatch(r"sms_aaa_[a-z_]+", family.name), family.name
        assert family.documentation, family.name
        assert not family.name.endswith(("_ms", "_us", "_ns", "_bytes")), family.name


def test_no_word_stands_for_two_things() -> None:
    words = [int(word) for word in Word]
    words += [reason_word(reason) for reason in Reason] + [fault_word(fault) for fault in PacketFault]
    words += [LATENCY_AT + offset for offset in range(len(LATENCY_BOUNDS_US) + 2)]
    words += [anomaly_word(kind) for kind in AnomalyKind]
    words += [row + word for row in (ROWS_AT, ROWS_AT + ROW_WORDS, LAST_ROW) for word in NasWord]
    assert len(words) == len(set(words))
    assert max(words) < COUNTERS_PER_SLOT


def test_what_has_no_row_of_its_own_is_told_as_other(board: Board) -> None:
    board.slot(0).counters[LAST_ROW + NasWord.SIGNED] = 3
    assert lines(board)['sms_aaa_requests_total{kind="access",nas="other"}'] == 3


def test_every_metric_that_the_alerts_name_is_there(board: Board) -> None:
    assign_rows(board.slot(0).counters, [NAS])
    known = {name.partition("{")[0] for name in lines(board)}
    rules = (ROOT / "etc" / "prometheus" / "sms-aaa.rules.yml").read_text()
    assert names_in(rules)
    assert names_in(rules) <= known


def names_in(text: str) -> set[str]:
    return set(re.findall(r"sms_aaa_[a-z_]+", text))


def test_every_metric_and_label_that_a_dashboard_asks_for_is_there(board: Board) -> None:
    """What is misspelled in a panel shows as an empty one, on the night when it is needed."""
    assign_rows(board.slot(0).counters, [NAS])
    set_plan_rows(board.slot(1).counters, [(3, 11)])
    told = lines(board)
    known = {name.partition("{")[0] for name in told}
    labels = {label for name in told for label in re.findall(r"[{,](\w+)=", name)} | {"instance"}
    found = sorted((ROOT / "etc" / "grafana").glob("*.json"))
    assert found
    for path in found:
        dashboard = json.loads(path.read_text())
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        for panel in panels:
            assert panel["description"], panel["title"]
            for target in panel["targets"]:
                assert names_in(target["expr"])
                assert names_in(target["expr"]) <= known, panel["title"]
                used = " ".join(re.findall(r"by \(([^)]*)\)", target["expr"])).replace(",", " ").split()
                assert set(used) <= labels, panel["title"]
        assert len({panel["id"] for panel in panels}) == len(panels)
