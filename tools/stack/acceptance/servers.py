# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Stories of servers: each command must have done its thing to the libvirt domain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from stack.acceptance.run import Run
from stack.demonstration import FLAVOR, IMAGE
from stack.errors import StackError

_CREATE = ("server", "create", "--nic", "none", "--wait")
_ACCELERATOR = ("--os-accelerator-api-version", "2.3", "accelerator")


def life(run: Run) -> None:
    """Create, look at, order about and delete a server, as an ordinary user."""
    with _server(run, "acceptance-life") as uuid:
        _looks(run, uuid)
        _orders(run, uuid)
        _locks(run, uuid)
        with run.command("server rebuild"):
            run.client("server", "rebuild", "--image", IMAGE, "--wait", uuid, user=True)
            run.until(lambda: run.domains.boots_of_disk(uuid) == 1, "the guest boots from a disk that is new")
        with run.command("server rescue"):
            run.client("server", "rescue", "--image", IMAGE, "--password", "a-password", uuid, user=True)
            run.until(lambda: _status(run, uuid) == "RESCUE", "status RESCUE")
            assert run.domains.disks(uuid) == ["disk.rescue", "disk", "disk.config.rescue"]
        with run.command("server unrescue"):
            run.client("server", "unrescue", uuid, user=True)
            run.until(lambda: _status(run, uuid) == "ACTIVE", "status ACTIVE")
            assert run.domains.disks(uuid)[0] == "disk"
            run.until(lambda: run.domains.boots_of_disk(uuid) == 2, "the guest boots from its own disk again")
        with run.command("server event list"):
            listed = [event["Action"] for event in run.json("server", "event", "list", uuid, user=True)]
            assert {"create", "stop", "start", "reboot", "pause", "rebuild"} <= set(listed)
        with run.command("server event show"):
            stop = next(e for e in run.json("server", "event", "list", uuid, user=True) if e["Action"] == "stop")
            shown = run.json("server", "event", "show", uuid, stop["Request ID"], user=True)
            assert [event["result"] for event in shown["events"]] == ["Success"]
        with run.command("server delete"):
            run.client("server", "delete", "--wait", uuid, user=True)
            run.until(lambda: run.domains.power(uuid) == "none", "the domain is gone")
            assert not run.domains.has_files(uuid)
            assert run.json("resource", "provider", "allocation", "show", uuid) == []


def accelerators(run: Run) -> None:
    """Have a server get its accelerator by a device profile, and look at it through the Accelerator API."""
    name = "acceptance-profile"
    with run.command("accelerator device profile create", vital=True):
        profile = run.json(*_ACCELERATOR, "device", "profile", "create", name, '[{"resources:VGPU": 1}]')["uuid"]
    with run.command("accelerator device profile list"):
        assert name in [it["name"] for it in run.json(*_ACCELERATOR, "device", "profile", "list", user=True)]
    with run.command("accelerator device profile show"):
        assert run.json(*_ACCELERATOR, "device", "profile", "show", name, user=True)["uuid"] == profile
    with run.command("flavor create (of a device profile)", vital=True):
        size = ("--ram", "128", "--vcpus", "1", "--disk", "1", "--property", f"accel:device_profile={name}")
        run.client("flavor", "create", *size, name)
    try:
        with _server(run, "acceptance-accelerators", flavor=name) as uuid:
            with run.command("accelerator arq list"):
                (arq,) = (it for it in run.json(*_ACCELERATOR, "arq", "list") if it["instance_uuid"] == uuid)
                assert arq["state"] == "Bound"
                assert run.domains.power(uuid) == "running"
                held = run.json("resource", "provider", "allocation", "show", uuid)
                assert any("VGPU" in share["resources"] for share in held)
            with run.command("accelerator arq show"):
                shown = run.json(*_ACCELERATOR, "arq", "show", arq["uuid"])
                device = shown["device_rp_uuid"]
                assert shown["device_profile_name"] == name
                run.refused(*_ACCELERATOR, "arq", "delete", arq["uuid"], why="of the flavor of instance")
            _device(run, device)
            _requests(run, uuid, name, device)
    finally:
        run.client("flavor", "delete", name)
        with run.command("accelerator device profile delete"):
            run.client(*_ACCELERATOR, "device", "profile", "delete", profile)
            assert name not in [it["name"] for it in run.json(*_ACCELERATOR, "device", "profile", "list")]


def _device(run: Run, device: str) -> None:
    """Look at a device that a running server has, close it and open it."""
    with run.command("accelerator device list"):
        assert device in [it["uuid"] for it in run.json(*_ACCELERATOR, "device", "list")]
    with run.command("accelerator device disable"):
        run.client(*_ACCELERATOR, "device", "disable", device)
        assert run.json(*_ACCELERATOR, "device", "show", device)["status"] == "maintaining"
    with run.command("accelerator device enable"):
        run.client(*_ACCELERATOR, "device", "enable", device)
    with run.command("accelerator device show"):
        assert run.json(*_ACCELERATOR, "device", "show", device)["status"] == "enabled"
    with run.command("accelerator deployable list"):
        assert device in [it["uuid"] for it in run.json(*_ACCELERATOR, "deployable", "list")]
    with run.command("accelerator deployable show"):
        assert run.json(*_ACCELERATOR, "deployable", "show", device)["uuid"] == device
    with run.command("accelerator device attribute list"):
        said = run.json(*_ACCELERATOR, "device", "attribute", "list")
        assert "VGPU" in [it["value"] for it in said if it["key"] == "rc"]
    with run.command("accelerator device attribute show"):
        shown = run.json(*_ACCELERATOR, "device", "attribute", "show", said[0]["uuid"])
        assert shown["value"] == said[0]["value"]
    number = str(next(it for it in said if it["key"] == "rc" and it["value"] == "VGPU")["deployable_id"])
    with run.command("accelerator device attribute create"):
        added = run.json(*_ACCELERATOR, "device", "attribute", "create", number, "acceptance", "yes")
        assert (added["key"], added["value"]) == ("acceptance", "yes")
        run.refused(*_ACCELERATOR, "device", "attribute", "create", number, "trait9", "CUSTOM_X", why="trait set")
    with run.command("accelerator device attribute delete"):
        run.client(*_ACCELERATOR, "device", "attribute", "delete", added["uuid"])
        left = {it["uuid"] for it in run.json(*_ACCELERATOR, "device", "attribute", "list")}
        assert added["uuid"] not in left
        run.refused(*_ACCELERATOR, "device", "attribute", "delete", said[0]["uuid"], why="trait set")


def _requests(run: Run, server: str, profile: str, device: str) -> None:
    """Bind an accelerator request to a running server, unbind it, bind it again, and delete it while it is bound."""
    arq = (*_ACCELERATOR, "arq")
    before = run.domains.plugged(server)
    with run.command("accelerator arq create", vital=True):
        made = run.json(*arq, "create", "--group-id", "0", profile, user=True)
        assert (made["state"], made["instance_uuid"]) == ("Initial", None)
    one = made["uuid"]
    shown = run.json("server", "show", server)
    # Of python-cyborgclient's command and python-openstackclient's, of which either may run, one wants the project.
    asks_project = "<project_id>" in run.client(*arq, "bind", "--help")
    project = (shown["project_id"],) if asks_project else ()

    def becomes(state: str) -> None:
        run.until(lambda: run.json(*arq, "show", one, user=True)["state"] == state, state)

    def bind() -> None:
        bound = run.json(*arq, "bind", one, shown["OS-EXT-SRV-ATTR:host"], server, device, *project)
        assert (bound["instance_uuid"], bound["device_rp_uuid"]) == (server, device)
        becomes("Bound")
        assert run.domains.plugged(server) == before + 1

    with run.command("accelerator arq bind"):
        bind()
        assert _vgpus(run, server) == 2
    with run.command("accelerator arq unbind"):
        run.client(*arq, "unbind", one, user=True)
        becomes("Unbound")
        assert run.domains.plugged(server) == before
        assert _vgpus(run, server) == 1
    with run.command("accelerator arq delete"):
        bind()
        run.client(*arq, "delete", one, user=True)
        run.until(lambda: one not in {it["uuid"] for it in run.json(*arq, "list", user=True)}, "the request is gone")
        assert run.domains.plugged(server) == before
        assert _vgpus(run, server) == 1


def _vgpus(run: Run, server: str) -> int:
    held = run.json("resource", "provider", "allocation", "show", server)
    return sum(int(share["resources"].get("VGPU", 0)) for share in held)


def images(run: Run) -> None:
    """Make images of a server, boot from one, put the server on a shelf and take it down again."""
    with _server(run, "acceptance-images") as uuid:
        with run.command("server image create"):
            made = run.json("server", "image", "create", "--wait", "--name", "acceptance-snapshot", uuid, user=True)
            assert made["status"] == "active"
            assert run.domains.power(uuid) == "running"
            with _server(run, "acceptance-copy", image="acceptance-snapshot") as copy:
                assert run.domains.boots_of_disk(copy) == 2, "the copy has not what was on the disk"
        with run.command("server backup create"):
            backup = ("server", "backup", "create", "--wait", "--type", "daily", "--rotate", "1")
            for number in (1, 2):
                run.client(*backup, "--name", f"acceptance-backup-{number}", uuid, user=True)
            run.until(
                lambda: not run.json("image", "list", "--name", "acceptance-backup-1", user=True),
                "the older backup is gone",
            )
            (kept,) = run.json("image", "list", "--name", "acceptance-backup-2", user=True)
            assert kept["Status"] == "active"
        for name in ("acceptance-snapshot", "acceptance-backup-1", "acceptance-backup-2"):
            for image in run.json("image", "list", "--name", name, user=True):
                run.client("image", "delete", image["ID"], user=True)
        with run.command("server shelve"):
            run.client("server", "shelve", uuid, user=True)
            run.until(lambda: _status(run, uuid) == "SHELVED_OFFLOADED", "status SHELVED_OFFLOADED")
            assert run.domains.power(uuid) == "none"
            run.until(lambda: not run.domains.has_files(uuid), "its files are gone")
            assert run.json("resource", "provider", "allocation", "show", uuid) == []
        if "server shelve" not in run.passed:
            return  # there is nothing to take down
        with run.command("server unshelve"):
            run.client("server", "unshelve", uuid, user=True)
            run.until(lambda: _status(run, uuid) == "ACTIVE", "status ACTIVE")
            run.until(lambda: run.domains.boots_of_disk(uuid) == 2, "the guest boots from the disk that it had")
            assert run.json("resource", "provider", "allocation", "show", uuid)
            run.until(
                lambda: not run.json("image", "list", "--name", "acceptance-images-shelved", user=True),
                "the image of the shelf is gone",
            )


def moves(run: Run) -> None:
    """Resize and move a server."""
    larger = "acceptance.larger"
    run.client("flavor", "create", "--ram", "384", "--vcpus", "1", "--disk", "2", larger)
    try:
        with _server(run, "acceptance-moves") as uuid:
            with run.command("server resize", vital=True):
                run.client("server", "resize", "--flavor", larger, "--wait", uuid, user=True)
                run.until(lambda: _status(run, uuid) == "VERIFY_RESIZE", "status VERIFY_RESIZE")
                assert (run.domains.memory_mb(uuid), run.domains.disk_gb(uuid)) == (384, 2)
                run.until(lambda: run.domains.boots_of_disk(uuid) == 2, "the guest boots from the disk that it had")
            with run.command("server resize revert"):
                run.client("server", "resize", "revert", uuid, user=True)
                run.until(lambda: _status(run, uuid) == "ACTIVE", "status ACTIVE")
                assert (run.domains.memory_mb(uuid), run.domains.disk_gb(uuid)) == (256, 1)
            with run.command("server resize confirm"):
                run.client("server", "resize", "--flavor", larger, "--wait", uuid, user=True)
                run.client("server", "resize", "confirm", uuid, user=True)
                run.until(lambda: _status(run, uuid) == "ACTIVE", "status ACTIVE")
                assert (run.domains.memory_mb(uuid), run.domains.disk_gb(uuid)) == (384, 2)
                run.until(lambda: run.domains.copies_of_disk(uuid) == 0, "the copy of the smaller disk is gone")
            # One machine is one host: where there is no other, that is what has to be said, and nothing may happen.
            with run.command("server migrate, without another host"):
                run.client("server", "migrate", uuid)
                run.until(lambda: run.json("server", "show", uuid)["OS-EXT-STS:task_state"] is None, "it is left alone")
                assert run.domains.power(uuid) == "running"
            with run.command("server migrate --live-migration, which is refused"):
                run.refused("server", "migrate", "--live-migration", uuid, why="Migration pre-check error")
                assert run.domains.power(uuid) == "running"
            with run.command("server evacuate, while the host is up"):
                run.refused("server", "evacuate", uuid, why="still in use")
                assert run.domains.power(uuid) == "running"
            with run.command("server migration list"):
                run.json("server", "migration", "list")
            with run.command("server migration list --server"):
                run.json("server", "migration", "list", "--server", uuid)
    finally:
        run.client("flavor", "delete", larger)


def _looks(run: Run, uuid: str) -> None:
    with run.command("server list"):
        (listed,) = run.json("server", "list", "--name", "^acceptance-life$", user=True)
        assert (listed["ID"], listed["Status"], listed["Image"]) == (uuid, "ACTIVE", IMAGE)
    with run.command("server set"):
        run.client("server", "set", "--property", "role=test", "--description", "for a while", uuid, user=True)
    with run.command("server show"):
        shown = run.json("server", "show", uuid, user=True)
        assert (shown["properties"], shown["description"]) == ({"role": "test"}, "for a while")
    with run.command("server show --diagnostics"):
        told = run.json("--os-compute-api-version", "2.48", "server", "show", "--diagnostics", uuid)
        assert (told["driver"], told["num_disks"]) == ("libvirt", 2), told
    with run.command("server show --topology"):
        # The client asks for it without a version unless it is told one.
        told = run.json("--os-compute-api-version", "2.78", "server", "show", "--topology", uuid)
        assert told["topology"]["nodes"] == []
    with run.command("console url show, of which there is none"):
        run.refused("console", "url", "show", uuid, why="Unavailable console type novnc", user=True)
    with run.command("server unset"):
        run.client("server", "unset", "--property", "role", uuid, user=True)
        assert run.json("server", "show", uuid, user=True)["properties"] == {}
    with run.command("console log show"):
        assert "accelsched-guest: ready" in run.client("console", "log", "show", uuid, user=True)


def _orders(run: Run, uuid: str) -> None:
    domains = run.domains
    for words, status, power, boots in (
        (("stop",), "SHUTOFF", "off", False),
        (("start",), "ACTIVE", "running", True),
        (("pause",), "PAUSED", "paused", False),
        (("unpause",), "ACTIVE", "running", False),
        (("suspend",), "SUSPENDED", "saved", False),
        (("resume",), "ACTIVE", "running", False),
        (("reboot",), "ACTIVE", "running", True),
        (("reboot", "--hard"), "ACTIVE", "running", True),
    ):
        with run.command(f"server {' '.join(words)}"):
            before = domains.starts(uuid)
            run.client("server", *words, uuid, user=True)
            run.until(lambda: domains.power(uuid) == power, f"the domain is {power}")  # noqa: B023 - called now
            if boots:
                run.until(lambda: domains.starts(uuid) == before + 1, "the guest boots")  # noqa: B023 - called now
            run.until(lambda: _settled(run, uuid) == status, f"status {status}")  # noqa: B023 - called now
            assert domains.starts(uuid) == before + boots
    asked = domains.console(uuid).count("power button")
    assert asked == 2, f"the guest was asked to shut down {asked} times, not by stop and reboot alone"


def _locks(run: Run, uuid: str) -> None:
    with run.command("server lock"):
        run.client("server", "lock", uuid, user=True)
        run.refused("server", "delete", uuid, why="is locked", user=True)
        assert run.domains.power(uuid) == "running"
    with run.command("server unlock"):
        run.client("server", "unlock", uuid, user=True)
        assert not run.json("server", "show", uuid, user=True)["locked"]


@contextmanager
def _server(run: Run, name: str, image: str = IMAGE, flavor: str = FLAVOR) -> Iterator[str]:
    """Make a server that has booted, gone at the end."""
    made: dict[str, Any] = {}
    try:
        with run.command(f"server create --image {image}", vital=True):
            wanted = ("--flavor", flavor, "--image", image, "--config-drive", "true", name)
            made.update(run.json(*_CREATE, *wanted, user=True))
            assert run.domains.power(made["id"]) == "running"
            run.until(lambda: run.domains.starts(made["id"]) == 1, "the guest boots")
        yield made["id"]
    finally:
        if made:
            with suppress(StackError):  # it is deleted already
                run.client("server", "delete", "--wait", made["id"])


def _status(run: Run, uuid: str) -> str:
    return str(run.json("server", "show", uuid, user=True)["status"])


def _settled(run: Run, uuid: str) -> str:
    shown = run.json("server", "show", uuid, user=True)
    return "" if shown["OS-EXT-STS:task_state"] else str(shown["status"])
