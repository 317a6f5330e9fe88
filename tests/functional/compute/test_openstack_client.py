# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The unmodified ``openstack`` client against a real Keystone, a real Glance, and one simulated host."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fpga_cards
import openstack_client
import patience
import pytest
import requests
from attributes import hanging
from keystoneauth1.session import Session
from openstack import exceptions as sdk_exceptions
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from stack import accounts, clouds, http
from stack.identity import Keystone
from stack.image import Glance


@dataclasses.dataclass
class Cloud:
    """A deployment and who uses it: ``accelsched`` is the operator, ``accelsched-demo`` a user."""

    directory: Path
    url: str
    keystone: Keystone

    def run(self, *arguments: str, cloud: str = "accelsched", expect: int = 0) -> str:
        """Run the client; return what it printed, errors included, when it ended as expected."""
        ended = openstack_client.run(self.directory / "clouds.yaml", "--os-cloud", cloud, *arguments)
        assert ended.status == expect, f"openstack {' '.join(arguments)}\n{ended.out}\n{ended.err}"
        return ended.out if expect == 0 else ended.out + ended.err

    def sdk(self, cloud: str) -> Connection:
        """Return openstacksdk's connection, which the client stands on."""
        config = OpenStackConfig(config_files=[str(self.directory / "clouds.yaml")], load_envvars=False)
        return Connection(config=config.get_one(cloud, compute_default_microversion="2.96"))

    def json(self, *arguments: str, cloud: str = "accelsched") -> Any:
        """Run the client and return what it says as JSON."""
        return json.loads(self.run(*arguments, "-f", "json", cloud=cloud))


@pytest.fixture(scope="module")
def cloud(start_service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    directory = tmp_path_factory.mktemp("cloud")
    keystone = Keystone(directory, http.free_port(), hash_rounds=4)
    glance = Glance(directory, keystone, http.free_port())
    port = http.free_port()
    url = f"http://127.0.0.1:{port}"
    fpga_cards.add_dfl_card(directory / "sys")
    (directory / "blank.gbs").write_bytes(fpga_cards.gbs(fpga_cards.BLANK))
    try:
        keystone.start()
        glance.start()
        accounts.ensure(keystone, accounts.catalog(glance.url, url))
        clouds.write(directory / "clouds.yaml", keystone)
        credentials = {
            "auth_type": "password",
            "auth_url": keystone.url,
            "username": "accelsched",
            "password": keystone.passwords.get("accelsched"),
            "project_name": "service",
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        service = start_service(
            "accelsched-standalone",
            {
                "api": {"auth_strategy": "keystone"},
                "agent": {
                    "host": "sim-host",
                    "virt_driver": "simulated",
                    "device_drivers": "simulated,dfl",
                    "report_interval": 1,
                },
                "devices": {"sysfs_root": directory / "sys", "look_timeout": 1},
                "fpga": {
                    "opae_path": fpga_cards.install(directory),
                    "settle_timeout": 0,
                    "blank_bitstreams": f"{fpga_cards.INTERFACE}:{directory / 'blank.gbs'}",
                },
                "scheduler": {"poll_interval": 0.2},
                "keystone_authtoken": {**credentials, "www_authenticate_uri": keystone.url},
                "glance": credentials,
            },
            *("--bind", f"127.0.0.1:{port}", "--state-dir", str(directory / "state")),
        )
        service.wait_for(lambda: http.answers(f"{url}/healthcheck"))
        made = Cloud(directory, url, keystone)
        _fill(keystone.session(), url, glance.url)
        yield made
        assert service.stop() == 0
    finally:
        glance.stop()
        keystone.stop()


def _fill(session: Session, url: str, image_url: str) -> None:
    """Make flavors and images; by HTTP, for the client takes seconds for each."""
    for name, public in (("vgpu", True), ("secret", False)):
        flavor = {"name": name, "id": name, "ram": 64, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": public}
        session.post(f"{url}/compute/v2.1/flavors", json={"flavor": flavor})
    specs = {"extra_specs": {"resources:VGPU": "1"}}
    session.post(f"{url}/compute/v2.1/flavors/vgpu/os-extra_specs", json=specs)
    for name, visibility, min_ram in (("guest", "public", 0), ("operators", "private", 0), ("big", "public", 128)):
        described = {"name": name, "visibility": visibility, "min_ram": min_ram}
        image = {**described, "disk_format": "raw", "container_format": "bare"}
        image_id = session.post(f"{image_url}/v2/images", json=image).json()["id"]
        content_type = {"Content-Type": "application/octet-stream"}
        session.put(f"{image_url}/v2/images/{image_id}/file", data=bytes(1024 * 1024), headers=content_type)


def test_a_user_boots_looks_at_and_deletes_a_server(cloud: Cloud) -> None:
    user = "accelsched-demo"
    create = ("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "--wait")
    made = cloud.json(*create, "--property", "role=test", "web", cloud=user)
    assert made["status"] == "ACTIVE"
    assert made["properties"] == {"role": "test"}
    assert made["image"].startswith("guest ")

    (listed,) = cloud.json("server", "list", cloud=user)
    assert (listed["Name"], listed["Status"], listed["Flavor"], listed["Image"]) == ("web", "ACTIVE", "vgpu", "guest")
    assert cloud.json("server", "list", "--all-projects")[0]["ID"] == made["id"]
    assert "simulated" in cloud.run("console", "log", "show", "web", cloud=user)
    named = ("--name", "site", "--description", "the site", "--hostname", "www", "--tag", "public")
    cloud.run("server", "set", *named, "--property", "role=live", "web", cloud=user)
    shown = cloud.json("server", "show", "site", cloud=user)
    assert (shown["properties"], shown["description"], shown["tags"]) == ({"role": "live"}, "the site", ["public"])
    assert shown["OS-EXT-SRV-ATTR:hostname"] == "www"
    assert [server["Name"] for server in cloud.json("server", "list", "--tags", "public", cloud=user)] == ["site"]
    cloud.run("server", "unset", "--tag", "public", "--property", "role", "site", cloud=user)
    assert cloud.json("server", "list", "--tags", "public", cloud=user) == []
    operators_view = cloud.json("server", "show", made["id"])
    assert operators_view["OS-EXT-SRV-ATTR:host"] == "sim-host"

    simulate = ("accel", "placement", "simulate", "--flavor", "vgpu", "--image", "guest")
    assert "sim-host: 1" in cloud.run(*simulate)
    assert cloud.json(*simulate, "--count", "2", "--property", "resources:VGPU=1")["placed"] == 2
    cloud.run(*simulate, cloud=user, expect=1)

    text = cloud.run("accel", "server", "explain", "site", cloud=user)
    assert "ComputeFilter" in text
    assert "1 VGPU" in text
    raw = cloud.json("accel", "server", "explain", made["id"])
    assert raw["selection"]["host"] == "sim-host"
    held = cloud.json("resource", "provider", "allocation", "show", made["id"])
    assert any("VGPU" in share["resources"] for share in held)

    cloud.run("server", "delete", "--wait", "site", cloud=user)
    assert cloud.json("server", "list", cloud=user) == []
    assert cloud.json("resource", "provider", "allocation", "show", made["id"]) == []


def test_a_user_has_a_server_do_what_it_is_told(cloud: Cloud) -> None:
    user = "accelsched-demo"
    create = ("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "--wait")
    made = cloud.json(*create, "worker", cloud=user)
    compute = cloud.sdk(user).compute
    server = compute.get_server(made["id"])
    cloud.run("server", "stop", "worker", cloud=user)
    compute.wait_for_server(server, "SHUTOFF", interval=0.2, wait=patience.LIMIT_S)
    for order, status in (
        (compute.start_server, "ACTIVE"),
        (compute.pause_server, "PAUSED"),
        (compute.unpause_server, "ACTIVE"),
        (compute.suspend_server, "SUSPENDED"),
        (compute.resume_server, "ACTIVE"),
    ):
        order(server)
        compute.wait_for_server(server, status, interval=0.2, wait=patience.LIMIT_S)
    cloud.run("server", "reboot", "--hard", "--wait", "worker", cloud=user)
    cloud.run("server", "lock", "--reason", "at work", "worker", cloud=user)
    assert "is locked" in cloud.run("server", "delete", "worker", cloud=user, expect=1)
    cloud.run("server", "unlock", "worker", cloud=user)
    cloud.run("server", "set", "--auto-approve", "--state", "error", made["id"])
    assert compute.get_server(made["id"]).status == "ERROR"
    cloud.run("server", "set", "--auto-approve", "--state", "active", made["id"])

    cloud.run("server", "rescue", "--image", "guest", "worker", cloud=user)
    compute.wait_for_server(server, "RESCUE", interval=0.2, wait=patience.LIMIT_S)
    assert "vm_state rescued" in cloud.run("server", "pause", "worker", cloud=user, expect=1)
    cloud.run("server", "unrescue", "worker", cloud=user)
    compute.wait_for_server(server, "ACTIVE", interval=0.2, wait=patience.LIMIT_S)

    said = ("--name", "rebuilt", "--description", "anew", "--hostname", "host-2")
    at = ("--os-compute-api-version", "2.90")
    cloud.run(*at, "server", "rebuild", "--image", "guest", *said, "--wait", "worker", cloud=user)
    rebuilt = cloud.json(*at, "server", "show", "rebuilt", cloud=user)
    assert (rebuilt["description"], rebuilt["OS-EXT-SRV-ATTR:hostname"]) == ("anew", "host-2")

    events = cloud.json("server", "event", "list", "rebuilt", cloud=user)
    assert [event["Action"] for event in events][::-1] == [
        *("create", "stop", "start", "pause", "unpause", "suspend", "resume", "reboot"),
        *("lock", "unlock", "resetState", "resetState", "rescue", "unrescue", "rebuild"),
    ]
    assert "still in use" in cloud.run("server", "evacuate", made["id"], expect=1)
    stop = next(event for event in events if event["Action"] == "stop")
    shown = cloud.json("server", "event", "show", "rebuilt", stop["Request ID"], cloud=user)
    assert shown["events"][0]["result"] == "Success"
    cloud.run("server", "delete", "--wait", "rebuilt", cloud=user)


def test_a_user_makes_images_of_a_server_and_keeps_as_many_backups_as_wished(cloud: Cloud) -> None:
    user = "accelsched-demo"
    create = ("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "--wait")
    made = cloud.json(*create, "pictured", cloud=user)
    image = ("server", "image", "create", "--wait", "--name", "picture", "--property", "kept=yes", "pictured")
    shown = cloud.json(*image, cloud=user)
    assert (shown["status"], shown["disk_format"], shown["visibility"]) == ("active", "raw", "private")
    properties = shown["properties"]
    assert (properties["image_type"], properties["instance_uuid"], properties["kept"]) == (
        "snapshot",
        made["id"],
        "yes",
    )
    users = cloud.sdk(user)
    assert (shown["owner"], shown["min_disk"]) == (users.current_project_id, 1)

    def backups() -> list[str]:
        return [found.id for found in users.image.images(name="nightly")]

    kept: list[list[str]] = []
    for rotation in (2, 2, 2, 0):
        backup = {"createBackup": {"name": "nightly", "backup_type": "daily", "rotation": rotation}}
        users.compute.post(f"/servers/{made['id']}/action", json=backup)
        patience.wait(lambda: users.compute.get_server(made["id"]).task_state is None)
        patience.wait(lambda: len(backups()) == min(len(kept) + 1, rotation))  # noqa: B023 - called here and now
        kept.append(backups())
    assert kept[2][-1] == kept[1][0] != kept[0][0]

    # Before 2.45 it is told where the image is, not which.
    url = f"{cloud.url}/compute/v2.1/servers/{made['id']}/action"
    headers = {"X-Auth-Token": users.session.get_token() or ""}
    answer = requests.post(url, headers=headers, json={"createImage": {"name": "old"}}, timeout=patience.LIMIT_S)
    assert answer.status_code == 202
    assert "/v2/images/" in answer.headers["Location"]
    patience.wait(lambda: [found.status for found in users.image.images(name="old")] == ["active"])
    cloud.run("server", "delete", "--wait", "pictured", cloud=user)
    for name in ("picture", "old"):
        cloud.run("image", "delete", name, cloud=user)


def test_a_user_puts_a_server_on_the_shelf_and_takes_it_down_again(cloud: Cloud) -> None:
    user = "accelsched-demo"
    create = ("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "--wait")
    made = cloud.json(*create, "seldom", cloud=user)
    users = cloud.sdk(user)
    action = f"/servers/{made['id']}/action"
    refused = cloud.sdk("accelsched").compute.post(action, json={"shelveOffload": None})
    assert (refused.status_code, "vm_state active" in refused.text) == (409, True)
    cloud.run("server", "shelve", "--wait", "seldom", cloud=user)
    server = users.compute.wait_for_server(
        users.compute.get_server(made["id"]), "SHELVED_OFFLOADED", interval=0.2, wait=patience.LIMIT_S
    )
    assert cloud.json("resource", "provider", "allocation", "show", made["id"]) == []
    (image,) = users.image.images(name="seldom-shelved")
    assert image.status == "active"
    for argument, why in (
        ({"availability_zone": "nowhere"}, "availability zone is not available"),
        ({"host": "sim-host"}, "Policy doesn't allow"),
        ({"x": 1}, "x"),
    ):
        refused = users.compute.post(action, json={"unshelve": argument}, microversion="2.96")
        assert refused.status_code in (400, 403)
        assert why in refused.text
    cloud.run("server", "unshelve", "--wait", "seldom", cloud=user)
    users.compute.wait_for_server(server, "ACTIVE", interval=0.2, wait=patience.LIMIT_S)
    patience.wait(lambda: not list(users.image.images(name="seldom-shelved")))
    assert cloud.json("resource", "provider", "allocation", "show", made["id"]) != []

    cloud.run("server", "shelve", "--wait", "seldom", cloud=user)
    users.compute.wait_for_server(server, "SHELVED_OFFLOADED", interval=0.2, wait=patience.LIMIT_S)
    users.image.delete_image(next(users.image.images(name="seldom-shelved")))
    assert "its disk is lost" in cloud.run("server", "unshelve", "seldom", cloud=user, expect=1)
    cloud.run("server", "delete", "--wait", "seldom", cloud=user)


def test_a_server_whose_device_hangs_has_a_fault_until_it_answers(cloud: Cloud) -> None:
    operator, user = cloud.sdk("accelsched"), cloud.sdk("accelsched-demo")
    flavor = operator.compute.create_flavor(name="any-fpga", ram=64, vcpus=1, disk=1)
    operator.compute.create_flavor_extra_specs(flavor, {"resources:FPGA": "1"})
    create = ("server", "create", "--flavor", "any-fpga", "--image", "guest", "--nic", "none", "--wait")
    server = cloud.json(*create, "hung", cloud="accelsched-demo")["id"]
    (attribute,) = (cloud.directory / "sys").glob("devices/*/*/fpga_region/*/dfl-fme.0/**/compat_id")
    with hanging(attribute) as let_go:
        fault = patience.wait(lambda: user.compute.get_server(server).fault)
        shown = cloud.json("server", "show", "hung", cloud="accelsched-demo")
        assert (shown["status"], shown["fault"]["message"]) == ("ACTIVE", fault["message"])
        assert "FPGA of resource provider" in fault["message"]
        assert fault["message"].endswith("does not answer")
        assert "sim-host" not in str(fault)  # hosts are none of a user's business
        shown = cloud.json("server", "show", server)
        assert shown["fault"]["details"] == "sim-host_pci_0000_3b_00_0 does not answer"
        (listed,) = cloud.json("accel", "server", "list", "accelerator", server, cloud="accelsched-demo")
        assert (listed["Resources"], listed["Fault"]) == ("FPGA=1", "does not answer")
        (device,) = cloud.json("accel", "device", "list", "--status", "unhealthy")
        assert (device["Name"], device["Fault"]) == ("sim-host_pci_0000_3b_00_0", "does not answer")
        assert 'accelsched_devices{status="unhealthy"} 1.0' in requests.get(f"{cloud.url}/metrics", timeout=10).text
        let_go()
        patience.wait(lambda: not user.compute.get_server(server).fault)
    assert [action.action for action in user.compute.server_actions(server)][:2] == ["device-back", "device-lost"]
    assert user.compute.get_server(server).status == "ACTIVE"
    cloud.run("server", "delete", "--wait", "hung", cloud="accelsched-demo")
    operator.compute.delete_flavor(flavor)


def test_an_fpga_is_programmed_from_glance_before_its_user_has_it_and_scrubbed_after(cloud: Cloud) -> None:
    operator, user = cloud.sdk("accelsched"), "accelsched-demo"
    said = {"accel:function_id": fpga_cards.FUNCTION, "accel:interface_id": fpga_cards.INTERFACE}
    image = operator.image.create_image(
        **{"name": "nlb0", "visibility": "public", "disk_format": "raw", "container_format": "bare"},
        **{"data": fpga_cards.gbs(), "allow_duplicates": True, **said},
    )
    flavor = operator.compute.create_flavor(name="nlb0", ram=64, vcpus=1, disk=0)
    wanted = {"accel:function_id": fpga_cards.FUNCTION, "trait:CUSTOM_FPGA_INTEL": "required", "resources:FPGA": "1"}
    operator.compute.create_flavor_extra_specs(flavor, wanted)
    (afu_id,) = (cloud.directory / "sys").glob("devices/*/*/fpga_region/*/dfl-port.0/afu_id")

    create = ("server", "create", "--flavor", "nlb0", "--image", "guest", "--nic", "none")
    cloud.run(*create, "--wait", "fast", cloud=user)
    assert afu_id.read_text().strip() == fpga_cards.FUNCTION.replace("-", "")
    (job,) = cloud.json("accel", "server", "programming", "list", "fast", cloud=user)
    assert (job["State"], job["Image"], job["Function"]) == ("programmed", image.id, fpga_cards.FUNCTION)
    cloud.run("server", "delete", "--wait", "fast", cloud=user)
    assert afu_id.read_text().strip() == fpga_cards.BLANK.replace("-", "")

    fpga_cards.write(cloud.directory / "sys/mood", "fail")
    failed = cloud.json(*create, "unlucky", cloud=user)["id"]
    demo = cloud.sdk(user)
    server = patience.wait(lambda: (one := demo.compute.get_server(failed)).status == "ERROR" and one)
    assert server.fault["message"].endswith("Builds failed on sim-host. The last: fpgaconf failed with exit status 1")
    assert [row["State"] for row in cloud.json("accel", "server", "programming", "list", failed)] == ["failed"]
    (region,) = operator.placement.resource_providers(name="sim-host_pci_0000_3b_00_0")
    kept = f"/resource_providers/{region.id}/inventories"
    patience.wait(lambda: operator.placement.get(kept).json()["inventories"]["FPGA"]["reserved"] == 1)
    cloud.run("server", "delete", "--wait", failed, cloud=user)
    cloud.run("flavor", "delete", "nlb0")


def test_a_user_attaches_an_accelerator_to_a_server_and_detaches_it(cloud: Cloud) -> None:
    user = "accelsched-demo"
    create = ("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "--wait")
    server = cloud.json(*create, "plugged", cloud=user)["id"]
    path = f"{cloud.url}/v1/servers/{server}/accelerators"
    session = cloud.keystone.session("demo", "demo")

    def post(**wanted: Any) -> Any:
        return session.post(path, json={"accelerator": wanted}, raise_exc=False)

    assert [post(**wanted).status_code for wanted in ({}, {"resource_class": "MEMORY_MB"})] == [400, 400]
    refused = post(resource_class="VGPU", required=["CUSTOM_NOWHERE"])
    assert (refused.status_code, "no such accelerator" in refused.text) == (409, True)
    added = cloud.json("accel", "server", "add", "accelerator", "plugged", "VGPU", cloud=user)

    def listed() -> list[Any]:
        return [(one["id"], one["state"]) for one in session.get(path).json()["accelerators"]]

    by_flavor = (None, "attached")
    patience.wait(lambda: listed() == [by_flavor, (added["ID"], "attached")])
    assert cloud.run("console", "log", "show", "plugged", cloud=user).count("simulated VGPU") == 2
    assert len(cloud.json("accel", "server", "list", "accelerator", server, cloud=user)) == 2
    held = f"/placement/allocations/{server}"
    total = sum(
        share["resources"].get("VGPU", 0)
        for share in cloud.keystone.session().get(cloud.url + held).json()["allocations"].values()
    )
    assert total == 2
    cloud.run("accel", "server", "remove", "accelerator", "plugged", added["ID"], cloud=user)
    patience.wait(lambda: listed() == [by_flavor])
    assert session.delete(f"{path}/{added['ID']}", raise_exc=False).status_code == 404
    session.delete(f"{cloud.url}/compute/v2.1/servers/{server}")


def test_a_user_keeps_key_pairs_and_gives_one_to_a_server(cloud: Cloud) -> None:
    user = "accelsched-demo"
    made = cloud.run("keypair", "create", "made", cloud=user)  # by the client, who imports the public half
    (cloud.directory / "key.pem").write_text(made)
    (cloud.directory / "key.pem").chmod(0o600)
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", cloud.directory / "key.pem"], capture_output=True, text=True, check=True
    ).stdout
    (cloud.directory / "key.pub").write_text(public)
    imported = cloud.json("keypair", "create", "--public-key", "key.pub", "imported", cloud=user)
    listed = {pair["Name"]: pair["Fingerprint"] for pair in cloud.json("keypair", "list", cloud=user)}
    assert listed == {"imported": imported["fingerprint"], "made": imported["fingerprint"]}
    told = subprocess.run(
        ["ssh-keygen", "-l", "-E", "md5", "-f", cloud.directory / "key.pub"], capture_output=True, text=True, check=True
    ).stdout
    assert imported["fingerprint"] in told

    assert cloud.run("keypair", "show", "--public-key", "imported", cloud=user).strip() == public.strip()
    create = ("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "--wait")
    assert "Invalid key_name" in cloud.run(*create, "--key-name", "other", "keyed", cloud=user, expect=1)
    assert cloud.json(*create, "--key-name", "imported", "keyed", cloud=user)["key_name"] == "imported"
    cloud.run("keypair", "delete", "imported", "made", cloud=user)
    compute = cloud.sdk(user).compute
    assert list(compute.keypairs()) == []
    assert [server.key_name for server in compute.servers(key_name="imported")] == ["imported"]
    cloud.run("server", "delete", "--wait", "keyed", cloud=user)


def test_an_operator_says_how_a_gpus_types_share_it(cloud: Cloud) -> None:
    gpu = next(row["uuid"] for row in cloud.json("resource", "provider", "list") if "gpu" in row["name"])
    rule = ("accel", "capacity", "rule")
    made = cloud.json(*rule, "set", "--budget", "16", "--cost", "VGPU=4", gpu)
    assert made["capacity_rule"] == {"type": "budget", "budget": 16, "costs": {"VGPU": 4}}
    assert made["ceilings"] == {"VGPU": 4}
    (cloud.directory / "rule.json").write_text(json.dumps(made))
    cloud.run(*rule, "set", "--document", "rule.json", gpu)
    assert "VGPU: 4" in cloud.run(*rule, "show", gpu)
    cloud.run(*rule, "unset", gpu)
    assert "(none)" in cloud.run(*rule, "show", gpu)
    assert "403" in cloud.run(*rule, "show", gpu, cloud="accelsched-demo", expect=1)


def test_a_user_sees_only_what_is_meant_for_users(cloud: Cloud) -> None:
    user = "accelsched-demo"
    assert [flavor["Name"] for flavor in cloud.json("flavor", "list", cloud=user)] == ["vgpu"]
    assert {flavor["Name"] for flavor in cloud.json("flavor", "list", "--all")} == {"vgpu", "secret"}
    for image, flavor, why in (
        ("operators", "vgpu", "No Image found"),
        ("big", "vgpu", "memory is too small"),
    ):
        create = ("server", "create", "--nic", "none", "--image", image, "--flavor", flavor, "x")
        assert why in cloud.run(*create, cloud=user, expect=1)
    assert "403" in cloud.run("hypervisor", "list", cloud=user, expect=1)


def test_an_image_of_somebody_else_is_refused_by_id(cloud: Cloud) -> None:
    image_id = cloud.json("image", "show", "operators")["id"]
    session = cloud.keystone.session("demo", "demo")
    headers = {"X-Auth-Token": session.get_token() or "", "OpenStack-API-Version": "compute 2.90"}
    flavor = requests.get(f"{cloud.url}/compute/v2.1/flavors", headers=headers, timeout=patience.LIMIT_S).json()[
        "flavors"
    ][0]["id"]
    body = {"server": {"name": "x", "networks": "none", "flavorRef": flavor, "imageRef": image_id}}
    refused = requests.post(f"{cloud.url}/compute/v2.1/servers", headers=headers, json=body, timeout=patience.LIMIT_S)
    assert refused.status_code == 400
    assert image_id in refused.json()["badRequest"]["message"]
    body["server"]["imageRef"] = ""
    refused = requests.post(f"{cloud.url}/compute/v2.1/servers", headers=headers, json=body, timeout=patience.LIMIT_S)
    assert "imageRef" in refused.json()["badRequest"]["message"]


def test_operators_read_hosts_services_and_the_rest(cloud: Cloud) -> None:
    (hypervisor,) = cloud.json("hypervisor", "list", "--long")
    assert (hypervisor["Hypervisor Hostname"], hypervisor["State"]) == ("sim-host", "up")
    old = cloud.json("--os-compute-api-version", "2.53", "hypervisor", "show", "sim-host")
    assert old["vcpus"] > 0
    cloud.run("compute", "service", "set", "--disable", "--disable-reason", "dust", "sim-host", "nova-compute")
    (service,) = cloud.json("compute", "service", "list", "--long")
    assert (service["Host"], service["State"], service["Status"]) == ("sim-host", "up", "disabled")
    assert service["Disabled Reason"] == "dust"
    cloud.run("compute", "service", "set", "--enable", "sim-host", "nova-compute")
    assert cloud.json("availability", "zone", "list", "--compute")[0]["Zone Name"] == "nova"
    found = {service["Service Type"] for service in cloud.json("versions", "show")}
    assert {"compute", "placement", "accelerator", "image", "identity"} <= found


def test_the_sdk_finds_the_rest_empty_and_unlimited(cloud: Cloud) -> None:
    compute = cloud.sdk("accelsched").compute
    assert compute.get_limits().absolute.instances == -1
    assert [zone.name for zone in compute.availability_zones(details=True)] == ["nova"]
    assert next(compute.services()).state == "up"
    with pytest.raises(sdk_exceptions.NotFoundException):
        compute.get_server("6c1a7e88-6d5b-4d6b-8f0a-6a2b1f6f2c11")


def test_operators_read_usage_migrations_and_statistics(cloud: Cloud) -> None:
    user = "accelsched-demo"
    create = ("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "--wait")
    made = cloud.json(*create, "counted", cloud=user)
    assert len(cloud.json("usage", "show", cloud=user)["Servers"]) >= 1
    assert cloud.sdk(user).current_project_id in {row["Project"] for row in cloud.json("usage", "list")}
    assert cloud.json("server", "migration", "list") == []
    statistics = cloud.json("--os-compute-api-version", "2.87", "hypervisor", "stats", "show")
    assert (statistics["count"], statistics["running_vms"]) == (1, 1)
    compute = cloud.sdk("accelsched").compute
    (hypervisor,) = compute.hypervisors(details=True, with_servers=True)
    assert [server["uuid"] for server in hypervisor.servers] == [made["id"]]
    cloud.run("server", "delete", "--wait", "counted", cloud=user)


def test_operators_limit_what_a_project_has(cloud: Cloud) -> None:
    cloud.run("quota", "set", "--instances", "0", "--cores", "8", "demo")
    assert "Quota exceeded for instances" in cloud.run(
        *("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "x"),
        cloud="accelsched-demo",
        expect=1,
    )
    shown = {row["Resource"]: row["Limit"] for row in cloud.json("quota", "show", "--compute", "demo")}
    assert (shown["instances"], shown["cores"]) == (0, 8)
    limits = {row["Name"]: row["Value"] for row in cloud.json("limits", "show", "--absolute", cloud="accelsched-demo")}
    assert 0 in limits.values()
    cloud.run("quota", "delete", "--compute", "demo")
    shown = {row["Resource"]: row["Limit"] for row in cloud.json("quota", "show", "--compute", "demo")}
    assert shown["instances"] == -1


def test_operators_make_zones_and_aggregates_of_hosts(cloud: Cloud) -> None:
    cloud.run("aggregate", "create", "--zone", "az1", "--property", "ssd=true", "fast")
    cloud.run("aggregate", "add", "host", "fast", "sim-host")
    cloud.run("aggregate", "set", "--property", "rack=r1", "--name", "faster", "fast")
    shown = cloud.json("aggregate", "show", "faster")
    assert (shown["availability_zone"], shown["hosts"]) == ("az1", ["sim-host"])
    assert shown["properties"] == {"ssd": "true", "rack": "r1"}
    (zone,) = cloud.json("availability", "zone", "list", "--compute", "--long")
    assert (zone["Zone Name"], zone["Host Name"]) == ("az1", "sim-host")
    (service,) = cloud.json("compute", "service", "list")
    assert service["Zone"] == "az1"
    provider = cloud.json("resource", "provider", "list")[0]["uuid"]
    assert len(cloud.json("resource", "provider", "aggregate", "list", provider)) == 1
    cloud.run("aggregate", "unset", "--property", "rack", "faster")
    cloud.run("aggregate", "remove", "host", "faster", "sim-host")
    cloud.run("aggregate", "delete", "faster")
    assert cloud.json("aggregate", "list", "--long") == []


def test_a_user_keeps_servers_apart_by_a_group(cloud: Cloud) -> None:
    user = "accelsched-demo"
    rule = ("--policy", "anti-affinity", "--rule", "max_server_per_host=1")
    group = cloud.json("server", "group", "create", *rule, "g", cloud=user)
    assert group["rules"] == {"max_server_per_host": 1}
    create = ("server", "create", "--flavor", "vgpu", "--image", "guest", "--nic", "none", "--wait")
    made = cloud.json(*create, "--server-group", group["id"], "apart", cloud=user)
    assert cloud.json("server", "group", "show", "g", cloud=user)["members"] == [made["id"]]
    assert [one["Name"] for one in cloud.json("server", "group", "list", cloud=user)] == ["g"]
    cloud.run("server", "delete", "--wait", "apart", cloud=user)
    cloud.run("server", "group", "delete", "g", cloud=user)
    assert cloud.json("server", "group", "list", "--all-projects") == []


def test_flavors_are_made_changed_shared_and_deleted(cloud: Cloud) -> None:
    operator, user = cloud.sdk("accelsched"), cloud.sdk("accelsched-demo")
    compute, demo = operator.compute, user.current_project_id
    flavor = compute.create_flavor(name="tmp", id="tmp", ram=64, vcpus=1, disk=1, is_public=False)
    with pytest.raises(sdk_exceptions.NotFoundException):
        user.compute.get_flavor("tmp")
    compute.flavor_add_tenant_access(flavor, demo)
    assert [access["tenant_id"] for access in compute.get_flavor_access(flavor)] == [demo]
    compute.create_flavor_extra_specs(flavor, {"resources:VGPU": "2"})
    assert user.compute.find_flavor("tmp", get_extra_specs=True).extra_specs == {"resources:VGPU": "2"}
    with pytest.raises(sdk_exceptions.BadRequestException, match="resources:VGPU"):
        compute.update_flavor_extra_specs_property(flavor, "resources:VGPU", "some")
    compute.delete_flavor_extra_specs_property(flavor, "resources:VGPU")
    assert compute.fetch_flavor_extra_specs(flavor).extra_specs == {}
    assert compute.update_flavor("tmp", description="for tests").description == "for tests"
    compute.flavor_remove_tenant_access(flavor, demo)
    assert user.compute.find_flavor("tmp") is None
    compute.delete_flavor(flavor)
    assert compute.find_flavor("tmp") is None


def test_a_token_that_is_none_is_challenged_in_each_services_form(cloud: Cloud) -> None:
    for path, where in (
        ("/compute/v2.1/servers", ("unauthorized", "code")),
        ("/placement/resource_providers", ("errors", 0, "status")),
        ("/v1/servers/x/explanation", ("errors", 0, "status")),
    ):
        for headers in ({}, {"X-Auth-Token": "nonsense"}):
            response = requests.get(cloud.url + path, headers=headers, timeout=patience.LIMIT_S)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"].startswith('Keystone uri="http')
            body = response.json()
            for key in where:
                body = body[key]
            assert body == 401


def test_accelerators_are_asked_for_by_device_profile_and_seen(cloud: Cloud) -> None:
    """Every command of python-cyborgclient but for programming by hand."""
    accelerator = ("--os-accelerator-api-version", "2.3", "accelerator")
    profile = cloud.json(*accelerator, "device", "profile", "create", "one-vgpu", '[{"resources:VGPU": 1}]')
    assert [it["name"] for it in cloud.json(*accelerator, "device", "profile", "list")] == ["one-vgpu"]
    assert cloud.json(*accelerator, "device", "profile", "show", "one-vgpu")["uuid"] == profile["uuid"]
    size = ("--vcpus", "1", "--ram", "64", "--disk", "1", "--property", "accel:device_profile=one-vgpu")
    cloud.run("flavor", "create", "profiled", *size)
    wanted = ("--flavor", "profiled", "--image", "guest", "--nic", "none", "--wait", "profiled")
    server = cloud.json("server", "create", *wanted, cloud="accelsched-demo")["id"]
    (request,) = cloud.json(*accelerator, "arq", "list", "--long")
    assert (request["state"], request["instance_uuid"], request["hostname"]) == ("Bound", server, "sim-host")
    assert cloud.json(*accelerator, "arq", "show", request["uuid"])["device_profile_name"] == "one-vgpu"
    assert "flavor of instance" in cloud.run(*accelerator, "arq", "delete", request["uuid"], expect=1)

    gpu = next(it["uuid"] for it in cloud.json(*accelerator, "device", "list") if it["type"] == "GPU")
    cloud.run(*accelerator, "device", "disable", gpu)
    assert cloud.json(*accelerator, "device", "show", gpu)["status"] == "maintaining"
    cloud.run(*accelerator, "device", "enable", gpu)
    assert gpu in {it["uuid"] for it in cloud.json(*accelerator, "deployable", "list")}
    assert cloud.json(*accelerator, "deployable", "show", gpu)["uuid"] == gpu
    attribute = cloud.json(*accelerator, "device", "attribute", "list")[0]
    assert cloud.json(*accelerator, "device", "attribute", "show", attribute["uuid"])["value"] == attribute["value"]
    said = cloud.json(*accelerator, "device", "attribute", "create", str(attribute["deployable_id"]), "rack", "R7")
    assert said["value"] == "R7"
    cloud.run(*accelerator, "device", "attribute", "delete", said["uuid"])
    assert said["uuid"] not in {it["uuid"] for it in cloud.json(*accelerator, "device", "attribute", "list")}

    def is_now(state: str) -> bool:
        return bool(cloud.json(*accelerator, "arq", "show", own, cloud="accelsched-demo")["state"] == state)

    own = cloud.json(*accelerator, "arq", "create", "one-vgpu", cloud="accelsched-demo")["uuid"]
    assert is_now("Initial")
    # python-cyborgclient's command wants the project, python-openstackclient's does not.
    asks_project = "<project_id>" in cloud.run(*accelerator, "arq", "bind", "--help")
    project = (cloud.json("project", "show", "demo")["id"],) if asks_project else ()
    bound = cloud.json(*accelerator, "arq", "bind", own, "sim-host", server, gpu, *project)
    assert (bound["device_rp_uuid"], bound["instance_uuid"]) == (gpu, server)
    patience.wait(lambda: is_now("Bound"))
    cloud.run(*accelerator, "arq", "unbind", own, cloud="accelsched-demo")
    patience.wait(lambda: is_now("Unbound"))
    cloud.run(*accelerator, "arq", "delete", own, cloud="accelsched-demo")
    assert own not in {it["uuid"] for it in cloud.json(*accelerator, "arq", "list")}

    cloud.run("server", "delete", "--wait", server, cloud="accelsched-demo")
    cloud.run("flavor", "delete", "profiled")
    cloud.run(*accelerator, "device", "profile", "delete", profile["uuid"])
