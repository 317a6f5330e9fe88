# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
from fleets import PictureBuilder, inventory
from hypothesis import example, given, settings
from hypothesis import strategies as st

from accelsched.placement.claims import capacity
from accelsched.placement.columns import BitColumns, Mask, capacities
from accelsched.placement.picture import Picture, ProviderRow, ProviderTable


def test_a_removed_provider_leaves_nothing_behind() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1)
    builder.host("b", gpus=1)
    picture = builder.picture()
    gone = [row.id for row in builder.rows if row.name.startswith("a")]

    picture.apply(gone, ProviderTable.of([]))

    assert [picture.row(int(slot)).name for slot in np.flatnonzero(picture.roots())] == ["b"]
    assert set(picture.slot_of_uuid) == {"b", "b_gpu_0"}
    assert picture.classes["VGPU"].fits(1).sum() == 1
    assert picture.traits.having("COMPUTE_NODE", picture.slots).sum() == 1


def test_slots_of_removed_providers_are_used_again() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1)
    picture = builder.picture()
    before = picture.slots
    picture.apply([row.id for row in builder.rows], ProviderTable.of([]))

    again = [
        dataclasses.replace(
            row, id=row.id + 10, root_id=row.root_id + 10, parent_id=row.parent_id and row.parent_id + 10
        )
        for row in builder.rows
    ]
    picture.apply((), ProviderTable.of(again))

    assert picture.slots == before
    assert picture.classes["VGPU"].fits(8).sum() == 1


def test_an_inventory_that_went_away_fits_nothing() -> None:
    builder = PictureBuilder()
    builder.host("a")
    picture = builder.picture()

    changed = dataclasses.replace(builder.rows[0], inventories={"VCPU": inventory(4)})
    picture.apply([1], ProviderTable.of([changed]))

    assert picture.classes["VCPU"].fits(4).sum() == 1
    assert picture.classes["MEMORY_MB"].fits(1).sum() == 0


def test_a_step_and_a_reservation_limit_what_fits() -> None:
    builder = PictureBuilder()
    builder.provider("a", {"VGPU": inventory(8, reserved=3, step=2)})
    columns = builder.picture().classes["VGPU"]
    assert [bool(columns.fits(amount)[0]) for amount in range(1, 7)] == [False, True, False, True, False, False]


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 200), max_size=5), max_size=30))
def test_bits_answer_as_sets_do(members: list[set[int]]) -> None:
    bits = BitColumns()
    for number in range(201):
        bits.add(f"T{number}", np.array([slot for slot, has in enumerate(members) if number in has], dtype=np.int64))
    for slot, has in enumerate(members):
        assert set(bits.names(slot)) == {f"T{number}" for number in has}
    for number in range(201):
        expected = [number in has for has in members]
        assert bits.having(f"T{number}", len(members)).tolist() == expected


_STATES = st.dictionaries(
    st.integers(1, 12),
    st.tuples(
        st.integers(0, 12),  # the parent, if it is there and older
        st.sets(st.sampled_from(["T1", "T2", "MISC_SHARES_VIA_AGGREGATE"])),
        st.sets(st.sampled_from(["A1", "A2"])),
        st.dictionaries(st.sampled_from(["VGPU", "VCPU", "CUSTOM_X"]), st.tuples(st.integers(1, 8), st.integers(0, 1))),
    ),
    max_size=12,
)


def _rows(state: dict[int, tuple[int, set[str], set[str], dict[str, tuple[int, int]]]]) -> dict[int, ProviderRow]:
    rows: dict[int, ProviderRow] = {}
    for id_, (parent, traits, aggregates, totals) in sorted(state.items()):
        above = rows.get(parent)
        rows[id_] = ProviderRow(
            id=id_,
            uuid=f"u{id_}",
            name=f"n{id_}",
            generation=len(totals),
            root_id=above.root_id if above else id_,
            parent_id=above.id if above else None,
            traits=frozenset(traits),
            aggregates=frozenset(aggregates),
            inventories={name: inventory(total + 1, used=used) for name, (total, used) in totals.items()},
        )
    return rows


def _unused(row: ProviderRow) -> ProviderRow:
    inventories = {name: dataclasses.replace(inventory, used=0) for name, inventory in row.inventories.items()}
    return dataclasses.replace(row, generation=0, inventories=inventories)


def _content(picture: Picture) -> dict[str, object]:
    def uuids(mask: Mask) -> set[str]:
        return {picture.uuid[slot] for slot in np.flatnonzero(mask).tolist()}

    return {
        "rows": {uuid: picture.row(slot) for uuid, slot in picture.slot_of_uuid.items()},
        "trees": {picture.uuid[root]: {picture.uuid[s] for s in slots} for root, slots in picture.tree.items()},
        "roots": uuids(picture.roots()),
        "live": uuids(picture.live()),
        "free": {(name, n): uuids(picture.having_free(name, n)) for name in ("VGPU", "VCPU") for n in (1, 4)},
        "traits": uuids(picture.traits.having("T1", picture.slots)),
        "reach": {picture.uuid[slot]: uuids(trees) for slot, trees in picture.reach().items()},
    }


@settings(deadline=None)
@given(st.lists(_STATES, min_size=1, max_size=6))
def test_a_picture_kept_up_to_date_equals_one_made_anew(
    history: list[dict[int, tuple[int, set[str], set[str], dict[str, tuple[int, int]]]]],
) -> None:
    """Whatever the order of changes, the columns say what the last state says."""
    kept = Picture()
    before: dict[int, ProviderRow] = {}
    laid_out: dict[int, dict[int, ProviderRow]] = {}
    for state in history:
        rows = _rows(state)
        changed = [id_ for id_ in rows.keys() | before.keys() if rows.get(id_) != before.get(id_)]
        # What is remembered of the state before must not be taken for the new one's.
        kept.reach(), kept.roots(), kept.live()
        kept.apply(changed, ProviderTable.of(rows[id_] for id_ in changed if id_ in rows))
        before = rows
        assert {row.id: row for row in (kept.row(slot) for slot in kept.slot_of_uuid.values())} == rows
        # As long as the layout is the same, nothing but usage and generations may differ.
        unused = {id_: _unused(row) for id_, row in rows.items()}
        assert laid_out.setdefault(kept.layout, unused) == unused
    anew = Picture()
    anew.apply((), ProviderTable.of(before.values()))
    assert _content(kept) == _content(anew)


def test_a_version_differs_after_each_change_and_only_then() -> None:
    builder = PictureBuilder()
    builder.host("a", gpus=1)
    picture = builder.picture()
    root, gpu = picture.slot_of_uuid["a"], picture.slot_of_uuid["a_gpu_0"]
    before = picture.version.copy()
    picture.apply([2], ProviderTable.of([dataclasses.replace(builder.rows[1], generation=1)]))
    assert picture.version[root] == before[root]
    assert picture.version[gpu] > before.max()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1), st.floats(0.0, 1e6)), min_size=1))
@example([(1, 2, 0.5)])
def test_capacities_are_those_that_claims_compute(rows: list[tuple[int, int, float]]) -> None:
    total, reserved, ratio = (np.array(column) for column in zip(*rows, strict=True))
    assert capacities(total, reserved, ratio).tolist() == [capacity(*row) for row in rows]
