# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""``GET /``: which versions there are. The one thing that needs no token."""

from __future__ import annotations

import falcon

from accelsched.api.placement import handler, microversion


class Root(handler.Resource):
    """``/``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Describe the one version, as the API SIG's version discovery guideline has it."""
        version = {
            "id": f"v{microversion.MIN_VERSION}",
            "max_version": microversion.MAX_VERSION,
            "min_version": microversion.MIN_VERSION,
            "status": "CURRENT",
            # "Where you are": no proxy in front can make that wrong.
            "links": [{"rel": "self", "href": ""}],
        }
        handler.send(req, resp, {"versions": [version]})
