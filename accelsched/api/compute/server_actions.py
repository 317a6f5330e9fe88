# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``POST /servers/{id}/action``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import falcon
import jsonschema
from oslo_utils import strutils
from sqlalchemy.orm import Session

from accelsched import errors, policies, rpc, wire
from accelsched.api import resources
from accelsched.api.compute import (
    microversion,
    passwords,
    server_create,
    server_elsewhere,
    server_inside,
    server_rebuild,
    server_resize,
)
from accelsched.api.compute import server_schemas as schemas
from accelsched.api.compute import server_views as views
from accelsched.api.compute.servers import ServerResource, delete, hint
from accelsched.compute import (
    crash_dumps,
    hosts,
    images,
    live_migration,
    moving,
    orders,
    quotas,
    rebuilding,
    servers,
    shelving,
    snapshots,
    zones,
)
from accelsched.db.compute import Server
from accelsched.db.instance_actions import Origin
from accelsched.failpoints import Point, reach
from accelsched.policies import servers as rules

if TYPE_CHECKING:
    from accelsched.api.services import Services

# Orders by the key of the body, and the policy of each.
_ORDERS = {
    "os-start": (orders.START, rules.SERVERS + "start"),
    "os-stop": (orders.STOP, rules.SERVERS + "stop"),
    "pause": (orders.PAUSE, "os_compute_api:os-pause-server:pause"),
    "unpause": (orders.UNPAUSE, "os_compute_api:os-pause-server:unpause"),
    "suspend": (orders.SUSPEND, "os_compute_api:os-suspend-server:suspend"),
    "resume": (orders.RESUME, "os_compute_api:os-suspend-server:resume"),
    "unrescue": (orders.UNRESCUE, "os_compute_api:os-unrescue"),
}
_BACKUP = "os_compute_api:os-create-backup"
# Until 2.6 consoles were asked for by actions.
_CONSOLES = frozenset({"os-getRDPConsole", "os-getSerialConsole", "os-getSPICEConsole", "os-getVNCConsole"})
_NOTHING: jsonschema.protocols.Validator = resources.validator({"type": "null"})
_ACTION: jsonschema.protocols.Validator = resources.validator({"type": "object"})


class Answer(NamedTuple):
    """What an action answers."""

    status: str
    body: dict[str, Any] | None = None
    location: str | None = None


_ACCEPTED = Answer(falcon.HTTP_202)


class Actions(ServerResource):
    """Does one thing to one server, named by the only key of the body."""

    def __init__(self, services: Services, image_service: images.Images) -> None:
        super().__init__(services)
        self._images = image_service
        self._handlers: dict[str, Callable[[falcon.Request, str, Any], Answer]] = {
            "os-getConsoleOutput": self._console_output,
            "forceDelete": self._force_delete,
            "reboot": self._reboot,
            "rebuild": self._rebuild,
            "evacuate": self._evacuate,
            "lock": self._lock,
            "unlock": self._unlock,
            "os-resetState": self._reset_state,
            "injectNetworkInfo": self._inject_network_info,
            "rescue": self._rescue,
            "shelve": self._shelve,
            "shelveOffload": self._shelve_offload,
            "unshelve": self._unshelve,
            "createImage": self._create_image,
            "createBackup": self._create_backup,
            "resize": self._resize,
            "migrate": self._migrate,
            "os-migrateLive": self._migrate_live,
            "confirmResize": self._confirm_resize,
            "revertResize": self._revert_resize,
            "trigger_crash_dump": self._trigger_crash_dump,
        }

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Find out which action is meant and do it."""
        body = resources.body_of(req, _ACTION)
        if not body:
            raise errors.InvalidError("Malformed request body")
        if len(body) > 1:
            raise errors.InvalidError("Multiple body keys: an action is the only key of its body")
        ((action, arguments),) = body.items()
        if action in _CONSOLES:
            self._get(uuid, self._scope(resources.context_of(req), "os_compute_api:os-remote-consoles"))
            resources.check(schemas.CONSOLE, arguments)
            raise server_inside.unavailable_console(arguments["type"])
        if action in _ORDERS:
            answer = self._order(req, uuid, *_ORDERS[action])
        elif action in self._handlers:
            answer = self._handlers[action](req, uuid, arguments)
        elif action in server_elsewhere.NAMES:
            server = self._get(uuid, self._scope(resources.context_of(req), rules.SERVERS + "update")).server
            raise server_elsewhere.refusal(action, arguments, server, microversion.version_of(req).minor)
        else:
            raise errors.InvalidError(f"There is no such action: {action[:100]}")
        resp.status, resp.media, resp.location = answer

    def _reboot(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        resources.check(schemas.REBOOT, arguments)
        order = orders.SOFT_REBOOT if arguments["type"].upper() == "SOFT" else orders.HARD_REBOOT
        return self._order(req, uuid, order, rules.SERVERS + "reboot")

    def _force_delete(self, req: falcon.Request, uuid: str, _arguments: Any) -> Answer:
        context = resources.context_of(req)
        delete(self._services, uuid, context, self._scope(context, "os_compute_api:os-deferred-delete:force"))
        return _ACCEPTED

    def _lock(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        resources.check(schemas.lock(microversion.version_of(req).minor), arguments)
        reason = arguments.get("locked_reason") if isinstance(arguments, dict) else None
        lock = functools.partial(orders.lock, reason=reason, admin=self._is_admin(req))
        self._change(req, uuid, "os_compute_api:os-lock-server:lock", lock)
        return _ACCEPTED

    def _unlock(self, req: falcon.Request, uuid: str, _arguments: Any) -> Answer:
        rule = "os_compute_api:os-lock-server:unlock"
        context = resources.context_of(req)
        override = policies.allowed(self._services.enforcer, context, f"{rule}:unlock_override")
        self._change(req, uuid, rule, functools.partial(orders.unlock, override=override))
        return _ACCEPTED

    def _reset_state(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        resources.check(schemas.RESET_STATE, arguments)
        reset = functools.partial(orders.reset_state, state=arguments["state"])
        self._change(req, uuid, "os_compute_api:os-admin-actions:reset_state", reset)
        return _ACCEPTED

    def _inject_network_info(self, req: falcon.Request, uuid: str, _arguments: Any) -> Answer:
        """Do nothing, as Nova's libvirt driver does: guests learn of their networks by themselves."""
        rule = "os_compute_api:os-admin-actions:inject_network_info"
        server = self._get(uuid, self._scope(resources.context_of(req), rule)).server
        servers.check_unlocked(server, admin=self._is_admin(req))
        return _ACCEPTED

    def _order(self, req: falcon.Request, uuid: str, order: orders.Order, rule: str, **beside: Any) -> Answer:
        """Give a server an order and tell its agent.

        :param beside: what the order says besides
        """
        give = functools.partial(orders.give, order=order, admin=self._is_admin(req), beside=beside)
        self._tell(self._change(req, uuid, rule, give))
        return _ACCEPTED

    def _rebuild(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Have a server built anew; the answer shows it."""
        context, rule = resources.context_of(req), rules.SERVERS + "rebuild"
        scope = self._scope(context, rule)
        resources.check(schemas.rebuild(microversion.version_of(req).minor), arguments)
        wanted = server_rebuild.read(
            arguments,
            self._get(uuid, scope).server,
            context=context,
            services=self._services,
            image_service=self._images,
        )
        rebuild = functools.partial(rebuilding.rebuild, wanted=wanted, admin=self._is_admin(req))
        self._tell(self._change(req, uuid, rule, rebuild))
        shown, groups = self._with_groups(uuid, scope)
        view = views.changed(shown, self._reader(req), groups=groups, rebuilt=True)
        return Answer(falcon.HTTP_202, {"server": view | passwords.shown(wanted.admin_pass, self._services.conf)})

    def _evacuate(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        minor = microversion.version_of(req).minor
        resources.check(schemas.evacuate(minor), arguments)
        password = passwords.given_or_made(arguments, self._services.conf)
        evacuate = functools.partial(
            rebuilding.evacuate,
            admin=self._is_admin(req),
            target=arguments.get("host"),
            stopped=minor >= 95,
            admin_pass=password,
            service_down_time_s=self._services.conf.scheduler.service_down_time,
        )
        self._change(req, uuid, "os_compute_api:os-evacuate", evacuate)
        hint("place", self._services.scheduler.place)
        # From 2.14 on whoever evacuates servers, an operator, is not told their passwords any more.
        return Answer(falcon.HTTP_200, passwords.shown(password, self._services.conf) if minor < 14 else None)

    def _resize(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Have a server get another size."""
        resources.check(schemas.RESIZE, arguments)
        context, rule = resources.context_of(req), rules.SERVERS + "resize"
        server = self._get(uuid, self._scope(context, rule)).server
        wanted = server_resize.read(arguments, server, context=context, services=self._services)
        self._move(req, uuid, rule, wanted)
        return _ACCEPTED

    def _migrate(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Have a server go to another host."""
        resources.check(schemas.migrate(microversion.version_of(req).minor), arguments)
        target = (arguments or {}).get("host")
        if target is not None:
            context = resources.context_of(req)
            policies.require(self._services.enforcer, context, "os_compute_api:os-migrate-server:migrate:host")
        self._move(req, uuid, "os_compute_api:os-migrate-server:migrate", moving.Move(target=target))
        return _ACCEPTED

    def _migrate_live(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Have a server go to another host while it runs."""
        rule, minor = "os_compute_api:os-migrate-server:migrate_live", microversion.version_of(req).minor
        self._scope(resources.context_of(req), rule)
        resources.check(schemas.live_migrate(minor), arguments)
        target = arguments["host"]
        forced = _is_true(arguments.get("force", False))
        if forced and target is None:
            raise errors.InvalidError("Can't force to a non-provided destination")
        block = arguments["block_migration"]
        migrate = functools.partial(
            live_migration.migrate,
            # Until 2.29 a host that was named was taken without asking the filters.
            wanted=live_migration.Wanted(
                target,
                forced=forced or (target is not None and minor < 30),
                copies_disk=block == "auto" or _is_true(block),
            ),
            admin=self._is_admin(req),
            service_down_time_s=self._services.conf.scheduler.service_down_time,
        )
        self._change(req, uuid, rule, migrate)
        hint("place", self._services.scheduler.place)
        return _ACCEPTED

    def _move(self, req: falcon.Request, uuid: str, rule: str, wanted: moving.Move) -> None:
        move = functools.partial(
            moving.move,
            wanted=wanted,
            admin=self._is_admin(req),
            service_down_time_s=self._services.conf.scheduler.service_down_time,
            limits=quotas.defaults(self._services.conf),
        )
        self._change(req, uuid, rule, move)
        hint("place", self._services.scheduler.place)

    def _confirm_resize(self, req: falcon.Request, uuid: str, _arguments: Any) -> Answer:
        """Have a server stay what it has become."""
        self._decide(req, uuid, rules.SERVERS + "confirm_resize", moving.confirm)
        return Answer(falcon.HTTP_204)

    def _revert_resize(self, req: falcon.Request, uuid: str, _arguments: Any) -> Answer:
        """Have a server be what it was."""
        self._decide(req, uuid, rules.SERVERS + "revert_resize", moving.revert)
        return _ACCEPTED

    def _decide(self, req: falcon.Request, uuid: str, rule: str, decide: Callable[..., str | None]) -> None:
        host = self._change(req, uuid, rule, functools.partial(decide, admin=self._is_admin(req)))
        with self._services.db.reading() as session:
            agent = None if host is None else hosts.agent_of(session, host)
        self._tell(None if agent is None else (agent, host))

    def _rescue(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Boot a server from another image, with its own disk beside it."""
        arguments = arguments or {}
        resources.check(schemas.RESCUE, arguments)
        context, rule = resources.context_of(req), "os_compute_api:os-rescue"
        shown = self._get(uuid, self._scope(context, rule))
        server = shown.server
        orders.check(server, shown.host, orders.RESCUE, admin=self._is_admin(req))
        image_id = arguments.get("rescue_image_ref")
        if image_id:
            image = server_create.find_image(image_id, context, self._services, self._images)
        else:
            image = cast("wire.ImageSpec | None", server.image)
        if image is None:
            raise errors.InvalidError(f"Instance {uuid} was made without an image: name one in rescue_image_ref.")
        password = passwords.given_or_made(arguments, self._services.conf)
        beside = {} if password is None else {"admin_pass": password}
        self._order(req, uuid, orders.RESCUE, rule, rescue=image, **beside)
        return Answer(falcon.HTTP_200, passwords.shown(password, self._services.conf))

    def _create_image(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Have an image made of a server's disk."""
        resources.check(schemas.CREATE_IMAGE, arguments)
        image_id = self._snapshot(
            *(req, uuid, orders.CREATE_IMAGE, rules.SERVERS + "create_image"),
            lambda server: snapshots.record(server, arguments["name"], "snapshot", arguments.get("metadata", {})),
        )
        return self._made(req, image_id)

    def _create_backup(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Have an image made of a server's disk, and older ones of its kind deleted."""
        resources.check(schemas.CREATE_BACKUP, arguments)
        kind, rotation = arguments["backup_type"], int(arguments["rotation"])
        shown, token = self._get(uuid, self._scope(resources.context_of(req), _BACKUP)), self._token(req)
        server = shown.server
        marks = {"image_type": "backup", "backup_type": kind, "instance_uuid": uuid, "status": "active"}
        # Others may call an image of theirs a backup of this server; without Keystone there are no others.
        owner = {} if token is None else {"owner": server.project_id}
        kept = [image["id"] for image in self._images.find({**marks, **owner}, token)]
        if rotation == 0:  # only the deletion is asked for
            orders.check(server, shown.host, orders.CREATE_BACKUP, admin=self._is_admin(req))
            self._services.db.transact(lambda session: snapshots.unwanted(session, kept))
            return _ACCEPTED
        properties = {**arguments.get("metadata", {}), "backup_type": kind}
        image_id = self._snapshot(
            *(req, uuid, orders.CREATE_BACKUP, _BACKUP),
            lambda server: snapshots.record(server, arguments["name"], "backup", properties),
            outdated=kept[rotation - 1 :],
        )
        return self._made(req, image_id)

    def _made(self, req: falcon.Request, image_id: str) -> Answer:
        """Answer which image was made."""
        if microversion.version_of(req).minor >= 45:
            return Answer(falcon.HTTP_202, {"image_id": image_id})
        return Answer(falcon.HTTP_202, location=self._images.url(image_id))

    def _shelve(self, req: falcon.Request, uuid: str, _arguments: Any) -> Answer:
        """Have a server stopped, its disk put into an image, and its host freed of it."""
        rule = "os_compute_api:os-shelve:shelve"
        if not snapshots.has_disk(self._get(uuid, self._scope(resources.context_of(req), rule)).server):
            return self._order(req, uuid, orders.SHELVE, rule)
        self._snapshot(
            *(req, uuid, orders.SHELVE, rule),
            lambda server: snapshots.record(server, f"{server.name[:247]}-shelved", "snapshot", {}),
        )
        return _ACCEPTED

    def _shelve_offload(self, req: falcon.Request, uuid: str, _arguments: Any) -> Answer:
        """Refuse: servers are offloaded as soon as they are shelved, so none is ever shelved only."""
        server = self._get(
            uuid, self._scope(resources.context_of(req), "os_compute_api:os-shelve:shelve_offload")
        ).server
        servers.check_state(server, "shelveOffload", ())
        return _ACCEPTED

    def _unshelve(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Have a server built again from its image, on a host of the schedulers' choice."""
        resources.check(schemas.unshelve(microversion.version_of(req).minor), arguments)
        arguments = arguments or {}
        context, rule = resources.context_of(req), "os_compute_api:os-shelve:unshelve"
        if arguments.get("host") is not None:
            policies.require(self._services.enforcer, context, "os_compute_api:os-shelve:unshelve_to_host")
        server, admin = self._get(uuid, self._scope(context, rule)).server, self._is_admin(req)
        shelving.check_shelved(server, "unshelve", admin=admin)
        zone = arguments.get("availability_zone")
        with self._services.db.reading() as session:
            if zone is not None and zone not in zones.available(session, self._services.conf.default_availability_zone):
                raise errors.InvalidError("The requested availability zone is not available")
        try:
            image = None if server.shelved_image is None else self._images.get(server.shelved_image["id"], None)
        except errors.InvalidError as exc:
            raise errors.ConflictError(f"Cannot 'unshelve' instance {uuid}: its disk is lost: {exc}") from exc
        wanted = shelving.Unshelve(image, zone, arguments.get("host"))
        self._change(req, uuid, rule, functools.partial(shelving.unshelve, wanted=wanted, admin=admin))
        hint("place", self._services.scheduler.place)
        return _ACCEPTED

    def _snapshot(
        self,
        req: falcon.Request,
        uuid: str,
        order: orders.Order,
        rule: str,
        record: Callable[[Server], dict[str, Any]],
        **beside: Any,
    ) -> str:
        """Make an image, as the user, and order the server's agent to fill it; return its id.

        :param record: what the image service is told of it
        :param beside: what the order says besides
        """
        shown = self._get(uuid, self._scope(resources.context_of(req), rule))
        server = shown.server
        orders.check(server, shown.host, order, admin=self._is_admin(req))
        if not snapshots.has_disk(server):
            raise errors.InvalidError(f"Instance {uuid} has no disk that an image could be made of.")
        image_id = self._images.create(record(server), self._token(req))
        try:
            self._order(req, uuid, order, rule, snapshot=image_id, **beside)
        except errors.AccelschedError:  # somebody was quicker
            self._services.db.transact(lambda session: snapshots.unwanted(session, [image_id]))
            raise
        return image_id

    def _token(self, req: falcon.Request) -> str | None:
        """Return the token that the image service is asked with, None for the service's own credentials."""
        with_keystone = self._services.conf.api.auth_strategy == "keystone"
        return resources.context_of(req).auth_token if with_keystone else None

    def _trigger_crash_dump(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Have a server's guest write a crash dump (2.17); its action's event says whether it could be told."""
        microversion.need(req, 17)
        resources.check(_NOTHING, arguments)
        begin = functools.partial(crash_dumps.begin, admin=self._is_admin(req))
        where: crash_dumps.Where = self._change(req, uuid, rules.SERVERS + "trigger_crash_dump", begin)
        why = None
        try:
            self._services.agents.trigger_crash_dump(where.agent, where.host, uuid)
        except (errors.NotFoundError, errors.ConflictError) as exc:
            why = str(exc)
        except rpc.MESSAGING_ERRORS as exc:
            why = f"The agent of host {where.host} did not answer: {exc}"
        fault: wire.Fault | None = None if why is None else {"message": why, "details": ""}
        self._services.db.transact(lambda session: crash_dumps.ended(session, where, fault))
        return _ACCEPTED

    def _tell(self, told: tuple[str, str] | None) -> None:
        """Have an agent look at what is wanted of a host's servers."""
        if told is not None:
            agent, host = told
            hint("sync", lambda: self._services.agents.sync(agent, [host]))

    def _change(self, req: falcon.Request, uuid: str, rule: str, change: Callable[..., Any]) -> Any:
        """Change a server's row, in a transaction, for whoever may."""
        context = resources.context_of(req)
        scope, origin = self._scope(context, rule), Origin.of(context)

        def write(session: Session) -> Any:
            changed = change(session, uuid, origin=origin, project_id=scope)
            reach(Point.API_ACTION_WRITTEN)
            return changed

        changed = self._services.db.transact(write)
        reach(Point.API_ACTION_COMMITTED)
        return changed

    def _console_output(self, req: falcon.Request, uuid: str, arguments: Any) -> Answer:
        """Return the last lines of a server's serial console.

        :raises accelsched.errors.ConflictError: when the server has no console yet, or no more
        :raises falcon.HTTPGatewayTimeout: when its agent does not answer
        """
        resources.check(schemas.CONSOLE_OUTPUT, arguments)
        scope = self._scope(resources.context_of(req), "os_compute_api:os-console-output")
        shown = self._get(uuid, scope)
        host = shown.host
        if host is None:
            raise errors.ConflictError(f"Instance {uuid} is not ready")
        length = (arguments or {}).get("length")
        lines = None if length is None or int(length) < 0 else int(length)
        try:
            output = self._services.agents.console_output(host.agent, host.name, uuid, lines)
        except errors.NotFoundError as exc:
            raise errors.ConflictError(f"Instance {uuid} is not ready") from exc
        except rpc.MessagingTimeout as exc:
            raise falcon.HTTPGatewayTimeout(description=f"The agent of host {host.name} did not answer.") from exc
        except rpc.MESSAGING_ERRORS as exc:
            raise errors.UnavailableError(f"The agent of host {host.name} cannot be reached just now.") from exc
        return Answer(falcon.HTTP_200, {"output": output})


def _is_true(flag: bool | str) -> bool:
    """Return what a flag says, that Nova also takes as a text."""
    answer: bool = strutils.bool_from_string(flag)
    return answer
