# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How agents are listed, over several pages."""

from __future__ import annotations

from typing import Any

from accelsched.osc import agent


class Service:
    """Answers as the service does, one agent a page."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []

    def get(self, path: str, params: dict[str, str]) -> Any:
        assert path == "/agents"
        self.asked.append(dict(params))
        host = {None: "a", "a": "b"}[params.get("marker")]
        told = {"agents": [{"host": host}], "next_marker": "a" if host == "a" else None}
        return type("Answer", (), {"json": lambda _self: told})()


def test_all_pages_are_read() -> None:
    service = Service()
    assert [one["host"] for one in agent.every(service, None)] == ["a", "b"]
    assert service.asked == [{}, {"marker": "a"}]
