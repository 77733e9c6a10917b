"""Output in a real database, byte for byte."""

from typing import Any
from uuid import uuid4

import pytest
from support.members import DEFAULT, claim_one, make_tasks
from support.world import make_job, query

from hetuflow.protocol.messages import TaskInstanceUpdate
from hetuflow.protocol.model import InstanceId
from hetuflow.protocol.states import LogStream, TaskInstanceStatus
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.logs import LogWrite, append_chunks, read_log
from hetuflow.storage.transitions import record_updates

OUT, ERR = LogStream.STDOUT, LogStream.STDERR
BYTES = query("SELECT COALESCE(sum(length(data)), 0) FROM sched_task_log")

SET_BACK = query("""
  UPDATE sched_task_log SET created_at = now() - make_interval(days => $days)
  WHERE start_offset = $start_offset
""")


@pytest.fixture
async def claim(database: Database) -> Record:
  job = await make_job(database)
  await make_tasks(database, job)
  return await claim_one(database, job)


def piece(claim: Record, offset: int, data: bytes, **more: Any) -> LogWrite:
  """Make a piece of output."""
  fields = {
    "instance_id": InstanceId(claim["instance_id"]),
    "claim_token": claim["claim_token"],
    "stream": OUT,
    "offset": offset,
    "data": data,
  }
  return LogWrite(**(fields | more))


async def test_output_is_read_from_any_byte_on(
  database: Database, claim: Record
) -> None:
  text = bytes(range(256)) * 4
  pieces = [piece(claim, at, text[at : at + 100]) for at in range(0, len(text), 100)]
  await append_chunks(database, DEFAULT, pieces[::-1])
  instance_id = InstanceId(claim["instance_id"])
  for offset in (0, 1, 99, 100, 1_000, 1_023):
    page = await read_log(database, instance_id, stream=OUT, offset=offset)
    assert b"".join(chunk.data for chunk in page.chunks) == text[offset:]
    assert page.chunks[0].offset == offset
    assert page.next_offset == len(text)
  end = await read_log(database, instance_id, stream=OUT, offset=1_024)
  assert (end.chunks, end.next_offset) == ([], 1_024)


async def test_a_page_is_bounded_and_says_where_to_go_on(
  database: Database, claim: Record
) -> None:
  pieces = [piece(claim, at * 10, b"0123456789") for at in range(10)]
  await append_chunks(database, DEFAULT, pieces)
  instance_id, offset, read = InstanceId(claim["instance_id"]), 0, b""
  pages = 0
  while True:
    page = await read_log(
      database, instance_id, stream=OUT, offset=offset, limit_bytes=25
    )
    if not page.chunks:
      break
    pages += 1
    read += b"".join(chunk.data for chunk in page.chunks)
    offset = page.next_offset
  assert (read, pages) == (b"0123456789" * 10, 4)


async def test_both_streams_come_in_the_order_in_which_they_were_kept(
  database: Database, claim: Record
) -> None:
  for number in range(6):
    stream = ERR if number % 2 else OUT
    await append_chunks(
      database, DEFAULT, [piece(claim, number, str(number).encode(), stream=stream)]
    )
  instance_id = InstanceId(claim["instance_id"])
  page = await read_log(database, instance_id, stream=None, offset=0)
  assert b"".join(chunk.data for chunk in page.chunks) == b"012345"
  page = await read_log(database, instance_id, stream=None, offset=4)
  assert [chunk.stream for chunk in page.chunks] == [OUT, ERR]
  assert page.next_offset == 6


async def test_a_clock_that_is_set_back_changes_no_order(
  database: Database, claim: Record
) -> None:
  instance_id, read = InstanceId(claim["instance_id"]), []
  for number in range(3):
    await append_chunks(database, DEFAULT, [piece(claim, number, b"%d" % number)])
    await database.fetch(SET_BACK, start_offset=number, days=number)
    page = await read_log(database, instance_id, stream=None, offset=number)
    read += [chunk.data for chunk in page.chunks]
  assert read == [b"0", b"1", b"2"]


async def test_repeated_pieces_are_kept_once_and_strange_ones_not_at_all(
  database: Database, claim: Record
) -> None:
  mine = piece(claim, 0, b"mine")
  for _ in range(2):
    await append_chunks(database, DEFAULT, [mine])
  await append_chunks(
    database,
    DEFAULT,
    [
      piece(claim, 4, b"forged", claim_token=uuid4()),
      piece(claim, 4, b"nobody's", instance_id=InstanceId(uuid4())),
    ],
  )
  ended = TaskInstanceUpdate(
    instance_id=InstanceId(claim["instance_id"]),
    namespace_id=DEFAULT,
    claim_token=claim["claim_token"],
    status=TaskInstanceStatus.SUCCEEDED,
  )
  await record_updates(database, DEFAULT, [ended])
  await append_chunks(database, DEFAULT, [piece(claim, 4, b"late")])
  assert await database.fetchval(BYTES) == 4
