# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the domain. Each API renders these in its own form."""

from __future__ import annotations


class AccelschedError(Exception):
    """Base of every error the domain raises on purpose; its text is fit to be shown to a caller."""


class InvalidError(AccelschedError):
    """The request itself is wrong and can never succeed as it stands."""


class NotFoundError(AccelschedError):
    """What the request names does not exist, or not for this caller."""


class ConflictError(AccelschedError):
    """The request is sound but not against the present state."""


class ConcurrentUpdateError(ConflictError):
    """A generation did not match: somebody else wrote first; read again and retry."""


class LostRaceError(ConcurrentUpdateError):
    """Somebody wrote between a transaction's look and its write; run again, it may succeed or say what is wrong."""


class DuplicateNameError(ConflictError):
    """A unique name or uuid is taken."""


class InUseError(ConflictError):
    """What is to be removed is still in use."""


class CapacityExceededError(ConflictError):
    """An allocation does not fit into an inventory."""


class ForbiddenError(AccelschedError):
    """Policy does not allow it."""


class QuotaExceededError(ForbiddenError):
    """It is more than the project or the user may have."""


class UnavailableError(AccelschedError):
    """A service that the answer depends on did not answer; trying again later may succeed."""


class ConfigurationError(AccelschedError):
    """An option is wrong; the text names it."""
