# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""The API for any WSGI server: ``gunicorn accelsched.api.wsgi:application``, mod_wsgi, uWSGI.

Options come from the files in ``ACCELSCHED_CONFIG_FILES`` (separated by ``:``), or else from oslo.config's usual
places.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from oslo_config import cfg
from oslo_log import log

from accelsched import conf as options
from accelsched import rpc
from accelsched.api import app
from accelsched.api.services import Services
from accelsched.db import migrations
from accelsched.db.engine import Database
from accelsched.placement.fleet import Fleet


def create(conf: cfg.ConfigOpts) -> WSGIApplication:
    """Return the API over the database and the messaging of the options.

    :raises accelsched.errors.ConfigurationError: when an option is wrong or the database is not migrated
    """
    db = Database.from_conf(conf)
    migrations.require_current(db)
    fleet = Fleet(db)
    fleet.warm_up()
    return app.create(Services.over(conf, db, fleet, rpc.transport(conf)))


_lock = threading.Lock()
_made: list[WSGIApplication] = []


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request; made at the first one, so that importing this module needs nothing."""
    with _lock:
        if not _made:
            conf = options.new()
            files = [file for file in os.environ.get("ACCELSCHED_CONFIG_FILES", "").split(":") if file]
            arguments = [argument for file in files for argument in ("--config-file", file)]
            options.parse(conf, arguments, "accelsched-api")
            log.setup(conf, "accelsched")
            _made.append(create(conf))
    return _made[0](environ, start_response)
