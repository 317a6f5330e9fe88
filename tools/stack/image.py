# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""A real Glance on SQLite and files, and what is put into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keystoneauth1 import adapter, session

from stack import accounts, environment, files, http, progress
from stack.daemon import Daemon
from stack.errors import StackError
from stack.guest import Guest
from stack.identity import Keystone

HERE = Path(__file__).resolve().parent
START_TIMEOUT_S = 120.0

_CONFIGURATION = """\
[DEFAULT]
use_stderr = true
enabled_backends = local:file
enabled_import_methods = [glance-direct]
node_staging_uri = file://{home}/staging
image_cache_dir = {home}/cache
worker_self_reference_url = {url}

[database]
connection = sqlite:///{home}/glance.sqlite

[glance_store]
default_backend = local

[local]
filesystem_store_datadir = {home}/images

[os_glance_staging_store]
filesystem_store_datadir = {home}/staging

[os_glance_tasks_store]
filesystem_store_datadir = {home}/tasks

[oslo_concurrency]
lock_path = {home}/lock

[paste_deploy]
flavor = keystone
config_file = {paste}

[keystone_authtoken]
auth_type = password
auth_url = {auth_url}
www_authenticate_uri = {auth_url}
username = glance
password = {password}
project_name = {project}
user_domain_id = default
project_domain_id = default
service_token_roles_required = true
"""


class Glance:
    """Glance beside a Keystone of the same stack, its state below ``STATE_DIR/glance``.

    :param state_dir: the stack's directory
    :param keystone: who checks its tokens
    :param port: port of loopback
    """

    def __init__(self, state_dir: Path, keystone: Keystone, port: int = 9292) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.daemon = Daemon("glance", state_dir)
        self._keystone = keystone
        self._home = state_dir / "glance"

    def start(self, report: progress.Report = progress.say) -> bool:
        """Start it unless it runs; return when it answers. Return whether it was started now.

        Keystone need not know the user ``glance`` yet: Glance asks for its token with the first request.

        :raises StackError: when it cannot be installed or does not come up
        """
        python = environment.services_python(report=report)
        files.directory(self._home, 0o700)
        for part in ("images", "staging", "tasks", "cache", "lock"):
            files.directory(self._home / part, 0o700)
        text = _CONFIGURATION.format(
            home=self._home,
            url=self.url,
            paste=python.parent.parent / "etc" / "glance" / "glance-api-paste.ini",
            auth_url=self._keystone.url,
            password=self._keystone.passwords.get("glance"),
            project=accounts.SERVICE_PROJECT,
        )
        files.write(self._home / "glance-api.conf", text, mode=0o600)
        if self.daemon.pid() is None and http.port_is_taken(self.port):
            raise StackError(f"port {self.port}, which Glance is to have, is taken by another program: end that first")
        with progress.step("Glance", report) as step:
            script = HERE / "serve" / "glance_service.py"
            command: list[str | Path] = [python, script, f"127.0.0.1:{self.port}", self._home]
            started = self.daemon.start(command, configuration=text)
            self.daemon.wait_until(lambda: http.answers(f"{self.url}/healthcheck"), START_TIMEOUT_S)
            step.detail = f"{self.url}{'' if started else ', runs already'}"
        return started

    def stop(self) -> bool:
        """Stop it; return whether it ran."""
        return self.daemon.stop()


class Images:
    """What is in a Glance.

    :param client_session: a session of a user who may make images public
    :param url: the image endpoint
    """

    def __init__(self, client_session: session.Session, url: str) -> None:
        self._images = adapter.Adapter(client_session, service_type="image", endpoint_override=url, raise_exc=True)

    def ensure_guest(self, guest: Guest, name: str = "accelsched-guest") -> dict[str, Any]:
        """Upload the guest's kernel, ramdisk and disk unless they are there; return the disk's image.

        The disk's image refers to the two others (``kernel_id``, ``ramdisk_id``), as Nova has it for kernels that are
        not on the disk.
        """
        common = {"visibility": "public", "accelsched_guest": guest.version}
        kernel = self.ensure(
            {**common, "name": f"{name}-kernel", "container_format": "aki", "disk_format": "aki"}, guest.kernel
        )
        ramdisk = self.ensure(
            {**common, "name": f"{name}-ramdisk", "container_format": "ari", "disk_format": "ari"}, guest.ramdisk
        )
        image = self.ensure(
            {
                **common,
                "name": name,
                "container_format": "bare",
                "disk_format": "qcow2",
                "min_ram": guest.min_ram_mib,
                "min_disk": 0,
                "kernel_id": kernel["id"],
                "ramdisk_id": ramdisk["id"],
                "os_command_line": guest.command_line,
            },
            guest.disk,
        )
        self._hide_older(image)
        return image

    def _hide_older(self, image: Mapping[str, Any]) -> None:
        """Have an image be the only guest that its name finds; servers that were made of an older one keep that."""
        found = self._images.get("/v2/images", params={"name": f"in:{image['name']}", "limit": 100}).json()
        for other in found["images"]:
            if other["id"] != image["id"] and "accelsched_guest" in other:
                self._images.patch(
                    f"/v2/images/{other['id']}",
                    json=[{"op": "replace", "path": "/os_hidden", "value": True}],
                    headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
                )

    def ensure(self, properties: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """Return the active image that has all these properties, uploading it when there is none.

        Uploads that were broken off are removed.
        """
        found = self._images.get("/v2/images", params={"name": f"in:{properties['name']}", "limit": 100}).json()
        for image in found["images"]:
            if all(image.get(key) == value for key, value in properties.items()):
                if image["status"] == "active":
                    return dict(image)
                self._images.delete(f"/v2/images/{image['id']}")
        image = self._images.post("/v2/images", json=dict(properties)).json()
        with path.open("rb") as data:
            self._images.put(
                f"/v2/images/{image['id']}/file", data=data, headers={"Content-Type": "application/octet-stream"}
            )
        return dict(self._images.get(f"/v2/images/{image['id']}").json())
