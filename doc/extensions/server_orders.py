# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``.. server-orders::``: the orders that a server takes, as a table read from the code that checks them."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from accelsched.compute import orders

_HEADINGS = ("order", "given while the server is", "task until it is carried out", "the server is then")


class ServerOrders(SphinxDirective):
    """A row for each of :data:`accelsched.compute.orders.ALL`."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        group = nodes.tgroup(cols=len(_HEADINGS))
        group.extend(nodes.colspec(colwidth=1) for _ in _HEADINGS)
        rows = [
            (
                f"{order.action} ({order.reboot})" if order.action == "reboot" else order.action,
                ", ".join(sorted(order.vm_states)),
                order.task,
                order.power or "what it was",
            )
            for order in orders.ALL
        ]
        group.append(nodes.thead("", _row(_HEADINGS)))
        group.append(nodes.tbody("", *map(_row, rows)))
        return [nodes.table("", group)]


def _row(texts: tuple[str, ...]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=text)) for text in texts))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("server-orders", ServerOrders)
    return {"parallel_read_safe": True}
