"""Namespaces: who is kept apart from whom, and with how much lead they are served."""

import attrs

from hetuflow.protocol.checks import between, matching
from hetuflow.protocol.model.config import SLUG
from hetuflow.protocol.model.ids import (
  UNSET,
  Instant,
  NamespaceId,
  ServerId,
  UnsetType,
)

__all__ = ["Namespace", "NamespaceFilter", "NamespaceForCreate", "NamespaceForUpdate"]

MAX_LEASE = 86_400
"""Seconds a held claim may stay good after its time."""

_slug = matching(SLUG, "a slug: lower-case letters, digits, '-' and '_', at most 63")


@attrs.frozen(kw_only=True)
class Namespace:
  """A namespace as it is read.

  ``lead`` is how many seconds before its time a task is handed to an agent; ``lease``
  how many seconds after it a held claim stays good. ``server_id`` names the server that is
  to plan for it as long as it is alive; ``max_running`` bounds the tasks under way.

  Example:
    {"id": "default", "weight": 1, "retention_days": 30, "lead": 5.0, "lease": 30.0,
     "server_id": null, "max_running": null,
     "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
  """

  id: NamespaceId
  weight: int
  retention_days: int
  lead: float
  lease: float
  server_id: ServerId | None
  max_running: int | None
  created_at: Instant
  updated_at: Instant


@attrs.frozen(kw_only=True)
class NamespaceForCreate:
  """What a caller may say of a new namespace.

  Example:
    {"id": "billing", "weight": 2}
  """

  id: NamespaceId = attrs.field(validator=_slug)
  weight: int = attrs.field(default=1, validator=between(0, 1_000))
  retention_days: int = attrs.field(default=30, validator=between(1, 3_650))
  lead: float = attrs.field(default=5.0, validator=between(0.5, 3_600))
  lease: float = attrs.field(default=30.0, validator=between(1, MAX_LEASE))
  server_id: ServerId | None = None
  max_running: int | None = attrs.field(default=None, validator=between(1, 2**31 - 1))


@attrs.frozen(kw_only=True)
class NamespaceForUpdate:
  """What may be changed of a namespace; what is left out stays.

  Example:
    {"lead": 900.0}
  """

  weight: int | UnsetType = attrs.field(default=UNSET, validator=between(0, 1_000))
  retention_days: int | UnsetType = attrs.field(
    default=UNSET, validator=between(1, 3_650)
  )
  lead: float | UnsetType = attrs.field(default=UNSET, validator=between(0.5, 3_600))
  lease: float | UnsetType = attrs.field(default=UNSET, validator=between(1, MAX_LEASE))
  server_id: ServerId | UnsetType | None = UNSET
  max_running: int | UnsetType | None = attrs.field(
    default=UNSET, validator=between(1, 2**31 - 1)
  )


@attrs.frozen(kw_only=True)
class NamespaceFilter:
  """Which namespaces to list; what is None does not matter.

  Example:
    {"id": "default"}
  """

  id: str | None = None
