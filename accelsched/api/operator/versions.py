# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Version discovery, as keystoneauth expects it."""

from __future__ import annotations

import falcon


class Version:
    """``GET /v1/``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Describe this version."""
        links = [{"rel": "self", "href": f"{req.prefix}/"}]
        resp.media = {"version": {"id": "v1.0", "status": "CURRENT", "links": links}}
