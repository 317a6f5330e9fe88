# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Loads prefilters, filters and weighers by the names that the configuration enables, in its order."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

from oslo_config import cfg
from stevedore import named

from accelsched import errors
from accelsched.scheduler.filters.base import Filter
from accelsched.scheduler.prefilters.base import Prefilter
from accelsched.scheduler.weighers.base import Weigher


@dataclasses.dataclass(frozen=True)
class Plugins:
    """What a decision is made with."""

    prefilters: tuple[Prefilter, ...]
    filters: tuple[Filter, ...]
    weighers: tuple[Weigher, ...]

    def needs(self, keys: Collection[str]) -> frozenset[str]:
        """Return what they read of the facts besides hosts. A weigher that counts nowhere reads nothing.

        :param keys: that hosts' aggregates have metadata under
        """
        weighers = (plugin for plugin in self.weighers if plugin.multiplier or plugin.override in keys)
        return frozenset[str]().union(*(filter_.needs for filter_ in self.filters), *(w.needs for w in weighers))


def load(conf: cfg.ConfigOpts) -> Plugins:
    """Load the plug-ins of ``[scheduler] prefilters, filters, weighers``.

    :raises accelsched.errors.ConfigurationError: naming the option and the plug-in that is not installed or broken
    """
    return Plugins(
        tuple(_load(conf, "prefilters", Prefilter)),
        tuple(_load(conf, "filters", Filter)),
        tuple(_load(conf, "weighers", Weigher)),
    )


def _load(conf: cfg.ConfigOpts, option: str, kind: type) -> list[Any]:
    names: list[str] = list(conf.scheduler[option])

    def failed(_manager: object, entry_point: Any, exc: BaseException) -> None:
        raise errors.ConfigurationError(f"[scheduler] {option}: {entry_point.name} does not load: {exc}") from exc

    def missing(absent: Iterable[str]) -> None:
        raise errors.ConfigurationError(f"[scheduler] {option}: no plug-in named {', '.join(sorted(absent))}")

    manager: named.NamedExtensionManager[Any] = named.NamedExtensionManager(
        f"accelsched.scheduler.{option}",
        names,
        invoke_on_load=True,
        invoke_args=(conf,),
        name_order=True,
        on_load_failure_callback=failed,
        on_missing_entrypoints_callback=missing,
    )
    loaded = [extension.obj for extension in manager]
    for name, plugin in zip(names, loaded, strict=True):
        if not isinstance(plugin, kind):
            raise errors.ConfigurationError(f"[scheduler] {option}: {name} is not a {kind.__name__}")
    return loaded
