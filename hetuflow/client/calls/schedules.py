"""Schedules: when jobs are due."""

from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from hetuflow.client.call import Call, Page, delete, get, listing, patch, post
from hetuflow.protocol.model import (
  Backfill,
  BackfillForCreate,
  Forecast,
  Ledger,
  Schedule,
  ScheduleForCreate,
  ScheduleForPreview,
  ScheduleForUpdate,
  WhatIf,
)
from hetuflow.protocol.model.ids import Instant

__all__ = [
  "Preview",
  "backfill_schedule",
  "create_schedule",
  "delete_schedule",
  "disable_schedule",
  "enable_schedule",
  "foresee_load",
  "get_ledger",
  "get_schedule",
  "list_next_fires",
  "list_schedules",
  "preview_schedule",
  "update_schedule",
]


@attrs.frozen(kw_only=True)
class Preview:
  """When a timing fires; UTC."""

  fire_times: list[Instant]


def list_schedules(
  *,
  namespace_id: str | None = None,
  job_id: UUID | None = None,
  enabled: bool | None = None,
  limit: int | None = None,
) -> Call[Page[Schedule]]:
  """Describe the list of schedules, filtered by what is given."""
  query = {
    "namespace_id": namespace_id,
    "job_id": job_id,
    "enabled": enabled,
    "limit": limit,
  }
  return listing(Schedule, "schedules", query=query)


def get_schedule(schedule_id: UUID) -> Call[Schedule]:
  """Describe the reading of one schedule."""
  return get(Schedule, "schedules", schedule_id)


def create_schedule(
  schedule: ScheduleForCreate | dict[str, Any], *, idempotency_key: str | None = None
) -> Call[Schedule]:
  """Describe the making of a schedule for the job it names."""
  return post(Schedule, "schedules", body=schedule, key=idempotency_key)


def update_schedule(
  schedule_id: UUID, change: ScheduleForUpdate | dict[str, Any]
) -> Call[Schedule]:
  """Describe a change of a schedule; what was planned and not begun is planned anew."""
  return patch(Schedule, "schedules", schedule_id, body=change)


def delete_schedule(schedule_id: UUID) -> Call[None]:
  """Describe the end of a schedule."""
  return delete("schedules", schedule_id)


def enable_schedule(schedule_id: UUID) -> Call[Schedule]:
  """Describe that a schedule fires again."""
  return post(Schedule, "schedules", schedule_id, "enable")


def disable_schedule(schedule_id: UUID) -> Call[Schedule]:
  """Describe that a schedule fires no more."""
  return post(Schedule, "schedules", schedule_id, "disable")


def get_ledger(
  schedule_id: UUID,
  *,
  from_at: datetime | None = None,
  to_at: datetime | None = None,
  limit: int | None = None,
) -> Call[Ledger]:
  """Describe the question what became of planned times, from one moment to another."""
  query = {"from": from_at, "to": to_at, "limit": limit}
  return get(Ledger, "schedules", schedule_id, "ledger", **query)


def backfill_schedule(
  schedule_id: UUID,
  span: BackfillForCreate | dict[str, Any],
  *,
  idempotency_key: str | None = None,
) -> Call[Backfill]:
  """Describe that planned times that have passed run after all."""
  return post(
    Backfill, "schedules", schedule_id, "backfill", body=span, key=idempotency_key
  )


def preview_schedule(timing: ScheduleForPreview | dict[str, Any]) -> Call[Preview]:
  """Describe the question when a timing would fire."""
  return post(Preview, "schedules", "preview", body=timing)


def list_next_fires(schedule_id: UUID, *, count: int | None = None) -> Call[Preview]:
  """Describe the question when a schedule fires next."""
  return get(Preview, "schedules", schedule_id, "next", count=count)


def foresee_load(question: WhatIf | dict[str, Any]) -> Call[Forecast]:
  """Describe the question what load all schedules lead to, with some more or fewer."""
  return post(Forecast, "schedules", "what-if", body=question)
