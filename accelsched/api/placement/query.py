# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Query strings: parameters, and the small languages that some of their values are written in."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable

import falcon
import jsonschema
from oslo_utils import uuidutils

from accelsched import errors
from accelsched.api import resources
from accelsched.placement.inventories import MAX_UNIT

_MOST_PARAMETERS = 10_000

# From which minor version on:
FORBIDDEN_TRAITS = 22
SEVERAL_MEMBER_OF = 24
FORBIDDEN_AGGREGATES = 32
ANY_TRAITS = 39

Required = tuple[list[frozenset[str]], frozenset[str]]
"""(AND of ORs, none of these)"""


class Query:
    """The parameters of a query string, in their order."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Keep (name, value) pairs."""
        self.pairs = list(pairs)

    @classmethod
    def of(cls, req: falcon.Request) -> Query:
        """Parse a request's query string.

        :raises accelsched.errors.InvalidError: it is not UTF-8 or absurdly long
        """
        try:
            # WSGI hands bytes over as Latin-1.
            text = req.query_string.encode("latin-1").decode()
            pairs = urllib.parse.parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
            )
        except ValueError as exc:
            raise errors.InvalidError(f"Invalid query string parameters: {exc}") from exc
        return cls(pairs)

    def check(self, validator: jsonschema.protocols.Validator) -> None:
        """Refuse unknown parameters and malformed values; of a repeated parameter the last is looked at.

        :raises accelsched.errors.InvalidError: saying what is wrong and where
        """
        try:
            resources.check(validator, dict(self.pairs))
        except errors.InvalidError as exc:
            raise errors.InvalidError(f"Invalid query string parameters: {exc}") from exc

    def last(self, name: str) -> str | None:
        """Return the last value of a parameter, None when it is not there."""
        return next((value for key, value in reversed(self.pairs) if key == name), None)

    def all(self, name: str) -> list[str]:
        """Return every value of a parameter."""
        return [value for key, value in self.pairs if key == name]


def parse_resources(text: str) -> dict[str, int]:
    """Parse ``VCPU:2,MEMORY_MB:1024``.

    :raises accelsched.errors.InvalidError: saying what is wrong
    """
    wanted: dict[str, int] = {}
    for item in text.split(","):
        name, colon, amount_text = item.partition(":")
        try:
            amount = int(amount_text)
        except ValueError:
            amount = 0
        # A name that is missing is one that does not exist, which matters only where it is looked up.
        if not colon or amount < 1:
            raise errors.InvalidError(
                "Badly formed resources parameter: expected CLASS:AMOUNT pairs such as VCPU:2,MEMORY_MB:1024 with "
                f"amounts of at least 1. Got: {item[:100] or 'empty string'}."
            )
        # No inventory has so much; a larger number would only overflow.
        wanted[name] = min(amount, MAX_UNIT + 1)
    return wanted


def parse_required(values: list[str], minor: int) -> Required:
    """Parse the values of ``required``: ``A,!B``, from 1.39 also ``in:A,B``.

    Before 1.39 only the last of several counts; from then on they add up.

    :raises accelsched.errors.InvalidError: saying what is wrong
    """
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    for value in values if minor >= ANY_TRAITS else values[-1:]:
        some, none = parse_traits(value, forbidden=minor >= FORBIDDEN_TRAITS, alternatives=minor >= ANY_TRAITS)
        required += some
        forbidden |= none
    return required, frozenset(forbidden)


def parse_traits(text: str, *, forbidden: bool, alternatives: bool) -> Required:
    """Parse one list of traits.

    :param forbidden: whether ``!A`` is understood
    :param alternatives: whether ``in:A,B`` is understood
    :raises accelsched.errors.InvalidError: saying what is wrong
    """
    is_any = text.startswith("in:")
    if is_any and not alternatives:
        raise _bad_traits(text, "the prefix in: is not understood here or at this microversion")
    names = [name.strip() for name in text.removeprefix("in:").split(",")] if is_any else _split(text)
    unwanted = {name.lstrip("!") for name in names if name.startswith("!")}
    if not all(names) or not all(unwanted):
        raise _bad_traits(text, "a trait's name is empty")
    if unwanted and is_any:
        raise _bad_traits(text, "in: does not go with forbidden traits")
    if unwanted and not forbidden:
        raise _bad_traits(text, "forbidden traits are not understood at this microversion")
    if is_any:
        return [frozenset(names)], frozenset()
    return [frozenset({name}) for name in names if not name.startswith("!")], frozenset(unwanted)


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _bad_traits(text: str, why: str) -> errors.InvalidError:
    return errors.InvalidError(
        "Invalid query string parameters: expected traits in the form HW_CPU_X86_VMX,CUSTOM_MAGIC: "
        f"{why}. Got: {text[:200]}"
    )


def parse_member_of(values: list[str], minor: int) -> Required:
    """Parse the values of ``member_of``: ``UUID``, ``in:UUID,UUID``, from 1.32 also ``!UUID`` and ``!in:UUID,UUID``.

    :raises accelsched.errors.InvalidError: saying what is wrong
    """
    if len(values) > 1 and minor < SEVERAL_MEMBER_OF:
        raise errors.InvalidError("Multiple member_of parameters are not supported at this microversion")
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    for value in values:
        negative = value.startswith("!")
        text = value.removeprefix("!")
        several = text.startswith("in:")
        uuids = frozenset(text.removeprefix("in:").split(",")) if several else frozenset({text})
        if bad := [uuid for uuid in uuids if not uuidutils.is_uuid_like(uuid)]:
            hint = "" if several or "," not in text else "several uuids need the prefix in: or !in:. "
            raise errors.InvalidError(
                "Invalid query string parameters: Expected 'member_of' parameter to contain valid UUID(s). "
                f"{hint}Got: {min(bad)[:200]}"
            )
        if not negative:
            required.append(uuids)
        elif minor < FORBIDDEN_AGGREGATES:
            raise errors.InvalidError("Forbidden member_of parameters are not supported at this microversion")
        else:
            forbidden |= uuids
    return required, frozenset(forbidden)


def parse_uuid(name: str, text: str) -> str:
    """Return the uuid that is the value of a parameter.

    :raises accelsched.errors.InvalidError: when it is none
    """
    uuid = text.strip()
    if not uuidutils.is_uuid_like(uuid):
        raise errors.InvalidError(
            f"Invalid query string parameters: Expected '{name}' parameter to be a format of uuid. Got: {text[:100]}"
        )
    return uuid
