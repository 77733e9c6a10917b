"""What came to nothing is kept for a person to look at."""

from support.world import query

from hetuflow.protocol.messages import DispatchTaskRequest
from hetuflow.protocol.model import new_id
from hetuflow.storage.connect import Database
from hetuflow.storage.dead_letters import MAX_REASON, bury

LETTERS = query("SELECT * FROM sched_dead_letter ORDER BY id")


async def test_a_message_is_kept_with_its_reason(database: Database) -> None:
  agent_id = new_id()
  payload = DispatchTaskRequest(configs={}, tasks=[])
  await bury(database, kind="a", agent_id=agent_id, reason="x" * 5_000, payload=payload)
  # The text of what the database refused may hold what it refuses.
  await bury(
    database, kind="b", agent_id=None, reason="no \x00 \ud800", payload="\x00 \ud800"
  )
  first, second = await database.fetch(LETTERS)
  assert (first["kind"], first["agent_id"]) == ("a", agent_id)
  assert first["payload"] == {"configs": {}, "tasks": []}
  assert len(first["reason"]) == MAX_REASON
  assert second["reason"].startswith("no ")
