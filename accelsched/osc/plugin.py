# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""How python-openstackclient finds the commands and the service that they talk to."""

from __future__ import annotations

import argparse
from typing import Any

from keystoneauth1 import adapter
from osc_lib import utils

API_NAME = "accelsched"
API_VERSION_OPTION = "os_accelsched_api_version"
API_VERSIONS = ("1",)
DEFAULT_API_VERSION = "1"
SERVICE_TYPE = "accelsched"


def make_client(instance: Any) -> adapter.Adapter:
    """Return a client of the catalog's ``accelsched`` service.

    :param instance: osc-lib's client manager
    """
    return adapter.Adapter(
        session=instance.session,
        service_type=SERVICE_TYPE,
        interface=instance.interface,
        region_name=instance.region_name,
        # Where there is no catalog: accelsched_endpoint_override in clouds.yaml, as for any other service.
        endpoint_override=instance.get_configuration().get("accelsched_endpoint_override"),
    )


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add this plug-in's global options."""
    parser.add_argument(
        "--os-accelsched-api-version",
        metavar="<accelsched-api-version>",
        default=utils.env("OS_ACCELSCHED_API_VERSION", default=DEFAULT_API_VERSION),
        help=f"accelsched API version, default={DEFAULT_API_VERSION} (Env: OS_ACCELSCHED_API_VERSION)",
    )
    return parser
