# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Stories of everything around servers: flavors, hosts, projects, and what Placement keeps."""

from __future__ import annotations

from stack.acceptance.run import Run
from stack.demonstration import SERVER

_SERVICE = "nova-compute"


def flavors(run: Run) -> None:
    """Make, change and delete a flavor."""
    name = "acceptance.flavor"
    with run.command("flavor create"):
        made = run.json("flavor", "create", "--ram", "128", "--vcpus", "2", "--disk", "1", "--private", name)
        assert (made["ram"], made["vcpus"], made["os-flavor-access:is_public"]) == (128, 2, False)
    with run.command("flavor set"):
        run.client("flavor", "set", "--property", "resources:VGPU=1", "--project", "demo", name)
    with run.command("flavor show"):
        assert run.json("flavor", "show", name)["properties"] == {"resources:VGPU": "1"}
    with run.command("flavor list"):
        assert name in [flavor["Name"] for flavor in run.json("flavor", "list", user=True)]
    with run.command("flavor unset"):
        run.client("flavor", "unset", "--property", "resources:VGPU", "--project", "demo", name)
        assert run.json("flavor", "show", name)["properties"] == {}
        assert name not in [flavor["Name"] for flavor in run.json("flavor", "list", user=True)]
    with run.command("flavor delete"):
        run.client("flavor", "delete", name)
        assert name not in [flavor["Name"] for flavor in run.json("flavor", "list", "--all")]


def hosts(run: Run) -> None:
    """Look at the host, disable and enable it, put it into an aggregate that is a zone."""
    with run.command("hypervisor list", vital=True):
        host = run.json("hypervisor", "list")[0]["Hypervisor Hostname"]
    with run.command("hypervisor show"):
        assert run.json("hypervisor", "show", host)["state"] == "up"
    with run.command("hypervisor stats show (before 2.88)"):
        assert run.json("--os-compute-api-version", "2.87", "hypervisor", "stats", "show")["count"] >= 1
    with run.command("compute service list"):
        assert host in [service["Host"] for service in run.json("compute", "service", "list")]
    with run.command("compute service set"):
        run.client("compute", "service", "set", "--disable", "--disable-reason", "test", host, _SERVICE)
        listed = {service["Host"]: service for service in run.json("compute", "service", "list", "--long")}
        assert (listed[host]["Status"], listed[host]["Disabled Reason"]) == ("disabled", "test")
        run.client("compute", "service", "set", "--enable", host, _SERVICE)
    with run.command("compute service delete, of a host that has servers"):
        (service,) = [one["ID"] for one in run.json("compute", "service", "list") if one["Host"] == host]
        run.refused("compute", "service", "delete", service, why="409")
    name = "acceptance-aggregate"
    with run.command("aggregate create"):
        run.client("aggregate", "create", "--zone", "acceptance-zone", name)
    with run.command("aggregate add host"):
        run.client("aggregate", "add", "host", name, host)
    with run.command("aggregate set"):
        run.client("aggregate", "set", "--property", "ssd=true", name)
    with run.command("aggregate show"):
        shown = run.json("aggregate", "show", name)
        assert (shown["hosts"], shown["properties"]) == ([host], {"ssd": "true"})
    with run.command("aggregate list"):
        assert name in [aggregate["Name"] for aggregate in run.json("aggregate", "list")]
    with run.command("availability zone list"):
        zones = run.json("availability", "zone", "list", "--compute", user=True)
        assert "acceptance-zone" in [zone["Zone Name"] for zone in zones]
    with run.command("aggregate unset"):
        run.client("aggregate", "unset", "--property", "ssd", name)
        assert run.json("aggregate", "show", name)["properties"] == {}
    with run.command("aggregate remove host"):
        run.client("aggregate", "remove", "host", name, host)
        assert run.json("aggregate", "show", name)["hosts"] == []
    with run.command("aggregate delete"):
        run.client("aggregate", "delete", name)
        assert name not in [aggregate["Name"] for aggregate in run.json("aggregate", "list")]


def projects(run: Run) -> None:
    """Keep key pairs and server groups, limit a project and see what it uses."""
    with run.command("keypair create"):
        key = run.directory / "key"
        run.client("keypair", "create", "--private-key", str(key), "acceptance-key", user=True)
        assert "PRIVATE KEY" in key.read_text()
    with run.command("keypair show"):
        assert run.json("keypair", "show", "acceptance-key", user=True)["name"] == "acceptance-key"
    with run.command("keypair list"):
        assert "acceptance-key" in [pair["Name"] for pair in run.json("keypair", "list", user=True)]
    with run.command("keypair delete"):
        run.client("keypair", "delete", "acceptance-key", user=True)
        assert "acceptance-key" not in [pair["Name"] for pair in run.json("keypair", "list", user=True)]
    with run.command("server group create"):
        run.client("server", "group", "create", "--policy", "anti-affinity", "acceptance-group", user=True)
    with run.command("server group show"):
        assert run.json("server", "group", "show", "acceptance-group", user=True)["policy"] == "anti-affinity"
    with run.command("server group list"):
        assert "acceptance-group" in [group["Name"] for group in run.json("server", "group", "list", user=True)]
    with run.command("server group delete"):
        run.client("server", "group", "delete", "acceptance-group", user=True)
        assert "acceptance-group" not in [group["Name"] for group in run.json("server", "group", "list", user=True)]
    with run.command("quota set"):
        run.client("quota", "set", "--cores", "7", "demo")
    with run.command("quota show"):
        shown = {row["Resource"]: row["Limit"] for row in run.json("quota", "show", "--compute", "demo")}
        assert shown["cores"] == 7
    with run.command("quota list"):
        assert 7 in [row["Cores"] for row in run.json("quota", "list", "--compute")]
    with run.command("limits show"):
        limits = {row["Name"]: row["Value"] for row in run.json("limits", "show", "--absolute", user=True)}
        assert 7 in limits.values()
    with run.command("quota delete"):
        run.client("quota", "delete", "--compute", "demo")
        shown = {row["Resource"]: row["Limit"] for row in run.json("quota", "show", "--compute", "demo")}
        assert shown["cores"] != 7
    with run.command("usage list"):
        assert run.json("usage", "list")
    with run.command("usage show"):
        assert run.json("usage", "show", user=True)
    with run.command("extension list"):
        run.json("extension", "list", "--compute")
    with run.command("versions show"):
        assert {"compute", "placement"} <= {row["Service Type"] for row in run.json("versions", "show")}


def placement(run: Run) -> None:
    """Read what Placement keeps of the host and of the quickstart's server."""
    with run.command("server show (of the quickstart)", vital=True):
        uuid = run.json("server", "show", SERVER)["id"]
    with run.command("resource provider list", vital=True):
        providers = run.json("resource", "provider", "list")
        root = next(provider for provider in providers if not provider["parent_provider_uuid"])["uuid"]
    with run.command("resource provider show"):
        assert run.json("resource", "provider", "show", root)["uuid"] == root
    with run.command("resource provider inventory list"):
        assert "VCPU" in [row["resource_class"] for row in run.json("resource", "provider", "inventory", "list", root)]
    with run.command("resource provider inventory show"):
        assert run.json("resource", "provider", "inventory", "show", root, "VCPU")["total"] >= 1
    with run.command("resource provider usage show"):
        usage = run.json("resource", "provider", "usage", "show", root)
        assert {row["resource_class"]: row["usage"] for row in usage}["VCPU"] >= 1
    with run.command("resource provider trait list"):
        assert run.json("resource", "provider", "trait", "list", root)
    with run.command("resource provider allocation show"):
        held = run.json("resource", "provider", "allocation", "show", uuid)
        assert any("VGPU" in share["resources"] for share in held)
    with run.command("allocation candidate list"):
        asked = ("--resource", "VCPU=1", "--resource", "MEMORY_MB=64")
        assert run.json("--os-placement-api-version", "1.29", "allocation", "candidate", "list", *asked)
    with run.command("resource usage show"):
        project = run.json("server", "show", SERVER)["project_id"]
        run.json("--os-placement-api-version", "1.9", "resource", "usage", "show", project)
    with run.command("resource class list"):
        assert "VGPU" in [row["name"] for row in run.json("resource", "class", "list")]
    with run.command("resource class show"):
        run.json("--os-placement-api-version", "1.2", "resource", "class", "show", "VGPU")
    with run.command("trait list"):
        assert run.json("--os-placement-api-version", "1.6", "trait", "list")
    with run.command("trait show"):
        run.json("--os-placement-api-version", "1.6", "trait", "show", "HW_CPU_X86_VMX")
