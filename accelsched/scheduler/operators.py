# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Operators in the values of extra specs, as Nova has them: ``>= 4``, ``s== x``, ``<in> x``, ``<or> x <or> y`` ...

A text that begins with none of them is to be equal to the whole value.
"""

from __future__ import annotations

from oslo_utils import specs_matcher

_OPERATORS = frozenset(
    {
        *("=", "==", "!=", ">=", "<="),  # numbers; "=" is ">=" for historical reasons
        *("s==", "s!=", "s<", "s<=", "s>", "s>="),
        *("<in>", "<all-in>", "<or>"),
    }
)


def matches(value: str, requirement: str) -> bool:
    """Tell whether a value meets a requirement. What cannot be compared (a word by ``>=``) does not."""
    words = requirement.split(maxsplit=1)
    if not words or words[0] not in _OPERATORS:
        return value == requirement
    if len(words) == 1:
        return False
    try:
        return bool(specs_matcher.match(value, requirement))
    except (ValueError, SyntaxError, TypeError):
        return False
