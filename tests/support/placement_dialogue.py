# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A long talk with a Placement server that starts out empty: what every part of the API does, at many versions."""

from __future__ import annotations

from typing import Any

from placement_exchange import Step
from placement_findings import findings

VERSIONS = (0, 1, 5, 6, 10, 11, 13, 14, 15, 39)

HOST = "aaaaaaaa-0000-4000-8000-000000000001"
GPU0 = "aaaaaaaa-0000-4000-8000-000000000002"
GPU1 = "aaaaaaaa-0000-4000-8000-000000000003"
OTHER = "bbbbbbbb-0000-4000-8000-000000000001"
OTHER_GPU = "bbbbbbbb-0000-4000-8000-000000000002"
LONE = "cccccccc-0000-4000-8000-000000000001"
SMALL = "cccccccc-0000-4000-8000-000000000009"
RESHAPED = "cccccccc-0000-4000-8000-000000000011"
NOBODY = "99999999-0000-4000-8000-000000000009"
AGG1 = "dddddddd-0000-4000-8000-000000000001"
AGG2 = "dddddddd-0000-4000-8000-000000000002"
PROJECT = "11111111111111111111111111111111"
USER = "22222222222222222222222222222222"


def consumer(number: int) -> str:
    """Return the uuid of a consumer."""
    return f"eeeeeeee-0000-4000-8000-{number:012d}"


def get(path: str, *minors: int, **options: Any) -> list[Step]:
    """Ask at several versions."""
    return [Step("GET", path, minor, **options) for minor in minors or (39,)]


def discovery() -> list[Step]:
    """Versions, framing, and the order of checks."""
    bad = ["placement 1.40", "placement 2.0", "placement 1", "placement one.two", "compute 2.1", "1.10", "placement"]
    good = ["placement latest", "PLACEMENT 1.5", "compute 2.1, placement 1.20", "placement 1.3,placement 1.4", ""]
    version = "OpenStack-API-Version"
    return [
        *get("", 0, 14, 15, 39),
        *get("/", 0, 39),
        Step("GET", "", None, token=None),
        Step("GET", "/", None, token=None),
        *(Step("GET", "/resource_providers", None, headers={version: text}) for text in bad + good),
        *(Step("GET", "", None, headers={version: text}) for text in bad + good),
        Step("GET", "/nothing", None),
        *get("/nothing", 0, 39),
        *(Step("GET", path, 39) for path in ("/traits/", "/resource_providers/", f"/allocations/{NOBODY}/", "//")),
        *(
            Step(method, path, 39)
            for method in ("OPTIONS", "PATCH", "DELETE", "PUT")
            for path in ("/resource_providers", "/traits", "/usages", "/allocations", "", "/allocation_candidates")
        ),
        Step("HEAD", "/traits", 39),
        Step("POST", "/resource_providers", 39, raw=b"{}", headers={"Content-Type": "text/plain"}),
        Step("POST", "/resource_providers", 39, raw=b"{}"),
        Step("POST", "/nothing", 39, raw=b"{}"),
        Step("POST", "/resource_providers", 39, raw=b"", headers={"Content-Type": "text/plain"}),
        Step("POST", "/resource_providers", 39, raw=b"{", headers={"Content-Type": "application/json"}),
        Step("POST", "/resource_providers", 39, raw=b"", headers={"Content-Type": "application/json"}),
        Step("POST", "/resource_providers", 39, raw=b"[]", headers={"Content-Type": "application/json"}),
        Step("POST", "/resource_providers", 39, raw=b"\xff", headers={"Content-Type": "application/json"}),
        Step("POST", "/resource_providers", 39, raw=b"{}", headers={"Content-Type": "application/json;charset=utf-8"}),
        *(
            Step("GET", "/resource_providers", 39, headers={"Accept": accept})
            for accept in ("*/*", "application/json", "application/*", "text/html,*/*;q=0.1")
        ),
    ]


def authority() -> list[Step]:
    """Who may do what."""
    paths = ["/resource_providers", "/traits", "/resource_classes", f"/allocations/{NOBODY}", "/allocation_candidates"]
    callers: list[tuple[str | None, dict[str, str]]] = [
        ("bob", {}),
        ("bob", {"X-Roles": "admin"}),
        ("bob", {"X-Roles": "service"}),
        ("bob", {"X-Roles": "member,reader"}),
        ("bob:demo", {"X-Roles": "reader"}),
        ("admin", {"OpenStack-System-Scope": "all"}),
    ]
    steps = [Step("GET", path, 39, token=token, headers=headers) for path in paths for token, headers in callers]
    steps += [
        Step("GET", f"/usages?project_id={project}", minor, token=token, headers=headers)
        for project in ("demo", "bob")
        for minor in (9, 37)
        for token, headers in callers
    ]
    reshape = {"inventories": {}, "allocations": {}}
    steps += [Step("POST", "/reshaper", 39, reshape, token=token, headers=headers) for token, headers in callers]
    steps += [Step("PUT", "/traits/CUSTOM_X", 39, token=token, headers=headers) for token, headers in callers[:1]]
    return steps


def providers() -> list[Step]:
    """Providers, alone and in trees."""
    where = f"/resource_providers/{HOST}"
    bodies: list[Any] = [
        {},
        {"name": 5},
        {"name": "x" * 201},
        {"name": "x", "uuid": "x"},
        {"name": "x", "extra": 1},
        {"name": "x", "uuid": None},
        {"name": "x", "parent_provider_uuid": "x"},
        {"name": "x", "parent_provider_uuid": NOBODY},
        {"name": "x", "uuid": NOBODY, "parent_provider_uuid": NOBODY},
        ["name"],
    ]
    steps = [Step("POST", "/resource_providers", minor, body) for minor in (0, 13, 14, 22, 39) for body in bodies]
    steps += [
        Step("POST", "/resource_providers", 0, {"name": "host", "uuid": HOST}),
        Step("POST", "/resource_providers", 0, {"name": "host", "uuid": OTHER}),
        Step("POST", "/resource_providers", 39, {"name": "host2", "uuid": HOST}),
        Step("POST", "/resource_providers", 39, {"name": "host", "uuid": HOST}),
        Step("POST", "/resource_providers", 14, {"name": "gpu0", "uuid": GPU0, "parent_provider_uuid": HOST}),
        Step("POST", "/resource_providers", 20, {"name": "gpu1", "uuid": GPU1, "parent_provider_uuid": HOST}),
        Step("POST", "/resource_providers", 19, {"name": "other", "uuid": OTHER.upper(), "parent_provider_uuid": None}),
        Step("POST", "/resource_providers", 39, {"name": "lone", "uuid": LONE.replace("-", "")}),
        Step("POST", "/resource_providers", 39, {"name": "ogpu", "uuid": OTHER_GPU, "parent_provider_uuid": OTHER}),
    ]
    for minor in VERSIONS:
        steps += get(where, minor) + get(f"/resource_providers/{GPU0}", minor) + get("/resource_providers", minor)
        steps += get(f"/resource_providers?in_tree={GPU0}", minor) + get("/resource_providers?name=host", minor)
    steps += [
        *get(f"/resource_providers/{HOST.upper()}"),
        *get(f"/resource_providers/{NOBODY}", 0, 22, 23, 39),
        *get("/resource_providers/not-a-uuid"),
        *get(f"/resource_providers?uuid={HOST}", 0, 39),
        *get(f"/resource_providers?uuid={HOST}&name=gpu0"),
        *get(f"/resource_providers?uuid={HOST.upper()}"),
        *get(f"/resource_providers?uuid={HOST.replace('-', '')}", 39),
        *get(f"/resource_providers?in_tree={NOBODY}"),
        *get("/resource_providers?uuid=x", 0, 39),
        *get("/resource_providers?nonsense=1", 0, 39),
        *get("/resource_providers?name=", 39),
        *get("/resource_providers?name=host&name=gpu0", 39),
        *get("/resource_providers?name=%ff", 39),
        Step("PUT", where, 0, {"name": "renamed"}),
        Step("PUT", where, 15, {"name": "host"}),
        Step("PUT", where, 39, {"name": "host"}),
        Step("PUT", where, 39, {"name": "other"}),
        Step("PUT", where, 22, {"name": "other"}),
        Step("PUT", where, 39, {}),
        Step("PUT", where, 39, {"name": "host", "uuid": NOBODY}),
        Step("PUT", where, 13, {"name": "host", "parent_provider_uuid": None}),
        Step("PUT", f"/resource_providers/{NOBODY}", 39, {"name": "q"}),
        Step("PUT", f"/resource_providers/{NOBODY}", 39, {}),
        Step("PUT", f"/resource_providers/{LONE}", 36, {"name": "lone", "parent_provider_uuid": HOST}),
        Step("PUT", f"/resource_providers/{LONE}", 36, {"name": "lone", "parent_provider_uuid": HOST}),
        Step("PUT", f"/resource_providers/{LONE}", 36, {"name": "lone", "parent_provider_uuid": OTHER}),
        Step("PUT", f"/resource_providers/{LONE}", 36, {"name": "lone", "parent_provider_uuid": None}),
        Step("PUT", f"/resource_providers/{LONE}", 37, {"name": "lone", "parent_provider_uuid": NOBODY}),
        Step("PUT", f"/resource_providers/{LONE}", 37, {"name": "lone", "parent_provider_uuid": LONE}),
        Step("PUT", where, 37, {"name": "host", "parent_provider_uuid": LONE}),
        Step("PUT", f"/resource_providers/{HOST}", 37, {"name": "host", "parent_provider_uuid": OTHER}),
        *get(f"/resource_providers?in_tree={LONE}"),
        Step("PUT", f"/resource_providers/{HOST}", 37, {"name": "host", "parent_provider_uuid": None}),
        *get(f"/resource_providers?in_tree={LONE}"),
        Step("PUT", f"/resource_providers/{LONE}", 37, {"name": "lone", "parent_provider_uuid": None}),
        *get("/resource_providers"),
        Step("DELETE", where, 39),
        Step("DELETE", where, 22),
        Step("DELETE", f"/resource_providers/{NOBODY}", 0),
        Step("DELETE", f"/resource_providers/{NOBODY}", 39),
        Step("POST", "/resource_providers", 39, {"name": "gone", "uuid": NOBODY}),
        Step("DELETE", f"/resource_providers/{NOBODY}", 39),
        *get(f"/resource_providers/{NOBODY}"),
    ]
    return steps


def classes_and_traits() -> list[Step]:
    """Custom names, and what cannot be done to standard ones."""
    steps: list[Step] = []
    for minor in (1, 2, 5, 6, 7, 15, 39):
        steps += get("/resource_classes/VCPU", minor) + get("/resource_classes/CUSTOM_NONE", minor)
        steps += get("/traits/HW_CPU_X86_VMX", minor) + get("/traits/CUSTOM_NONE", minor)
        steps += get("/traits?name=startswith:CUSTOM_", minor) + get("/traits?name=in:HW_CPU_X86_VMX,NO,", minor)
        steps += [
            Step("POST", "/resource_classes", minor, {"name": f"CUSTOM_POSTED_{minor}"}),
            Step("POST", "/resource_classes", minor, {"name": f"CUSTOM_POSTED_{minor}"}),
            Step("POST", "/resource_classes", minor, {"name": "VCPU"}),
            Step("POST", "/resource_classes", minor, {"name": "custom_x"}),
            Step("POST", "/resource_classes", minor, {"name": "CUSTOM_" + "X" * 249}),
            Step("POST", "/resource_classes", minor, {}),
            Step("PUT", f"/resource_classes/CUSTOM_PUT_{minor}", minor),
            Step("PUT", f"/resource_classes/CUSTOM_PUT_{minor}", minor),
            Step("PUT", "/resource_classes/VCPU", minor),
            Step("PUT", "/resource_classes/VCPU", minor, {"name": "CUSTOM_CPU"}),
            Step("PUT", f"/resource_classes/CUSTOM_POSTED_{minor}", minor, {"name": f"CUSTOM_RENAMED_{minor}"}),
            Step("PUT", f"/resource_classes/CUSTOM_RENAMED_{minor}", minor, {"name": "CUSTOM_POSTED_2"}),
            Step("PUT", "/resource_classes/CUSTOM_NONE_SUCH", minor, {"name": f"CUSTOM_RENAMED_{minor}"}),
            Step("PUT", f"/resource_classes/CUSTOM_{'X' * 249}", minor),
            Step("DELETE", f"/resource_classes/CUSTOM_PUT_{minor}", minor),
            Step("DELETE", f"/resource_classes/CUSTOM_PUT_{minor}", minor),
            Step("DELETE", "/resource_classes/VCPU", minor),
            Step("PUT", f"/traits/CUSTOM_T{minor}", minor),
            Step("PUT", f"/traits/CUSTOM_T{minor}", minor),
            Step("PUT", "/traits/HW_CPU_X86_VMX", minor),
            Step("PUT", "/traits/CUSTOM_lower", minor),
            Step("PUT", "/traits/CUSTOM_", minor),
            Step("PUT", f"/traits/CUSTOM_{'X' * 249}", minor),
            Step("DELETE", f"/traits/CUSTOM_T{minor}", minor),
            Step("DELETE", f"/traits/CUSTOM_T{minor}", minor),
            Step("DELETE", "/traits/HW_CPU_X86_VMX", minor),
        ]
    steps += [
        *(Step("PUT", f"/traits/CUSTOM_{name}", 39) for name in ("A", "B", "C")),
        *get("/traits?name=startswith:CUSTOM_&associated=false"),
        *get("/traits?associated=true"),
        *get("/traits?associated=maybe"),
        *get("/traits?associated=TRUE"),
        *get("/traits?name=startswith"),
        *get("/traits?nonsense=1"),
        *get("/resource_classes", 2, 15, 39),
    ]
    return steps


def inventories() -> list[Step]:
    """Inventories of one provider and another."""
    base = f"/resource_providers/{HOST}/inventories"
    steps: list[Step] = [
        *get(base, 0, 15, 39),
        *get(f"/resource_providers/{NOBODY}/inventories", 0, 39),
        Step("POST", base, 0, {"resource_class": "VCPU", "total": 16}),
        Step("POST", base, 39, {"resource_class": "VCPU", "total": 16}),
        Step("POST", base, 15, {"resource_class": "MEMORY_MB", "total": 4096, "resource_provider_generation": 77}),
        Step("POST", base, 39, {"resource_class": "CUSTOM_NOPE", "total": 1}),
        Step("POST", base, 39, {"resource_class": "vcpu", "total": 1}),
        Step("POST", base, 39, {"total": 1}),
        Step("POST", f"/resource_providers/{NOBODY}/inventories", 39, {"total": 1}),
        Step("POST", f"/resource_providers/{NOBODY}/inventories", 39, {"resource_class": "VCPU", "total": 1}),
        *get(base, 0, 15, 39),
        *get(f"{base}/VCPU", 0, 15, 39),
        *get(f"{base}/DISK_GB", 0, 39),
        *get(f"{base}/CUSTOM_NOPE", 0, 39),
    ]
    records: list[dict[str, Any]] = [
        {"total": 0},
        {"total": 2**31},
        {"total": 10, "reserved": 10},
        {"total": 10, "reserved": 11},
        {"total": 10, "reserved": -1},
        {"total": 10, "allocation_ratio": 0},
        {"total": 10, "allocation_ratio": -1},
        {"total": 10, "allocation_ratio": "x"},
        {"total": 10, "min_unit": 0},
        {"total": 10, "max_unit": 0},
        {"total": 10, "step_size": 0},
        {"total": 10, "other": 1},
        {"total": 10.5},
        {"total": "10"},
    ]
    for minor in (0, 25, 26, 39):
        for record in records:
            steps.append(Step("POST", base, minor, {"resource_class": "DISK_GB", **record}))
            steps.append(Step("DELETE", f"{base}/DISK_GB", minor))
    steps += [
        Step("PUT", base, 39, {"resource_provider_generation": 999, "inventories": {}}),
        Step("PUT", base, 39, {"inventories": {}}),
        Step("PUT", base, 39, {"resource_provider_generation": "1", "inventories": {}}),
        Step("PUT", f"/resource_providers/{NOBODY}/inventories", 39, {"inventories": {}}),
        *get(f"/resource_providers/{HOST}"),
    ]
    return steps


def _settled() -> list[Step]:
    """Give every provider what later parts need, from generation zero on."""
    host = {"VCPU": {"total": 16, "allocation_ratio": 2.0}, "MEMORY_MB": {"total": 4096, "reserved": 512}}
    steps = [
        Step(
            "PUT",
            f"/resource_providers/{OTHER}/inventories",
            39,
            {"resource_provider_generation": 0, "inventories": host},
        ),
        Step("PUT", f"/resource_providers/{GPU0}/inventories", 15, _vgpu(0, 4)),
        Step("PUT", f"/resource_providers/{GPU1}/inventories", 0, _vgpu(0, 4)),
        Step("PUT", f"/resource_providers/{OTHER_GPU}/inventories", 39, _vgpu(0, 2)),
        Step(
            "PUT",
            f"/resource_providers/{LONE}/inventories",
            39,
            {"resource_provider_generation": 0, "inventories": host},
        ),
        Step(
            "PUT",
            f"/resource_providers/{LONE}/inventories",
            39,
            {"resource_provider_generation": 0, "inventories": host},
        ),
        Step(
            "PUT",
            f"/resource_providers/{GPU0}/inventories",
            39,
            {**_vgpu(1, 4), "inventories": {"CUSTOM_NO": {"total": 1}}},
        ),
        Step(
            "PUT", f"/resource_providers/{GPU0}/inventories", 39, {**_vgpu(1, 4), "inventories": {"vgpu": {"total": 1}}}
        ),
        Step(
            "PUT", f"/resource_providers/{GPU0}/inventories/VGPU", 39, {"resource_provider_generation": 1, "total": 4}
        ),
        Step(
            "PUT", f"/resource_providers/{GPU0}/inventories/VGPU", 39, {"resource_provider_generation": 1, "total": 4}
        ),
        Step(
            "PUT", f"/resource_providers/{GPU0}/inventories/VGPU", 15, {"resource_provider_generation": 2, "total": 4}
        ),
        Step("PUT", f"/resource_providers/{GPU0}/inventories/VGPU", 39, {"total": 4}),
        Step(
            "PUT", f"/resource_providers/{GPU0}/inventories/PGPU", 39, {"resource_provider_generation": 3, "total": 4}
        ),
        Step(
            "PUT",
            f"/resource_providers/{GPU0}/inventories/CUSTOM_NO",
            39,
            {"resource_provider_generation": 3, "total": 4},
        ),
        Step(
            "PUT",
            f"/resource_providers/{GPU0}/inventories/VGPU",
            25,
            {"resource_provider_generation": 3, "total": 4, "reserved": 4},
        ),
        Step("DELETE", f"/resource_providers/{GPU0}/inventories", 4),
        Step("DELETE", f"/resource_providers/{NOBODY}/inventories", 5),
        Step("DELETE", f"/resource_providers/{GPU0}/inventories/PGPU", 39),
        Step("DELETE", f"/resource_providers/{GPU0}/inventories/CUSTOM_NO", 39),
        Step("DELETE", f"/resource_providers/{GPU1}/inventories/VGPU", 39),
        Step("POST", f"/resource_providers/{GPU1}/inventories", 39, {"resource_class": "VGPU", "total": 4}),
        Step("DELETE", f"/resource_providers/{GPU1}/inventories", 39),
        Step("POST", f"/resource_providers/{GPU1}/inventories", 39, {"resource_class": "VGPU", "total": 4}),
    ]
    return steps + [
        step for uuid in (HOST, GPU0, GPU1, OTHER, OTHER_GPU, LONE) for step in get(f"/resource_providers/{uuid}")
    ]


def _vgpu(generation: int, total: int) -> dict[str, Any]:
    return {"resource_provider_generation": generation, "inventories": {"VGPU": {"total": total}}}


def traits_and_aggregates() -> list[Step]:
    """What providers are and belong to."""
    traits, aggregates = f"/resource_providers/{GPU0}/traits", f"/resource_providers/{HOST}/aggregates"
    steps = [
        *get(traits, 5, 6, 15, 39),
        *get(f"/resource_providers/{NOBODY}/traits", 6, 39),
        Step("PUT", traits, 39, {"traits": ["CUSTOM_A", "HW_CPU_X86_VMX"], "resource_provider_generation": 99}),
        Step("PUT", traits, 39, {"traits": ["CUSTOM_NO_SUCH"], "resource_provider_generation": 99}),
        Step("PUT", traits, 39, {"traits": ["CUSTOM_NO_SUCH"], "resource_provider_generation": 3}),
        Step("PUT", traits, 39, {"traits": [""], "resource_provider_generation": 3}),
        Step("PUT", traits, 39, {"traits": ["CUSTOM_A"]}),
        Step("PUT", traits, 5, {"traits": ["CUSTOM_A"], "resource_provider_generation": 3}),
        Step("PUT", f"/resource_providers/{NOBODY}/traits", 39, {"traits": []}),
        Step("PUT", f"/resource_providers/{NOBODY}/traits", 39, {"traits": [], "resource_provider_generation": 0}),
        Step("PUT", traits, 6, {"traits": ["CUSTOM_A", "CUSTOM_A"], "resource_provider_generation": 3}),
        Step("PUT", traits, 39, {"traits": ["CUSTOM_A"], "resource_provider_generation": 4}),
        Step("PUT", traits, 39, {"traits": ["CUSTOM_A", "CUSTOM_B"], "resource_provider_generation": 4}),
        *get(traits, 6, 15, 39),
        *get("/traits?associated=true&name=startswith:CUSTOM_"),
        Step("DELETE", "/traits/CUSTOM_A", 39),
        Step("DELETE", f"/resource_providers/{GPU1}/traits", 39),
        Step("DELETE", f"/resource_providers/{NOBODY}/traits", 39),
        Step("DELETE", traits, 5),
        Step("DELETE", traits, 39),
        *get(traits),
        Step("PUT", traits, 39, {"traits": ["CUSTOM_A"], "resource_provider_generation": 6}),
        *get(aggregates, 0, 1, 15, 18, 19, 39),
        *get(f"/resource_providers/{NOBODY}/aggregates", 0, 1, 39),
        Step("PUT", aggregates, 0, [AGG1]),
        Step("PUT", aggregates, 1, [AGG1]),
        Step("PUT", aggregates, 15, [AGG1, AGG2]),
        Step("PUT", aggregates, 18, {"aggregates": [AGG1], "resource_provider_generation": 0}),
        Step("PUT", aggregates, 19, [AGG1]),
        Step("PUT", aggregates, 19, {"aggregates": [AGG1], "resource_provider_generation": 999}),
        Step("PUT", aggregates, 39, {"aggregates": ["x"], "resource_provider_generation": 999}),
        Step("PUT", aggregates, 39, {"aggregates": [AGG1, AGG1], "resource_provider_generation": 999}),
        Step("PUT", f"/resource_providers/{NOBODY}/aggregates", 39, {"aggregates": []}),
        Step(
            "PUT",
            f"/resource_providers/{OTHER}/aggregates",
            39,
            {"aggregates": [AGG2], "resource_provider_generation": 1},
        ),
        Step(
            "PUT",
            f"/resource_providers/{LONE}/aggregates",
            19,
            {"aggregates": [AGG2, AGG1.upper()], "resource_provider_generation": 1},
        ),
        *get(f"/resource_providers/{LONE}/aggregates"),
        *get(aggregates, 1, 19, 39),
        *get(f"/resource_providers/{HOST}"),
    ]
    filters = [
        f"member_of={AGG1}",
        f"member_of=in:{AGG1},{AGG2}",
        f"member_of={AGG1},{AGG2}",
        f"member_of={AGG1}&member_of={AGG2}",
        f"member_of=!{AGG1}",
        f"member_of=!in:{AGG1},{AGG2}",
        f"member_of={NOBODY}",
        "member_of=x",
        "member_of=",
        "resources=VCPU:1",
        "resources=VCPU:32",
        "resources=VCPU:33",
        "resources=VCPU:1,MEMORY_MB:3584",
        "resources=VGPU:3",
        "resources=VGPU:0",
        "resources=VGPU:-1",
        "resources=VGPU:x",
        "resources=VGPU",
        "resources=VGPU:1:1",
        "resources=",
        "resources=,",
        "resources=NO_SUCH:1",
        "required=CUSTOM_A",
        "required=!CUSTOM_A",
        "required=CUSTOM_A,!CUSTOM_B",
        "required=!!CUSTOM_A",
        "required=CUSTOM_A,HW_CPU_X86_VMX",
        "required=in:CUSTOM_A,CUSTOM_B",
        "required=in:CUSTOM_A,!CUSTOM_B",
        "required=in:",
        "required=",
        "required=CUSTOM_A,,CUSTOM_B",
        "required=NO_SUCH",
        "required=!NO_SUCH",
        "required=CUSTOM_B&required=CUSTOM_A",
        f"required=CUSTOM_A&resources=VGPU:1&in_tree={HOST}",
        f"resources=VCPU:1&member_of={AGG2}",
    ]
    return steps + [step for text in filters for step in get(f"/resource_providers?{text}", 3, 4, 18, 24, 39)]


def _allocation(
    minor: int, shares: dict[str, dict[str, int]], generation: int | None = None, **extra: Any
) -> dict[str, Any]:
    body: dict[str, Any]
    if minor < 12:
        body = {"allocations": [{"resource_provider": {"uuid": uuid}, "resources": r} for uuid, r in shares.items()]}
    else:
        body = {"allocations": {uuid: {"resources": resources} for uuid, resources in shares.items()}}
    if minor >= 8:
        body |= {"project_id": PROJECT, "user_id": USER}
    if minor >= 28:
        body["consumer_generation"] = generation
    if minor >= 38:
        body["consumer_type"] = "INSTANCE"
    return body | extra


def _put(
    number: int, minor: int, shares: dict[str, dict[str, int]], generation: int | None = None, **extra: Any
) -> Step:
    return Step("PUT", f"/allocations/{consumer(number)}", minor, _allocation(minor, shares, generation, **extra))


def allocations() -> list[Step]:
    """Consumers that come, change and go."""
    steps: list[Step] = [
        *get(f"/allocations/{consumer(1)}", 0, 11, 12, 28, 38),
        Step("DELETE", f"/allocations/{consumer(1)}", 39),
    ]
    small = {HOST: {"VCPU": 1, "MEMORY_MB": 64}}
    for number, minor in enumerate((0, 7, 8, 11, 12, 28, 34, 38), start=1):
        steps += [
            _put(number, minor, small),
            _put(number, minor, small, 1),
            _put(number, minor, small),
            _put(number, minor, small, 7),
            *get(f"/allocations/{consumer(number)}", 0, 11, 12, 15, 27, 28, 37, 38, 39),
            _put(number, minor, small, 2, extra=1),
            _put(number, minor, {}, 2),
            _put(number, minor, {NOBODY: {"VCPU": 1}}, 2),
            _put(number, minor, {HOST: {"NO_SUCH": 1}}, 2),
            _put(number, minor, {HOST: {"vcpu": 1}}, 2),
            _put(number, minor, {HOST: {"VCPU": 0}}, 2),
            _put(number, minor, {HOST: {}}, 2),
            _put(number, minor, {HOST: {"PGPU": 1}}, 2),
            _put(number, minor, {HOST: {"VCPU": 17}}, 2),
            _put(number, minor, {GPU0: {"VGPU": 1}, **small}, 2),
            *get(f"/allocations/{consumer(number)}", 0, 39),
        ]
    steps += [
        *get(f"/resource_providers/{HOST}/allocations", 0, 15, 27, 28, 39),
        *get(f"/resource_providers/{NOBODY}/allocations", 0, 39),
        *get(f"/resource_providers/{HOST}/usages", 0, 15, 39),
        *get(f"/resource_providers/{NOBODY}/usages", 0, 39),
        Step("PUT", f"/allocations/{consumer(90)}", 39, _allocation(39, small, None, consumer_type="lower")),
        Step("PUT", f"/allocations/{consumer(90)}", 39, _allocation(39, small, None, mappings={})),
        Step("PUT", f"/allocations/{consumer(90)}", 39, _allocation(39, small, None, project_id="")),
        Step("PUT", f"/allocations/{consumer(90)}", 39, _allocation(39, small, None, project_id="x" * 256)),
        Step("PUT", "/allocations/not-a-uuid", 39, _allocation(39, small)),
        Step("PUT", "/allocations/not-a-uuid", 39, {}),
        Step("PUT", f"/allocations/{consumer(91).upper()}", 39, _allocation(39, {LONE: {"VCPU": 1}})),
        *get(f"/allocations/{consumer(91)}"),
        Step(
            "PUT", f"/allocations/{consumer(92)}", 39, _allocation(39, {LONE: {"VCPU": 1}}, None, mappings={"": [LONE]})
        ),
        Step(
            "PUT",
            f"/allocations/{consumer(93)}",
            39,
            _allocation(39, {LONE: {"VCPU": 1}}, None, mappings={"_A": [LONE]}),
        ),
        Step(
            "PUT",
            f"/allocations/{consumer(94)}",
            33,
            _allocation(33, {LONE: {"VCPU": 1}}, None, mappings={"_A": [LONE]}),
        ),
        Step("PUT", f"/allocations/{consumer(95)}", 39, _allocation(39, {LONE: {"VCPU": 33}})),
        Step("PUT", f"/allocations/{consumer(95)}", 39, _allocation(39, {LONE: {"VCPU": 29}})),
        Step("PUT", f"/allocations/{consumer(95)}", 39, _allocation(39, {LONE: {"VCPU": 30}}, 1)),
        Step(
            "PUT", f"/allocations/{consumer(95)}", 39, _allocation(39, {LONE: {"VCPU": 28}}, 1, consumer_type="OTHER")
        ),
        *get(f"/allocations/{consumer(95)}"),
        Step("PUT", f"/allocations/{consumer(96)}", 39, _allocation(39, {})),
        *get(f"/allocations/{consumer(96)}"),
        Step("PUT", f"/allocations/{consumer(96)}", 39, _allocation(39, {LONE: {"VCPU": 1}})),
        Step("PUT", f"/allocations/{consumer(96)}", 39, _allocation(39, {LONE: {"VCPU": 1}}, 0)),
        *get(f"/resource_providers/{LONE}"),
        *get(f"/resource_providers/{LONE}/usages"),
        Step("DELETE", f"/resource_providers/{LONE}", 39),
        Step("DELETE", f"/resource_providers/{LONE}", 22),
        Step("DELETE", f"/resource_providers/{LONE}/inventories/VCPU", 39),
        Step("DELETE", f"/resource_providers/{LONE}/inventories", 39),
        Step("DELETE", f"/resource_providers/{LONE}/inventories", 22),
        *(Step("GET", f"/usages{q}", minor) for minor in (8, 9, 15, 37, 38, 39) for q in _USAGES),
    ]
    return steps


_USAGES = (
    "",
    f"?project_id={PROJECT}",
    f"?project_id={PROJECT}&user_id={USER}",
    f"?project_id={PROJECT}&user_id=nobody",
    f"?user_id={USER}",
    "?project_id=",
    "?project_id=nothing",
    f"?project_id={PROJECT}&consumer_type=INSTANCE",
    f"?project_id={PROJECT}&consumer_type=OTHER",
    f"?project_id={PROJECT}&consumer_type=all",
    f"?project_id={PROJECT}&consumer_type=unknown",
    f"?project_id={PROJECT}&consumer_type=ALL",
    f"?project_id={PROJECT}&consumer_type=lower",
    f"?project_id={PROJECT}&nonsense=1",
    "?project_id=00000000-0000-0000-0000-000000000000",
)


def many_at_once() -> list[Step]:
    """POST /allocations and /reshaper."""

    def both(minor: int, first: int, second: int, generation: int | None = None, amount: int = 1) -> dict[str, Any]:
        return {
            consumer(first): _allocation(minor, {OTHER: {"VCPU": amount}}, generation),
            consumer(second): _allocation(minor, {OTHER: {"VCPU": amount}, OTHER_GPU: {"VGPU": 1}}, generation),
        }

    moved = {
        "inventories": {
            LONE: {"resource_provider_generation": 999, "inventories": {}},
        },
        "allocations": {},
    }
    unknown = {"inventories": {NOBODY: {"resource_provider_generation": 0, "inventories": {}}}, "allocations": {}}
    return [
        Step("POST", "/allocations", 12, both(12, 101, 102)),
        Step("POST", "/allocations", 13, both(13, 101, 102)),
        Step("POST", "/allocations", 13, {consumer(101): _allocation(13, {}), consumer(102): _allocation(13, {})}),
        Step("POST", "/allocations", 28, both(28, 103, 104)),
        Step("POST", "/allocations", 28, both(28, 103, 104)),
        Step("POST", "/allocations", 39, both(39, 103, 104, 1)),
        Step("POST", "/allocations", 39, both(39, 105, 106)),
        Step("POST", "/allocations", 39, both(39, 105, 107)),
        Step("POST", "/allocations", 39, both(39, 108, 109, amount=30)),
        Step("POST", "/allocations", 39, {}),
        Step("POST", "/allocations", 39, {"x": _allocation(39, {})}),
        Step("POST", "/allocations", 39, {consumer(110): _allocation(39, {NOBODY: {"VCPU": 1}})}),
        Step("POST", "/allocations", 39, {consumer(111): _allocation(39, {OTHER: {"NO": 1}})}),
        *(step for n in range(101, 110) for step in get(f"/allocations/{consumer(n)}")),
        *get(f"/resource_providers/{OTHER}/usages"),
        *get(f"/resource_providers/{OTHER_GPU}/usages"),
        *(Step("POST", "/reshaper", minor, body) for minor in (29, 30, 34, 39) for body in (moved, unknown, {})),
        Step("POST", "/reshaper", 39, {"inventories": {}, "allocations": {}}),
    ]


def candidates() -> list[Step]:
    """GET /allocation_candidates on the fleet that the parts before left."""
    queries = [
        "",
        "resources=VCPU:1",
        "resources=VCPU:1,MEMORY_MB:64",
        "resources=VCPU:1,VGPU:1",
        "resources=VGPU:1",
        "resources=VGPU:9",
        "resources=VCPU:33",
        "resources=NO_SUCH:1",
        "resources=VCPU:0",
        "resources=VCPU",
        "resources=",
        "resources=VCPU:1&limit=1000",
        "resources=VCPU:1&limit=0",
        "resources=VCPU:1&limit=x",
        "resources=VCPU:1&nonsense=1",
        "resources=VGPU:1&required=CUSTOM_A",
        "resources=VGPU:1&required=!CUSTOM_A",
        "resources=VGPU:1&required=CUSTOM_A,!CUSTOM_A",
        "resources=VGPU:1&required=NO_SUCH",
        "resources=VCPU:1,VGPU:1&required=CUSTOM_A",
        "resources=VGPU:1&required=in:CUSTOM_A,CUSTOM_B",
        "resources=VGPU:1&required=CUSTOM_A&required=in:CUSTOM_A,CUSTOM_B",
        f"resources=VCPU:1&member_of={AGG1}",
        f"resources=VCPU:1&member_of=in:{AGG1},{AGG2}",
        f"resources=VCPU:1&member_of=!{AGG1}",
        f"resources=VCPU:1&member_of={NOBODY}",
        f"resources=VGPU:1&member_of={AGG2}",
        f"resources=VCPU:1&in_tree={HOST}",
        f"resources=VGPU:1&in_tree={GPU1}",
        f"resources=VCPU:1&in_tree={NOBODY}",
        "resources=VCPU:1&in_tree=x",
        "required=CUSTOM_A",
        f"resources=VGPU:1&member_of=!{AGG1}",
        f"resources=VGPU:1&member_of=!{AGG2}",
        f"resources=VCPU:1,VGPU:1&member_of=!{AGG1}",
        f"resources=VCPU:1,VGPU:1&member_of={AGG2}",
        f"resources1=VGPU:1&member_of1=!{AGG2}",
        f"resources1=VCPU:1&member_of1=!{AGG2}",
        f"resources1=VCPU:1&member_of1={AGG2}",
        "resources=VCPU:1&resources1=VGPU:1",
        "resources1=VGPU:1",
        "resources1=VCPU:1,MEMORY_MB:64",
        "resources1=VCPU:1,VGPU:1",
        "resources=VCPU:1&resources1=VGPU:1&required1=CUSTOM_A",
        "resources=VCPU:1&resources1=VGPU:1&required1=!CUSTOM_A",
        "resources1=VGPU:1&resources2=VGPU:1",
        "resources1=VGPU:1&resources2=VGPU:2&group_policy=isolate",
        "resources1=VGPU:1&resources2=VGPU:2&group_policy=none",
        "resources1=VGPU:1&resources2=VCPU:1&group_policy=none",
        "resources1=VGPU:1&resources2=VCPU:1&group_policy=bad",
        "resources1=VGPU:1&required2=CUSTOM_A&group_policy=none",
        "resources_GPU=VGPU:1&required_GPU=CUSTOM_A&resources=VCPU:1",
        "resources=VCPU:1&root_required=CUSTOM_A",
        "resources=VCPU:1&root_required=!CUSTOM_A",
        "resources=VCPU:1&root_required=CUSTOM_A&root_required=CUSTOM_B",
        "resources=VCPU:1&root_required=CUSTOM_A,!CUSTOM_A",
        "resources=VCPU:1&root_required=in:CUSTOM_A,CUSTOM_B",
        "resources_A=VCPU:1&resources_B=VGPU:1&group_policy=none&same_subtree=_A,_B",
        "resources_A=VGPU:1&resources_B=VGPU:1&group_policy=none&same_subtree=_A,_B",
        "resources_A=VGPU:1&required_B=CUSTOM_A&group_policy=none&same_subtree=_A,_B",
        "resources_A=VGPU:1&required_B=CUSTOM_A&group_policy=isolate&same_subtree=_A,_B",
        "resources_A=VGPU:1&same_subtree=_A,_C",
        "resources_A=VGPU:1&same_subtree=_A,",
        "required_A=CUSTOM_A&same_subtree=_A",
        "resources_A=VGPU:1&required=CUSTOM_A",
        f"resources_A=VGPU:1&in_tree_A={HOST}&member_of_A={AGG1}",
    ]
    return [step for text in queries for step in get(f"/allocation_candidates?{text}", 16, 25, 28, 33, 36, 39)]


def changes_of_mind() -> list[Step]:
    """Consumers that move, and inventories that change under them."""
    both = [*get(f"/resource_providers/{LONE}"), *get(f"/resource_providers/{OTHER}")]
    stock = f"/resource_providers/{SMALL}/inventories/VCPU"
    shrunk = {"resource_provider_generation": 3, "total": 2}
    picky = {"resource_provider_generation": 5, "total": 20, "step_size": 4, "min_unit": 4}
    return [
        _put(201, 39, {LONE: {"MEMORY_MB": 10}}),
        *both,
        _put(201, 39, {OTHER: {"MEMORY_MB": 10}}, 1),
        *both,
        _put(201, 39, {OTHER: {"MEMORY_MB": 10}, LONE: {"MEMORY_MB": 5}}, 2),
        *both,
        _put(201, 39, {LONE: {"MEMORY_MB": 5}}, 3),
        *both,
        _put(201, 39, {}, 4),
        *both,
        *get(f"/allocations/{consumer(201)}"),
        _put(201, 39, {LONE: {"MEMORY_MB": 5}}),
        Step("DELETE", f"/allocations/{consumer(201)}", 39),
        *both,
        Step("POST", "/resource_providers", 39, {"name": "small", "uuid": SMALL}),
        Step("POST", f"/resource_providers/{SMALL}/inventories", 39, {"resource_class": "VCPU", "total": 10}),
        _put(202, 39, {SMALL: {"VCPU": 4}}),
        _put(203, 39, {SMALL: {"VCPU": 4}}),
        Step("PUT", stock, 39, shrunk),
        *get(stock),
        *get(f"/resource_providers?resources=VCPU:1&uuid={SMALL}"),
        _put(202, 39, {SMALL: {"VCPU": 5}}, 1),
        _put(202, 39, {SMALL: {"VCPU": 3}}, 1),
        _put(204, 39, {SMALL: {"VCPU": 1}}),
        *get(stock),
        *get(f"/resource_providers/{SMALL}"),
        Step("PUT", stock, 39, picky),
        _put(202, 39, {SMALL: {"VCPU": 3}}, 2),
        _put(202, 39, {SMALL: {"VCPU": 6}}, 2),
        _put(202, 39, {SMALL: {"VCPU": 8}}, 2),
        *get(f"/resource_providers?resources=VCPU:6&uuid={SMALL}"),
        *get(f"/resource_providers?resources=VCPU:8&uuid={SMALL}"),
        *get(f"/allocation_candidates?resources=VCPU:6&in_tree={SMALL}"),
        *get(f"/allocation_candidates?resources=VCPU:8&in_tree={SMALL}"),
        *get(f"/resource_providers/{SMALL}"),
        _put(205, 39, {}),
        _put(205, 39, {}, 0),
        _put(205, 39, {}),
        _put(205, 39, {SMALL: {"VCPU": 4}}, 0),
        *get(f"/allocations/{consumer(205)}"),
        _put(205, 39, {}, 1),
        *get(f"/resource_providers/{SMALL}"),
        Step("POST", "/allocations", 39, {consumer(206): _allocation(39, {}), consumer(205): _allocation(39, {})}),
        _put(206, 39, {SMALL: {"VCPU": 4}}),
        Step(
            "POST",
            "/allocations",
            27,
            {consumer(202): _allocation(27, {}), consumer(206): _allocation(27, {SMALL: {"VCPU": 8}})},
        ),
        *get(f"/allocations/{consumer(206)}"),
        *get(f"/allocations/{consumer(202)}"),
        *get(f"/resource_providers/{SMALL}/allocations"),
    ]


def reshaping() -> list[Step]:
    """POST /reshaper that moves something."""
    root, child = RESHAPED, RESHAPED[:-1] + "2"

    def body(minor: int, root_generation: int, child_generation: int, amount: int = 2, **extra: Any) -> dict[str, Any]:
        return {
            "inventories": {
                root: {"resource_provider_generation": root_generation, "inventories": {"VCPU": {"total": 4}}},
                child: {"resource_provider_generation": child_generation, "inventories": {"VGPU": {"total": 2}}},
            },
            "allocations": {
                consumer(301): _allocation(minor, {root: {"VCPU": 1}, child: {"VGPU": amount}}, 1),
            },
            **extra,
        }

    old = {"VCPU": {"total": 4}, "VGPU": {"total": 2}}
    return [
        Step("POST", "/resource_providers", 39, {"name": "reshaped", "uuid": root}),
        Step(
            "POST", "/resource_providers", 39, {"name": "reshaped child", "uuid": child, "parent_provider_uuid": root}
        ),
        Step(
            "PUT",
            f"/resource_providers/{root}/inventories",
            39,
            {"resource_provider_generation": 0, "inventories": old},
        ),
        _put(301, 39, {root: {"VCPU": 1, "VGPU": 2}}),
        Step("POST", "/reshaper", 39, body(39, 1, 0)),
        Step("POST", "/reshaper", 39, body(39, 2, 0, amount=3)),
        Step("POST", "/reshaper", 39, {**body(39, 2, 0), "allocations": {}}),
        *get(f"/allocations/{consumer(301)}"),
        Step("POST", "/reshaper", 39, body(39, 2, 0)),
        *get(f"/allocations/{consumer(301)}"),
        *(step for uuid in (root, child) for step in get(f"/resource_providers/{uuid}")),
        *(step for uuid in (root, child) for step in get(f"/resource_providers/{uuid}/inventories")),
        *(step for uuid in (root, child) for step in get(f"/resource_providers/{uuid}/usages")),
    ]


def farewells() -> list[Step]:
    """DELETE /allocations."""
    return [
        *(Step("DELETE", f"/allocations/{consumer(number)}", minor) for number, minor in ((1, 0), (2, 22), (3, 39))),
        *(Step("DELETE", f"/allocations/{consumer(number)}", minor) for number, minor in ((1, 0), (2, 22), (3, 39))),
        *get(f"/allocations/{consumer(1)}"),
        _put(1, 39, {HOST: {"VCPU": 1}}),
        *get(f"/resource_providers/{HOST}/usages"),
        *get(f"/resource_providers/{HOST}"),
    ]


def whole() -> list[Step]:
    """Return everything, in order: each part builds on those before."""
    return [
        *discovery(),
        *authority(),
        *providers(),
        *classes_and_traits(),
        *inventories(),
        *_settled(),
        *traits_and_aggregates(),
        *allocations(),
        *many_at_once(),
        *candidates(),
        *changes_of_mind(),
        *reshaping(),
        *farewells(),
        *findings(),
    ]
