"""Output of a task on this terminal, and its exit code as our own."""

import sys
import time
from collections.abc import Iterable, Iterator
from uuid import UUID

import click

from hetuflow.cli.session import Session
from hetuflow.cli.waiting import why_waiting
from hetuflow.client import LogChunk, LogFollower, LogPage
from hetuflow.client.calls import tasks
from hetuflow.protocol.model import Task, TaskInstance
from hetuflow.protocol.states import (
  TASK_FINAL,
  LogStream,
  TaskInstanceStatus,
  TaskStatus,
)

__all__ = [
  "ending_of",
  "exit_code_of",
  "follow_instance",
  "follow_task",
  "log_pages",
  "print_log",
  "write_chunks",
]

POLL_S = 0.2
SLOW_POLL_S = 1.0
QUICK_POLLS = 50
SIGNAL_EXIT = 128
LOST = 1
PLAIN = (
  TaskInstanceStatus.DISPATCHED,
  TaskInstanceStatus.RUNNING,
  TaskInstanceStatus.SUCCEEDED,
)
"""Statuses that need no word."""
PATIENCE_S = 3.0
"""How long nothing is said of a task that waits."""


def write_chunks(chunks: Iterable[LogChunk]) -> None:
  """Write pieces of output, each to the stream of ours that it was written to."""
  targets = {LogStream.STDOUT: sys.stdout, LogStream.STDERR: sys.stderr}
  for chunk in chunks:
    target = targets[chunk.stream].buffer
    target.write(chunk.data)
    target.flush()


def log_pages(session: Session, instance_id: UUID, stream: str) -> Iterator[LogPage]:
  """Yield what an instance has printed so far, at least one page."""
  offset = 0
  while True:
    page = session.send(tasks.log_page(instance_id, stream=stream, offset=offset))
    yield page
    if page.complete or not page.items or page.next_offset == offset:
      return
    offset = page.next_offset


def print_log(session: Session, instance: TaskInstance, stream: str) -> None:
  """Print what an instance has printed so far, and why it ended if that is not plain."""
  gaps = _Gaps()
  for page in log_pages(session, instance.id, stream):
    write_chunks(gaps.watch(page.items))
  _tell_ending(instance)


def follow_instance(session: Session, instance_id: UUID, stream: str = "all") -> int:
  """Print output as it comes until the instance ends, and why if that is not plain.

  Returns:
    Its exit code.
  """
  follower = LogFollower(instance_id, stream=stream)
  write_chunks(_Gaps().watch(session.client.follow(follower)))
  instance = session.send(tasks.get_instance(instance_id))
  _tell_ending(instance)
  return exit_code_of(instance)


class _Gaps:
  """Notices bytes that are missing between pieces of output."""

  def __init__(self) -> None:
    self._expected: dict[LogStream, int] = {}

  def watch(self, chunks: Iterable[LogChunk]) -> Iterator[LogChunk]:
    """Pass pieces on, and tell of what is missing before each."""
    for chunk in chunks:
      missing = chunk.offset - self._expected.get(chunk.stream, 0)
      if missing > 0:
        _tell(f"{missing} bytes of {chunk.stream} were not kept: beyond the limit")
      self._expected[chunk.stream] = chunk.offset + len(chunk.data)
      yield chunk


def _tell(words: str) -> None:
  """Say something of our own beside the output of a task."""
  click.echo(f"hetuflow: {words}", err=True)


def _tell_ending(instance: TaskInstance) -> None:
  """Say why an instance ended where that is not plain."""
  if words := ending_of(instance):
    _tell(words)


def ending_of(instance: TaskInstance) -> str | None:
  """Say why an instance ended; None while it runs, or where its exit code says it all."""
  by_itself = instance.status is TaskInstanceStatus.FAILED and instance.exit_code
  if by_itself or instance.status in PLAIN:
    return None
  return instance.error_message or instance.reason or instance.status


def exit_code_of(instance: TaskInstance) -> int:
  """Return how we should exit where a task's process ended so.

  A process ended by signal n gives 128 + n, as in shells; where there is no code of a
  process (lost, timed out), 0 or 1 say whether the instance succeeded.
  """
  code = instance.exit_code
  if instance.status == "succeeded":
    return 0
  if code is None or code == 0:
    return LOST
  return code if code > 0 else SIGNAL_EXIT - code


def follow_task(session: Session, task_id: UUID) -> int:
  """Print the output of all attempts of a task until it ends; return the last exit code."""
  seen: set[UUID] = set()
  code = LOST
  deadline: float | None = time.monotonic() + PATIENCE_S
  for task, instances in _polls(session, task_id):
    fresh = sorted(
      (each for each in instances if each.id not in seen), key=lambda each: each.attempt
    )
    for instance in fresh:
      seen.add(instance.id)
      deadline = None
      code = follow_instance(session, instance.id)
    if task.status in TASK_FINAL and not fresh:
      return 0 if task.status is TaskStatus.SUCCEEDED else code or LOST
    if deadline is not None and time.monotonic() > deadline:
      _tell(f"waiting: {why_waiting(session, task)}")
      deadline = None
  raise AssertionError("polls end only by a return")


def _polls(
  session: Session, task_id: UUID
) -> Iterator[tuple[Task, list[TaskInstance]]]:
  """Look at a task and its instances again and again, less often when it takes long."""
  count = 0
  while True:
    # The task is read first: an instance made in between is then seen in any case.
    task = session.send(tasks.get_task(task_id))
    yield task, list(session.client.pages(tasks.list_instances(task_id=task_id)))
    count += 1
    time.sleep(POLL_S if count < QUICK_POLLS else SLOW_POLL_S)
