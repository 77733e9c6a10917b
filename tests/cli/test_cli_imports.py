"""Crontab files: which are read, and what is called for what they say."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from click.testing import CliRunner

from hetuflow.cli import imports
from hetuflow.cli.imports import crontab_files, has_user_column, local_zone
from hetuflow.cli.main import cli
from hetuflow.cli.plans import Outcome, plan_job
from hetuflow.errors import SettingsError
from hetuflow.protocol.model import Job, JobForCreate, Schedule
from hetuflow.protocol.model.schedule import Dst
from hetuflow.protocol.states import JobStatus
from hetuflow.protocol.wire import load

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB_ID: Any = UUID("0190a8b4-7c00-7000-8000-000000000002")
SCHEDULE_ID: Any = UUID("0190a8b4-7c00-7000-8000-000000000001")


def wanted(command: str = "date", **schedule: Any) -> JobForCreate:
  """Return a job as a crontab line asks for it."""
  timing = {"kind": "cron", "cron_expression": "30 2 * * *", **schedule}
  body = {
    "name": "crontab:1",
    "description": "Imported",
    "config": {"executor": "shell", "cmd": command},
    "schedules": [{"name": "crontab:1", "timezone": "Europe/Berlin", **timing}],
  }
  return load(JobForCreate, body, strict=True)


def stored(job: JobForCreate) -> tuple[Job, Schedule]:
  """Return job and schedule as a server has them once they are made."""
  [schedule] = job.schedules
  there = Job(
    id=JOB_ID,
    namespace_id=job.namespace_id,
    name=job.name,
    description=job.description,
    status=JobStatus.ENABLED,
    config=job.config,
    version=1,
    created_at=NOW,
    updated_at=NOW,
  )
  fields = attrs.asdict(schedule, recurse=False)
  fields |= {"id": SCHEDULE_ID, "namespace_id": job.namespace_id, "job_id": JOB_ID}
  rest = {"run_count": 3, "next_run_at": NOW, "last_run_at": None}
  return there, Schedule(**fields, **rest, created_at=NOW, updated_at=NOW)


def test_a_new_job_is_made_with_its_schedules_in_one_call() -> None:
  plan = plan_job(wanted(), None)
  assert plan.outcome is Outcome.MADE
  assert [(call.method, call.path) for call in plan.calls] == [("POST", "/api/v1/jobs")]


def test_a_second_import_calls_nothing() -> None:
  there, due = stored(wanted())
  plan = plan_job(wanted(), there, [due])
  assert plan.outcome is Outcome.UNCHANGED
  assert plan.calls == []


def test_a_disabled_job_stays_disabled() -> None:
  there, due = stored(wanted())
  there = attrs.evolve(there, status=JobStatus.DISABLED)
  due = attrs.evolve(due, enabled=False)
  assert plan_job(wanted(), there, [due]).calls == []


def test_another_command_changes_the_job_alone() -> None:
  there, due = stored(wanted())
  plan = plan_job(wanted("uptime"), there, [due])
  assert plan.outcome is Outcome.CHANGED
  assert plan.changes == ["config"]
  [call] = plan.calls
  assert (call.method, call.path) == ("PATCH", f"/api/v1/jobs/{JOB_ID}")
  assert b"uptime" in (call.content() or b"")
  assert b"description" not in (call.content() or b"")


def test_another_time_changes_the_schedule_alone() -> None:
  there, due = stored(wanted())
  plan = plan_job(wanted(cron_expression="0 3 * * *"), there, [due])
  [call] = plan.calls
  assert (call.method, call.path) == ("PATCH", f"/api/v1/schedules/{SCHEDULE_ID}")
  assert call.content() == b'{"cron_expression":"0 3 * * *"}'


def test_a_lost_schedule_is_made_again_and_others_are_left_alone() -> None:
  there, due = stored(wanted())
  plan = plan_job(wanted(), there, [attrs.evolve(due, name="mine")])
  [call] = plan.calls
  assert (call.method, call.path) == ("POST", "/api/v1/schedules")
  assert str(JOB_ID).encode() in (call.content() or b"")


def test_a_schedule_of_another_kind_is_replaced() -> None:
  there, due = stored(wanted())
  plan = plan_job(
    wanted(kind="time", cron_expression=None, interval_seconds=60), there, [due]
  )
  assert [call.method for call in plan.calls] == ["DELETE", "POST"]


def test_an_interval_that_became_a_time_is_replaced() -> None:
  every = {"kind": "time", "cron_expression": None, "interval_seconds": 60}
  once = {"kind": "time", "cron_expression": None, "run_at": "2027-01-01T00:00:00Z"}
  there, due = stored(wanted(**every))
  plan = plan_job(wanted(**once), there, [due])
  assert [call.method for call in plan.calls] == ["DELETE", "POST"]


def test_an_end_that_was_taken_away_is_cleared() -> None:
  there, due = stored(wanted(end_at="2027-01-01T00:00:00Z"))
  [call] = plan_job(wanted(), there, [due]).calls
  assert call.content() == b'{"end_at":null}'
  assert due.dst == Dst()


def test_of_a_folder_only_names_that_cron_reads_are_taken(tmp_path: Path) -> None:
  folder = tmp_path / "cron.d"
  folder.mkdir()
  for name in ("sysstat", "old.dpkg-dist", ".placeholder", "e2scrub_all", "x~"):
    (folder / name).touch()
  (folder / "below").mkdir()
  single = tmp_path / "my.crontab"
  single.touch()
  found = {file.name: read for file, read in crontab_files([folder, single])}
  assert found == {
    "sysstat": True,
    "e2scrub_all": True,
    "old.dpkg-dist": False,
    ".placeholder": False,
    "x~": False,
    "my.crontab": True,
  }


def test_a_user_column_is_known_by_the_place_of_the_file() -> None:
  assert has_user_column(Path("/etc/crontab"))
  assert has_user_column(Path("/etc/cron.d/sysstat"))
  assert not has_user_column(Path("/var/spool/cron/crontabs/root"))
  assert not has_user_column(Path("/home/me/crontab"))


def test_lines_that_cannot_be_taken_end_with_1_and_need_no_server(
  tmp_path: Path,
) -> None:
  file = tmp_path / "crontab"
  file.write_text("@reboot date\n61 * * * * date\n")
  environ = {"HETUFLOW_DATA_DIR": str(tmp_path), "HETUFLOW_URL": None, "TZ": "UTC"}
  result = CliRunner().invoke(cli, ["import", "crontab", str(file)], env=environ)
  assert result.exit_code == 1
  assert result.stdout.count("not taken") == 2
  assert f"{file}:1" in result.stdout


@pytest.mark.parametrize(
  ("files", "zone"),
  [
    ({}, "UTC"),
    ({"localtime": "/usr/share/zoneinfo/Europe/Berlin"}, "Europe/Berlin"),
    ({"localtime": None, "timezone": "Asia/Tokyo\n"}, "Asia/Tokyo"),
    ({"localtime": None}, None),
  ],
  ids=["none", "link", "copy with its name", "copy"],
)
def test_the_zone_of_the_machine_is_told_or_asked_for_but_never_guessed(
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  files: dict[str, str | None],
  zone: str | None,
) -> None:
  localtime, timezone = tmp_path / "localtime", tmp_path / "timezone"
  monkeypatch.delenv("TZ", raising=False)
  monkeypatch.setattr(imports, "LOCALTIME", localtime)
  monkeypatch.setattr(imports, "TIMEZONE", timezone)
  if target := files.get("localtime"):
    localtime.symlink_to(target)
  elif "localtime" in files:
    localtime.write_bytes(b"TZif2")
  if name := files.get("timezone"):
    timezone.write_text(name)
  if zone is None:
    with pytest.raises(SettingsError, match="--tz"):
      local_zone()
  else:
    assert local_zone() == zone


def test_a_file_name_that_is_no_text_is_shown_all_the_same(tmp_path: Path) -> None:
  (tmp_path / os.fsdecode(b"\xff.old")).touch()
  (tmp_path / "none").write_text("61 * * * * date\n")
  environ = {"HETUFLOW_DATA_DIR": str(tmp_path), "HETUFLOW_URL": None, "TZ": "UTC"}
  line = ["import", "crontab", "--json", str(tmp_path)]
  result = CliRunner().invoke(cli, line, env=environ)
  rows = json.loads(result.stdout)
  assert [row["outcome"] for row in rows] == ["not taken", "ignored"]
  assert rows[1]["file"] == f"{tmp_path}/\ufffd.old"
