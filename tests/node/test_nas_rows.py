"""The NAS rows of a slot: kept by their NAS, begun anew when they should, added up over workers."""

from __future__ import annotations

from sms_aaa.node.board import COUNTERS_PER_SLOT
from sms_aaa.node.nas_rows import (
    LAST_ROW,
    ROWS_MAX,
    NasWord,
    add_up,
    assign_rows,
    last_proofs,
    list_proven,
)
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas


def counters() -> memoryview:
    return memoryview(bytearray(8 * COUNTERS_PER_SLOT)).cast("Q")


def nas(nas_id: int, *, secret_id: int = 1, observed_from: int = 0) -> NodeNas:
    return NodeNas(
        nas_id, f"nas{nas_id}", "192.0.2.1/32", [b"sealed"], Dialect.GENERIC, MessageAuthenticatorPolicy.AUTO, 3799,
        secret_id=secret_id, observed_from=observed_from,
    )  # fmt: skip


def test_a_nas_keeps_its_row_while_others_come_and_go():
    slot = counters()
    before = assign_rows(slot, [nas(1), nas(2), nas(3)])
    slot[before[3] + NasWord.SIGNED] = 5
    after = assign_rows(slot, [nas(3), nas(4)])
    assert after[3] == before[3]
    assert slot[after[3] + NasWord.SIGNED] == 5
    assert after[4] in {before[1], before[2]}


def test_a_row_begins_at_zero_for_another_nas_and_for_another_observation():
    slot = counters()
    at = assign_rows(slot, [nas(1)])[1]
    for observed_from, nas_id in ((0, 2), (7, 2)):
        slot[at + NasWord.SIGNED] = slot[at + NasWord.PROVEN] = 5
        assert assign_rows(slot, [nas(nas_id, observed_from=observed_from)]) == {nas_id: at}
        assert slot[at + NasWord.SIGNED] == slot[at + NasWord.PROVEN] == 0


def test_another_rotation_begins_its_own_counts_alone():
    slot = counters()
    at = assign_rows(slot, [nas(1)])[1]
    slot[at + NasWord.SIGNED] = slot[at + NasWord.OLD_SECRET] = slot[at + NasWord.LAST_OLD_NS] = 5
    assert last_proofs(slot, {1: 1, 9: 1}) == {1: (5, 0)}
    assign_rows(slot, [nas(1, secret_id=2)])
    assert (slot[at + NasWord.SIGNED], slot[at + NasWord.OLD_SECRET]) == (5, 0)
    assert last_proofs(slot, {1: 1}) == {}
    assert last_proofs(slot, {1: 2}) == {1: (0, 0)}


def test_those_beyond_the_rows_share_the_last_and_stand_for_nobody():
    slot = counters()
    rows = assign_rows(slot, [nas(nas_id) for nas_id in range(1, ROWS_MAX + 3)])
    assert [rows[nas_id] for nas_id in range(ROWS_MAX - 1, ROWS_MAX + 3)] == [rows[ROWS_MAX - 1]] + 3 * [LAST_ROW]
    slot[LAST_ROW + NasWord.PROVEN] = slot[LAST_ROW + NasWord.SIGNED] = 5
    assert list_proven([slot]) == {}
    assert {one.nas_id for one in add_up([slot])} == set(range(1, ROWS_MAX))


def test_totals_are_over_all_workers_and_of_the_latest_observation_and_rotation():
    first, second, behind = counters(), counters(), counters()
    assign_rows(first, [nas(9), nas(1, secret_id=4, observed_from=7)])
    assign_rows(second, [nas(1, secret_id=4, observed_from=7)])
    assign_rows(behind, [nas(1, secret_id=3, observed_from=7)])
    for slot, at_ns, port in ((first, 30, 300), (second, 20, 200), (behind, 10, 100)):
        [at] = [row for nas_id, row in assign_rows(slot, list_of(slot)).items() if nas_id == 1]
        slot[at + NasWord.SIGNED] = slot[at + NasWord.UNSIGNED] = slot[at + NasWord.MISSING] = 1
        slot[at + NasWord.OLD_SECRET] = 1
        slot[at + NasWord.LAST_UNSIGNED_NS], slot[at + NasWord.LAST_UNSIGNED_PORT] = at_ns, port
        slot[at + NasWord.LAST_NEW_NS] = at_ns
    one = next(total for total in add_up([second, first, behind]) if total.nas_id == 1)
    assert (one.signed, one.unsigned, one.old_secret) == (3, 6, 2)
    assert (one.last_unsigned_ns, one.last_unsigned_port, one.last_new_ns) == (30, 300, 30)
    assert (one.rotation, one.observed_from) == (4, 7)
    assign_rows(first, [nas(1, secret_id=4, observed_from=8)])
    assert next(total for total in add_up([first, second]) if total.nas_id == 1).signed == 0


def list_of(slot: memoryview) -> list[NodeNas]:
    """The NASes that a slot has rows for, as they are."""
    return [nas(one.nas_id, secret_id=one.rotation, observed_from=one.observed_from) for one in add_up([slot])]
