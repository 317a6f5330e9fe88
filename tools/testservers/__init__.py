# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL, MariaDB and RabbitMQ for the functional tests: those that run on this machine's loopback and let us in,
else own ones, started on loopback with their data below one directory and stopped after the tests.
"""
