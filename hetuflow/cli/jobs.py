"""``hetuflow jobs``: what is to be done."""

import shlex
from itertools import islice
from pathlib import Path
from typing import Any

import click

from hetuflow.cli import show
from hetuflow.cli.documents import read_document
from hetuflow.cli.find import find_job
from hetuflow.cli.options import config_of, config_options, timing_options, timings_of
from hetuflow.cli.session import Session, group, json_option, pass_session
from hetuflow.cli.words import pair
from hetuflow.client.calls import jobs as calls
from hetuflow.client.calls import schedules
from hetuflow.protocol import wire
from hetuflow.protocol.model import Job, JobForCreate, JobForUpdate, TaskConfig
from hetuflow.protocol.states import ExecutorKind

__all__ = ["command_of", "jobs", "timing_of"]

TIMES = ("cron", "every", "at", "timezone", "calendars")
NAMES = click.argument("names", metavar="JOB...", nargs=-1, required=True)


@group("jobs")
def jobs() -> None:
  """Look after jobs: what is to be done."""


@jobs.command("list")
@click.option("--status", type=click.Choice(["enabled", "disabled"]))
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True)
@json_option
@pass_session
def list_jobs(session: Session, status: str | None, limit: int, as_json: bool) -> None:
  """List the jobs of the namespace."""
  call = calls.list_jobs(namespace_id=session.here, status=status)
  found = list(islice(session.client.pages(call), limit))
  if as_json:
    show.print_json(found)
    return
  show.print_table(
    ("NAME", "STATUS", "EXECUTOR", "COMMAND", "VERSION", "ID"),
    ((job.name, job.status, *_what(job.config), job.version, job.id) for job in found),
  )


def _what(config: TaskConfig | None) -> tuple[str, str]:
  """Return how a job is run, and what; of one whose configuration is refused that it is."""
  return (
    ("-", "(unusable)") if config is None else (config.executor, command_of(config))
  )


def command_of(config: TaskConfig) -> str:
  """Return what a job runs in one line, as a shell would take it."""
  script = config.executor is ExecutorKind.SHELL
  cmd = config.cmd if script else shlex.quote(config.cmd)
  return " ".join([cmd, *map(shlex.quote, config.args)])


@jobs.command("show")
@click.argument("name", metavar="JOB")
@json_option
@pass_session
def show_job(session: Session, name: str, as_json: bool) -> None:
  """Show one job with its schedules."""
  job = find_job(session, name)
  call = schedules.list_schedules(job_id=job.id)
  due = list(session.client.pages(call))
  if as_json:
    show.print_json({**wire.dump(job), "schedules": due})
    return
  facts = wire.dump(job)
  config = facts.pop("config")
  unusable = facts.pop("unusable")
  if config is None:
    changed = unusable
  else:
    plain = wire.dump(wire.load(TaskConfig, {"cmd": config["cmd"]}))
    changed = {k: v for k, v in config.items() if k == "cmd" or v != plain[k]}
  show.print_facts([*facts.items(), *changed.items()])
  for each in due:
    click.echo(
      f"schedule {each.name or each.id}: {timing_of(wire.dump(each))} {each.timezone}"
      f"{'' if each.enabled else ' (disabled)'}"
    )


def timing_of(schedule: dict[str, Any]) -> str:
  """Say in a few words when a schedule fires."""
  if (seconds := schedule.get("interval_seconds")) is not None:
    after = "after each end" if schedule.get("fixed_delay") else ""
    return f"every {seconds:g} s {after}".rstrip()
  if (replicas := schedule.get("replicas")) is not None:
    return f"always, {replicas} at a time"
  if (event := schedule.get("event_name")) is not None:
    return f"on {event}"
  if (after_job := schedule.get("after")) is not None:
    return f"after {after_job['job']}"
  return schedule.get("cron_expression") or f"at {schedule.get('run_at')}"


@jobs.command("create")
@click.argument("name", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@timing_options
@config_options
@click.option("--description", default="")
@json_option
@pass_session
def create_job(
  session: Session,
  /,
  name: str | None,
  command: tuple[str, ...],
  file: Path | None,
  description: str,
  as_json: bool,
  **words: Any,
) -> None:
  """Make a job: NAME [options] -- COMMAND ARGS..., or --file with a job as JSON or TOML."""
  if file:
    body = read_document(file, "one job")
  elif name and command:
    times = timings_of(**{each: words.pop(each) for each in TIMES})
    config = config_of(command, **words)
    body = {"name": name, "config": config, "schedules": times}
    body["description"] = description
  else:
    raise click.UsageError("give NAME -- COMMAND ARGS..., or --file FILE")
  body.setdefault("namespace_id", session.here)
  job = session.send(calls.create_job(wire.load(JobForCreate, body, strict=True)))
  if as_json:
    show.print_json(job)
  else:
    click.echo(f"{job.name}  {job.id}")


@jobs.command("update")
@click.argument("name", metavar="JOB")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@config_options
@click.option("--description")
@json_option
@pass_session
def update_job(
  session: Session,
  /,
  name: str,
  command: tuple[str, ...],
  description: str | None,
  as_json: bool,
  **words: Any,
) -> None:
  """Change a job: JOB [options] [-- COMMAND ARGS...]; what is not named stays.

  --env and --label add to what is there. Tasks that are planned already run as the job
  was when they were planned.
  """
  given = config_of(command, **words)
  if not given and description is None:
    raise click.UsageError("nothing to change: give options, or -- COMMAND ARGS...")
  job = find_job(session, name)
  before = _stored(job)
  for field in ("environment", "labels"):
    if field in given:
      there = before.get(field)
      given[field] = {**(there if isinstance(there, dict) else {}), **given[field]}
  change: dict[str, Any] = {} if description is None else {"description": description}
  if given:
    change["config"] = {**before, **given}
  job = session.send(calls.update_job(job.id, wire.load(JobForUpdate, change)))
  if as_json:
    show.print_json(job)
  else:
    click.echo(f"{job.name}  version {job.version}")


def _stored(job: Job) -> dict[str, Any]:
  """Return what a job's configuration is, whether it can be used or not."""
  if job.unusable is None:
    return dict(wire.dump(job.config))
  return job.unusable.stored if isinstance(job.unusable.stored, dict) else {}


@jobs.command("enable")
@NAMES
@pass_session
def enable_jobs(session: Session, names: tuple[str, ...]) -> None:
  """Let jobs run again."""
  for name in names:
    session.send(calls.enable_job(find_job(session, name).id))


@jobs.command("disable")
@NAMES
@pass_session
def disable_jobs(session: Session, names: tuple[str, ...]) -> None:
  """Keep jobs from running, without forgetting them."""
  for name in names:
    session.send(calls.disable_job(find_job(session, name).id))


@jobs.command("delete")
@NAMES
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def delete_jobs(session: Session, names: tuple[str, ...], yes: bool) -> None:
  """Delete jobs with their schedules."""
  found = [find_job(session, name) for name in names]
  if not yes:
    click.confirm(f"delete {', '.join(job.name for job in found)}?", abort=True)
  for job in found:
    session.send(calls.delete_job(job.id))


@jobs.command("run")
@click.argument("name", metavar="JOB")
@click.option("-p", "pairs", type=pair, multiple=True, help="A parameter.")
@click.pass_context
def run_job(ctx: click.Context, name: str, pairs: tuple[tuple[str, str], ...]) -> None:
  """Run a job now; `hetuflow run` can do more."""
  from hetuflow.cli.run import run

  ctx.invoke(run, name=name, pairs=pairs)
