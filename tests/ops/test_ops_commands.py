"""``doctor``, ``repair`` and ``migrate`` as commands, on a database that is named."""

import os
from pathlib import Path

import trio
from support.commands import Command
from support.members import claim_one, make_tasks
from support.world import make_job

from hetuflow.storage.connect import Database

LIMIT_S = 60.0


async def test_an_empty_database_is_migrated_once(
  empty_dsn: str, tmp_path: Path
) -> None:
  cli = Command(data_dir=tmp_path)
  place = ("--database-url", empty_dsn)
  with trio.fail_after(LIMIT_S):
    missing = await cli("migrate", "--check", *place)
    assert (missing.code, missing.text) == (1, "")
    assert "hetuflow migrate" in missing.complaint
    sick = await cli("doctor", "--json", *place)
    assert sick.code == 1
    assert [each["ok"] for each in sick.json["checks"]] == [False]
    done = (await cli("migrate", *place)).ok()
    assert done.text.startswith("applied 0001 initial\napplied 0002 ")
    assert (await cli("migrate", *place)).ok().text == "nothing to apply\n"
    (await cli("migrate", "--check", *place)).ok()
    (await cli("doctor", *place)).ok()


async def test_what_is_wrong_fails_the_doctor_until_it_is_mended(
  database: Database, dsn: str, tmp_path: Path
) -> None:
  job = await make_job(database)
  await make_tasks(database, job)
  claim = await claim_one(database, job)
  async with database.connection() as connection:
    await connection.execute_script("DELETE FROM sched_task_instance")
  cli = Command(data_dir=tmp_path)
  with trio.fail_after(LIMIT_S):
    sick = await cli("doctor", "--database-url", dsn)
    assert sick.code == 1
    assert f"{claim['task_id']}: it is dispatched without an attempt" in sick.text
    assert "hetuflow repair: tasks without an attempt go back" in sick.text
    told = (await cli("repair", "--dry-run", "--database-url", dsn)).ok()
    assert told.text.startswith("would mend 1: tasks without an attempt")
    done = (await cli("repair", "--json", "--database-url", dsn)).ok().json
    assert done["dry_run"] is False
    assert [(each["name"], each["count"]) for each in done["repairs"]] == [
      ("free_claims", 1)
    ]
    (await cli("doctor", HETUFLOW_DATABASE_URL=dsn)).ok()
    again = (await cli("repair", "--database-url", dsn)).ok()
    assert again.text == "nothing to mend\n"


async def test_without_a_database_nothing_is_made(tmp_path: Path) -> None:
  for words in (("doctor",), ("repair",), ("migrate", "--check")):
    answer = await Command(data_dir=tmp_path)(*words)
    assert answer.code == 1
    assert f"there is no database in {tmp_path}" in answer.complaint
  assert await trio.to_thread.run_sync(os.listdir, tmp_path) == []


async def test_a_wrong_setting_is_the_callers(tmp_path: Path) -> None:
  answer = await Command(data_dir=tmp_path)("doctor", "--database-url", "mysql://x")
  assert answer.code == 2
  assert "--database-url" in answer.complaint
