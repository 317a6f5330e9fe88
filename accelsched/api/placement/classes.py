# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``/resource_classes``."""

from __future__ import annotations

import re
from typing import Any

import falcon
from sqlalchemy.orm import Session

from accelsched import errors
from accelsched.api.placement import handler
from accelsched.api.placement.handler import body_validator, minor_of, serves
from accelsched.placement import classes
from accelsched.placement.classes import ClassNotFoundError
from accelsched.policies import placement as rules

_SINCE = 2
_ENSURE = 7  # from here on PUT creates; before, it renames
_NAME_MAX = 255

_NAMED = body_validator(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "pattern": handler.CUSTOM_PATTERN, "maxLength": _NAME_MAX}},
        "required": ["name"],
        "additionalProperties": False,
    }
)


class Classes(handler.Resource):
    """``/resource_classes``."""

    @serves(rules.CLASSES + "list", since=_SINCE, gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List resource classes."""
        with self.services.db.reading() as session:
            found = classes.find_all(session)
        handler.send(
            req,
            resp,
            {"resource_classes": [_render(req, known.name) for known in found]},
            modified=max((known.updated_at for known in found), default=None),
        )

    @serves(rules.CLASSES + "create", since=_SINCE, takes_json=True)
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create a custom class."""
        name = handler.body_of(req, _NAMED)["name"]
        self.services.db.transact(lambda session: classes.create(session, name))
        handler.send(req, resp, status=201, location=f"/resource_classes/{name}", cached=False)


class OneClass(handler.Resource):
    """``/resource_classes/{name}``."""

    @serves(rules.CLASSES + "show", since=_SINCE, gives_json=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Show a class."""
        with self.services.db.reading() as session:
            known = classes.get(session, name)
        handler.send(req, resp, _render(req, known.name), modified=known.updated_at)

    def on_put(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Rename a custom class up to 1.6, create one from 1.7 on."""
        if minor_of(req) >= _ENSURE:
            self._ensure(req, resp, name)
        else:
            self._rename(req, resp, name)

    @serves(rules.CLASSES + "update", since=_ENSURE)
    def _ensure(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        if len(name) > _NAME_MAX or not re.match(handler.CUSTOM_PATTERN, name):
            raise errors.InvalidError(
                "A custom resource class is CUSTOM_ and upper-case letters, digits and underscores, at most 255 "
                f"characters. Got: {name[:100]}"
            )

        def write(session: Session) -> bool:
            try:
                classes.get(session, name)
            except ClassNotFoundError:
                classes.create(session, name)
                return True
            return False

        try:
            is_new = self.services.db.transact(write)
        except errors.DuplicateNameError:
            is_new = False  # Somebody else was quicker, which is just as well.
        status = 201 if is_new else 204
        handler.send(req, resp, status=status, location=f"/resource_classes/{name}", cached=False)

    @serves(rules.CLASSES + "update", since=_SINCE, takes_json=True)
    def _rename(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        new_name = handler.body_of(req, _NAMED)["name"]
        self.services.db.transact(lambda session: classes.rename(session, name, new_name))
        handler.send(req, resp, _render(req, new_name))

    @serves(rules.CLASSES + "delete", since=_SINCE)
    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Delete a custom class."""
        self.services.db.transact(lambda session: classes.remove(session, name))
        handler.send(req, resp, status=204, cached=False)


def _render(req: falcon.Request, name: str) -> dict[str, Any]:
    return {"name": name, "links": [{"rel": "self", "href": handler.href(req, "resource_classes", name)}]}
