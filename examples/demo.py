"""A tour of hetuflow from an empty folder to a clean exit: `make demo`.

Each step is a function that does something with the real programs and checks what came of
it. The tour stops at the first step that fails and exits with 1; whatever it started is
stopped, and its folder is removed.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psutil
from rich.console import Console
from tour import STOP_S, StepFailed, Tour, expect, wait_for

from hetuflow.client import LogFollower
from hetuflow.client.calls import jobs, system, tasks

CRONTAB = Path(__file__).with_name("crontab")
NOOP = {"executor": "python", "cmd": "hetuflow.noop"}


# ── the steps ───────────────────────────────────────────────────────────────────────


def start_from_nothing(tour: Tour) -> str:
  """Start on an empty folder."""
  began = time.monotonic()
  tour.start()
  health = tour.client.send(system.get_health())
  expect(health["status"] == "ok", f"health says {health}")
  return (
    f"{tour.client.place.url}, server and agent in {time.monotonic() - began:.1f} s"
  )


def examples_run(tour: Tour) -> str:
  """See the examples run."""
  names = {
    job.name for job in tour.client.pages(jobs.list_jobs(namespace_id="default"))
  }
  expect("hello" in names, f"there are only {names}")
  call = tasks.list_tasks(status="succeeded", limit=1)
  wait_for("a task", lambda: bool(tour.client.send(call).items), 60.0)

  def has_spoken() -> bool:
    """Tell whether an instance of hello has begun."""
    [job] = tour.client.send(jobs.list_jobs(name="hello")).items
    return any(each.output for each in tour.attempts(job_id=job.id))

  wait_for("a hello", has_spoken, 30.0)
  said = tour.cli("logs", "hello").strip()
  expect(said.startswith("hello from hello"), f"hello said {said!r}")
  return said


def create_and_run(tour: Tour) -> str:
  """Create a job on the command line and run it."""
  tour.cli("jobs", "create", "greet", "--", "echo", "hello {{ parameters.who }}")
  said = tour.cli("run", "greet", "--follow", "-p", "who=world")
  expect(said == "hello world\n", f"it said {said!r}")
  return said.strip()


def follow_logs(tour: Tour) -> str:
  """Follow output while it is printed."""
  script = "for n in 1 2 3; do echo line $n; sleep 0.3; done"
  job = tour.make_job("talker", {"executor": "shell", "cmd": script})
  task = tour.run(job)
  wait_for("an attempt", lambda: bool(tour.attempts(task_id=task.id)), 10.0)
  follower = LogFollower(tour.attempts(task_id=task.id)[0].id)
  times = [time.monotonic() for _ in tour.client.follow(follower)]
  expect(len(times) == 3, f"{len(times)} pieces came")
  expect(times[-1] - times[0] > 0.3, "all came at once")
  return f"3 pieces over {times[-1] - times[0]:.1f} s"


def cron_every_second(tour: Tour) -> str:
  """Run a cron job in every second."""
  job = tour.make_job(
    "tick", {"cmd": "/bin/true"}, {"kind": "cron", "cron_expression": "* * * * * *"}
  )
  time.sleep(tour.seconds)
  tour.stop_schedules(job)
  ran = [each for each in tour.attempts(job_id=job.id) if each.started_at is not None]
  counts = Counter(each.task_id for each in ran)
  expect(set(counts.values()) == {1}, "a task ran twice")
  times = sorted(each.scheduled_at for each in ran)
  gaps = {later - earlier for earlier, later in pairwise(times)}
  expect(gaps <= {timedelta(seconds=1)}, f"between two runs were {gaps}")
  expect(len(ran) >= tour.seconds - 2, f"only {len(ran)} ran")
  errors = sorted(each.start_error_ms or 0.0 for each in ran)
  expect(errors[0] >= 0, f"one started {-errors[0]} ms early")
  middle, worst = errors[len(errors) // 2], errors[-1]
  return f"{len(ran)} runs, none missing, none twice; {middle:.1f} ms late, at most {worst:.1f}"


def many_tasks(tour: Tour) -> str:
  """Run a great batch of tasks."""
  job = tour.make_job("batch", NOOP)
  wishes = [{"job_id": str(job.id)} for _ in range(tour.tasks)]
  began = time.monotonic()
  made = tour.client.send(tasks.create_tasks(wishes))
  sent = time.monotonic() - began
  wait_for("the batch", lambda: tour.is_idle(job), 300.0)
  took = time.monotonic() - began
  ran = tour.attempts(job_id=job.id)
  expect(len(ran) == tour.tasks, f"{len(ran)} attempts for {tour.tasks} tasks")
  expect({each.task_id for each in ran} == set(made.ids), "some did not run")
  expect({each.status for each in ran} == {"succeeded"}, "some failed")
  return f"{tour.tasks} tasks made in {sent:.1f} s, each run once in {took:.1f} s"


def import_a_crontab(tour: Tour) -> str:
  """Take over a crontab, twice."""
  first = json.loads(tour.cli("import", "crontab", CRONTAB, "--json"))
  again = json.loads(tour.cli("import", "crontab", CRONTAB, "--json"))
  expect({row["outcome"] for row in first} == {"made"}, f"{first}")
  expect({row["outcome"] for row in again} == {"unchanged"}, f"{again}")
  return f"{len(first)} jobs from {CRONTAB.name}; the second time nothing changed"


def cancel_what_runs(tour: Tour) -> str:
  """Cancel a task that runs."""
  job = tour.make_job("sleeper", {"executor": "shell", "cmd": "sleep 987654"})
  task = tour.run(job)
  wait_for("the process", lambda: bool(sleepers()), 10.0)
  tour.client.send(tasks.cancel_task(task.id))
  took = wait_for("the end of the process", lambda: not sleepers(), 5.0)
  status = tour.see_through(task.id).status
  expect(status == "cancelled", f"the task is {status}")
  return f"its process was gone {took:.1f} s later"


def sleepers() -> list[psutil.Process]:
  """List the processes that the step above starts."""
  found = psutil.process_iter(["cmdline"])
  return [each for each in found if "987654" in (each.info["cmdline"] or [])]


def retry_until_it_works(tour: Tour) -> str:
  """Retry a job that fails at first, and a failed task by hand."""
  script = 'test "$HETUFLOW_ATTEMPT" -ge 3'
  config = {"executor": "shell", "cmd": script, "retry_interval": 0.2}
  patient = tour.make_job("patient", {**config, "max_retries": 5})
  task = tour.see_through(tour.run(patient).id)
  expect((task.status, task.attempts) == ("succeeded", 3), f"{task}")
  hasty = tour.make_job("hasty", config)
  task = tour.see_through(tour.run(hasty).id)
  expect(task.status == "failed", f"the task is {task.status}")
  for _ in range(2):
    tour.client.send(tasks.retry_task(task.id))
    task = tour.see_through(task.id)
  expect((task.status, task.attempts) == ("succeeded", 3), f"{task}")
  return "both succeeded at their third attempt"


def kill_the_agent(tour: Tour) -> str:
  """Kill the agent with kill -9, and see work go on."""
  first = tour.agent_process()
  if first is None:
    raise StepFailed("there is no agent")
  first.send_signal(signal.SIGKILL)

  def is_another() -> bool:
    """Tell whether an agent was started in its place."""
    now = tour.agent_process()
    return now is not None and now.pid != first.pid

  took = wait_for("another agent", is_another, 30.0)
  said = tour.cli("run", "greet", "--follow", "-p", "who=again")
  expect(said == "hello again\n", f"it said {said!r}")
  return f"another one was there {took:.1f} s later"


def drain_and_exit(tour: Tour) -> str:
  """Stop by Ctrl-C: what runs may finish, nothing is left."""
  script = "sleep 2; echo finished"
  job = tour.make_job("last", {"executor": "shell", "cmd": script})
  task = tour.run(job)
  wait_for("the task", lambda: tour.task(task.id).status == "running", 10.0)
  family = psutil.Process(tour.up.pid).children(recursive=True)
  began = time.monotonic()
  tour.up.send_signal(signal.SIGINT)
  code = tour.up.wait(STOP_S)
  took = time.monotonic() - began
  expect(code == 0, f"it exited with {code}")
  _, left = psutil.wait_procs(family, timeout=5)
  expect(not left, f"left running: {left}")
  return f"exit 0 after {took:.1f} s, no process left"


def start_again(tour: Tour) -> str:
  """Start once more, and find everything as it was."""
  began = time.monotonic()
  tour.start()
  said = tour.cli("run", "greet", "--follow", "-p", "who=you")
  took = time.monotonic() - began
  expect(said == "hello you\n", f"it said {said!r}")
  [job] = tour.client.send(jobs.list_jobs(name="last")).items
  [attempt] = tour.attempts(job_id=job.id)
  expect(attempt.output == "finished\n", f"the last task: {attempt}")
  return f"first task done after {took:.1f} s; what ran at the end had finished"


STEPS: list[Callable[[Tour], str]] = [
  start_from_nothing,
  examples_run,
  create_and_run,
  follow_logs,
  cron_every_second,
  many_tasks,
  import_a_crontab,
  cancel_what_runs,
  retry_until_it_works,
  kill_the_agent,
  drain_and_exit,
  start_again,
]


# ── the tour ────────────────────────────────────────────────────────────────────────


def walk(tour: Tour, console: Console) -> bool:
  """Take the steps; tell whether all came to what was promised."""
  for number, step in enumerate(STEPS, 1):
    title = (step.__doc__ or "").partition("\n")[0].rstrip(".")
    head = f"{number:2}/{len(STEPS)} {title}"
    try:
      with waiting(console, head):
        found = step(tour)
    except Exception as error:
      console.print(f"[red]failed[/]  {head}: ", end="")
      console.print(f"{type(error).__name__}: {error}", markup=False)
      return False
    console.print(f"[green]ok[/]      {head}: ", end="")
    console.print(found, markup=False)
  return True


@contextmanager
def waiting(console: Console, head: str) -> Iterator[None]:
  """Show on a terminal that a step is under way."""
  if console.is_terminal:
    with console.status(head):
      yield
  else:
    yield


@contextmanager
def open_folder() -> Iterator[Path]:
  """Lend an empty folder that PostgreSQL's account can enter too."""
  folder = Path(tempfile.mkdtemp(prefix="hetuflow-demo-"))
  folder.chmod(0o755)
  try:
    yield folder
  finally:
    home = folder / "postgres"
    if home.is_symlink():
      shutil.rmtree(home.resolve(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
  """Walk the tour and return the exit code."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--seconds", type=int, default=60, help="of the cron job")
  parser.add_argument("--tasks", type=int, default=20_000, help="in the batch")
  options = parser.parse_args()
  console = Console(highlight=False, soft_wrap=True)
  console.print(f"hetuflow demo, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
  with open_folder() as folder:
    tour = Tour(folder, seconds=options.seconds, tasks=options.tasks)
    try:
      well = walk(tour, console)
      if not well and (log := folder / "up.log").exists():
        console.print(log.read_text()[-2_000:], markup=False)
    finally:
      tour.end()
  return 0 if well else 1


if __name__ == "__main__":
  sys.exit(main())
