"""Three servers share a database, and are killed, stopped and frozen in turn.

At effort 17 this is 102 kills, half of them of the leader, 102 clean stops and 34 freezes
that are longer than a lease.
"""

import random
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import trio
from fault_stage import Stage
from support.effort import EFFORT, scaled
from support.programs import ROOT, Server, client_of, wait_until
from support.proof import VARIABLE, doubled, read_proof
from support.work import make_job
from support.world import query

from hetuflow.client.calls import system
from hetuflow.protocol.model import NamespaceId
from hetuflow.storage.access import create_agent_token
from hetuflow.storage.connect import Database

TTL_S = 4.0
NAMESPACES = 10
SCHEDULES = 20
KILLS, FULL_KILLS = 6, 100
STOPS, FULL_STOPS = 6, 100
FREEZES, FULL_FREEZES = 2, 20
QUIET_S = 8.0
"""What the last planned seconds may take to be run."""

LEADER = query("""
  SELECT owner, term FROM distributed_lock
  WHERE name = 'leader' AND expires_at > clock_timestamp()
""")
COVERED = query("""
  SELECT s.name,
    (SELECT min(at) FROM (
      SELECT min(t.planned_at) FROM sched_task AS t WHERE t.schedule_id = s.id
      UNION ALL
      SELECT min(g.from_at) FROM sched_ledger_gap AS g WHERE g.schedule_id = s.id
    ) AS first (at)) AS from_at,
    s.cursor_at AS to_at,
    (SELECT count(*) FROM sched_task AS t WHERE t.schedule_id = s.id) AS tasks,
    (SELECT count(DISTINCT t.planned_at) FROM sched_task AS t
      WHERE t.schedule_id = s.id) AS seconds,
    (SELECT COALESCE(sum(g.count), 0)::bigint FROM sched_ledger_gap AS g
      WHERE g.schedule_id = s.id) AS booked,
    EXISTS (
      SELECT FROM sched_task AS t JOIN sched_ledger_gap AS g
        ON g.schedule_id = t.schedule_id AND t.planned_at BETWEEN g.from_at AND g.to_at
      WHERE t.schedule_id = s.id
    ) AS doubled
  FROM sched_schedule AS s
""")
OUTCOMES = query("""
  SELECT status::text AS status, count(*) AS count FROM sched_task
  WHERE planned_at < now() - make_interval(secs => $seconds) GROUP BY status
""")


class Fleet:
  """Three servers, one of which the leader, and what befalls them."""

  def __init__(self, stage: Stage, database: Database, dsn: str, seed: int) -> None:
    self.stage = stage
    self.database = database
    self.dsn = dsn
    self.dice = random.Random(seed)
    self.servers: list[Server] = []
    self.successions: list[float] = []
    self.terms: list[int] = []

  async def start(self) -> None:
    """Start the servers."""
    for number in range(3):
      self.servers.append(
        await self.stage.server(name=f"server-{number}", database_url=self.dsn)
      )

  async def leader(self) -> tuple[int, int] | None:
    """Return the number of the server that leads, and its term; None if none does."""
    row = await self.database.fetchrow(LEADER)
    for number, server in enumerate(self.servers):
      if row is not None and server.server_id == str(row["owner"]):
        return number, row["term"]
    return None

  async def kill(self) -> None:
    """Kill the leader, or any; the next start of it comes once there is a leader."""
    number, was_leader = await self._victim()
    self.servers[number].kill()
    await self._succeed(number, was_leader)
    await self._restart(number)

  async def stop(self) -> None:
    """Stop the leader, or any, in good order."""
    number, was_leader = await self._victim()
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._succeed, number, was_leader)
      assert await self.servers[number].terminate() == 0
    assert trio.current_time() < started + 60
    await self._restart(number)

  async def freeze(self) -> None:
    """Freeze the leader, or any, for longer than its lease."""
    number, was_leader = await self._victim()
    self.servers[number].suspend()
    await self._succeed(number, was_leader)
    await trio.sleep(TTL_S + self.dice.random())
    self.servers[number].resume()

  async def _victim(self) -> tuple[int, int | None]:
    """Choose a server, the leader half of the time; return the term that it holds."""
    leading, term = await wait_until(self.leader, TTL_S + 2)
    number = leading if self.dice.random() < 0.5 else self.dice.randrange(3)
    await trio.sleep(self.dice.random())
    return number, term if number == leading else None

  async def _succeed(self, number: int, term: int | None) -> None:
    """See another server lead, where the leader has been struck; note how long it took."""
    if term is None:
      return
    started = trio.current_time()

    async def another_leads() -> bool:
      """Look for a later term of another server."""
      found = await self.leader()
      return found is not None and found[0] != number and found[1] > term

    await wait_until(another_leads, 30)
    self.successions.append(trio.current_time() - started)
    self.terms.append(term)

  async def _restart(self, number: int) -> None:
    """Start a server where a former one was."""
    former = self.servers[number]
    self.servers[number] = await self.stage.server_at(
      former, name=former.name, database_url=self.dsn
    )


async def test_every_planned_second_is_covered_once_whatever_befalls_the_servers(
  stage: Stage, database: Database, dsn: str
) -> None:
  faults = (
    [Fleet.kill] * scaled(KILLS, full=FULL_KILLS)
    + [Fleet.stop] * scaled(STOPS, full=FULL_STOPS)
    + [Fleet.freeze] * scaled(FREEZES, full=FULL_FREEZES)
  )
  with trio.fail_after(120 + 30 * len(faults)):
    fleet = Fleet(stage, database, dsn, seed=round(EFFORT * 10))
    await fleet.start()
    proof = stage.folder / "proof"
    proof.touch()
    names = [f"n{number}" for number in range(NAMESPACES)]
    await _set_up(fleet.servers[0], names)
    _, token = await create_agent_token(database, "all", [NamespaceId("*")])
    for number in range(2):
      await _start_agent(stage, fleet, number, names, token, proof)
    fleet.dice.shuffle(faults)
    for fault in faults:
      await fault(fleet)
    await trio.sleep(QUIET_S)
    await _check_covered(database)
    outcomes = {
      row["status"]: row["count"]
      for row in await database.fetch(OUTCOMES, seconds=QUIET_S)
    }
  lines = read_proof(proof)
  assert doubled(lines) == []
  # Nobody lost or killed an agent: what was planned in time has run once.
  assert Counter(outcomes).keys() == {"succeeded"}, outcomes
  assert len({line.task for line in lines}) == len(lines) >= outcomes["succeeded"]
  assert fleet.successions == [] or max(fleet.successions) <= TTL_S + 1
  assert not [log for log in stage.logs() if "Traceback" in log]
  print(
    f"{len(faults)} faults, {len(lines)} runs, {len(fleet.successions)} successions,"
    f" the slowest {max(fleet.successions, default=0):.2f} s"
  )


async def _set_up(server: Server, names: list[str]) -> None:
  """Make namespaces, jobs and schedules."""
  async with client_of(server) as client:
    for name in names:
      await client.send(system.create_namespace({"id": name}))
    each_second = {"kind": "cron", "cron_expression": "* * * * * *"}
    for number in range(SCHEDULES):
      await make_job(
        client,
        "proof.note",
        name=f"job-{number}",
        namespace_id=names[number % NAMESPACES],
        executor="python",
        max_lost=1_000,
        schedules=[each_second | {"name": f"schedule-{number}"}],
      )


async def _start_agent(
  stage: Stage, fleet: Fleet, number: int, names: list[str], token: str, proof: Path
) -> None:
  """Start an agent that knows all servers and serves all namespaces."""
  folder = stage.folder / f"agent-{number}"
  folder.mkdir()
  flags: list[object] = ["--import", "support.proof"]
  for server in fleet.servers[number:] + fleet.servers[:number]:
    flags += ["--server", server.gateway]
  for name in names:
    flags += ["--namespace", name]
  await stage.agent(
    fleet.servers[number],
    *flags,
    name=f"agent-{number}",
    data_dir=folder,
    env={
      VARIABLE: str(proof),
      "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
      "HETUFLOW_AGENT_TOKEN": token,
    },
  )


async def _check_covered(database: Database) -> None:
  """Check that each second since a schedule was made has one task or is booked once."""
  rows = await database.fetch(COVERED)
  assert len(rows) == SCHEDULES
  for row in rows:
    last = row["to_at"].replace(microsecond=0)
    seconds = (last - row["from_at"]).total_seconds() + 1
    assert row["tasks"] == row["seconds"], f"doubled: {dict(row)}"
    assert row["tasks"] + row["booked"] == seconds, f"missing: {dict(row)}"
    assert not row["doubled"], f"run and booked: {dict(row)}"
    assert last > datetime.now(UTC), f"behind: {dict(row)}"
