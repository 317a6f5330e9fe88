# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The config drive: an ISO 9660 file system labelled ``config-2`` that tells a guest who it is.

https://docs.openstack.org/nova/latest/user/metadata.html
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Mapping

import pycdlib

from accelsched import names, wire
from accelsched.agent.virt.base import BuildError

LABEL = "config-2"
# The first version of the format and the newest that guests look for: cloud-init reads the newest it knows.
_VERSIONS = ("2012-08-10", "latest")
_USER_DATA_MAX = 64 * 1024


def wanted(assignment: wire.Assignment) -> bool:
    """Tell whether a server gets a config drive: asked for, or the only way to hand over what it needs."""
    return bool(assignment["config_drive"] or assignment["user_data"] or assignment.get("public_key"))


def contents(assignment: wire.Assignment, network: str | None = None) -> dict[str, bytes]:
    """Return the files of a server's config drive by path.

    :param network: that the server has an interface on
    :raises accelsched.agent.virt.base.BuildError: when the user data is not base64 or too large
    """
    key_name, public_key = assignment.get("key_name"), assignment.get("public_key")
    meta_data = {
        "uuid": assignment["server_uuid"],
        "name": assignment["name"],
        "hostname": assignment.get("hostname") or hostname(assignment["name"]),
        "project_id": assignment["project_id"],
        "launch_index": 0,
        "meta": assignment["metadata"],
    }
    if "admin_pass" in assignment:
        meta_data["admin_pass"] = assignment["admin_pass"]
    if public_key:
        name = key_name or "default"
        meta_data["public_keys"] = {name: public_key}
        kind = "x509" if public_key.startswith("-----BEGIN") else "ssh"
        meta_data["keys"] = [{"name": name, "type": kind, "data": public_key}]
    files = {"meta_data.json": json.dumps(meta_data, sort_keys=True).encode()}
    if assignment["user_data"]:
        files["user_data"] = _user_data(assignment["user_data"])
    latest = {
        "network_data.json": json.dumps(_network_data(assignment["server_uuid"], network)).encode(),
        "vendor_data.json": b"{}",
    }
    return {
        f"openstack/{version}/{name}": data
        for version in _VERSIONS
        for name, data in {**files, **(latest if version == "latest" else {})}.items()
    }


def _network_data(server_uuid: str, network: str | None) -> dict[str, object]:
    """Return what a guest is told of its interface: to ask for its address by DHCP."""
    if network is None:
        return {"links": [], "networks": [], "services": []}
    mac = names.mac_address(server_uuid)
    link = {"id": "interface0", "type": "phy", "ethernet_mac_address": mac, "vif_id": "interface0", "mtu": None}
    asked = {"id": "network0", "type": "ipv4_dhcp", "link": "interface0", "network_id": network}
    return {"links": [link], "networks": [asked], "services": []}


def hostname(name: str) -> str:
    """Return a server's name as a host name (RFC 1123: letters, digits and hyphens, 63 at most)."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-") or "server"


def iso_image(files: Mapping[str, bytes]) -> bytes:
    """Return an ISO 9660 image with Rock Ridge and Joliet names.

    :param files: contents by path, ``openstack/latest/meta_data.json``
    """
    iso = pycdlib.PyCdlib()
    # Plain ISO names are limited to 8.3; they only have to differ, guests read the other two sets.
    iso.new(interchange_level=1, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    directories: dict[str, str] = {"": ""}
    for number, (path, data) in enumerate(sorted(files.items())):
        *parents, name = path.split("/")
        joined = ""
        for parent in parents:
            above, joined = joined, f"{joined}/{parent}"
            if joined not in directories:
                directories[joined] = f"{directories[above]}/D{len(directories)}"
                iso.add_directory(directories[joined], rr_name=parent, joliet_path=joined)
        iso.add_fp(
            io.BytesIO(data),
            len(data),
            f"{directories[joined]}/F{number}.;1",
            rr_name=name,
            joliet_path=f"{joined}/{name}",
        )
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def _user_data(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BuildError("the server's user data is not base64") from exc
    if len(data) > _USER_DATA_MAX:
        raise BuildError(f"the server's user data is larger than {_USER_DATA_MAX} bytes")
    return data
