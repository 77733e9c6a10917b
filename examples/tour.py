"""What the steps of the demo share: the running system, and ways to look at it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from hetuflow.client import Client, find_server
from hetuflow.client.calls import jobs, schedules, system, tasks
from hetuflow.protocol.model import Job, Task, TaskInstance
from hetuflow.protocol.states import TASK_FINAL

__all__ = ["STOP_S", "StepFailed", "Tour", "expect", "wait_for"]

POLL_S = 0.1
START_S = 60.0
STOP_S = 60.0
UNDER_WAY = ("pending", "dispatched", "running", "waiting_retry")


class StepFailed(Exception):
  """A step did not come to what was promised."""


class Tour:
  """What the steps share: the running system, and a client of it.

  Args:
    folder: the DATA_DIR.
    seconds: how long the job of every second is watched.
    tasks: how many tasks the batch has.
  """

  def __init__(self, folder: Path, *, seconds: int, tasks: int) -> None:
    self.folder = folder
    self.seconds = seconds
    self.tasks = tasks
    self._up: subprocess.Popen[bytes] | None = None
    self._client: Client | None = None

  @property
  def up(self) -> subprocess.Popen[bytes]:
    """The process of ``hetuflow up``."""
    if self._up is None:
      raise StepFailed("nothing has been started")
    return self._up

  @property
  def client(self) -> Client:
    """A client of the system, which has been started by the first step."""
    if self._client is None:
      self._client = Client(find_server(data_dir=self.folder))
    return self._client

  def start(self) -> None:
    """Start ``hetuflow up`` and wait until it serves and has an agent."""
    self._client = None
    with (self.folder / "up.log").open("ab") as log:
      self._up = subprocess.Popen(
        [
          *(sys.executable, "-m", "hetuflow", "up"),
          *("--port", "0", "--data-dir", str(self.folder)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )
    wait_for("a server", self.server_ready, START_S)
    wait_for("an agent", self.agent_online, START_S)

  def server_ready(self) -> bool:
    """Tell whether the server serves."""
    expect(self.up.poll() is None, "hetuflow up has ended")
    return (self.folder / "server.json").exists()

  def agent_online(self) -> bool:
    """Tell whether an agent is there."""
    return bool(self.client.send(system.list_agents(status="online")).items)

  def agent_process(self) -> psutil.Process | None:
    """Find the process of the running agent."""
    for process in psutil.Process(self.up.pid).children(recursive=True):
      with suppress(psutil.Error):
        if "hetuflow.agent" in process.cmdline():
          return process
    return None

  def cli(self, *words: object) -> str:
    """Call the command line; return what it printed."""
    done = subprocess.run(
      [sys.executable, "-m", "hetuflow", *map(str, words)],
      env=os.environ | {"HETUFLOW_DATA_DIR": str(self.folder)},
      capture_output=True,
      text=True,
      check=False,
    )
    expect(done.returncode == 0, f"hetuflow {words[0]}: {done.stdout}{done.stderr}")
    return done.stdout

  def make_job(self, name: str, config: dict[str, Any], *times: dict[str, Any]) -> Job:
    """Make a job with schedules."""
    body = {"name": name, "config": config, "schedules": list(times)}
    return self.client.send(jobs.create_job(body))

  def run(self, job: Job) -> Task:
    """Run a job now."""
    return self.client.send(jobs.run_job(job.id))

  def task(self, task_id: UUID) -> Task:
    """Read a task."""
    return self.client.send(tasks.get_task(task_id))

  def see_through(self, task_id: UUID, within: float = 60.0) -> Task:
    """Wait until a task has ended."""
    wait_for("the task", lambda: self.task(task_id).status in TASK_FINAL, within)
    return self.task(task_id)

  def attempts(
    self, *, job_id: UUID | None = None, task_id: UUID | None = None
  ) -> list[TaskInstance]:
    """Return the attempts of a task or job, the oldest first."""
    call = tasks.list_instances(job_id=job_id, task_id=task_id, limit=1_000)
    return list(self.client.pages(call))[::-1]

  def is_idle(self, job: Job) -> bool:
    """Tell whether nothing of a job is under way."""
    calls = (
      tasks.list_tasks(job_id=job.id, status=status, limit=1) for status in UNDER_WAY
    )
    return not any(self.client.send(call).items for call in calls)

  def stop_schedules(self, job: Job) -> None:
    """Disable the schedules of a job and wait until nothing of it is under way."""
    for schedule in self.client.pages(schedules.list_schedules(job_id=job.id)):
      self.client.send(schedules.disable_schedule(schedule.id))
    wait_for("the last tasks", lambda: self.is_idle(job), 60.0)

  def end(self) -> None:
    """Stop whatever still runs."""
    if self._client is not None:
      self._client.close()
    if self._up is not None and self._up.poll() is None:
      self._up.terminate()
      with suppress(subprocess.TimeoutExpired):
        self._up.wait(STOP_S)
      self._up.kill()
      self._up.wait()


def expect(holds: bool, what: str) -> None:
  """Fail the step unless something holds."""
  if not holds:
    raise StepFailed(what)


def wait_for(what: str, holds: Callable[[], bool], within: float) -> float:
  """Wait until something holds; return how many seconds that took."""
  began = time.monotonic()
  while not holds():
    expect(time.monotonic() - began < within, f"{what}: not there after {within:g} s")
    time.sleep(POLL_S)
  return time.monotonic() - began
