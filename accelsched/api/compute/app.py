# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The Compute API as a Falcon application: routes and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelsched.api import faults, resources
from accelsched.api.compute import (
    account,
    aggregates,
    external_events,
    flavors,
    hosts,
    instance_actions,
    key_pairs,
    microversion,
    migrations,
    quotas,
    server_actions,
    server_groups,
    server_inside,
    server_parts,
    server_tags,
    servers,
    usage,
    versions,
)
from accelsched.compute import images

if TYPE_CHECKING:
    from accelsched.api.services import Services


def create_versions() -> resources.App:
    """Return the application at ``/compute``, which only lists versions."""
    app = resources.new_app()
    app.add_route("/", versions.Versions())
    resources.answer_errors(app, faults.compute)
    return app


def create(services: Services) -> resources.App:
    """Return the application at ``/compute/v2.1``."""
    app = resources.new_app(microversion.Negotiation())
    app.add_route("/", versions.Version())
    _add_flavors(app, services)
    _add_servers(app, services)
    _add_hosts(app, services)
    _add_sets(app, services)
    _add_empty(app, services)
    resources.answer_errors(app, faults.compute)
    return app


def _add_flavors(app: resources.App, services: Services) -> None:
    app.add_route("/flavors", flavors.Flavors(services))
    app.add_route("/flavors/detail", flavors.Flavors(services), suffix="detail")
    app.add_route("/flavors/{flavorid}", flavors.Flavor(services))
    app.add_route("/flavors/{flavorid}/action", flavors.Access(services), suffix="action")
    app.add_route("/flavors/{flavorid}/os-flavor-access", flavors.Access(services))
    app.add_route("/flavors/{flavorid}/os-extra_specs", flavors.ExtraSpecs(services))
    app.add_route("/flavors/{flavorid}/os-extra_specs/{key}", flavors.ExtraSpec(services))


def _add_servers(app: resources.App, services: Services) -> None:
    image_service = images.Images(services.conf)
    collection = servers.Servers(services, image_service)
    app.add_route("/servers", collection)
    app.add_route("/servers/detail", collection, suffix="detail")
    app.add_route("/servers/{uuid}", servers.Server(services))
    app.add_route("/servers/{uuid}/action", server_actions.Actions(services, image_service))
    of_server = instance_actions.InstanceActions(services)
    app.add_route("/servers/{uuid}/os-instance-actions", of_server)
    app.add_route("/servers/{uuid}/os-instance-actions/{request_id}", of_server, suffix="one")
    app.add_route("/servers/{uuid}/metadata", server_parts.Metadata(services))
    app.add_route("/servers/{uuid}/metadata/{key}", server_parts.MetadataItem(services))
    app.add_route("/servers/{uuid}/tags", server_tags.Tags(services))
    app.add_route("/servers/{uuid}/tags/{tag}", server_tags.Tags(services), suffix="one")
    live = migrations.LiveMigrations(services)
    app.add_route("/servers/{uuid}/migrations", live)
    app.add_route("/servers/{uuid}/migrations/{number}", live, suffix="one")
    app.add_route("/servers/{uuid}/migrations/{number}/action", live, suffix="action")
    inside = server_inside.Inside(services)
    app.add_route("/servers/{uuid}/diagnostics", inside, suffix="diagnostics")
    app.add_route("/servers/{uuid}/topology", inside, suffix="topology")
    app.add_route("/servers/{uuid}/remote-consoles", inside, suffix="consoles")
    app.add_route("/servers/{uuid}/os-server-password", server_parts.Password(services))
    ips = server_parts.Ips(services)
    app.add_route("/servers/{uuid}/ips", ips)
    app.add_route("/servers/{uuid}/ips/{item}", ips, suffix="item")
    lists = (
        ("os-interface", "os-attach-interfaces:list", "interfaceAttachments", False),
        ("os-security-groups", "servers:show", "security_groups", False),
        ("os-volume_attachments", "os-volumes-attachments:index", "volumeAttachments", True),
    )
    for path, rule, key, in_pages in lists:
        nothing = server_parts.Nothing(services, f"os_compute_api:{rule}", key, in_pages=in_pages)
        app.add_route(f"/servers/{{uuid}}/{path}", nothing)
        app.add_route(f"/servers/{{uuid}}/{path}/{{item}}", nothing, suffix="item")


def _add_hosts(app: resources.App, services: Services) -> None:
    hypervisors = hosts.Hypervisors(services)
    app.add_route("/os-hypervisors", hypervisors)
    app.add_route("/os-hypervisors/detail", hypervisors, suffix="detail")
    app.add_route("/os-hypervisors/statistics", hypervisors, suffix="statistics")
    app.add_route("/os-hypervisors/{id_}", hypervisors, suffix="one")
    app.add_route("/os-hypervisors/{id_}/uptime", hypervisors, suffix="uptime")
    app.add_route("/os-hypervisors/{id_}/search", hypervisors, suffix="search")
    app.add_route("/os-hypervisors/{id_}/servers", hypervisors, suffix="servers")
    app.add_route("/os-services", hosts.ComputeServices(services))
    app.add_route("/os-services/{id_}", hosts.ComputeServices(services), suffix="one")
    app.add_route("/os-availability-zone", hosts.AvailabilityZones(services))
    app.add_route("/os-availability-zone/detail", hosts.AvailabilityZones(services), suffix="detail")
    app.add_route("/limits", account.Limits(services))
    app.add_route("/os-migrations", migrations.Migrations(services))
    of_period = usage.Usage(services)
    app.add_route("/os-simple-tenant-usage", of_period)
    app.add_route("/os-simple-tenant-usage/{project_id}", of_period, suffix="one")
    app.add_route("/os-server-external-events", external_events.ExternalEvents(services))
    of_project = quotas.QuotaSets(services)
    app.add_route("/os-quota-sets/{id_}", of_project)
    app.add_route("/os-quota-sets/{id_}/defaults", of_project, suffix="defaults")
    app.add_route("/os-quota-sets/{id_}/detail", of_project, suffix="detail")
    app.add_route("/os-quota-class-sets/{id_}", quotas.QuotaClassSets(services))
    of_user = key_pairs.KeyPairs(services)
    app.add_route("/os-keypairs", of_user)
    app.add_route("/os-keypairs/{name}", of_user, suffix="one")


def _add_sets(app: resources.App, services: Services) -> None:
    of_hosts = aggregates.Aggregates(services)
    app.add_route("/os-aggregates", of_hosts)
    app.add_route("/os-aggregates/{id_}", of_hosts, suffix="one")
    app.add_route("/os-aggregates/{id_}/action", of_hosts, suffix="action")
    app.add_route("/os-aggregates/{id_}/images", of_hosts, suffix="images")
    of_servers = server_groups.ServerGroups(services)
    app.add_route("/os-server-groups", of_servers)
    app.add_route("/os-server-groups/{id_}", of_servers, suffix="one")


def _add_empty(app: resources.App, services: Services) -> None:
    for path, rule, key in (("/extensions", "extensions", "extensions"),):
        empty = account.Empty(services, f"os_compute_api:{rule}", key)
        app.add_route(path, empty)
        app.add_route(path + "/{id_}", empty, suffix="one")
