# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Take over what an agent reports of its host: the host's provider and one for each device below it.

The agent owns what it reported and nothing else. A trait, an aggregate or a ratio that an operator set by hand stays;
what the agent reported before and does not report now goes. What is still allocated is not removed but reserved, so
that nothing new lands on a device that disappeared; the device is marked as lost until it is back, or held by nobody.
All of a device that its agent says has a fault is reserved too, and the device marked as unhealthy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from accelsched import errors, names, wire
from accelsched.db import feed
from accelsched.db.base import utcnow
from accelsched.db.placement import (
    Allocation,
    CapacityRule,
    Inventory,
    NumaTopology,
    ProviderAggregate,
    ProviderTrait,
    ResourceClass,
    ResourceProvider,
    Trait,
)
from accelsched.placement import capacity_rules, device_status
from accelsched.placement.numa import store as numa_store

Reported = dict[str, wire.ProviderReport]
"""An earlier report, by provider uuid."""


def apply(
    session: Session,
    reports: Sequence[wire.ProviderReport],
    before: Reported,
    numa: wire.NumaTopology | None = None,
) -> dict[str, str]:
    """Make the resource database say what the agent says.

    :param reports: the whole tree, parents before children, the root first
    :param before: what the same agent reported last
    :param numa: the host's NUMA nodes, None where it has not told any
    :returns: what is wrong with devices now, by uuid: the end of a sentence about one
    :raises accelsched.errors.ConflictError: when a provider of that name, or in another tree, is already there
    :raises accelsched.errors.InvalidError: when the report does not make one tree
    """
    _check(reports)
    uuids = [report["uuid"] for report in reports]
    lost = device_status.lost(session, uuids[0]) if before else set()
    providers = _providers(session, [*uuids, *before, *lost])
    marks = device_status.marks_of(session, [provider.id for provider in providers.values()])
    used = _used(session, [provider.id for provider in providers.values()])
    faults: dict[str, str] = {}
    class_ids = _ensure(session, ResourceClass, {name for report in reports for name in report["inventories"]})
    trait_ids = _ensure(session, Trait, {name for report in reports for name in report["traits"]})
    for report in reports:
        provider = _put_provider(session, report, providers)
        earlier = before.get(report["uuid"])
        was = marks[provider.id]
        changed = _put_inventories(session, provider, report, earlier, class_ids, closed=bool(was))
        changed |= _put_rule(session, provider, report, earlier)
        changed |= _put_traits(session, provider, report, earlier, trait_ids)
        if "fault" in report:
            faults[provider.uuid] = report["fault"]
        elif report["parent"] is not None and (short := _shortfall(report, used[provider.id])):  # hosts are oversold
            faults[provider.uuid] = short
        if was or "fault" in report:
            changed |= _put_status(session, provider, report, was)
        if report["parent"] is None:
            changed |= numa_store.report(session, provider.id, numa)
        if changed:
            provider.generation += 1
            provider.updated_at = utcnow()
            feed.touch(session, [provider.id])
    # Children before parents: they were reported after them.
    for uuid in reversed([uuid for uuid in {**dict.fromkeys(before), **dict.fromkeys(lost)} if uuid not in set(uuids)]):
        if uuid not in providers:
            continue
        provider = providers[uuid]
        was = marks[provider.id]
        if not was:
            device_status.close(session, provider, before.get(uuid))
        if _retire(session, provider, keep="disabled" in was):
            device_status.mark(session, provider, names.DEVICE_LOST, present=True)
            device_status.mark(session, provider, names.DEVICE_UNHEALTHY, present=False)
            faults[uuid] = "is gone from its host"
    return faults


def shortfalls(session: Session, reported: Reported) -> dict[str, str]:
    """Return which devices have less of something than is in use of it, by uuid: the end of a sentence about one.

    :param reported: what their host's agent reported last
    """
    whole = {
        uuid: report for uuid, report in reported.items() if "fault" not in report and report["parent"] is not None
    }
    rows = session.execute(select(ResourceProvider.id, ResourceProvider.uuid).where(ResourceProvider.uuid.in_(whole)))
    uuids = {row.id: row.uuid for row in rows}
    used = _used(session, uuids)
    found = {uuids[id_]: _shortfall(whole[uuids[id_]], amounts) for id_, amounts in used.items()}
    return {uuid: short for uuid, short in found.items() if short is not None}


def remove(session: Session, before: Reported) -> None:
    """Remove all that an agent reported last, of a host that is no more.

    :raises accelsched.errors.InUseError: when something is allocated from it, or somebody else's provider is below it
    """
    every = [*before]
    every += device_status.lost(session, every[0]) - before.keys() if before else ()
    providers = _providers(session, every)
    ids = [provider.id for provider in providers.values()]
    if session.scalar(select(Allocation.consumer_id).where(Allocation.provider_id.in_(ids)).limit(1)) is not None:
        raise errors.InUseError("something is allocated from the host: openstack resource provider show --allocations")
    others = select(ResourceProvider.name).where(ResourceProvider.parent_id.in_(ids), ResourceProvider.id.not_in(ids))
    if (other := session.scalar(others.limit(1))) is not None:
        raise errors.InUseError(f"resource provider {other} is below the host: delete it first")
    for uuid in reversed(every):  # children before parents
        if uuid in providers:
            _retire(session, providers[uuid])


def set_trait(session: Session, provider_uuid: str, name: str, *, present: bool) -> None:
    """Give a provider a trait, or take it. A provider that is gone is left alone."""
    provider = _providers(session, [provider_uuid]).get(provider_uuid)
    if provider is None:
        return
    trait_id = _ensure(session, Trait, {name})[name]
    row = session.get(ProviderTrait, (provider.id, trait_id))
    if present == (row is not None):
        return
    if row is None:
        session.add(ProviderTrait(provider_id=provider.id, trait_id=trait_id))
    else:
        session.delete(row)
    provider.generation += 1
    feed.touch(session, [provider.id])


def _check(reports: Sequence[wire.ProviderReport]) -> None:
    seen: set[str] = set()
    for index, report in enumerate(reports):
        if (report["parent"] is None) != (index == 0):
            raise errors.InvalidError("a report has one root provider, and it comes first")
        if report["parent"] is not None and report["parent"] not in seen:
            raise errors.InvalidError(f"provider {report['name']} comes before its parent")
        seen.add(report["uuid"])
    if not reports:
        raise errors.InvalidError("a report has a root provider at least")


def _providers(session: Session, uuids: Iterable[str]) -> dict[str, ResourceProvider]:
    rows = session.scalars(
        select(ResourceProvider)
        .where(ResourceProvider.uuid.in_(set(uuids)))
        .order_by(ResourceProvider.id)
        .with_for_update()
    )
    return {provider.uuid: provider for provider in rows}


def _ensure(session: Session, table: type[ResourceClass] | type[Trait], names: set[str]) -> dict[str, int]:
    """Return ids by name, making custom ones that are missing."""
    query = select(table.name, table.id).where(table.name.in_(names))
    found = dict(session.execute(query).all())
    missing = names - found.keys()
    for name in missing:
        if not name.startswith("CUSTOM_"):
            raise errors.InvalidError(f"{name} is not a standard name of this release and does not start with CUSTOM_")
    if missing:
        session.execute(insert(table), [{"name": name} for name in sorted(missing)])
        found = dict(session.execute(query).all())
    return found


def _put_provider(
    session: Session, report: wire.ProviderReport, providers: dict[str, ResourceProvider]
) -> ResourceProvider:
    parent = providers[report["parent"]] if report["parent"] else None
    provider = providers.get(report["uuid"])
    if provider is None:
        taken = session.scalar(select(ResourceProvider.uuid).where(ResourceProvider.name == report["name"]))
        if taken is not None:
            raise errors.DuplicateNameError(
                f"a resource provider named {report['name']} is there already, with uuid {taken}; if the host was "
                "installed anew, delete that provider or give the agent its old state directory back"
            )
        provider = ResourceProvider(uuid=report["uuid"], name=report["name"], generation=0)
        session.add(provider)
        session.flush()
        provider.root_id = parent.root_id if parent else provider.id
        provider.parent_id = parent.id if parent else None
        session.flush()
        providers[report["uuid"]] = provider
        feed.touch(session, [provider.id])
        return provider
    if provider.parent_id != (parent.id if parent else None):
        raise errors.ConflictError(f"resource provider {provider.uuid} ({provider.name}) hangs in another place")
    if provider.name != report["name"]:
        provider.name = report["name"]
        feed.touch(session, [provider.id])
    return provider


def _put_inventories(
    session: Session,
    provider: ResourceProvider,
    report: wire.ProviderReport,
    before: wire.ProviderReport | None,
    class_ids: Mapping[str, int],
    *,
    closed: bool,
) -> bool:
    rows = {row.class_id: row for row in session.scalars(select(Inventory).where(Inventory.provider_id == provider.id))}
    earlier = before["inventories"] if before else {}
    changed = False
    for name, inventory in report["inventories"].items():
        row = rows.get(class_ids[name])
        if row is None:
            amounts = {**inventory, "reserved": inventory["total"]} if closed else inventory
            session.add(Inventory(provider_id=provider.id, class_id=class_ids[name], **amounts))
            changed = True
            continue
        # Only what the agent changed since its last report: the rest may be an operator's own setting.
        then = cast("Mapping[str, Any]", earlier.get(name, {}))
        all_reserved = row.reserved == row.total
        for field, value in inventory.items():
            if field == "reserved" and closed:
                continue
            if then.get(field) != value and getattr(row, field) != value:
                setattr(row, field, value)
                row.updated_at = utcnow()
                changed = True
        if closed and all_reserved:
            row.reserved = row.total
    dropped = earlier.keys() - report["inventories"].keys()
    if dropped:
        for class_id in session.scalars(select(ResourceClass.id).where(ResourceClass.name.in_(dropped))):
            if class_id in rows:
                _drop_inventory(session, rows[class_id])
                changed = True
    session.flush()
    return changed


def _drop_inventory(session: Session, row: Inventory) -> None:
    if row.used:
        row.reserved = row.total
        row.updated_at = utcnow()
    else:
        session.delete(row)


def _put_rule(
    session: Session, provider: ResourceProvider, report: wire.ProviderReport, before: wire.ProviderReport | None
) -> bool:
    earlier = before.get("capacity_rule") if before else None
    changed = capacity_rules.report(session, provider.id, report.get("capacity_rule"), earlier)
    # Inventories may have come that the rule is about.
    capacity_rules.settle(session, [provider.id])
    return changed


def _put_traits(
    session: Session,
    provider: ResourceProvider,
    report: wire.ProviderReport,
    before: wire.ProviderReport | None,
    trait_ids: Mapping[str, int],
) -> bool:
    has = set(session.scalars(select(ProviderTrait.trait_id).where(ProviderTrait.provider_id == provider.id)))
    add = {trait_ids[name] for name in report["traits"]} - has
    if add:
        session.execute(
            insert(ProviderTrait), [{"provider_id": provider.id, "trait_id": trait_id} for trait_id in sorted(add)]
        )
    dropped = set(before["traits"] if before else ()) - set(report["traits"])
    gone = has & set(session.scalars(select(Trait.id).where(Trait.name.in_(dropped)))) if dropped else set()
    if gone:
        session.execute(
            delete(ProviderTrait)
            .where(ProviderTrait.provider_id == provider.id, ProviderTrait.trait_id.in_(gone))
            .execution_options(synchronize_session=False)
        )
    return bool(add or gone)


def _put_status(
    session: Session, provider: ResourceProvider, report: wire.ProviderReport, was: Collection[device_status.Status]
) -> bool:
    """Close a device that has a fault; open one that has none, or is back, unless it is disabled."""
    changed = False
    if "lost" in was:
        changed |= device_status.mark(session, provider, names.DEVICE_LOST, present=False)
    if ("unhealthy" in was) != ("fault" in report):
        changed |= device_status.mark(session, provider, names.DEVICE_UNHEALTHY, present="fault" in report)
    if "fault" not in report and "disabled" not in was:
        device_status.reopen(session, provider, report)
    elif was:
        changed |= device_status.reserve(session, provider)
    else:
        device_status.close(session, provider, report)
    return changed


def _used(session: Session, provider_ids: Iterable[int]) -> defaultdict[int, dict[str, int]]:
    """Return what is in use of providers, by class."""
    used: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for provider_id, name, amount in session.execute(
        select(Inventory.provider_id, ResourceClass.name, Inventory.used)
        .join(ResourceClass, ResourceClass.id == Inventory.class_id)
        .where(Inventory.provider_id.in_(list(provider_ids)), Inventory.used > 0)
    ):
        used[provider_id][name] = amount
    return used


def _shortfall(report: wire.ProviderReport, used: Mapping[str, int]) -> str | None:
    """Return what a device has less of than is in use of it; None when it has enough."""
    totals = {name: report["inventories"][name]["total"] if name in report["inventories"] else 0 for name in used}
    short = {name: total for name, total in sorted(totals.items()) if total < used[name]}
    told = ", ".join(f"{total} {name}, of which {used[name]} are in use" for name, total in short.items())
    return f"has {told}" if told else None


def _retire(session: Session, provider: ResourceProvider, *, keep: bool = False) -> bool:
    """Remove a provider that its agent no longer sees, or reserve all of it while something still holds it.

    :param keep: reserve it though nothing holds it
    :returns: whether something is allocated from it
    """
    held = session.scalar(select(Allocation.consumer_id).where(Allocation.provider_id == provider.id).limit(1))
    children = session.scalar(select(ResourceProvider.id).where(ResourceProvider.parent_id == provider.id).limit(1))
    feed.touch(session, [provider.id])
    if keep or held is not None or children is not None:
        device_status.reserve(session, provider)
        provider.generation += 1
        session.flush()
        return held is not None
    for table in (Inventory, CapacityRule, NumaTopology, ProviderTrait, ProviderAggregate):
        session.execute(
            delete(table).where(table.provider_id == provider.id).execution_options(synchronize_session=False)
        )
    provider.root_id = None  # a root refers to itself, which not every database lets go of in one statement
    session.flush()
    session.delete(provider)
    session.flush()
    return False
