"""Keys, tokens, and the first of each."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from support.world import query

from hetuflow.errors import Conflict, NotFound, StorageError
from hetuflow.protocol.model import NamespaceId, new_id
from hetuflow.storage import first_access
from hetuflow.storage.access import (
  authenticate_key,
  authenticate_token,
  create_agent_token,
  create_api_key,
  delete_agent_token,
  delete_api_key,
  query_agent_tokens,
  query_api_keys,
)
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.first_access import ensure_first_access
from hetuflow.storage.secret import Secret, parse_secret
from hetuflow.storage.secret_cache import CACHE_SIZE, CACHE_TTL, SecretCache
from hetuflow.storage.sql import Query

DEFAULT = [NamespaceId("default")]
FORGET_KEYS = query("DELETE FROM sched_api_key")
READ_HASHES = query("SELECT name, key_hash FROM sched_api_key")


def contents(folder: Path) -> dict[str, str]:
  """Read every file of a folder."""
  return {file.name: file.read_text() for file in folder.iterdir()}


async def test_a_key_tells_who_calls(database: Database) -> None:
  made, secret = await create_api_key(database, "ci")
  principal = await authenticate_key(database, secret)
  assert principal is not None
  assert (principal.id, principal.name) == (made.id, "ci")


@pytest.mark.parametrize("change", [str.upper, lambda text: text[:-1], lambda _: ""])
async def test_what_is_not_a_key_is_nobody(database: Database, change: object) -> None:
  _, secret = await create_api_key(database, "ci")
  assert callable(change)
  assert await authenticate_key(database, change(secret)) is None
  forged = Secret.make("hfk", new_id()).text
  assert await authenticate_key(database, forged) is None
  # A token is no key, and the other way round.
  _, token = await create_agent_token(database, "ci", DEFAULT)
  assert await authenticate_key(database, token) is None
  assert await authenticate_token(database, secret) is None


async def test_a_token_tells_where_it_lets_in(database: Database) -> None:
  _, one = await create_agent_token(database, "one", DEFAULT)
  _, every = await create_agent_token(database, "all", [NamespaceId("*")])
  grants = [await authenticate_token(database, text) for text in (one, every)]
  assert [grant.namespace_ids for grant in grants if grant] == [DEFAULT, ["*"]]


async def test_only_hashes_are_stored(database: Database) -> None:
  made, secret = await create_api_key(database, "ci")
  row = await database.fetchrow(READ_HASHES)
  assert row is not None
  assert len(row["key_hash"]) == 32
  assert secret.startswith(f"hfk_{made.id.hex}_")
  assert len(secret) == len("hfk_") + 32 + 1 + 43
  assert secret not in repr(parse_secret("hfk", secret))


async def test_what_another_server_revoked_is_believed_for_a_while(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  _, secret = await create_api_key(database, "ci")
  assert await authenticate_key(database, secret) is not None
  await database.fetch(FORGET_KEYS)
  assert await authenticate_key(database, secret) is not None
  later = trio.current_time() + CACHE_TTL
  monkeypatch.setattr(trio, "current_time", lambda: later)
  assert await authenticate_key(database, secret) is None


async def test_what_was_revoked_here_is_refused_at_once(database: Database) -> None:
  await create_api_key(database, "other")
  key, secret = await create_api_key(database, "ci")
  token, token_secret = await create_agent_token(database, "ci", DEFAULT)
  assert await authenticate_key(database, secret) is not None
  assert await authenticate_token(database, token_secret) is not None
  await delete_api_key(database, key.id)
  await delete_agent_token(database, token.id)
  assert await authenticate_key(database, secret) is None
  assert await authenticate_token(database, token_secret) is None
  with pytest.raises(NotFound):
    await delete_api_key(database, key.id)
  with pytest.raises(NotFound):
    await delete_agent_token(database, token.id)


class Overtaken(Database):
  """A database whose answers to look-ups arrive after the key was revoked."""

  async def fetchrow(self, query: Query, /, **values: Any) -> Record | None:
    """Read a row, and revoke the key it tells of before it is handed on."""
    record = await super().fetchrow(query, **values)
    if query.name == "find_api_key" and record is not None:
      await delete_api_key(self, record["id"])
    return record


async def test_a_look_up_that_a_revocation_overtakes_is_not_remembered(
  database: Database,
) -> None:
  overtaken = Overtaken(database._pool, database._patience)
  await create_api_key(database, "other")
  _, secret = await create_api_key(database, "revoked")
  await authenticate_key(overtaken, secret)
  assert await authenticate_key(overtaken, secret) is None


async def test_of_the_last_two_keys_one_stays(database: Database) -> None:
  keys = [(await create_api_key(database, name))[0] for name in ("one", "two")]
  refused = []

  async def revoke(id: object) -> None:
    try:
      await delete_api_key(database, id)  # type: ignore[arg-type]  # an id of a key
    except Conflict as error:
      refused.append(str(error))

  async with trio.open_nursery() as nursery:
    for key in keys:
      nursery.start_soon(revoke, key.id)
  assert refused == ["this is the last API key; make another one first"]
  assert len(await query_api_keys(database, limit=10)) == 1


async def test_names_are_taken_once(database: Database) -> None:
  await create_api_key(database, "ci")
  with pytest.raises(Conflict, match="API key named 'ci' already exists"):
    await create_api_key(database, "ci")
  await create_agent_token(database, "ci", DEFAULT)
  with pytest.raises(Conflict, match="agent token named 'ci' already exists"):
    await create_agent_token(database, "ci", DEFAULT)


async def test_an_empty_database_gets_a_key_and_a_token(
  database: Database, tmp_path: Path
) -> None:
  folder = tmp_path / "data"
  assert await ensure_first_access(database, folder)
  key_file, token_file = folder / "admin.key", folder / "agent.token"
  for file in (key_file, token_file):
    assert file.stat().st_mode & 0o777 == 0o600
  assert sorted(folder.iterdir()) == [key_file, token_file]
  principal = await authenticate_key(database, key_file.read_text().strip())
  assert principal is not None
  assert principal.name == "admin"
  grant = await authenticate_token(database, token_file.read_text().strip())
  assert grant is not None
  assert grant.namespace_ids == DEFAULT


async def test_later_starts_change_nothing(database: Database, tmp_path: Path) -> None:
  await ensure_first_access(database, tmp_path)
  before = contents(tmp_path)
  [token] = await query_agent_tokens(database, limit=10)
  await delete_agent_token(database, token.id)
  assert not await ensure_first_access(database, tmp_path)
  assert contents(tmp_path) == before
  assert await query_agent_tokens(database, limit=10) == []


async def test_of_servers_that_start_at_once_one_makes_the_key(
  database: Database, tmp_path: Path
) -> None:
  made = []

  async def start() -> None:
    made.append(await ensure_first_access(database, tmp_path))

  async with trio.open_nursery() as nursery:
    for _ in range(4):
      nursery.start_soon(start)
  assert sorted(made) == [False, False, False, True]
  secret = (tmp_path / "admin.key").read_text().strip()
  assert await authenticate_key(database, secret) is not None


async def test_a_crash_before_the_commit_loses_nothing(
  database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  class Crash(Exception):
    """Stands for the end of the process."""

  async def crash(*_: object) -> None:
    raise Crash

  with monkeypatch.context() as patch:
    patch.setattr(first_access, "insert_agent_token", crash)
    with pytest.raises(Crash):
      await ensure_first_access(database, tmp_path)
  secret = (tmp_path / "admin.key").read_text().strip()
  assert await authenticate_key(database, secret) is None
  assert await ensure_first_access(database, tmp_path)
  assert (tmp_path / "admin.key").read_text().strip() == secret
  assert await authenticate_key(database, secret) is not None


async def test_who_lost_every_key_gets_a_new_one_and_the_tokens_stay(
  database: Database, tmp_path: Path
) -> None:
  await ensure_first_access(database, tmp_path)
  token = (tmp_path / "agent.token").read_text().strip()
  await database.fetch(FORGET_KEYS)
  (tmp_path / "admin.key").unlink()
  assert await ensure_first_access(database, tmp_path)
  key = (tmp_path / "admin.key").read_text().strip()
  assert await authenticate_key(database, key) is not None
  assert await authenticate_token(database, token) is not None
  assert len(await query_agent_tokens(database, limit=9)) == 1


async def test_a_file_that_is_no_secret_is_replaced(
  database: Database, tmp_path: Path
) -> None:
  (tmp_path / "admin.key").write_bytes(b"\xff not a key")
  await ensure_first_access(database, tmp_path)
  secret = (tmp_path / "admin.key").read_text().strip()
  assert await authenticate_key(database, secret) is not None


async def test_a_folder_that_cannot_be_written_is_named(
  database: Database, tmp_path: Path
) -> None:
  (tmp_path / "file").write_text("")
  with pytest.raises(StorageError, match=r"cannot write .*admin\.key"):
    await ensure_first_access(database, tmp_path / "file")
  assert await query_api_keys(database, limit=1) == []


async def test_secrets_come_in_pages_newest_first(database: Database) -> None:
  made = [(await create_api_key(database, f"k{n}"))[0] for n in range(3)]
  first = await query_api_keys(database, limit=2)
  rest = await query_api_keys(database, limit=2, cursor=first[-1].id)
  assert first + rest == made[::-1]
  tokens = [(await create_agent_token(database, f"t{n}", DEFAULT))[0] for n in range(3)]
  newest = await query_agent_tokens(database, limit=1, cursor=tokens[2].id)
  assert [attrs.asdict(token) for token in newest] == [attrs.asdict(tokens[1])]


def test_the_oldest_look_up_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(trio, "current_time", lambda: 0.0)
  cache: SecretCache[int] = SecretCache()
  for number in range(CACHE_SIZE + 1):
    cache.put(number.to_bytes(4, "big"), new_id(), number, drops=cache.drops)
  assert cache.get((0).to_bytes(4, "big")) is None
  assert cache.get((1).to_bytes(4, "big")) == 1
