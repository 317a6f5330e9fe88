# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Request counts and latencies for Prometheus, and the page that shows them.

With several worker processes the counts are shared through files in ``PROMETHEUS_MULTIPROC_DIR``, which
``accelsched.cmd.api`` sets before this module is imported.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import prometheus_client
from prometheus_client import multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LOG = logging.getLogger(__name__)

_COUNTED_S = 10.0  # so long a count of devices is told again

# Anything else counts as OTHER: a label must not take whatever a client sends.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

REQUESTS = prometheus_client.Counter("accelsched_http_requests", "Requests answered.", ["service", "method", "status"])
LATENCY = prometheus_client.Histogram(
    "accelsched_http_request_duration_seconds",
    "Time from the request's arrival to the start of its answer.",
    ["service", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


def layer(app: WSGIApplication, service_of: Callable[[str], str]) -> WSGIApplication:
    """Return an application that counts and times.

    :param service_of: the service that a path belongs to, one of a fixed few names
    """

    def counted(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        service = service_of(environ.get("PATH_INFO", ""))
        method = environ.get("REQUEST_METHOD", "")
        method = method if method in _METHODS else "OTHER"

        def start(status, headers, exc_info=None):  # type: ignore[no-untyped-def]
            LATENCY.labels(service, method).observe(time.perf_counter() - began)
            REQUESTS.labels(service, method, status[:3]).inc()
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return counted


class _Devices(Collector):
    """How many devices there are of each status, and with a fault: of the fleet, so told once for all workers."""

    def __init__(self, count: Callable[[], tuple[Mapping[str, int], int]]) -> None:
        self._count = count
        self._told: tuple[Mapping[str, int], int] | None = None
        self._until = float("-inf")

    def collect(self) -> Iterable[Metric]:
        """Count, unless that was done just now: anybody may ask for this page."""
        if time.monotonic() >= self._until:
            try:
                self._told = self._count()
            except Exception:
                # The other metrics are of more use than none, the more so when the database is away.
                LOG.warning("devices could not be counted", exc_info=True)
                self._told = None
            self._until = time.monotonic() + _COUNTED_S
        gauge = GaugeMetricFamily("accelsched_devices", "Devices of all hosts by status.", labels=["status"])
        faults = GaugeMetricFamily("accelsched_device_faults", "Devices in which something is wrong just now.")
        if self._told is not None:
            by_status, faulty = self._told
            for status, number in by_status.items():
                gauge.add_metric([status], number)
            faults.add_metric([], faulty)
        yield from (gauge, faults)


def page(count_devices: Callable[[], tuple[Mapping[str, int], int]]) -> WSGIApplication:
    """Return an application that answers with every metric of this service, all its worker processes together.

    :param count_devices: returns how many devices there are, by status, and how many have a fault
    """
    of_fleet = prometheus_client.CollectorRegistry()
    of_fleet.register(_Devices(count_devices))

    def answer(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        registry = prometheus_client.REGISTRY
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = prometheus_client.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        body = prometheus_client.generate_latest(registry) + prometheus_client.generate_latest(of_fleet)
        start_response(
            "200 OK", [("Content-Type", prometheus_client.CONTENT_TYPE_LATEST), ("Content-Length", str(len(body)))]
        )
        return [body]

    return answer
