# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The plan: what is done about the difference between what is wanted and what is there."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from accelsched import wire
from accelsched.agent.plan import (
    Action,
    Await,
    Build,
    Cancel,
    Complete,
    Failure,
    Hasten,
    Obey,
    Observe,
    OwnedDevice,
    Present,
    Remove,
    RemoveDevice,
    Resume,
    Tidy,
    Work,
    fingerprint,
    plan,
)
from accelsched.agent.virt.base import CarriedOut, Launch, Power, PresentServer

FAULT: wire.Fault = {"message": "no", "details": ""}
UUIDS = [f"aaaaaaaa-0000-4000-8000-00000000000{number}" for number in range(4)]


def wanted(uuid: str, desired: str = "active", name: str = "s") -> Any:
    return {
        "server_uuid": uuid,
        "host": "node1",
        "desired": desired,
        "name": name,
        "project_id": "p",
        "user_id": "u",
        "flavor": {"name": "f", "vcpus": 1, "ram_mb": 1, "disk_gb": 0, "extra_specs": {}},
        "image": None,
        "devices": [],
        "metadata": {},
        "user_data": None,
        "config_drive": False,
        "created_at": "",
    }


def there(uuid: str, power: Power = Power.RUNNING, launch: Launch = Launch.THIS_BOOT) -> Present:
    return Present([PresentServer(uuid, power, launch)])


def failed(assignment: Any) -> dict[str, Failure]:
    return {assignment["server_uuid"]: Failure(fingerprint(assignment), FAULT)}


A = UUIDS[0]


def test_a_server_that_is_wanted_and_not_there_is_built() -> None:
    assert plan([wanted(A)], Present()) == [Build(wanted(A))]


def test_a_server_that_runs_is_active() -> None:
    assert plan([wanted(A)], there(A)) == [Observe(A, "active")]


def test_a_build_that_was_cut_short_is_finished() -> None:
    for power in Power:
        assert plan([wanted(A)], there(A, power, Launch.NEVER)) == [Build(wanted(A))]


def test_a_server_that_stopped_by_itself_is_reported_and_left() -> None:
    assert plan([wanted(A)], there(A, Power.STOPPED)) == [Observe(A, "stopped")]


def test_after_a_reboot_of_the_host_and_after_a_lost_definition_the_server_is_resumed() -> None:
    assert plan([wanted(A)], there(A, Power.STOPPED, Launch.EARLIER_BOOT)) == [Resume(wanted(A))]
    assert plan([wanted(A)], there(A, Power.ABSENT)) == [Resume(wanted(A))]


def test_a_failed_build_is_reported_and_not_tried_again_until_something_else_is_asked_for() -> None:
    assert plan([wanted(A)], Present(), failures=failed(wanted(A))) == [Observe(A, "error", FAULT)]
    renamed = wanted(A, name="other")
    assert plan([renamed], Present(), failures=failed(wanted(A))) == [Observe(A, "error", FAULT)]
    changed = {**wanted(A), "config_drive": True}
    assert plan([changed], Present(), failures=failed(wanted(A))) == [Build(changed)]


def test_what_a_failed_build_left_is_removed() -> None:
    present = there(A, Power.STOPPED, Launch.NEVER)
    assert plan([wanted(A)], present, failures=failed(wanted(A))) == [
        Remove(A, announce=False),
        Observe(A, "error", FAULT),
    ]


def test_a_server_that_is_to_go_is_removed_then_reported_gone_until_that_is_heard() -> None:
    assert plan([wanted(A, "deleted")], there(A)) == [Remove(A, announce=True)]
    assert plan([wanted(A, "deleted")], Present()) == [Observe(A, "gone")]
    assert plan([], Present()) == []


def test_a_server_that_nobody_wants_is_removed_without_a_word() -> None:
    assert plan([], there(A)) == [Remove(A, announce=False)]


def test_devices_of_servers_and_of_nobody_are_removed_when_unwanted() -> None:
    devices = [OwnedDevice("mdev", "m1", A), OwnedDevice("mdev", "m2", None)]
    assert plan([], Present((), devices)) == [Remove(A, announce=False), RemoveDevice("mdev", "m2")]
    assert plan([wanted(A)], Present((), devices)) == [Build(wanted(A)), RemoveDevice("mdev", "m2")]


def test_the_build_of_a_server_that_is_not_wanted_any_more_is_interrupted_and_a_removal_never() -> None:
    assert plan([wanted(A, "deleted")], there(A), work={A: Work(builds=True)}) == [Cancel(A)]
    assert plan([], Present(), work={A: Work(builds=True)}) == [Cancel(A)]
    assert plan([wanted(A)], Present(), work={A: Work(builds=False)}) == []


# --- rules that hold for every host ---------------------------------------------------------------------------------

_uuids = st.sampled_from(UUIDS)
_assignments = st.lists(
    st.builds(wanted, _uuids, st.sampled_from(["active", "deleted"])),
    unique_by=lambda a: a["server_uuid"],
)
_servers = st.lists(
    st.builds(PresentServer, _uuids, st.sampled_from(Power), st.sampled_from(Launch)),
    unique_by=lambda s: s.uuid,
)
_devices = st.lists(st.builds(OwnedDevice, st.just("mdev"), st.text("ab", max_size=2), st.none() | _uuids))
_work = st.dictionaries(_uuids, st.builds(Work, st.booleans()))


@st.composite
def hosts(draw: Any) -> tuple[list[Any], Present, dict[str, Failure], dict[str, Work]]:
    assignments = draw(_assignments)
    failures = {a["server_uuid"]: failed(a)[a["server_uuid"]] for a in assignments if draw(st.booleans())}
    return assignments, Present(draw(_servers), draw(_devices)), failures, draw(_work)


def server_of(action: Action) -> str | None:
    match action:
        case Build(assignment) | Resume(assignment):
            return assignment["server_uuid"]
        case RemoveDevice():
            return None
        case _:
            return action.server_uuid


@given(hosts())
def test_what_is_wanted_and_was_ever_started_is_never_removed(host: Any) -> None:
    assignments, present, failures, work = host
    keep = {a["server_uuid"] for a in assignments if a["desired"] == "active"}
    launched = {s.uuid for s in present.servers if s.launch is not Launch.NEVER}
    removed = {a.server_uuid for a in plan(assignments, present, failures=failures, work=work) if isinstance(a, Remove)}
    assert not removed & keep & launched


@given(hosts())
def test_whatever_is_unwanted_and_idle_is_removed(host: Any) -> None:
    assignments, present, failures, work = host
    keep = {a["server_uuid"] for a in assignments if a["desired"] == "active"}
    found = {s.uuid for s in present.servers} | {d.server_uuid for d in present.devices if d.server_uuid}
    removed = {a.server_uuid for a in plan(assignments, present, failures=failures, work=work) if isinstance(a, Remove)}
    assert found - keep - work.keys() <= removed


@given(hosts())
def test_a_server_that_is_worked_on_is_left_alone_but_for_an_interruption(host: Any) -> None:
    assignments, present, failures, work = host
    for action in plan(assignments, present, failures=failures, work=work):
        assert server_of(action) not in work or isinstance(action, Cancel)


@given(hosts())
def test_each_server_gets_one_action_and_at_most_one_report_beside_it(host: Any) -> None:
    assignments, present, failures, work = host
    actions = plan(assignments, present, failures=failures, work=work)
    acting = [server_of(a) for a in actions if not isinstance(a, Observe | RemoveDevice)]
    reports = [a.server_uuid for a in actions if isinstance(a, Observe)]
    assert len(acting) == len(set(acting))
    assert len(reports) == len(set(reports))


@given(hosts())
def test_gone_is_said_only_of_servers_that_are_to_go_and_of_which_nothing_is_left(host: Any) -> None:
    assignments, present, failures, work = host
    deleted = {a["server_uuid"] for a in assignments if a["desired"] == "deleted"}
    found = {s.uuid for s in present.servers} | {d.server_uuid for d in present.devices}
    for action in plan(assignments, present, failures=failures, work=work):
        if isinstance(action, Observe) and action.state == "gone":
            assert action.server_uuid in deleted - found


@given(hosts())
def test_a_host_without_failures_that_does_what_the_plan_says_comes_to_rest(host: Any) -> None:
    assignments, present, _, _ = host
    actions = plan(assignments, present)
    servers = {s.uuid: s for s in present.servers}
    devices = [d for d in present.devices if d.server_uuid is not None]
    for action in actions:
        if isinstance(action, Build | Resume):
            uuid = action.assignment["server_uuid"]
            servers[uuid] = PresentServer(uuid, Power.RUNNING, Launch.THIS_BOOT)
        elif isinstance(action, Remove):
            servers.pop(action.server_uuid, None)
            devices = [d for d in devices if d.server_uuid != action.server_uuid]
    after = plan(assignments, Present(list(servers.values()), devices))
    assert all(isinstance(action, Observe) for action in after)


def ordered(number: int, power: str, reboot: str | None = None) -> Any:
    return {**wanted(A), "order": {"number": number, "power": power, "reboot": reboot}}


def obeyed(number: int, power: Power, launch: Launch = Launch.THIS_BOOT, fault: wire.Fault | None = None) -> Present:
    return Present([PresentServer(A, power, launch, CarriedOut(number, fault))])


def test_an_order_is_carried_out_once_and_then_reported_with_how_it_went() -> None:
    assert plan([ordered(2, "stopped")], obeyed(1, Power.RUNNING)) == [Obey(ordered(2, "stopped"))]
    for fault in (None, FAULT):
        assert plan([ordered(2, "stopped")], obeyed(2, Power.RUNNING, fault=fault)) == [
            Observe(A, "active", order=CarriedOut(2, fault))
        ]


def test_an_order_to_a_server_that_is_not_there_yet_waits_for_it_to_be_built() -> None:
    assert plan([ordered(1, "running")], Present()) == [Build(ordered(1, "running"))]


def test_only_what_is_to_run_is_started_again_after_a_reboot_of_the_host() -> None:
    for power in ("stopped", "paused"):
        present = obeyed(1, Power.STOPPED, Launch.EARLIER_BOOT)
        assert plan([ordered(1, power)], present) == [Observe(A, "stopped", order=CarriedOut(1))]
    present = obeyed(1, Power.SUSPENDED, Launch.EARLIER_BOOT)
    assert plan([ordered(1, "suspended")], present) == [Observe(A, "suspended", order=CarriedOut(1))]
    present = obeyed(1, Power.STOPPED, Launch.EARLIER_BOOT)
    assert plan([ordered(1, "running")], present) == [Resume(ordered(1, "running"))]


def test_a_rescued_server_is_reported_so_whatever_its_domain_does_and_started_again_after_a_reboot() -> None:
    order = ordered(1, "rescued")
    for power in (Power.RUNNING, Power.STOPPED):
        present = Present([PresentServer(A, power, Launch.THIS_BOOT, CarriedOut(1), rescued=True)])
        assert plan([order], present) == [Observe(A, "rescued", order=CarriedOut(1))]
    for power, rescued in ((Power.STOPPED, True), (Power.ABSENT, False)):
        present = Present([PresentServer(A, power, Launch.EARLIER_BOOT, CarriedOut(1), rescued=rescued)])
        assert plan([order], present) == [Resume(order)]


def test_an_operator_may_have_servers_stay_down_after_a_reboot_of_the_host() -> None:
    assert plan([wanted(A)], there(A, Power.STOPPED, Launch.EARLIER_BOOT), resume=False) == [Observe(A, "stopped")]


def test_an_order_is_no_part_of_what_a_failed_build_failed_at() -> None:
    assert fingerprint(ordered(3, "stopped")) == fingerprint(wanted(A))


def test_an_older_incarnation_is_removed_and_the_wanted_one_built() -> None:
    second = {**wanted(A), "incarnation": 2}
    assert plan([second], there(A)) == [Remove(A, announce=False)]
    assert plan([second], Present()) == [Build(second)]
    rebuilt = Present([PresentServer(A, Power.RUNNING, Launch.THIS_BOOT, incarnation=2)])
    assert plan([second], rebuilt) == [Observe(A, "active", incarnation=2)]
    assert fingerprint(second) != fingerprint(wanted(A))  # so that a failed build is tried again


KEPT = "dddddddd-0000-4000-8000-000000000001"


def test_what_a_server_needs_no_more_is_removed_before_its_order_counts_as_carried_out() -> None:
    order: Any = {"number": 2, "power": "running", "reboot": "soft"}
    obeyed = CarriedOut(2)
    server = PresentServer(A, Power.RUNNING, Launch.THIS_BOOT, obeyed, kept_disks=frozenset({KEPT}))
    used, spare = OwnedDevice("mdev", "a", A), OwnedDevice("mdev", "b", A, spare=True)
    assignment = {**wanted(A), "order": order}
    kept = {**assignment, "kept_disk": {"id": KEPT, "restore": False}}
    seen = Observe(A, "active", order=obeyed)

    def tidied(assignment: Any) -> list[Action]:
        return [Tidy(assignment, then=seen), Observe(A, "active")]

    assert plan([kept], Present([server], [used])) == [seen]
    assert plan([kept], Present([server], [used, spare])) == tidied(kept)
    assert plan([assignment], Present([server], [used])) == tidied(assignment)
    # Before the order is carried out the server still runs with them.
    newer: Any = {**assignment, "order": {**order, "number": 3}}
    assert plan([newer], Present([server], [used, spare])) == [Obey(newer)]


def test_a_server_that_is_set_aside_is_left_so_across_a_reboot_of_its_host() -> None:
    order: Any = {"number": 2, "power": "aside", "reboot": None}
    server = PresentServer(A, Power.ABSENT, Launch.EARLIER_BOOT, CarriedOut(2))
    assert plan([{**wanted(A), "order": order}], Present([server])) == [Observe(A, "stopped", order=CarriedOut(2))]


def coming() -> Any:
    return {**wanted(A), "incarnation": 2, "incoming": {"host": "node2", "agent": "q"}}


def awaited(power: Power = Power.ABSENT) -> Present:
    return Present([PresentServer(A, power, Launch.NEVER, incarnation=2, awaited=True)])


def away(**live: bool) -> Any:
    to = {"host": "node2", "agent": "q", **live}
    return {**wanted(A), "order": {"number": 1, "power": "away", "reboot": None, "live": to}}


def test_what_a_server_needs_that_is_to_come_is_made_once_and_said() -> None:
    assert plan([coming()], Present()) == [Await(coming())]
    assert plan([coming()], there(A, Power.ABSENT, Launch.EARLIER_BOOT)) == [Remove(A, announce=False)]  # of old
    for power in (Power.ABSENT, Power.PAUSED, Power.RUNNING):  # whatever has come of it yet
        assert plan([coming()], awaited(power)) == [Observe(A, "awaited", incarnation=2)]


def test_what_came_is_taken_over_and_nothing_of_it_is_ever_removed_for_a_failure() -> None:
    arrived = {**wanted(A), "incarnation": 2}
    assert plan([arrived], awaited(Power.RUNNING)) == [Resume(arrived)]
    assert plan([arrived], awaited(Power.PAUSED)) == [Resume(arrived)]
    assert plan([], awaited(Power.RUNNING)) == [Remove(A, announce=False)]


def test_a_server_goes_once_and_is_not_started_here_again() -> None:
    assert plan([away()], there(A)) == [Obey(away())]
    gone = Present([PresentServer(A, Power.ABSENT, Launch.THIS_BOOT, CarriedOut(1))])
    assert plan([away()], gone) == [Observe(A, "stopped", order=CarriedOut(1))]


def test_a_server_on_its_way_is_called_back_or_hastened_as_it_is_said() -> None:
    work = {A: Work(builds=True)}
    assert plan([away()], there(A), work=work) == []
    assert plan([away(force=True)], there(A), work=work) == [Hasten(A)]
    assert plan([away(force=True, abort=True)], there(A), work=work) == [Cancel(A)]


def test_a_server_that_runs_on_gets_back_what_its_guest_let_go_of_to_be_suspended():
    def action(power: Power = Power.RUNNING, **more: Any) -> Action:
        server = PresentServer(UUIDS[0], power, Launch.THIS_BOOT, lacks=True)
        (action,) = plan([wanted(UUIDS[0]) | more], Present([server]))
        return action

    assert action() == Complete(wanted(UUIDS[0]))
    assert action(Power.PAUSED) == Observe(UUIDS[0], "paused")
    assert isinstance(action(order={"number": 1, "power": "suspended", "reboot": None}), Obey)  # that comes first
