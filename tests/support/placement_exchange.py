# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests, and what of their answers has to be the same on any Placement server."""

from __future__ import annotations

import dataclasses
import http.client
import json
import urllib.parse
from typing import Any

import patience

_PRESENCE_ONLY = ("last-modified", "vary")
_COMPARED = ("openstack-api-version", "cache-control", "location", "allow", "content-type")


@dataclasses.dataclass(frozen=True)
class Step:
    """One request."""

    method: str
    path: str
    minor: int | None = 39
    body: Any = None
    token: str | None = "admin"
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    raw: bytes | None = None

    def __str__(self) -> str:
        body = "" if self.body is None else " " + json.dumps(self.body)
        extra = f" {self.headers}" if self.headers else ""
        return f"{self.method} {self.path} @{self.minor} token={self.token}{extra}{body[:300]}"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back, without what may differ between servers: ids of requests, moments, words, orders.

    Of an error's ``detail`` the first paragraph is compared, the sentence that a status always has; the message after
    it is kept in ``message``. It is for people: its words differ, and clients have the codes.
    """

    status: int
    headers: dict[str, Any]
    body: Any
    message: str = dataclasses.field(default="", compare=False)


class Client:
    """A connection to one server."""

    def __init__(self, url: str) -> None:
        """Talk to the server whose Placement is at this URL."""
        self.url = url
        parts = urllib.parse.urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=patience.LIMIT_S)

    def ask(self, step: Step) -> Answer:
        """Send a request and return what of its answer can be compared."""
        headers = dict(step.headers)
        if step.token is not None:
            headers["X-Auth-Token"] = step.token
            if step.token == "admin":
                headers.setdefault("X-Roles", "admin,service")
        if step.minor is not None:
            headers.setdefault("OpenStack-API-Version", f"placement 1.{step.minor}")
        data = step.raw
        if step.body is not None:
            data = json.dumps(step.body).encode()
            headers.setdefault("Content-Type", "application/json")
        self._connection.request(step.method, self._path + step.path, body=data, headers=headers)
        response = self._connection.getresponse()
        return self._comparable(response, response.read())

    def _comparable(self, response: http.client.HTTPResponse, content: bytes) -> Answer:
        found = {name: response.headers.get(name) for name in _COMPARED}
        if found["allow"] is not None:
            found["allow"] = ",".join(sorted(item.strip() for item in found["allow"].split(",")))
        if found["location"] is not None:
            found["location"] = found["location"].removeprefix(self.url)
        if found["content-type"] is not None:
            found["content-type"] = found["content-type"].partition(";")[0]
        headers = {name: value for name, value in found.items() if value is not None}
        headers |= {name: True for name in _PRESENCE_ONLY if name in response.headers}
        if response.status == 404:
            # Placement leaves it out of some of these, by which of its layers noticed; a cache needs it.
            headers.pop("vary", None)
        if not content:
            headers.pop("content-type", None)
            return Answer(response.status, headers, None)
        try:
            document = json.loads(content)
        except ValueError:
            return Answer(response.status, headers, "not JSON", content.decode(errors="replace")[:500])
        message = ""
        if response.status >= 400:
            message = "; ".join(_detail(error)[1] for error in document.get("errors", []))
        return Answer(response.status, headers, comparable(document), message)


def _detail(error: dict[str, Any]) -> tuple[str, str]:
    """Return the sentence that every error of a status has, and what is wrong here."""
    general, _, message = str(error.get("detail", "")).partition("\n\n")
    return " ".join(general.split()), message.strip()


def comparable(document: Any) -> Any:
    """Return a body without what may differ: request ids and wording of errors, order of lists."""
    if isinstance(document, dict):
        if "errors" in document:
            return {
                "errors": [
                    {key: value for key, value in error.items() if key not in ("detail", "request_id")}
                    | {
                        "general": _detail(error)[0],
                        "has_request_id": str(error.get("request_id", "")).startswith("req-"),
                    }
                    for error in document["errors"]
                ]
            }
        return {key: comparable(value) for key, value in document.items()}
    if isinstance(document, list):
        return sorted((comparable(item) for item in document), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(document, float):
        return int(document) if document.is_integer() else document
    return document
