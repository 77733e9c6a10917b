"""First answers in a real database."""

import pytest
import trio
from support.world import query

from hetuflow.storage.connect import Database
from hetuflow.storage.idempotency import (
  Answer,
  Key,
  forget_expired,
  recall,
  remember,
)

KEY = Key(scope="http", key="k")
ANSWER = Answer(fingerprint="f", status=201, body={"id": [1, None]})
WAITERS = query("SELECT count(*) FROM pg_locks WHERE NOT granted")
EXPIRE = query("UPDATE sched_idempotency SET expires_at = now() - interval '1 second'")


async def answer(database: Database, kept: Answer = ANSWER) -> Answer | None:
  """Do the work of a request: none but to answer."""
  async with database.transaction() as connection:
    known = await recall(connection, KEY, kept.fingerprint)
    if known is None:
      await remember(connection, KEY, kept)
    return known


async def test_the_first_answer_is_remembered(database: Database) -> None:
  assert await answer(database) is None
  other = Answer(fingerprint="g", status=200)
  assert await answer(database, other) == ANSWER


async def test_a_failure_frees_the_key(database: Database) -> None:
  class Failure(Exception):
    """The work could not be done."""

  async def fail() -> None:
    async with database.transaction() as connection:
      assert await recall(connection, KEY, "f") is None
      raise Failure

  with pytest.raises(Failure):
    await fail()
  assert await answer(database) is None


async def test_who_comes_second_waits_for_the_first(database: Database) -> None:
  answers = []

  async def second() -> None:
    answers.append(await answer(database))

  with trio.fail_after(10):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      assert await recall(connection, KEY, "f") is None
      nursery.start_soon(second)
      while not await database.fetchval(WAITERS):
        pass
      assert answers == []
      await remember(connection, KEY, ANSWER)
  assert answers == [ANSWER]


async def test_an_expired_key_is_free_again(database: Database) -> None:
  await answer(database)
  await database.fetch(EXPIRE)
  other = Answer(fingerprint="g", status=200)
  assert await answer(database, other) is None
  assert await answer(database) == other


async def test_expired_keys_are_forgotten_in_batches(database: Database) -> None:
  for number in range(3):
    async with database.transaction() as connection:
      await recall(connection, Key(scope="http", key=str(number)), "f")
  assert await forget_expired(database, 10) == 0
  await database.fetch(EXPIRE)
  assert [await forget_expired(database, 2) for _ in range(3)] == [2, 1, 0]
