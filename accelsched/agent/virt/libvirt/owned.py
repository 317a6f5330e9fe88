# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Domains that carry our mark: found, ordered about, removed. Others' are looked at by nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import libvirt
from lxml import etree

from accelsched import errors
from accelsched.agent.virt import base
from accelsched.agent.virt.libvirt import plugs
from accelsched.agent.virt.libvirt.connection import Connection
from accelsched.agent.virt.libvirt.domain import NAMESPACE

_Result = TypeVar("_Result")

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
UNDEFINE_ASIDE = (_UNDEFINE & ~libvirt.VIR_DOMAIN_UNDEFINE_NVRAM) | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM


class Domain(NamedTuple):
    """What is to be known of a domain of ours."""

    power: base.Power
    rescued: bool
    plugs: Mapping[str, bool]
    let_go: frozenset[str]
    lacks: bool


NONE = Domain(base.Power.ABSENT, False, {}, frozenset(), False)


class Owned:
    """The domains of one node."""

    def __init__(self, connection: Connection, node_uuid: str) -> None:
        self._connection = connection
        self._node_uuid = node_uuid

    def all(self) -> dict[str, Domain]:
        """Return every domain with the node's mark, by server uuid."""
        return self._connection.ask(self._all, "list domains")

    def _all(self, connection: Any) -> dict[str, Domain]:
        domains = {}
        for domain in connection.listAllDomains():
            try:
                said = mark(domain)
                if said.get("node") == self._node_uuid:
                    domains[domain.UUIDString()] = Domain(
                        power=power_of(domain),
                        rescued=said.get("rescue") == "yes",
                        plugs=plugs.plugs_of(said),
                        let_go=plugs.let_go(domain, said),
                        lacks=plugs.lacks(domain, said),
                    )
            except libvirt.libvirtError as exc:
                if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it went while we looked
                    raise
        return domains

    def power(self, server_uuid: str) -> base.Power | None:
        """Return what a server's domain does; None when it has none."""
        domain = self.all().get(server_uuid)
        return None if domain is None else domain.power

    def look(self, server_uuid: str, function: Callable[[Any], _Result], what: str) -> _Result:
        """Return ``function(domain)`` of a server's domain, which is None when it has none here.

        :param what: that libvirt is to do, to say when it cannot
        :raises accelsched.errors.UnavailableError: when it cannot
        """
        return self._connection.ask(lambda connection: function(self.find(connection, server_uuid)), what)

    def do(self, server_uuid: str, function: Callable[[Any], object], participle: str) -> None:
        """Do something with a server's domain.

        :raises accelsched.agent.virt.base.PowerError: when it has none, or libvirt refuses
        """

        def call(connection: Any) -> None:
            domain = self.find(connection, server_uuid)
            if domain is None:
                raise base.PowerError(f"the server could not be {participle}: it has no domain")
            function(domain)

        try:
            self._connection.call(call)
        except libvirt.libvirtError as exc:
            raise base.PowerError(f"the server could not be {participle}: {exc}") from exc

    def find(self, connection: Any, server_uuid: str) -> Any:
        """Return a server's domain; None when it has none here.

        Agents may share one libvirt, and a server that goes from one to the other has its domain where it is now.

        :raises accelsched.errors.ConflictError: when there is one of that uuid that nobody made who marks what he makes
        """
        try:
            domain = connection.lookupByUUIDString(server_uuid)
            node = mark(domain).get("node")
        except libvirt.libvirtError as exc:
            if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        if node is None:
            raise errors.ConflictError(f"domain {server_uuid} does not carry the mark of this node")
        return domain if node == self._node_uuid else None

    def start(self, xml: str) -> None:
        """Define a domain and have it run.

        :raises accelsched.agent.virt.base.BuildError: libvirt cannot
        """

        def start(connection: Any) -> None:
            domain = connection.defineXML(xml)
            if not domain.isActive():
                domain.create()

        try:
            self._connection.call(start)
        except libvirt.libvirtError as exc:
            raise base.BuildError("the hypervisor could not start the server") from exc

    def remove(self, server_uuid: str) -> None:
        """Stop and undefine a server's domain, if it has one."""
        self._connection.ask(lambda connection: self._remove(connection, server_uuid), "remove the domain")

    def _remove(self, connection: Any, server_uuid: str) -> None:
        try:
            domain = self.find(connection, server_uuid)
            if domain is None:
                return
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefineFlags(_UNDEFINE)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise


def power_of(domain: Any) -> base.Power:
    """Return what a domain does."""
    if not domain.isActive():
        return base.Power.SUSPENDED if domain.hasManagedSaveImage() else base.Power.STOPPED
    state, reason = domain.state()
    paused = state == libvirt.VIR_DOMAIN_PAUSED and reason != libvirt.VIR_DOMAIN_PAUSED_STARTING_UP
    return base.Power.PAUSED if paused else base.Power.RUNNING


def switch_off(domain: Any) -> None:
    """Stop a domain without asking its guest, and forget what was saved of it."""
    if domain.hasManagedSaveImage():
        domain.managedSaveRemove()
    try:
        if domain.isActive():
            domain.destroy()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it stopped by itself just now
            raise


def mark(domain: Any) -> etree._Element:
    """Return the mark that a domain carries: whose it is, and what it has. An empty one when it carries none."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return etree.Element("none")
        raise
    element = etree.fromstring(text)
    return element if element.tag.endswith("server") else etree.Element("none")
