# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Entries of ``[devices] pci_device_spec``, written as Nova's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accelsched import conf as options
from accelsched import errors
from accelsched.conf import device_spec


def parsed(*values: Any) -> list[device_spec.DeviceSpec]:
    conf = options.new()
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    conf.set_override("pci_device_spec", texts, group="devices")
    return device_spec.parse(conf)


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("0000:0a:00.1", "0000:0a:00.1", "0000:0a:00.2"),
        ("0A:00.1", "0001:0a:00.1", "0000:0b:00.1"),
        ("*:0a:00.*", "0001:0a:00.7", "0000:0a:01.0"),
        (":0a:00.", "0000:0a:00.3", "0000:0b:00.3"),
        ("0000:4?:00.[0-3]", "0000:42:00.3", "0000:42:00.4"),
        ({"domain": ".*", "bus": "02", "slot": "01", "function": "[2-7]"}, "0001:02:01.2", "0000:02:01.1"),
        ({"bus": "0A|0B"}, "0000:0b:1f.7", "0000:0c:1f.7"),
    ],
)
def test_addresses_are_globs_of_fields_or_regular_expressions(pattern: Any, matched: str, others: str) -> None:
    (spec,) = parsed({"address": pattern})
    assert spec.matches(matched, "10de", "2230", None)
    assert not spec.matches(others, "10de", "2230", None)


def test_ids_narrow_and_a_star_means_any() -> None:
    (spec,) = parsed({"vendor_id": "10DE", "product_id": "*"})
    assert spec.matches("0000:0a:00.1", "10de", "2230", None)
    assert not spec.matches("0000:0a:00.1", "1002", "2230", None)


def test_one_address_means_the_virtual_functions_of_the_card_too_and_a_pattern_does_not() -> None:
    one, some = parsed({"address": "0000:0a:00.0"}, {"address": "0000:0a:00.?"})
    assert one.matches("0000:0b:00.1", "10de", "2230", "0000:0a:00.0")
    assert not some.matches("0000:0b:00.1", "10de", "2230", "0000:0a:00.0")


def test_classes_and_traits_are_named_as_in_nova_and_a_value_may_be_a_list() -> None:
    text = '[{"address": "*", "resource_class": "pgpu", "traits": "fast, CUSTOM_red,HW_NUMA_ROOT"}, {"address": "*"}]'
    named, plain = parsed(text)
    assert named.resource_class == "PGPU"
    assert named.traits == {"CUSTOM_FAST", "CUSTOM_RED", "HW_NUMA_ROOT"}
    assert (plain.resource_class, plain.traits, plain.managed) == (None, frozenset(), True)
    (own,) = parsed({"address": "*", "resource_class": "my_gpu", "managed": "False", "one_time_use": True})
    assert (own.resource_class, own.managed, own.one_time_use) == ("CUSTOM_MY_GPU", False, True)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("{", "Expecting"),
        ({}, "not valid under any"),
        ({"vendor_id": "10de"}, "not valid under any"),
        ({"address": "0000:0a:00.1", "devname": "eth0"}, "devname"),
        ({"address": "0000:0a:0.1"}, "slot"),
        ({"address": "1:2:3:4.5"}, "no address"),
        ({"address": {"bus": "("}}, "regular expression"),
        ({"address": {"buss": "02"}}, "buss"),
        ({"address": "*", "managed": "perhaps"}, "perhaps"),
        ({"address": "*", "traits": ["__"]}, "__"),
        ([{"address": "*"}, 7], "7"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_option(value: Any, told: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        parsed(value)
    assert "[devices] pci_device_spec" in str(caught.value)
    assert told in str(caught.value)
