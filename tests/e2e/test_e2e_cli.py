"""The command line against a real server and agent, as people and scripts use it."""

import itertools
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import psutil
import pytest
import trio
from support.commands import Command, World
from support.programs import wait_until
from support.world import query

from hetuflow.cli.find import FEW
from hetuflow.storage.connect import StorageSettings, open_storage
from hetuflow.storage.embedded import open_embedded

pytestmark = pytest.mark.usefixtures("world")

LIMIT_S = 60.0
GONE_S = 5.0
_numbers = itertools.count()


async def make(cli: Command, *words: object) -> str:
  """Make a job by ``jobs create NAME WORDS…`` and return its name."""
  name = f"made-{next(_numbers)}"
  (await cli("jobs", "create", name, *words)).ok()
  return name


def marked(mark: str) -> list[psutil.Process]:
  """List the running processes that have a word on their command line."""
  found = []
  for process in psutil.process_iter(["cmdline", "status"]):
    words = process.info["cmdline"] or []
    if mark in words and process.info["status"] != psutil.STATUS_ZOMBIE:
      found.append(process)
  return found


# ── jobs and schedules ──────────────────────────────────────────────────────────────


async def test_a_job_is_made_shown_listed_and_deleted(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(
      cli,
      *("--cron", "30 2 * * *", "--tz", "Europe/Berlin", "--timeout", "60"),
      *("--env", "A=b=c", "--label", "disk=ssd", "--retries", "2"),
      *("--description", "a nightly copy", "--", "/bin/echo", "--flag", "x y"),
    )
    shown = (await cli("jobs", "show", name, "--json")).ok().json
    config = shown["config"]
    assert config["cmd"] == "/bin/echo"
    assert config["args"] == ["--flag", "x y"]
    assert config["environment"] == {"A": "b=c"}
    assert config["labels"] == {"disk": "ssd"}
    assert (config["timeout"], config["max_retries"]) == (60, 2)
    assert shown["schedules"][0]["cron_expression"] == "30 2 * * *"
    plain = (await cli("jobs", "show", name)).ok().text
    assert "a nightly copy" in plain
    assert "30 2 * * * Europe/Berlin" in plain
    assert name in (await cli("jobs", "list")).ok().text
    refused = await cli("jobs", "create", name, "--", "/bin/true")
    assert refused.code == 1
    assert name in refused.complaint
    assert len(refused.complaint.splitlines()) == 1
    (await cli("jobs", "delete", "--yes", name)).ok()
    assert (await cli("jobs", "show", name)).code == 1
    assert name not in (await cli("jobs", "list")).ok().text


async def test_a_job_can_come_from_a_file(cli: Command, tmp_path: Path) -> None:
  name = f"made-{next(_numbers)}"
  toml, wrong = tmp_path / "job.toml", tmp_path / "wrong.json"
  toml.write_text(f'name = "{name}"\n[config]\ncmd = "/bin/echo"\nargs = ["from toml"]')
  wrong.write_text(json.dumps({"name": name, "config": {"cmd": "x", "zz": 1}}))
  with trio.fail_after(LIMIT_S):
    (await cli("jobs", "create", "--file", toml)).ok()
    run = await cli("run", name, "--follow")
    assert (run.code, run.out) == (0, b"from toml\n")
    refused = await cli("jobs", "create", "--file", wrong)
  assert refused.code == 1
  assert "$.config.zz" in refused.complaint


async def test_a_disabled_job_is_not_run(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "/bin/true")
    (await cli("jobs", "disable", name)).ok()
    refused = await cli("run", name)
    assert refused.code == 1
    assert "disabled" in refused.complaint
    (await cli("jobs", "enable", name)).ok()
    assert (await cli("run", name, "--follow")).code == 0


async def test_a_disabled_schedule_takes_its_future_tasks_with_it(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--every", "10", "--", "/bin/true")

    async def planned() -> list[str]:
      """Return the ids of the tasks that wait."""
      found = await cli("tasks", "list", "--job", name, "--json")
      return [task["id"] for task in found.ok().json if task["status"] == "pending"]

    assert len(await wait_until(planned, 10)) >= 4
    [schedule] = (await cli("schedules", "list", "--job", name, "--json")).ok().json
    (await cli("schedules", "disable", schedule["id"])).ok()
    assert await planned() == []
    shown = (await cli("schedules", "show", schedule["id"], "--json")).ok().json
    assert (shown["enabled"], shown["next_run_at"]) == (False, None)
    (await cli("schedules", "enable", schedule["id"])).ok()
    await wait_until(planned, 10)
    (await cli("schedules", "delete", schedule["id"])).ok()
    assert await planned() == []


async def test_past_times_are_run_after_all_and_the_ledger_says_so(
  cli: Command,
) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--cron", "* * * * *", "--", "/bin/sh", "-c", "exit 3")
    [schedule] = (await cli("schedules", "list", "--job", name, "--json")).ok().json
    end = datetime.now(UTC).replace(second=30, microsecond=0) - timedelta(minutes=5)
    span = ("--from", str(end - timedelta(minutes=3)), "--to", str(end))
    fill = ("schedules", "backfill", schedule["id"], *span)
    assert (await cli(*fill)).ok().text.strip() == "3 tasks made"
    assert (await cli(*fill, "--json")).ok().json == {"tasks": 0, "ids": []}
    show = ("schedules", "ledger", schedule["id"], *span)

    async def ended() -> Any:
      """Return the ledger once all of them have run."""
      ledger = (await cli(*show, "--json")).ok().json
      return ledger if {item["status"] for item in ledger["items"]} == {"failed"} else 0

    ledger = await wait_until(ended, 20)
    assert [item["outcome"] for item in ledger["items"]] == ["ran"] * 3
    assert ledger["totals"]["ran"] == 3
    assert ledger["check"]["complete"]
    plain = (await cli(*show)).ok().text
    assert plain.count("backfill") == 3
    assert "3 ran" in plain
    refused = await cli(*fill[:-1], str(end + timedelta(days=1)))
    assert refused.code == 1
    assert "future" in refused.complaint


# ── run, exec, logs ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)]
)
async def test_a_followed_run_exits_as_its_process_does(
  cli: Command, script: str, code: int
) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "/bin/sh", "-c", f"echo out; echo err >&2; {script}")
    run = await cli("run", name, "--follow")
  assert (run.code, run.out, run.err) == (code, b"out\n", b"err\n")


async def test_parameters_reach_environment_and_arguments(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(
      cli,
      *("--env", "DAY=<{{ parameters.day }}>", "--", "/bin/sh", "-c"),
      *('echo "$HETUFLOW_PARAM_DAY $DAY $1 $HETUFLOW_PARAM_N"', "sh"),
      "{{ parameters.day }} {{ parameters.deep.x }}",
    )
    words = ("-p", "day=mon day", "-p", 'deep={"x": [1, "y"]}', "-p", "n=3")
    run = await cli("run", name, "--follow", *words)
    assert run.ok().text == 'mon day <mon day> mon day [1,"y"] 3\n'
    lacking = await cli("run", name, "--follow")
    assert lacking.code == 1
    assert "needs the parameter 'day'" in lacking.complaint
    shown = (await cli("logs", name, "--json")).ok().json
  assert shown["instance"]["error_message"] in lacking.complaint


@pytest.mark.parametrize(
  ("words", "why"),
  [
    (("--", "/no/such/program"), "/no/such/program"),
    (("--timeout", "0.5", "--", "sleep", "603"), "timeout after 0.5 s"),
  ],
)
async def test_a_followed_run_says_why_it_ended_otherwise(
  cli: Command, words: tuple[str, ...], why: str
) -> None:
  with trio.fail_after(LIMIT_S):
    run = await cli("run", await make(cli, *words), "--follow")
  assert run.code != 0
  assert run.complaint.startswith("hetuflow: ")
  assert why in run.complaint
  assert len(run.complaint.splitlines()) == 1


async def test_exec_runs_a_command_once_and_leaves_no_job(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    run = await cli("exec", "--env", "A=1", "--", "sh", "-c", "echo $A; exit 3")
    assert (run.code, run.out) == (3, b"1\n")
    names = [job["name"] for job in (await cli("jobs", "list", "--json")).ok().json]
  assert not [name for name in names if name.startswith("exec-")]


@pytest.mark.parametrize("times", [1, 50])
async def test_an_interrupted_exec_takes_its_process_along(
  cli: Command, times: int
) -> None:
  script = f"echo begun; exec sleep {nap(600)}"
  with trio.fail_after(LIMIT_S):
    async with cli.started("exec", "--", "bash", "-c", script) as process:
      assert process.stdout is not None
      assert await process.stdout.receive_some(100) == b"begun\n"
      await wait_until(lambda: sleeping(600))
      for _ in range(times):
        process.send_signal(signal.SIGINT)
        with trio.move_on_after(0.002):
          await process.wait()
      assert await process.wait() == 130
    await wait_until(lambda: not sleeping(600), GONE_S)
    names = [job["name"] for job in (await cli("jobs", "list", "--json")).ok().json]
    assert not [name for name in names if name.startswith("exec-")]


def nap(seconds: int) -> str:
  """Return a time to sleep that is no other test run's on this machine."""
  return f"{seconds}.{os.getpid()}"


def sleeping(seconds: int) -> list[psutil.Process]:
  """List the processes of ours that sleep for so long."""
  return marked(nap(seconds))


async def test_logs_follow_a_run_while_it_prints(cli: Command, tmp_path: Path) -> None:
  gate = tmp_path / "gate"
  script = f"echo first; until [ -e {gate} ]; do sleep 0.05; done; echo last; exit 4"
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "sh", "-c", script)
    (await cli("run", name)).ok()
    await wait_until(lambda: instance_of(cli, name), 10)
    async with cli.started("logs", "-f", name) as process:
      assert process.stdout is not None
      assert await process.stdout.receive_some(100) == b"first\n"
      gate.touch()
      assert await process.stdout.receive_some(100) == b"last\n"
      assert await process.wait() == 4
    assert (await cli("logs", name)).ok().out == b"first\nlast\n"


async def instance_of(cli: Command, name: str) -> UUID | None:
  """Return the id of the newest instance of a job once it has begun."""
  shown = await cli("logs", name, "--json")
  if shown.code or shown.json["instance"]["started_at"] is None:
    return None
  return UUID(shown.json["instance"]["id"])


async def test_logs_keep_the_streams_apart(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "sh", "-c", "echo out; echo err >&2")
    (await cli("run", name, "--follow")).ok()
    both = (await cli("logs", name)).ok()
    assert (both.out, both.err) == (b"out\n", b"err\n")
    only = (await cli("logs", name, "--stream", "stderr")).ok()
    assert (only.out, only.err) == (b"", b"err\n")


# ── tasks ───────────────────────────────────────────────────────────────────────────


async def test_a_cancelled_sleep_is_gone_within_seconds(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "sh", "-c", f"sleep {nap(601)} & sleep {nap(602)}")
    task = (await cli("run", name)).ok().text.strip()
    await wait_until(lambda: sleeping(601) and sleeping(602), 10)
    began = monotonic()
    (await cli("tasks", "cancel", task)).ok()
    await wait_until(lambda: not sleeping(601) and not sleeping(602), GONE_S)
    assert monotonic() - began < GONE_S

    async def status() -> bool:
      """Tell whether the task says so too."""
      shown = (await cli("tasks", "show", task, "--json")).ok().json
      return bool(shown["status"] == "cancelled")

    await wait_until(status, GONE_S)
    shown = (await cli("tasks", "show", task, "--json")).ok().json
    assert [each["status"] for each in shown["instances"]] == ["cancelled"]
    assert shown["cancel_requested_at"] is not None


async def test_a_task_that_waits_is_cancelled_at_once(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "/bin/true")
    task = (await cli("run", name, "--at", "2999-01-01T00:00Z")).ok().text.strip()
    (await cli("tasks", "cancel", task)).ok()
    shown = (await cli("tasks", "show", task, "--json")).ok().json
    assert (shown["status"], shown["instances"]) == ("cancelled", [])
    (await cli("tasks", "cancel", task)).ok()


async def test_a_failed_task_can_be_run_once_more(cli: Command, tmp_path: Path) -> None:
  flag = tmp_path / "flag"
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "test", "-e", flag)
    assert (await cli("run", name, "--follow")).code == 1
    [task] = (await cli("tasks", "list", "--job", name, "--json")).ok().json
    assert task["status"] == "failed"
    flag.touch()
    (await cli("tasks", "retry", task["id"])).ok()

    async def succeeded() -> bool:
      """Tell whether it has succeeded by now."""
      shown = (await cli("tasks", "show", task["id"], "--json")).ok().json
      return bool(shown["status"] == "succeeded")

    await wait_until(succeeded, 10)
    shown = (await cli("tasks", "show", task["id"], "--json")).ok().json
    codes = sorted((each["attempt"], each["exit_code"]) for each in shown["instances"])
    assert codes == [(1, 1), (2, 0)]
    plain = (await cli("tasks", "show", task["id"])).ok().text
  assert "succeeded" in plain


async def test_tasks_are_listed_by_status(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "/bin/true")
    (await cli("run", name, "--follow")).ok()
    (await cli("run", name, "--at", "2999-01-01T00:00Z")).ok()
    listed = (await cli("tasks", "list", "--job", name, "--json")).ok().json
    assert sorted(task["status"] for task in listed) == ["pending", "succeeded"]
    some = await cli("tasks", "list", "--job", name, "--status", "pending", "--json")
    assert [task["status"] for task in some.ok().json] == ["pending"]
    table = (await cli("tasks", "list", "--job", name)).ok().text
  assert table.split()[0] == "ID"
  assert [line.split()[1] for line in table.splitlines()[1:]] == [name, name]


async def test_a_job_is_changed_and_what_is_not_named_stays(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--env", "A=1", "--retries", "2", "--", "echo", "old")
    told = (await cli("jobs", "update", name, "--env", "B=2", "--", "env")).ok()
    shown = (await cli("jobs", "show", name, "--json")).ok().json
    printed = (await cli("run", name, "--follow")).ok().out
    idle = await cli("jobs", "update", name)
    (await cli("jobs", "update", name, "--description", "why")).ok()
    plain = (await cli("jobs", "show", name, "--json")).ok().json
  assert told.text == f"{name}  version 2\n"
  config = shown["config"]
  assert (config["cmd"], config["args"], config["max_retries"]) == ("env", [], 2)
  assert {b"A=1", b"B=2"} <= set(printed.splitlines())
  assert (idle.code, plain["version"], plain["description"]) == (2, 2, "why")


async def spoil_job(data_dir: Path, name: str, config: dict[str, object]) -> None:
  """Write a configuration that no server would take into its database."""
  write = query("""
    UPDATE sched_job_version SET config = $config::jsonb
    WHERE job_id = (SELECT id FROM sched_job WHERE name = $name)
  """)
  async with (
    open_embedded(data_dir) as cluster,
    open_storage(StorageSettings(dsn=cluster.dsn, pool_size=1)) as database,
  ):
    await database.fetch(write, name=name, config=config)


async def test_a_job_whose_configuration_is_refused_by_now_is_mended(
  cli: Command,
) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "true")
    stored = {"cmd": "", "environment": {"A": "1"}, "labels": [1]}
    await spoil_job(cli.data_dir, name, stored)
    listed = (await cli("jobs", "list")).ok().text
    plain = (await cli("jobs", "show", name)).ok().text
    refused = await cli("jobs", "update", name, "--env", "B=2")
    words = ("--env", "B=2", "--label", "disk=ssd", "--", "true")
    (await cli("jobs", "update", name, *words)).ok()
    shown = (await cli("jobs", "show", name, "--json")).ok().json
  [line] = [line for line in listed.splitlines() if line.startswith(name)]
  assert "(unusable)" in line
  assert "expected an object @ $.labels" in " ".join(plain.split())
  assert refused.code != 0
  assert "$.config.labels" in refused.complaint
  assert shown["config"]["environment"] == {"A": "1", "B": "2"}
  assert (shown["config"]["cmd"], shown["unusable"]) == ("true", None)


async def test_a_job_is_given_one_more_schedule(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "true")
    words = ("schedules", "create", name, "--cron", "0 3 * * *", "--tz", "Asia/Tokyo")
    (await cli(*words, "--name", f"{name}-nightly")).ok()
    [made] = (await cli("schedules", "list", "--job", name, "--json")).ok().json
    none = await cli("schedules", "create", name)
  assert (made["name"], made["timezone"]) == (f"{name}-nightly", "Asia/Tokyo")
  assert none.code == 2


async def test_lists_name_the_jobs_also_of_many_tasks(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    names = [await make(cli, "--every", "3600", "--", "true") for _ in range(FEW + 1)]
    for name in names:
      (await cli("run", name, "--at", "2999-01-01T00:00Z")).ok()
    tasks = (await cli("tasks", "list", "--limit", FEW + 1)).ok().text
    times = (await cli("schedules", "list")).ok().text
  assert {line.split()[1] for line in tasks.splitlines()[1:]} == set(names)
  assert set(names) <= {line.split()[1] for line in times.splitlines()[1:]}


async def test_a_task_that_no_agent_may_run_says_what_it_waits_for(
  cli: Command,
) -> None:
  with trio.fail_after(LIMIT_S):
    async with cli.started("exec", "--agent-label", "disk=none", "true") as process:
      assert process.stderr is not None
      said = await process.stderr.receive_some(1000)
      process.send_signal(signal.SIGINT)
      assert await process.wait() == 130
  assert said == b"hetuflow: waiting: no agent that is online has disk=none\n"


async def test_logs_say_why_nothing_was_printed(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    name = await make(cli, "--", "/no/such/program")
    assert (await cli("run", name, "--follow")).code == 1
    told = await cli("logs", name)
  assert told.out == b""
  assert "cannot start '/no/such/program'" in told.err.decode()


async def test_output_that_was_cut_is_told(cli: Command, tmp_path: Path) -> None:
  file = tmp_path / "job.json"
  config = {"cmd": "seq", "args": ["100000"], "max_output_size": 1000}
  name = f"made-{next(_numbers)}"
  file.write_text(json.dumps({"name": name, "config": config}))
  with trio.fail_after(LIMIT_S):
    (await cli("jobs", "create", "--file", file)).ok()
    followed = (await cli("run", name, "--follow")).ok()
    told = (await cli("logs", name)).ok()
  for result in (followed, told):
    assert "587895 bytes of stdout were not kept" in result.err.decode()
    assert result.out.endswith(b"100000\n")


# ── the rest ────────────────────────────────────────────────────────────────────────


async def test_status_tells_who_leads_and_who_plans_for_how_many(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    lines = [line.split() for line in (await cli("status")).ok().text.splitlines()]
    place = next(n for n, line in enumerate(lines) if line[:1] == ["SERVER"])
    seen = dict(zip(lines[place][:6], lines[place + 1], strict=False))
    assert (seen["ALIVE"], seen["LEADER"], seen["WEIGHT"]) == ("yes", "yes", "1")
    assert int(seen["NAMESPACES"]) >= 1
    assert seen["LOAD"].endswith("%")


async def test_every_reading_command_speaks_json(cli: Command) -> None:
  name = await make(cli, "--every", "3600", "--", "/bin/true")
  reads = {
    "status": dict,
    "jobs list": list,
    f"jobs show {name}": dict,
    "schedules list": list,
    "tasks list": list,
    "agents list": list,
    "agents show first": dict,
    "namespaces list": list,
    "preview @daily": dict,
  }
  with trio.fail_after(LIMIT_S):
    for words, kind in reads.items():
      result = (await cli(*words.split(), "--json")).ok()
      assert isinstance(result.json, kind), words
      assert (await cli(*words.split())).ok().out


async def test_a_server_and_key_can_be_named(world: World, tmp_path: Path) -> None:
  elsewhere = Command(data_dir=tmp_path)
  server, key = world.server.url, world.server.key
  with trio.fail_after(LIMIT_S):
    lost = await elsewhere("jobs", "list")
    assert lost.code == 2
    assert "no server found" in lost.complaint
    named = await elsewhere("jobs", "list", "--server", server, "--key", key)
    assert named.code == 0
    told = await elsewhere("jobs", "list", HETUFLOW_URL=server, HETUFLOW_API_KEY=key)
    assert told.code == 0
    wrong = await elsewhere("jobs", "list", "--server", server, "--key", "hfk_no")
    assert wrong.code == 1
    assert "401" in wrong.complaint
    nobody = await elsewhere("run", "x", "--server", "http://127.0.0.1:9", "--key", "k")
    assert nobody.code == 1
    assert "http://127.0.0.1:9" in nobody.complaint


async def test_a_wrong_call_costs_one_line_and_code_2(cli: Command) -> None:
  with trio.fail_after(LIMIT_S):
    assert (await cli("jobs", "dance")).code == 2
    assert (await cli("run")).code == 2
    assert (await cli("preview", "61 * * * *")).code == 2
    missing = await cli("run", "no-such-job")
  assert missing.code == 1
  assert missing.complaint.strip().endswith("in namespace default")
