"""The crontabs that Debian's packages bring, taken over into a running system."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from support.commands import Command

from hetuflow.client import AsyncClient
from hetuflow.client.calls import jobs, schedules

LIMIT_S = 60.0
APT_S = 120.0
PACKAGES = (
  *("anacron", "certbot", "cron", "cron-daemon-common", "php-common", "sysstat"),
)
FULL_PATH = "/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin"
TIMES = {
  "crontab:1": "17 * * * *",
  "crontab:2": "25 6 * * *",
  "crontab:3": "47 6 * * 7",
  "crontab:4": "52 6 1 * *",
  "cron.d/anacron:1": "30 7-23 * * *",
  "cron.d/certbot:1": "0 */12 * * *",
  "cron.d/php:1": "09,39 * * * *",
  "cron.d/sysstat:1": "5-55/10 * * * *",
  "cron.d/sysstat:2": "59 23 * * *",
}
ODD = """\
# what a system collects over the years
@reboot root echo booted
61 * * * * root echo never
LOGNAME=me
CRON_TZ=Mars/Olympus
0 4 * * * root echo on mars
CRON_TZ=Europe/Berlin
0 5 * * * alice echo 100\\% && cat%one%two
0 6 * * * root
"""


def apt(folder: Path, *words: str) -> bool:
  """Run apt-get in a folder; tell whether it did its work."""
  done = subprocess.run(
    ["apt-get", "-q", *words],
    cwd=folder,
    env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
    capture_output=True,
    timeout=APT_S,
    check=False,
  )
  return done.returncode == 0


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The unpacked packages, as the root of a system; not changed by any test."""
  if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
    pytest.skip("apt-get and dpkg-deb are needed to fetch Debian's own files")
  folder = tmp_path_factory.mktemp("debian")
  got = apt(folder, "download", *PACKAGES)
  if not got and os.geteuid() == 0:
    got = apt(folder, "update") and apt(folder, "download", *PACKAGES)
  if not got:
    pytest.skip("Debian's packages cannot be downloaded here")
  for package in sorted(folder.glob("*.deb")):
    root = str(folder / "root")
    subprocess.run(["dpkg-deb", "-x", str(package), root], timeout=APT_S, check=True)
  return folder / "root" / "etc"


def as_lines(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
  """Return outcomes by job."""
  return {row["job"]: row["outcome"] for row in rows if row["job"]}


async def import_json(cli: Command, *words: object) -> list[dict[str, Any]]:
  """Import files and return what became of each line."""
  rows: list[dict[str, Any]] = (await cli("import", "crontab", *words, "--json")).json
  return rows


async def test_what_debian_ships_becomes_jobs_and_stays_so(
  debian: Path, cli: Command, client: AsyncClient, tmp_path: Path
) -> None:
  etc = tmp_path / "etc"
  shutil.copytree(debian, etc, ignore=shutil.ignore_patterns("init.d", "systemd"))
  words = (etc / "crontab", etc / "cron.d", "--tz", "Europe/Berlin")
  with trio.fail_after(LIMIT_S):
    planned = await import_json(cli, *words, "--dry-run")
    assert as_lines(planned) == dict.fromkeys(TIMES, "made")
    assert (await client.send(jobs.list_jobs(name="crontab:1"))).items == []

    made = await cli("import", "crontab", *words)
    assert made.code == 0, made.text
    assert "crontab:4" in made.text
    for name, expression in TIMES.items():
      await check_job(client, name, expression)

    again = await import_json(cli, *words)
    assert as_lines(again) == dict.fromkeys(TIMES, "unchanged")

    file = etc / "cron.d" / "sysstat"
    file.write_text(file.read_text().replace("59 23", "58 22").replace("60 2", "60 3"))
    changed = await import_json(cli, *words)
  expected = dict.fromkeys(TIMES, "unchanged") | {"cron.d/sysstat:2": "changed"}
  assert as_lines(changed) == expected
  with trio.fail_after(LIMIT_S):
    [job] = (await client.send(jobs.list_jobs(name="cron.d/sysstat:2"))).items
    assert job.version == 2
    assert job.config.cmd.endswith("debian-sa1 60 3")
    await check_job(client, "cron.d/sysstat:2", "58 22 * * *")


async def check_job(client: AsyncClient, name: str, expression: str) -> None:
  """Demand that an entry became a job with all that its line and file say."""
  [job] = (await client.send(jobs.list_jobs(name=name))).items
  [schedule] = (await client.send(schedules.list_schedules(job_id=job.id))).items
  assert schedule.cron_expression == expression
  assert schedule.timezone == "Europe/Berlin"
  assert schedule.enabled
  assert schedule.next_run_at is not None
  assert job.config.executor == "shell"
  assert job.config.user == "root"
  assert job.config.stdin is None
  file = name.rpartition(":")[0]
  environment = {
    "cron.d/php": {"PATH": "/usr/bin:/bin"},
    "cron.d/sysstat": {
      "PATH": "/usr/lib/sysstat:/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
    },
  }.get(file, {"PATH": FULL_PATH, "SHELL": "/bin/sh"})
  assert job.config.environment == environment


async def test_what_cannot_be_taken_is_listed_with_its_reason(
  cli: Command, client: AsyncClient, tmp_path: Path
) -> None:
  folder = tmp_path / "cron.d"
  folder.mkdir()
  (folder / "odd").write_text(ODD)
  (folder / "odd.dpkg-old").write_text("* * * * * root echo old\n")
  with trio.fail_after(LIMIT_S):
    result = await cli("import", "crontab", folder, "--json")
    shown = await cli("import", "crontab", folder)
    [job] = (await client.send(jobs.list_jobs(name="cron.d/odd:4"))).items
    [schedule] = (await client.send(schedules.list_schedules(job_id=job.id))).items
  assert (result.code, shown.code) == (1, 1)
  refused = {
    row["line"]: row["why"] for row in result.json if row["outcome"] == "not taken"
  }
  assert sorted(refused) == [2, 3, 4, 5, 6, 9]
  for line, reason in {
    2: "@reboot",
    3: "61",
    4: "LOGNAME",
    5: "Mars/Olympus",
    6: "Mars/Olympus",
    9: "no command",
  }.items():
    assert reason in refused[line]
    assert refused[line] in shown.text
  ignored = [row["file"] for row in result.json if row["outcome"] == "ignored"]
  assert [Path(file).name for file in ignored] == ["odd.dpkg-old"]
  assert job.config.cmd == "echo 100% && cat"
  assert (job.config.user, job.config.stdin) == ("alice", "one\ntwo\n")
  assert schedule.timezone == "Europe/Berlin"


async def test_an_imported_line_runs_as_cron_would_run_it(
  cli: Command, tmp_path: Path
) -> None:
  file = tmp_path / "mine"
  file.write_text(
    "SHELL=/bin/bash\nA='b c'\n"
    '@yearly [[ $A == "b c" ]] && cat && echo "$SHELL" "$PATH"%fed%\n'
  )
  with trio.fail_after(LIMIT_S):
    [row] = await import_json(cli, file)
    run = await cli("run", row["job"], "--follow")
  assert (run.code, run.complaint) == (0, "")
  assert run.text == "fed\n/bin/bash /usr/bin:/bin\n"


async def test_the_examples_can_be_imported(cli: Command) -> None:
  file = Path(__file__).parents[2] / "examples" / "crontab"
  with trio.fail_after(LIMIT_S):
    result = await cli("import", "crontab", file, "--json")
  assert result.code == 0
  assert {row["outcome"] for row in result.json} == {"made"}
  assert len(result.json) == 3
