# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The query string of server lists: filters, paging and order."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable, Sequence
from typing import Any

import falcon
import sqlalchemy.exc
from oslo_db import exception as db_exception
from sqlalchemy import ColumnElement, and_, false, or_, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from accelsched import errors
from accelsched.api.compute import microversion, queries
from accelsched.compute import paging, server_tags, states, zones
from accelsched.compute import servers as domain
from accelsched.db.compute import Host, Request
from accelsched.db.compute import Server as Row

next_link = queries.next_link

_PAGING = frozenset({"limit", "marker", "sort_key", "sort_dir"})
_FOR_ALL = frozenset(
    {"all_tenants", "changes-since", "flavor", "image", "ip", "ip6", "name", "reservation_id", "status"}
)
# For everybody from 2.83, for admins always.
_FOR_ALL_2_83 = frozenset(
    {
        *("availability_zone", "config_drive", "created_at", "key_name", "launched_at", "power_state", "progress"),
        *("task_state", "terminated_at", "user_id", "vm_state"),
    }
)
_SINCE = ((26, server_tags.FILTERS), (66, {"changes-before"}), (73, {"locked"}))
_FOR_ADMINS = frozenset(
    {
        *("access_ip_v4", "access_ip_v6", "deleted", "description", "display_description", "display_name", "host"),
        *("hostname", "image_ref", "launch_index", "node", "project_id", "tenant_id", "uuid"),
    }
)
# Nova knows these; what they look at is the same, or nothing, for every server here.
_EMPTY_HERE = frozenset(
    {
        *("auto_disk_config", "disk_config", "kernel_id", "locked_by", "ramdisk_id", "root_device_name"),
        "soft_deleted",
    }
)
# Nova names these so as to refuse them: they are in tables of their own.
_JOINED = frozenset(
    {
        *("block_device_mapping", "info_cache", "metadata", "pci_devices", "security_groups", "services"),
        "system_metadata",
    }
)
_EQUAL: dict[str, ColumnElement[Any] | InstrumentedAttribute[Any]] = {
    "access_ip_v4": Row.access_ip_v4,
    "access_ip_v6": Row.access_ip_v6,
    "host": Row.host,
    "key_name": Row.key_name,
    "node": Host.hypervisor["hostname"].as_string(),
    "reservation_id": Request.uuid,
    "user_id": Row.user_id,
    "uuid": Row.uuid,
}
_AT = {"created_at": Row.created_at, "launched_at": Row.launched_at, "terminated_at": Row.deleted_at}
_REFERENCES = {"flavor": Row.flavor, "image": Row.image, "image_ref": Row.image}
_PATTERNS = {
    "name": Row.name,
    "description": Row.description,
    "display_description": Row.description,
    "display_name": Row.name,
    "hostname": Row.hostname,
    "ip": Row.ip_v4,
    "ip6": Row.ip_v6,
}
_POWER_STATES = {"0", "1", "3", "4", "6", "7"}

_SORT_KEYS: dict[str, str | None] = {
    **{key: key for key in domain.SORT_COLUMNS if key != "id"},
    **dict.fromkeys(
        (
            *("auto_disk_config", "availability_zone", "config_drive"),
            *("image_ref", "instance_type_id", "kernel_id", "locked"),
            *("power_state", "progress", "ramdisk_id", "root_device_name"),
        )
    ),
}
_ADMIN_SORT_KEYS = ("host", "node")
# Keys that Nova takes and leaves alone until 2.74.
_NO_ORDER = dict.fromkeys(
    (
        *("architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted"),
        *("deleted_at", "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on"),
        *("memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus", "vm_mode"),
    )
)
_DEFAULT_SORT: paging.Sort = [("created_at", "desc")]


@dataclasses.dataclass(frozen=True)
class Filters:
    """What a list's query string asks for."""

    conditions: Sequence[ColumnElement[bool]]
    all_tenants: bool
    project_id: str | None
    deleted: bool | None
    sort: paging.Sort
    marker: str | None
    limit: int

    def query(self, own_project: str) -> domain.Query:
        """Return the query; without ``all_tenants`` it stays in one project."""
        return domain.Query(
            conditions=self.conditions,
            sort=self.sort,
            project_id=self.project_id if self.all_tenants else own_project,
            deleted=self.deleted,
            marker=self.marker,
            limit=self.limit,
        )


def read(req: falcon.Request, *, all_filters: bool, most: int, on_sqlite: bool, default_zone: str) -> Filters:
    """Read a list's query string.

    :param all_filters: whether the caller may use every filter; those that are not for others are left out for them,
        as in Nova
    :param most: items in one page
    :param default_zone: of hosts that are in no zone by an aggregate
    :param on_sqlite: SQLite matches regular expressions by Python's, which takes for ever over some
    :raises accelsched.errors.InvalidError: naming the parameter that is wrong
    :raises accelsched.errors.ForbiddenError: when a filter is for operators only
    """
    minor = microversion.version_of(req).minor
    params = queries.parameters(req)
    if minor >= 75:
        queries.check_known(params, *_usable(minor, all_filters=True), *_EMPTY_HERE, *_JOINED)
    if all_filters and (joined := sorted(params.keys() & _JOINED)):
        raise errors.InvalidError(f"Invalid filter field: {joined[0]}.")
    usable = _usable(minor, all_filters=all_filters)
    params = {name: values for name, values in params.items() if name in usable}

    conditions = [_condition(name, values) for name, values in params.items()]
    for name, column in _PATTERNS.items():
        if pattern := queries.last(params, name):
            conditions.append(_like(column, name, pattern, on_sqlite=on_sqlite))
    if zone := queries.last(params, "availability_zone"):
        conditions.append(zones.condition(zone, default_zone))
    if "status" in params:
        conditions.append(_status(params["status"], minor, all_filters=all_filters))
    deleted = _deleted(params)
    for key in params.get("sort_key", ()):
        if key in _ADMIN_SORT_KEYS and not all_filters:
            raise errors.ForbiddenError(f"Only administrators can sort servers by {key}")
    conditions += _changed(queries.moment(params, "changes-since"), queries.moment(params, "changes-before"))
    return Filters(
        conditions=conditions,
        all_tenants=_all_tenants(params),
        project_id=queries.last(params, "project_id") or queries.last(params, "tenant_id"),
        deleted=deleted,
        sort=queries.sort(params, _SORT_KEYS if minor >= 75 else {**_NO_ORDER, **_SORT_KEYS}, _DEFAULT_SORT),
        marker=queries.last(params, "marker"),
        limit=queries.limit(params, most),
    )


def _changed(since: datetime.datetime | None, before: datetime.datetime | None) -> list[ColumnElement[bool]]:
    if since is not None and before is not None and since > before:
        raise errors.InvalidError("The value of changes-since must be less than or equal to changes-before.")
    bounds = [None if since is None else Row.updated_at >= since, None if before is None else Row.updated_at <= before]
    return [bound for bound in bounds if bound is not None]


def _usable(minor: int, *, all_filters: bool) -> set[str]:
    usable = {*_FOR_ALL, *_PAGING}
    for since, names in _SINCE:
        if minor >= since:
            usable |= names
    if minor >= 83 or all_filters:
        usable |= _FOR_ALL_2_83
    return usable | _FOR_ADMINS if all_filters else usable


def run(session: Session, query: domain.Query) -> list[domain.Shown]:
    """Run a list's query.

    :raises accelsched.errors.InvalidError: when the database finds a pattern malformed
    """
    try:
        return domain.list_page(session, query)
    except (db_exception.DBDataError, sqlalchemy.exc.DataError, db_exception.DBError) as exc:
        if isinstance(exc, db_exception.DBConnectionError | db_exception.DBDeadlock) or not _has_pattern(query):
            raise
        raise errors.InvalidError("Invalid input for query parameters name: not a regular expression") from exc


def _has_pattern(query: domain.Query) -> bool:
    return any(
        condition.get_children() and "regexp" in type(condition).__name__.lower() for condition in query.conditions
    )


def _all_tenants(params: dict[str, list[str]]) -> bool:
    if queries.last(params, "all_tenants") == "":
        return True
    return bool(queries.boolean(params, "all_tenants"))


def _deleted(params: dict[str, list[str]]) -> bool | None:
    asked = queries.boolean(params, "deleted")
    if asked is not None:
        return asked
    statuses = {status.upper() for status in params.get("status", [])}
    if "DELETED" in statuses:
        return True if statuses == {"DELETED"} else None
    return None if {"changes-since", "changes-before"} & params.keys() else False


def _condition(name: str, values: list[str]) -> ColumnElement[bool]:
    value = values[-1]
    if name in _EQUAL:
        return _EQUAL[name] == value
    if name in _REFERENCES:
        referred: ColumnElement[bool] = _REFERENCES[name]["id"].as_string() == value.rstrip("/").rpartition("/")[2]
        return referred
    if name in _COMPUTED:
        return _COMPUTED[name](name, values)
    return true()


def _tags(name: str, values: list[str]) -> ColumnElement[bool]:
    return server_tags.condition(name, values[-1].split(","))


def _moment(name: str, values: list[str]) -> ColumnElement[bool]:
    at = queries.moment({name: values}, name)
    if at is None or at.microsecond or at.year == datetime.MAXYEAR:
        return _AT[name] == at
    # Servers' creation is shown to the second.
    return and_(_AT[name] >= at, _AT[name] < at + datetime.timedelta(seconds=1))


def _state(name: str, values: list[str]) -> ColumnElement[bool]:
    return or_(*(states.having_field(name, value or None) for value in values))


def _locked(name: str, values: list[str]) -> ColumnElement[bool]:
    return Row.locked_by.is_not(None) if queries.boolean({name: values}, name) else Row.locked_by.is_(None)


def _config_drive(name: str, values: list[str]) -> ColumnElement[bool]:
    return Row.config_drive == queries.boolean({name: values}, name)


def _launch_index(name: str, values: list[str]) -> ColumnElement[bool]:
    return Row.launch_index == queries.number({name: values}, name)


def _progress(_name: str, values: list[str]) -> ColumnElement[bool]:
    return true() if values[-1] in ("", "0") else false()  # nothing here tells any


def _power_state(_name: str, values: list[str]) -> ColumnElement[bool]:
    text = values[-1]
    if text not in _POWER_STATES:
        raise errors.InvalidError(f"Invalid input for query parameters power_state. Value: {text[:50]}.")
    return states.having_field("power_state", int(text))


_COMPUTED: dict[str, Callable[[str, list[str]], ColumnElement[bool]]] = {
    **dict.fromkeys(server_tags.FILTERS, _tags),
    **dict.fromkeys(_AT, _moment),
    **dict.fromkeys(("vm_state", "task_state"), _state),
    "config_drive": _config_drive,
    "launch_index": _launch_index,
    "locked": _locked,
    "power_state": _power_state,
    "progress": _progress,
}


def _status(values: list[str], minor: int, *, all_filters: bool) -> ColumnElement[bool]:
    statuses = [value.upper() for value in values]
    if minor >= 38 and not states.NOVA_STATUSES.intersection(statuses):
        raise errors.InvalidError("Invalid status value")
    if not all_filters and "DELETED" in statuses:
        raise errors.ForbiddenError("Only administrators may list deleted instances")
    return or_(*(states.having(status) for status in statuses))


def _like(column: InstrumentedAttribute[Any], name: str, pattern: str, *, on_sqlite: bool) -> ColumnElement[bool]:
    """Return the condition of a filter that is a regular expression, which may match anywhere in the column."""
    wrong = f"Invalid input for query parameters {name}"
    if len(pattern) > 255:
        raise errors.InvalidError(f"{wrong}: longer than 255")
    if re.fullmatch(r"[\w \-:@/]*", pattern):
        # Plain text; SQLite's LIKE would not tell capitals apart.
        return column.regexp_match(pattern) if on_sqlite else column.contains(pattern, autoescape=True)
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise errors.InvalidError(f"{wrong}: {exc}") from exc
    if on_sqlite and (len(re.findall(r"[*+{]", pattern)) > 2 or re.search(r"\)[*+?{]|\\[1-9]", pattern)):
        # Python's matcher may try exponentially many ways over such a pattern, and would hold up every request.
        raise errors.InvalidError(f"{wrong}: too many repetitions for SQLite")
    return column.regexp_match(pattern)
