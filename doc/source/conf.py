# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Sphinx: ``sphinx-build -W -b html doc/source doc/build/html``."""

import pathlib
import sys

project = "accelsched"
author = "accelsched contributors"
copyright = author

# The first two come with the libraries they describe; what they show is read from the code at build time.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "extensions"))

extensions = ["oslo_config.sphinxext", "oslo_policy.sphinxext", "server_orders"]
exclude_patterns = ["examples"]
nitpicky = True

html_theme = "alabaster"
html_theme_options = {
    "description": "One pool of GPUs, vGPUs and FPGAs, through the OpenStack APIs",
    "page_width": "1080px",
    "sidebar_width": "240px",
}
html_static_path: list[str] = []
