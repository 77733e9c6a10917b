"""The words of the contract, and a table of changes that hangs together."""

from enum import StrEnum

import pytest

from hetuflow.protocol.model import schedule
from hetuflow.protocol.states import (
  INSTANCE_LIVE,
  INSTANCE_TRANSITIONS,
  TASK_FINAL,
  TASK_TRANSITIONS,
  AgentStatus,
  ExecutorKind,
  InstanceEvent,
  JobStatus,
  LogStream,
  OnLost,
  ScheduleKind,
  TaskEvent,
  TaskInstanceStatus,
  TaskStatus,
)

CONTRACT: list[tuple[type[StrEnum], str]] = [
  (
    TaskStatus,
    "blocked paused pending dispatched running waiting_retry succeeded failed "
    "cancelled skipped missed merged",
  ),
  (
    TaskInstanceStatus,
    "dispatched running succeeded failed timeout cancelled lost released",
  ),
  (JobStatus, "enabled disabled deleted"),
  (AgentStatus, "online offline busy draining error"),
  (ExecutorKind, "process shell python http docker kubernetes"),
  (OnLost, "retry fail"),
  (ScheduleKind, "cron time daemon event flow"),
  (LogStream, "stdout stderr"),
  (schedule.DstGap, "shift skip"),
  (schedule.DstFold, "first both last"),
]

TASKS_BEGIN_AS = {
  TaskStatus.PENDING,
  TaskStatus.BLOCKED,  # waits for a limit or another task
  TaskStatus.SKIPPED,  # left out by policy when it was planned
  TaskStatus.MERGED,  # caught up by another when it was planned
}
INSTANCES_BEGIN_AS = {TaskInstanceStatus.DISPATCHED}


@pytest.mark.parametrize(("words", "listed"), CONTRACT)
def test_the_words_are_those_of_the_contract(words: type[StrEnum], listed: str) -> None:
  assert [word.value for word in words] == listed.split()


def test_only_a_revival_leads_out_of_a_final_status() -> None:
  for (source, event), target in TASK_TRANSITIONS.items():
    if source in TASK_FINAL:
      assert event in (TaskEvent.REVIVE, TaskEvent.BLOCK)
      assert target not in TASK_FINAL
    else:
      assert event is not TaskEvent.REVIVE


def test_what_is_revived_with_a_limit_waits_for_its_place() -> None:
  revived = {source for source, event in TASK_TRANSITIONS if event is TaskEvent.REVIVE}
  blocked = {source for source, event in TASK_TRANSITIONS if event is TaskEvent.BLOCK}
  assert blocked & TASK_FINAL == revived


def test_a_merged_task_stays_merged() -> None:
  assert TaskStatus.MERGED not in {source for source, _ in TASK_TRANSITIONS}


def test_every_task_status_can_be_reached() -> None:
  assert TASKS_BEGIN_AS | set(TASK_TRANSITIONS.values()) == set(TaskStatus)


def test_every_instance_status_can_be_reached() -> None:
  assert INSTANCES_BEGIN_AS | set(INSTANCE_TRANSITIONS.values()) == set(
    TaskInstanceStatus
  )


def test_every_event_means_something() -> None:
  assert {event for _, event in TASK_TRANSITIONS} == set(TaskEvent)
  assert {event for _, event in INSTANCE_TRANSITIONS} == set(InstanceEvent)


def test_a_task_that_is_not_final_can_be_cancelled() -> None:
  for status in set(TaskStatus) - TASK_FINAL:
    assert TASK_TRANSITIONS[status, TaskEvent.CANCEL] is TaskStatus.CANCELLED


def test_only_a_dispatched_or_lost_task_starts_or_is_released() -> None:
  for event in (TaskEvent.START, TaskEvent.RELEASE):
    sources = {source for source, known in TASK_TRANSITIONS if known is event}
    assert sources == {TaskStatus.DISPATCHED, TaskStatus.WAITING_RETRY}


def test_an_instance_that_ended_changes_no_more_but_for_a_lost_one() -> None:
  sources = {source for source, _ in INSTANCE_TRANSITIONS}
  assert sources == INSTANCE_LIVE | {TaskInstanceStatus.LOST}


def test_what_started_is_not_released() -> None:
  running = (TaskInstanceStatus.RUNNING, InstanceEvent.RELEASE)
  assert running not in INSTANCE_TRANSITIONS
