"""The checks of a login in their order of precedence, and the same order told afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sms_aaa.rules.access import Verdict, Whereabouts, checks_of, decide, decide_rights, seconds_left
from sms_aaa.rules.entitlement import Entitlement, NodePlan, Policy, ServiceState, Terms
from sms_aaa.rules.identity import canonical_mac, mac_identity
from sms_aaa.rules.reasons import Reason


@dataclass
class Proof:
    usable: bool = True
    right: bool = True

    def can_use(self, stored: str) -> bool:
        return self.usable

    def matches(self, stored: str) -> bool:
        return self.right


PLAN = NodePlan(1, "home", 1, Policy())


NOW = 1_800_000_000
PHONE, PRINTER = b"020000000007", b"020000000008"
HERE = Whereabouts(nas_id=1, ports=(b"ge-0/0/1", b"7"), mac=PHONE)


def service(state: ServiceState = ServiceState.ACTIVE, terms: Terms | None = None) -> Entitlement:
    return Entitlement(1, 1, 1, int(state), b"sealed", terms=terms)


@pytest.mark.parametrize(
    ("proof", "entitlement", "stored", "plan", "reason"),
    [
        (None, None, None, None, Reason.UNSUPPORTED_METHOD),
        (Proof(), None, None, None, Reason.UNKNOWN_USER),
        (Proof(), service(ServiceState.SUSPENDED), None, None, Reason.NO_CREDENTIAL),
        (Proof(usable=False), service(ServiceState.SUSPENDED), "x", None, Reason.NO_CREDENTIAL),
        (Proof(right=False), service(ServiceState.SUSPENDED), "x", None, Reason.BAD_PASSWORD),
        (Proof(), service(ServiceState.SUSPENDED), "x", None, Reason.SUSPENDED),
        (Proof(), service(ServiceState.BLOCKED), "x", None, Reason.BLOCKED),
        (Proof(), service(ServiceState.CANCELLED), "x", None, Reason.UNKNOWN_USER),
        (Proof(), service(), "x", None, Reason.NO_PLAN),
        (Proof(), service(), "x", PLAN, Reason.ACCEPTED),
    ],
)
def test_the_first_check_that_fails_is_the_reason(
    proof: Proof | None, entitlement: Entitlement | None, stored: str | None, plan: NodePlan | None, reason: Reason
) -> None:
    assert decide(proof, entitlement, stored, plan, now=NOW, where=None) is reason


@pytest.mark.parametrize(
    ("terms", "where", "reason"),
    [
        (Terms(valid_from=NOW + 1, nas_ids=(9,)), HERE, Reason.NOT_YET_ACTIVE),
        (Terms(valid_from=NOW), HERE, Reason.ACCEPTED),
        (Terms(valid_until=NOW, nas_ids=(9,)), HERE, Reason.EXPIRED),
        (Terms(valid_until=NOW + 1), HERE, Reason.ACCEPTED),
        (Terms(nas_ids=(9,), ports=(b"other",)), HERE, Reason.NAS_NOT_ALLOWED),
        (Terms(nas_ids=(9, 1)), HERE, Reason.ACCEPTED),
        (Terms(nas_ids=(1,), ports=(b"ge-0/0/2",), macs=(PRINTER,)), HERE, Reason.PORT_MISMATCH),
        (Terms(ports=(b"7",)), HERE, Reason.ACCEPTED),
        (Terms(ports=(b"7",)), Whereabouts(1, (), PHONE), Reason.PORT_MISMATCH),
        (Terms(macs=(PRINTER,)), HERE, Reason.MAC_NOT_BOUND),
        (Terms(macs=(PRINTER, PHONE)), HERE, Reason.ACCEPTED),
        (Terms(macs=(PRINTER,)), Whereabouts(1, (), None), Reason.MAC_NOT_BOUND),
        (None, Whereabouts(1, (), None, realm_nas_ids=(9,)), Reason.NAS_NOT_ALLOWED),
        (None, Whereabouts(1, (), None, realm_nas_ids=(9, 1)), Reason.ACCEPTED),
        (Terms(nas_ids=(1,)), Whereabouts(1, (), None, realm_nas_ids=(9,)), Reason.ACCEPTED),
    ],
)
def test_terms_are_checked_in_order_and_a_service_may_use_any_of_what_it_is_bound_to(
    terms: Terms | None, where: Whereabouts, reason: Reason
) -> None:
    assert decide_rights(service(terms=terms), PLAN, now=NOW, where=where) is reason


def test_a_service_without_a_plan_is_refused_for_that_before_its_place_is_looked_at() -> None:
    bound = service(terms=Terms(nas_ids=(9,)))
    assert decide_rights(bound, None, now=NOW, where=HERE) is Reason.NO_PLAN
    expired = service(terms=Terms(valid_until=1))
    assert decide_rights(expired, None, now=NOW, where=HERE) is Reason.EXPIRED
    blocked = service(ServiceState.BLOCKED, Terms(valid_until=1))
    assert decide_rights(blocked, None, now=NOW, where=HERE) is Reason.BLOCKED


def test_how_long_a_service_lasts_yet() -> None:
    assert seconds_left(None, NOW) == seconds_left(Terms(valid_from=5), NOW) == 0
    assert seconds_left(Terms(valid_until=NOW + 60), NOW) == 60


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_tells_which_checks_ran_and_where_they_ended(reason: Reason) -> None:
    verdicts = [check.verdict for check in checks_of(reason, {})]
    failed = verdicts.count(Verdict.FAILED)
    assert failed == (0 if reason is Reason.ACCEPTED else 1)
    order = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.NOT_REACHED: 2}
    assert [order[verdict] for verdict in verdicts] == sorted(order[verdict] for verdict in verdicts)


def test_what_a_check_saw_is_told_with_it_and_not_beyond_where_it_ended() -> None:
    checks = {check.name: check for check in checks_of(Reason.SUSPENDED, {"state": "unpaid", "plan": "home"})}
    assert checks["state"].saw == "suspended: unpaid"
    assert checks["plan"].saw == ""


def test_before_the_credential_is_proved_all_refusals_say_the_same() -> None:
    unproved = {
        Reason.RATE_LIMITED, Reason.LOCKED_OUT, Reason.REALM_UNKNOWN, Reason.UNSUPPORTED_METHOD, Reason.UNKNOWN_USER,
        Reason.NO_CREDENTIAL, Reason.BAD_PASSWORD,
    }  # fmt: skip
    assert len({reason.text for reason in unproved}) == 1


def test_codes_and_labels_are_unique_and_lead_back() -> None:
    assert len({reason.code for reason in Reason}) == len({reason.label for reason in Reason}) == len(Reason)
    assert all(Reason.by_code(reason.code) is reason for reason in Reason)
    with pytest.raises(ValueError, match="no reason has code 9999"):
        Reason.by_code(9999)


@pytest.mark.parametrize("text", [b"00-11-22-AA-BB-CC", b"00:11:22:aa:bb:cc", b"0011.22aa.bbcc", b"001122AABBCC"])
def test_a_hardware_address_is_read_in_every_notation(text: bytes) -> None:
    assert canonical_mac(text) == b"001122aabbcc"


@pytest.mark.parametrize("text", [b"", b"alice", b"00-11-22-AA-BB", b"00-11-22-AA-BB-CG", b"0" * 40])
def test_what_is_no_hardware_address_is_none(text: bytes) -> None:
    assert canonical_mac(text) is None


def test_without_call_check_the_name_must_be_the_address_that_the_nas_saw() -> None:
    mine, other = b"00-11-22-33-44-55", b"00-11-22-33-44-66"
    assert mac_identity(mine, mine, call_check=False) == b"001122334455"
    assert mac_identity(mine, other, call_check=False) is None
    assert mac_identity(mine, b"", call_check=False) is None
    assert mac_identity(mine, other, call_check=True) == b"001122334466"
    assert mac_identity(mine, b"", call_check=True) == b"001122334455"
    assert mac_identity(b"alice", b"", call_check=True) is None
