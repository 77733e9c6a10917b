"""What was due while no server ran is caught up as its job wants, with bounded work."""

import math
from typing import Any

import pytest
import trio
from fault_stage import Stage
from support.programs import ROOT, client_of, wait_until
from support.proof import VARIABLE, read_proof
from support.work import make_job
from support.world import query

from hetuflow.storage.connect import Database, Record

HOUR_S = 3_600
DAYS_400_S = 400 * 86_400
EACH_SECOND = {"kind": "cron", "cron_expression": "* * * * * *", "name": "each-second"}
POLICIES: dict[str, dict[str, Any]] = {
  "once": {"policy": "run_once"},
  "skip": {"policy": "skip"},
  "all": {"policy": "run_all", "limit": 5},
  "window": {"policy": "run_all", "limit": 9, "window": 63.0},
}

SLEEP = query("""
  UPDATE sched_schedule SET cursor_at = past.moment, next_plan_at = past.moment,
    planned_from = past.moment, revision = revision + 1
  FROM (SELECT date_trunc('second', now()) - make_interval(secs => $seconds)) AS past (moment)
""")
FORGET = query("DELETE FROM sched_task")
BEHIND = query("SELECT count(*) FROM sched_schedule WHERE next_plan_at < now()")
BECAME = query("""
  SELECT j.name,
    (SELECT count(*) FROM sched_task AS t
      WHERE t.schedule_id = s.id AND t.cause = 'catch_up') AS caught_up,
    (SELECT count(*) FROM sched_task AS t WHERE t.schedule_id = s.id) AS tasks,
    (SELECT COALESCE(sum(g.count), 0)::bigint FROM sched_ledger_gap AS g
      WHERE g.schedule_id = s.id) AS booked,
    (SELECT count(*) FROM sched_ledger_gap AS g WHERE g.schedule_id = s.id) AS rows,
    (SELECT string_agg(DISTINCT g.outcome::text, ' ') FROM sched_ledger_gap AS g
      WHERE g.schedule_id = s.id) AS outcome,
    extract(epoch FROM s.cursor_at - s.planned_from)::double precision AS seconds
  FROM sched_schedule AS s JOIN sched_job AS j ON j.id = s.job_id
""")


@pytest.mark.parametrize("away_s", [HOUR_S, DAYS_400_S])
async def test_late_times_become_what_their_job_wants_with_bounded_work(
  stage: Stage, database: Database, dsn: str, away_s: int
) -> None:
  with trio.fail_after(180):
    server = await stage.server(database_url=dsn)
    async with client_of(server) as client:
      for name, misfire in POLICIES.items():
        await make_job(
          client,
          "proof.note",
          name=name,
          executor="python",
          misfire=misfire,
          schedules=[EACH_SECOND],
        )
    assert await server.terminate() == 0
    await database.fetch(FORGET)
    await database.fetch(SLEEP, seconds=float(away_s))
    server = await stage.server_at(server, database_url=dsn)
    proof = stage.folder / "proof"
    await stage.agent(
      server,
      *("--import", "support.proof"),
      env={VARIABLE: str(proof), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )

    async def is_planned() -> bool:
      """Look whether nothing is behind any more."""
      behind: int = await database.fetchval(BEHIND)
      return behind == 0

    await wait_until(is_planned, 20)
    rows = {row["name"]: row for row in await database.fetch(BECAME)}

    def all_ran() -> bool:
      """Look whether something of every job has run, late or in time."""
      lines = read_proof(proof) if proof.exists() else []
      return len({line.job for line in lines}) == len(POLICIES)

    await wait_until(all_ran, 30)
  assert {name: row["caught_up"] for name, row in rows.items()} == {
    "once": 1,
    "skip": 0,
    "all": 5,
    "window": rows["window"]["caught_up"],
  }
  assert 0 < rows["window"]["caught_up"] <= 9
  assert {name: row["outcome"] for name, row in rows.items()} == {
    "once": "merged",
    "skip": "missed",
    "all": "missed",
    "window": "missed",
  }
  for row in rows.values():
    _check_covered(row, away_s)


def _check_covered(row: Record, away_s: int) -> None:
  """Check that each second is a task or booked, and how little that has cost."""
  assert row["tasks"] + row["booked"] == math.floor(row["seconds"]), dict(row)
  # The horizon and what was late by less than the grace, beside what was caught up.
  assert row["tasks"] < 150, dict(row)
  assert row["rows"] == 1, dict(row)
  assert row["booked"] > away_s - 120, dict(row)
