# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
# pbr hooks into setuptools through this keyword; everything else stands in pyproject.toml and setup.cfg.
import setuptools

setuptools.setup(pbr=True)
