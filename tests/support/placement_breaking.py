# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Ways to break a request: its JSON in random places, its text, its query string."""

from __future__ import annotations

import copy
import json
from typing import Any

from placement_draws import Draw

ODD_VALUES: tuple[Any, ...] = (
    None,
    0,
    -1,
    1,
    2.0,
    1.5,
    True,
    "",
    "1",
    "x",
    [],
    {},
    [1],
    {"a": 1},
    2**31 - 1,
    2**31,
    2**63 - 1,
    2**63,
    10**25,
    -(2**63) - 1,
    1e308,
    "ünïcode ☃ 𝄞",
    "x" * 255,
    "x" * 256,
    "x" * 200,
    "x" * 201,
    "CUSTOM_" + "X" * 248,
    "CUSTOM_" + "X" * 249,
    "trailing newline\n",
    "<a0>",
    "<p0 upper>",
    "<c0 bare>",
    ["<a0>", "<a0>"],
    [["x"]],
    " ",
)
ODD_KEYS = (
    "extra",
    "",
    "ünïcode",
    "vcpu",
    "VCPU\n",
    "CUSTOM_NONE",
    "<p0 upper>",
    "<p0 bare>",
    "<c0>",
    "<p1>x",
    "x" * 300,
)
ODD_TEXTS = (
    b"",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"1",
    b"NaN",
    b"{",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 100,
    b'{"a": 1,}',
    b"{'a': 1}",
    b'{"name": "\\u0041"}',
)


def broken_body(draw: Draw, body: Any) -> Any:
    """Return a body that is wrong in a place or two, or its text as bytes where it is no JSON any more."""
    if draw.chance(15):
        text = json.dumps(body)
        how = draw.number(0, 5)
        if how == 0:
            return draw.pick(ODD_TEXTS)
        if how == 1:
            return text[: draw.number(0, max(0, len(text) - 1))].encode()
        if how == 2:
            return text.encode() + draw.pick([b"x", b" ", b"\n", b"{}", b",", b"\x00"])
        if how == 3:
            return text.encode("utf-16")
        if how == 4:
            return text.replace("1", draw.pick(["NaN", "Infinity", "01", "1e2", "1.", "-", "1e400", "1_0"]), 1).encode()
        return _doubled(draw, text)
    broken = [copy.deepcopy(body)]
    for _ in range(draw.pick([1, 1, 1, 2])):
        _break_once(draw, broken)
    return broken[0]


def _doubled(draw: Draw, text: str) -> bytes:
    """Return an object's text with its first key twice, the second time with another value."""
    key, colon, rest = text[1:].partition(":")
    if not colon or not text.startswith("{"):
        return text.encode()
    value = json.dumps(draw.pick(ODD_VALUES))
    if draw.chance(50):
        return f"{{{key}: {value}, {key}:{rest}".encode()
    return f"{text[:-1]}, {key}: {value}}}".encode()


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key or index) below a node, outer ones first."""
    found: list[tuple[Any, Any]] = []
    keys: Any = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        found.append((node, key))
        found += _places(node[key])
    return found


def _break_once(draw: Draw, broken: list[Any]) -> None:
    container, key = draw.pick(_places(broken))
    value = container[key]
    how = draw.number(0, 9)
    if how <= 4:
        container[key] = copy.deepcopy(draw.pick(ODD_VALUES))
    elif how <= 6 and isinstance(container, dict):
        del container[key]
    elif how == 7 and isinstance(container, dict):
        container[draw.pick(ODD_KEYS)] = container.pop(key)
    elif how == 8 and isinstance(value, dict):
        value[draw.pick(ODD_KEYS)] = copy.deepcopy(draw.pick(ODD_VALUES))
    elif isinstance(value, list):
        value.append(copy.deepcopy(draw.pick([*ODD_VALUES, *value])))
    elif isinstance(value, int):
        container[key] = value + draw.pick([1, -1, 1.0, 0.5, 2**31, 2**64])
    else:
        container[key] = [value]


def broken_query(draw: Draw, query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return a query string's pairs with something wrong or odd about them."""
    pairs = list(query)
    how = draw.number(0, 6)
    if how == 0 or not pairs:
        pairs.append(
            draw.pick([("nonsense", "1"), ("", ""), ("resources", ""), ("name", "é"), ("uuid", "x"), ("é", "1")])
        )
        return pairs
    at = draw.number(0, len(pairs) - 1)
    name, value = pairs[at]
    odd = [
        "",
        " ",
        ",",
        "in:",
        "!",
        "!in:",
        "in:,",
        "x",
        "é",
        "\n",
        "%",
        "a:b:c",
        ":",
        ":1",
        "VCPU:",
        "VCPU:0",
        "VCPU:1:1",
        "VCPU:x",
        "VCPU: 1",
        " VCPU:1",
        "VCPU:+1",
        "VCPU:1_0",
        "VCPU:٣",
        "VCPU:" + "9" * 30,
        "!!CUSTOM_T0",
        "! CUSTOM_T0",
        "in:!CUSTOM_T0",
        "in:in:CUSTOM_T0",
        "<a0>,<a1>",
        "in:<a0>,",
        "!!<a0>",
        "in:!<a0>",
        " <a0>",
        "<a0 upper>",
        "<p0 bare>",
        "TRUE",
        "0",
        "-1",
        "1.0",
        "9" * 30,
    ]
    if how == 1:
        pairs[at] = (name, draw.pick(odd))
    elif how == 2:
        pairs.insert(at, (name, draw.pick(odd)))
    elif how == 3:
        pairs.append((name, value))
    elif how == 4:
        pairs[at] = (
            draw.pick(
                [
                    name.upper(),
                    name + "0",
                    name + "01",
                    name + " ",
                    name + "_x",
                    name + "-" * 65,
                    name + "é",
                    name + "\n",
                ]
            ),
            value,
        )
    elif how == 5:
        pairs[at] = (
            name,
            value + draw.pick([",", " ", "x", "é", ":1", ",VCPU:1", ",CUSTOM_T0", ",!CUSTOM_T1", ",<a1>"]),
        )
    else:
        del pairs[at]
    return pairs
