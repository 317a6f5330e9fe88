# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""NUMA nodes in the database: what agents tell of them, and what consumers hold.

Whoever takes something of a host's nodes also takes resources of the host itself and so holds its provider's lock: what
is read under that lock stays as it is until the transaction ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from accelsched import wire
from accelsched.db.base import utcnow
from accelsched.db.placement import Consumer, Inventory, NumaPlacement, NumaTopology, ResourceClass, ResourceProvider
from accelsched.placement.numa import topology
from accelsched.placement.numa.topology import HostNuma, PlacedNode, Placement, Ratios, has_room


def report(session: Session, provider_id: int, told: wire.NumaTopology | None) -> bool:
    """Take over what an agent says of its host's nodes.

    :returns: whether they are others now
    :raises accelsched.errors.InvalidError: when what it says makes no sense
    """
    stored = session.scalar(select(NumaTopology.topology).where(NumaTopology.provider_id == provider_id))
    if told == stored:
        return False
    if told is None:
        session.execute(delete(NumaTopology).where(NumaTopology.provider_id == provider_id))
        return True
    topology.parse(told)
    values = {"topology": dict(told), "updated_at": utcnow()}
    if stored is None:
        session.execute(insert(NumaTopology).values(provider_id=provider_id, **values))
    else:
        session.execute(update(NumaTopology).where(NumaTopology.provider_id == provider_id).values(**values))
    return True


def hosts(session: Session, provider_ids: set[int]) -> dict[int, HostNuma]:
    """Return the nodes of some hosts and what is held of them, by provider; those that have none are left out."""
    held: dict[int, list[Placement]] = defaultdict(list)
    for provider_id, placement in session.execute(
        select(NumaPlacement.provider_id, NumaPlacement.placement).where(NumaPlacement.provider_id.in_(provider_ids))
    ):
        held[provider_id].append(tuple(PlacedNode.of(node) for node in placement))
    told = session.execute(
        select(NumaTopology.provider_id, NumaTopology.topology).where(NumaTopology.provider_id.in_(provider_ids))
    )
    return {id_: topology.state(topology.parse(document), held.get(id_, [])) for id_, document in told}


def fitting(session: Session, wanted: Mapping[str, tuple[str, Placement]]) -> set[str]:
    """Return those of some placements that their hosts have room for together, earlier ones first.

    :param wanted: the uuid of the host's root provider, which the transaction has locked, and the placement, by any key
    :returns: keys of ``wanted``
    """
    if not wanted:
        return set()
    ids = _provider_ids(session, wanted)
    now = hosts(session, set(ids.values()))
    ratios = _ratios(session, now)
    kept: set[str] = set()
    for key, (root, placement) in wanted.items():
        id_ = ids.get(root)
        if id_ is None or id_ not in now:
            continue
        of_number = {state.node.number: state for state in now[id_]}
        kinds = {"pins": any(held.pins for held in placement), "floats": any(held.shared for held in placement)}
        if all(
            held.node in of_number and has_room(of_number[held.node], held, ratios[id_], **kinds) for held in placement
        ):
            kept.add(key)
            now[id_] = topology.with_held(now[id_], placement)
    return kept


def write(session: Session, placements: Mapping[str, tuple[str, Placement]]) -> None:
    """Note what consumers hold, instead of what they held before.

    :param placements: the uuid of the host's root provider and the placement, by consumer uuid; the consumers are
        written already
    """
    if not placements:
        return
    providers = _provider_ids(session, placements)
    ids = session.execute(select(Consumer.uuid, Consumer.id).where(Consumer.uuid.in_(placements))).all()
    session.execute(delete(NumaPlacement).where(NumaPlacement.consumer_id.in_([id_ for _, id_ in ids])))
    session.execute(
        insert(NumaPlacement),
        [
            {
                "consumer_id": id_,
                "provider_id": providers[placements[uuid][0]],
                "placement": [node.to_wire() for node in placements[uuid][1]],
            }
            for uuid, id_ in ids
        ],
    )


def _provider_ids(session: Session, wanted: Mapping[str, tuple[str, Placement]]) -> dict[str, int]:
    query = select(ResourceProvider.uuid, ResourceProvider.id)
    return dict(session.execute(query.where(ResourceProvider.uuid.in_({root for root, _ in wanted.values()}))).all())


def _ratios(session: Session, provider_ids: Collection[int]) -> dict[int, Ratios]:
    found: dict[int, dict[str, float]] = {id_: {} for id_ in provider_ids}
    for id_, name, ratio in session.execute(
        select(Inventory.provider_id, ResourceClass.name, Inventory.allocation_ratio)
        .join(ResourceClass, ResourceClass.id == Inventory.class_id)
        .where(Inventory.provider_id.in_(found), ResourceClass.name.in_(("VCPU", "MEMORY_MB")))
    ):
        found[id_][name] = ratio
    return {id_: Ratios(some.get("VCPU", 1.0), some.get("MEMORY_MB", 1.0)) for id_, some in found.items()}
