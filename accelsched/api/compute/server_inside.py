# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What is to be seen of a server from its host: diagnostics, NUMA topology, and no graphical consoles."""

from __future__ import annotations

from typing import Any

import falcon

from accelsched import errors, policies, rpc, wire
from accelsched.api import resources
from accelsched.api.compute import microversion
from accelsched.api.compute.servers import ServerResource
from accelsched.compute import hosts, states

_TOPOLOGY = "compute:server:topology:"
_CONSOLES = {
    "vnc": ("novnc", "xvpvnc"),
    "spice": ("spice-html5", "spice-direct"),
    "rdp": ("rdp-html5",),
    "serial": ("serial",),
    "mks": ("webmks",),
}
_REMOTE_CONSOLE = resources.validator(
    {
        "type": "object",
        "properties": {
            "remote_console": {
                "type": "object",
                "properties": {
                    "protocol": {"enum": list(_CONSOLES)},
                    "type": {"enum": [kind for kinds in _CONSOLES.values() for kind in kinds]},
                },
                "required": ["protocol", "type"],
                "additionalProperties": False,
            }
        },
        "required": ["remote_console"],
        "additionalProperties": False,
    }
)


class Inside(ServerResource):
    """``/servers/{id}/diagnostics``, ``topology`` and ``remote-consoles``."""

    def on_get_diagnostics(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Ask a server's agent what its domain does.

        :raises accelsched.errors.ConflictError: when the server does not run
        :raises falcon.HTTPGatewayTimeout: when its agent does not answer
        """
        shown = self._get(uuid, self._scope(resources.context_of(req), "os_compute_api:os-server-diagnostics"))
        state, host = states.of(shown.server), shown.host
        if host is None or state.power_state not in (states.RUNNING, states.PAUSED_POWER):
            raise errors.ConflictError(
                f"Cannot 'get_diagnostics' instance {uuid} while it is in vm_state {state.vm_state}"
            )
        hosts.check_understands(host, "1.1", "get_diagnostics", uuid)
        try:
            told = self._services.agents.diagnostics(host.agent, host.name, uuid)
        except errors.NotFoundError as exc:
            raise errors.ConflictError(f"Instance {uuid} is not ready") from exc
        except rpc.MessagingTimeout as exc:
            raise falcon.HTTPGatewayTimeout(description=f"The agent of host {host.name} did not answer.") from exc
        except rpc.MESSAGING_ERRORS as exc:
            raise errors.UnavailableError(f"The agent of host {host.name} cannot be reached just now.") from exc
        standard = microversion.version_of(req).minor >= 48
        resp.media = _standard(told, shown.server.config_drive) if standard else _as_libvirt_told(told)

    def on_get_topology(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Tell a server's NUMA nodes (2.78); where they are on the host, to whom policy lets see it."""
        microversion.need(req, 78)
        context = resources.context_of(req)
        server = self._get(uuid, self._scope(context, _TOPOLOGY + "index")).server
        on_host = policies.allowed(self._services.enforcer, context, _TOPOLOGY + "host:index")
        nodes = server.numa or []
        resp.media = {
            "nodes": [_node(node, on_host=on_host) for node in nodes],
            "pagesize_kb": nodes[0]["page_kb"] if nodes else None,
        }

    def on_post_consoles(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Refuse, as Nova does where no console proxy is set up (2.6)."""
        microversion.need(req, 6)
        self._get(uuid, self._scope(resources.context_of(req), "os_compute_api:os-remote-consoles"))
        wanted = resources.body_of(req, _REMOTE_CONSOLE)["remote_console"]
        raise unavailable_console(wanted["type"])


def unavailable_console(kind: str) -> errors.InvalidError:
    """Return the refusal of a console that guests here do not have; its serial console's log is kept."""
    return errors.InvalidError(f"Unavailable console type {kind[:100]}. See: openstack console log show")


def _node(node: dict[str, Any], *, on_host: bool) -> dict[str, Any]:
    told = {
        "memory_mb": node["memory_mb"],
        "siblings": [],
        "vcpu_set": sorted([*node["shared_cpus"], *map(int, node["pins"])]),
    }
    return told | ({"host_node": node["node"], "cpu_pinning": dict(node["pins"])} if on_host else {})


def _standard(told: wire.Diagnostics, config_drive: bool) -> dict[str, Any]:
    return {
        "state": told["state"],
        "driver": told["driver"],
        "hypervisor": told["hypervisor"],
        "hypervisor_os": "linux",
        "uptime": told["uptime"],
        "config_drive": config_drive,
        "num_cpus": len(told["cpus"]),
        "num_disks": len(told["disks"]),
        "num_nics": len(told.get("nics", [])),
        "cpu_details": [{**cpu, "utilisation": None} for cpu in told["cpus"]],
        "disk_details": told["disks"],
        "nic_details": [{**nic, "rx_rate": None, "tx_rate": None} for nic in told.get("nics", [])],
        "memory_details": {"maximum": told["memory_mb"], "used": None},
    }


def _as_libvirt_told(told: wire.Diagnostics) -> dict[str, int]:
    """Return what versions before 2.48 show: numbers by names that libvirt's driver of Nova made up."""
    shown = {f"cpu{cpu['id']}_time": cpu["time"] for cpu in told["cpus"]}
    for number, disk in enumerate(told["disks"]):
        name = f"vd{'abcdefgh'[number]}"
        shown |= {
            f"{name}_read_req": disk["read_requests"],
            f"{name}_read": disk["read_bytes"],
            f"{name}_write_req": disk["write_requests"],
            f"{name}_write": disk["write_bytes"],
            f"{name}_errors": disk["errors_count"],
        }
    return shown | {"memory": told["memory_mb"] * 1024}
