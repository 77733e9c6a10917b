"""Identifiers and the field types every model shares.

Ids are UUID version 7 (RFC 9562): they sort by the time they were made, so a key set
on the id is a key set on creation time. Namespaces are named by slugs.
"""

from datetime import datetime
from typing import Annotated, Any, NewType
from uuid import UUID

import uuid_utils.compat
from msgspec import UNSET, Meta, UnsetType

__all__ = [
  "ALL_NAMESPACES",
  "DEFAULT_NAMESPACE",
  "UNSET",
  "AgentId",
  "CalendarId",
  "InstanceId",
  "Instant",
  "JobId",
  "JsonObject",
  "NamespaceId",
  "ScheduleId",
  "ServerId",
  "TaskId",
  "UnsetType",
  "new_id",
]

NamespaceId = NewType("NamespaceId", str)
DEFAULT_NAMESPACE = NamespaceId("default")
ALL_NAMESPACES = NamespaceId("*")
"""In a token: every namespace."""
JobId = NewType("JobId", UUID)
ScheduleId = NewType("ScheduleId", UUID)
TaskId = NewType("TaskId", UUID)
InstanceId = NewType("InstanceId", UUID)
AgentId = NewType("AgentId", UUID)
CalendarId = NewType("CalendarId", UUID)
ServerId = NewType("ServerId", UUID)

Instant = Annotated[datetime, Meta(tz=True)]
"""A moment with its offset; naive times are refused."""

JsonObject = dict[str, Any]
"""A JSON object whose inside is the user's."""


def new_id() -> UUID:
  """Make a UUID version 7 of now (RFC 9562, section 5.7)."""
  return uuid_utils.compat.uuid7()
