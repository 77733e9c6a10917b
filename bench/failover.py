"""How soon another server leads and plans when one is killed or stopped.

Two servers share a PostgreSQL and some namespaces. In each round one of them is ended,
and from the signal on it is watched in the database when the other leads, and when it has
all namespaces; then a fresh one takes the place and its share. Three kinds of rounds, one
after the other: the leader is killed (SIGKILL), the leader is asked to stop (SIGTERM), the
server that does not lead is killed. A killed server's word is good for 4 s more.
"""

import argparse
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import trio
from attrs import define, field, frozen
from harness import Report, make_parser, run_benchmark, spread
from stage import Program, Stage, run_program

from hetuflow.storage.connect import Record
from hetuflow.storage.sql import Queries, parse_queries

POLL_S = 0.005
"""Between two looks: the error of what is measured, always too late."""
TIMEOUT_S = 60.0
UNEVEN = 0.1
"""The share of namespaces by which two servers may differ when a round begins."""

QUERIES = Queries(
  parse_queries("""
-- name: make_namespaces
-- Something to plan for.
WITH made AS (
  INSERT INTO sched_namespace (id) SELECT 'n' || n FROM generate_series(1, $count) AS n
  RETURNING id
)
SELECT count(*), pg_notify('hetuflow', 'namespaces') FROM made

-- name: find_server
-- The id of a server that is alive.
SELECT id FROM sched_server WHERE name = $name AND alive_until > now()

-- name: look
-- Who leads, and which namespaces a server has, has not, and nobody has.
SELECT
  (SELECT owner FROM distributed_lock WHERE expires_at > now()) AS leader,
  count(*) FILTER (WHERE b.server_id = $server) AS its,
  count(*) FILTER (WHERE b.server_id <> $server) AS others,
  count(*) FILTER (WHERE b.server_id IS NULL) AS nobodys
FROM sched_namespace AS n
LEFT JOIN sched_binding AS b ON b.namespace_id = n.id
""")
)


@frozen(kw_only=True)
class Server:
  """A running server and the block that ends it."""

  id: UUID
  program: Program
  stack: AsyncExitStack


@frozen(kw_only=True)
class Round:
  """Milliseconds from the signal.

  Args:
    leader: until the other leads; None where it did already.
    bindings: until it has all namespaces.
  """

  leader: float | None
  bindings: float


@define(kw_only=True)
class House:
  """The two servers on the stage's database."""

  stage: Stage
  servers: list[Server] = field(factory=list)
  started: int = 0

  async def start(self) -> None:
    """Start one more."""
    self.started += 1
    name = f"server-{self.started}"
    folder = self.stage.folder
    options = ["--port", "0", "--data-dir", str(folder), "--name", name]
    async with AsyncExitStack() as stack:
      program = await stack.enter_async_context(
        run_program("hetuflow.server", options, folder / f"{name}.log")
      )
      find = QUERIES.find_server
      with trio.fail_after(TIMEOUT_S):
        while not (id := await self.stage.database.fetchval(find, name=name)):
          program.check()
          await trio.sleep(POLL_S)
      self.servers.append(Server(id=id, program=program, stack=stack.pop_all()))

  async def look(self, server: Server) -> Record:
    """Look at who leads and what a server has."""
    row = await self.stage.database.fetchrow(QUERIES.look, server=server.id)
    if row is None:
      raise RuntimeError("the database does not answer")
    return row

  async def wait(self, server: Server, condition: Callable[[Record], bool]) -> float:
    """Wait until what is seen of a server is as wanted; return when it was."""
    with trio.fail_after(TIMEOUT_S):
      while not condition(await self.look(server)):
        server.program.check()
        await trio.sleep(POLL_S)
    return time.monotonic()

  async def leader(self) -> Server:
    """Wait until one of them leads, and return it."""
    first, second = self.servers
    await self.wait(first, lambda seen: seen["leader"] in (first.id, second.id))
    leads = (await self.look(first))["leader"]
    return first if leads == first.id else second

  async def settle(self) -> None:
    """Wait until each has about half of the namespaces."""

    def is_even(seen: Record) -> bool:
      """Tell whether it is."""
      total = seen["its"] + seen["others"]
      apart = abs(seen["its"] - seen["others"])
      return not seen["nobodys"] and apart <= max(1, UNEVEN * total)

    await self.wait(self.servers[-1], is_even)

  async def play(self, phase: float, *, leading: bool, kill: bool) -> Round:
    """End one of them, see how the other follows, and replace it.

    Args:
      phase: seconds to wait before, for the signs of life to be at another point.
      leading: whether it is the leader that is ended.
      kill: whether it is killed rather than asked to stop.
    """
    await self.settle()
    await trio.sleep(phase)
    leader = await self.leader()
    [other] = [each for each in self.servers if each is not leader]
    ended, heir = (leader, other) if leading else (other, leader)
    since = time.monotonic()
    process = ended.program.process
    process.kill() if kill else process.terminate()
    leads_at = await self.wait(heir, lambda seen: seen["leader"] == heir.id)
    has_at = await self.wait(
      heir, lambda seen: not seen["others"] and not seen["nobodys"]
    )
    self.servers.remove(ended)
    await ended.stack.aclose()
    await self.start()
    return Round(
      leader=1_000 * (leads_at - since) if leading else None,
      bindings=1_000 * (has_at - since),
    )


@asynccontextmanager
async def open_house(stage: Stage, namespaces: int) -> AsyncIterator[House]:
  """Put two servers in the place of the stage's own, for the block."""
  house = House(stage=stage)
  try:
    await house.start()
    await house.start()
    stage.server.process.terminate()
    await stage.server.process.wait()
    await stage.database.fetchrow(QUERIES.make_namespaces, count=namespaces)
    yield house
  finally:
    for server in house.servers:
      # The last one that stops would stop the database, to which the stage is connected.
      server.program.process.kill()
      await server.stack.aclose()


async def measure(
  stage: Stage, options: argparse.Namespace, report: Report
) -> dict[str, Any]:
  """Play all rounds."""
  kinds: dict[str, dict[str, bool]] = {
    "leader_killed": {"leading": True, "kill": True},
    "leader_stopped": {"leading": True, "kill": False},
    "follower_killed": {"leading": False, "kill": True},
  }
  figures: dict[str, Any] = {}
  async with open_house(stage, options.namespaces) as house:
    with report.bar("failover", len(kinds) * options.rounds) as advance:
      for kind, how in kinds.items():
        rounds = []
        for number in range(options.rounds):
          rounds.append(await house.play(number / options.rounds, **how))
          advance()
        figures[kind] = {"bindings_ms": spread([each.bindings for each in rounds])}
        led = [each.leader for each in rounds if each.leader is not None]
        if led:
          figures[kind]["leader_ms"] = spread(led)
        report.say(f"{kind.replace('_', ' ')}: {figures[kind]}")
  return {
    "rounds": options.rounds,
    "namespaces": options.namespaces,
    **figures,
    "correct": True,  # a round that does not come to its end raises
  }


def main() -> int:
  """Read the options and run."""
  parser = make_parser(__doc__)
  parser.add_argument("--rounds", type=int, default=10, help="of each kind")
  parser.add_argument("--namespaces", type=int, default=40)
  return run_benchmark("failover", measure, parser.parse_args())


if __name__ == "__main__":
  sys.exit(main())
