"""Who is let in: API keys for callers, tokens for agents.

Both are looked up by the hash of what is shown. What was found is believed for
``CACHE_TTL`` seconds, so that a revoked key is refused by every server within that time
(by the one that revoked it at once); what was not found is asked for again.
"""

from typing import TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

import attrs

from hetuflow.errors import Conflict
from hetuflow.protocol.checks import length, matching
from hetuflow.protocol.model import SLUG, Instant, NamespaceId, new_id
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.rows import Executor, found, from_row
from hetuflow.storage.secret import Secret, parse_secret, same_hash
from hetuflow.storage.secret_cache import SecretCache
from hetuflow.storage.sql import Query, load_queries

__all__ = [
  "AgentToken",
  "AgentTokenForCreate",
  "ApiKey",
  "ApiKeyForCreate",
  "Principal",
  "TokenGrant",
  "authenticate_key",
  "authenticate_token",
  "create_agent_token",
  "create_api_key",
  "delete_agent_token",
  "delete_api_key",
  "insert_agent_token",
  "insert_api_key",
  "lock_access",
  "query_agent_tokens",
  "query_api_keys",
]

_sql = load_queries("access")

T = TypeVar("T")

KEY_PREFIX = "hfk"
TOKEN_PREFIX = "hft"  # noqa: S105 - tells tokens from keys, is none

_name = length(1, 200)


@attrs.frozen(kw_only=True)
class ApiKey:
  """An API key as it is read, without the secret."""

  id: UUID
  name: str
  created_at: Instant


@attrs.frozen(kw_only=True)
class ApiKeyForCreate:
  """What a caller says of a new API key."""

  name: str = attrs.field(validator=_name)


@attrs.frozen(kw_only=True)
class AgentToken:
  """An agent token as it is read, without the secret; ``*`` means every namespace."""

  id: UUID
  name: str
  namespace_ids: list[NamespaceId]
  created_at: Instant


_slug_or_all = matching(rf"\*|{SLUG}", "namespaces, or '*' for all of them")


@attrs.frozen(kw_only=True)
class AgentTokenForCreate:
  """What a caller says of a new agent token."""

  name: str = attrs.field(validator=_name)
  namespace_ids: list[NamespaceId] = attrs.field(
    validator=[
      length(1, 1_000),
      attrs.validators.deep_iterable(member_validator=_slug_or_all),
    ]
  )


@attrs.frozen(kw_only=True)
class Principal:
  """The caller behind a key."""

  id: UUID
  name: str


@attrs.frozen(kw_only=True)
class TokenGrant:
  """Where a token lets an agent in; ``*`` means every namespace."""

  id: UUID
  name: str
  namespace_ids: list[NamespaceId]


@attrs.define
class _Caches:
  """The two caches in front of one database."""

  keys: SecretCache[Principal] = attrs.field(factory=SecretCache)
  tokens: SecretCache[TokenGrant] = attrs.field(factory=SecretCache)


_caches: WeakKeyDictionary[Database, _Caches] = WeakKeyDictionary()


def _caches_of(database: Database) -> _Caches:
  """Return the caches that belong to a database."""
  return _caches.setdefault(database, _Caches())


async def authenticate_key(database: Database, key: str) -> Principal | None:
  """Tell who shows this API key; None when nobody may.

  Raises:
    Unavailable: the database cannot be asked.
  """
  cache = _caches_of(database).keys
  return await _authenticate(
    database, cache, _sql.find_api_key, Principal, parse_secret(KEY_PREFIX, key)
  )


async def authenticate_token(database: Database, token: str) -> TokenGrant | None:
  """Tell where this agent token lets in; None when nowhere.

  Raises:
    Unavailable: the database cannot be asked.
  """
  cache = _caches_of(database).tokens
  return await _authenticate(
    database,
    cache,
    _sql.find_agent_token,
    TokenGrant,
    parse_secret(TOKEN_PREFIX, token),
  )


async def _authenticate(
  database: Database,
  cache: SecretCache[T],
  query: Query,
  cls: type[T],
  secret: Secret | None,
) -> T | None:
  """Look a secret up by its hash, in the cache first."""
  if secret is None:
    return None
  if (known := cache.get(secret.hash)) is not None:
    return known
  drops = cache.drops
  record = await database.fetchrow(query, hash=secret.hash)
  if record is None or not same_hash(record["hash"], secret.hash):
    return None
  values = {name: value for name, value in record.items() if name != "hash"}
  found_one = cls(**values)
  cache.put(secret.hash, record["id"], found_one, drops=drops)
  return found_one


async def create_api_key(database: Executor, name: str) -> tuple[ApiKey, str]:
  """Make an API key.

  Returns:
    The key, and its secret, which is not stored and cannot be read again.

  Raises:
    Conflict: the name is taken.
  """
  secret = Secret.make(KEY_PREFIX, new_id())
  return await insert_api_key(database, name, secret), secret.text


async def insert_api_key(database: Executor, name: str, secret: Secret) -> ApiKey:
  """Keep the hash of a secret as an API key.

  Raises:
    Conflict: the name is taken.
  """
  record = await database.fetchrow(
    _sql.insert_api_key, id=secret.id, name=name, hash=secret.hash
  )
  return from_row(ApiKey, _made(record, "API key", name))


async def query_api_keys(
  database: Executor, *, limit: int, cursor: UUID | None = None
) -> list[ApiKey]:
  """Read a page of API keys, newest first."""
  records = await database.fetch(_sql.list_api_keys, limit=limit, cursor=cursor)
  return [from_row(ApiKey, record) for record in records]


async def delete_api_key(database: Database, id: UUID) -> None:
  """Revoke an API key.

  Raises:
    NotFound: there is no such key.
    Conflict: it is the last one, without which nobody could get in.
  """
  try:
    async with database.transaction() as connection:
      await lock_access(connection)
      found(await connection.fetchrow(_sql.delete_api_key, id=id), "API key", id)
      if await connection.fetchval(_sql.count_api_keys) == 0:
        raise Conflict("this is the last API key; make another one first")
  finally:
    # Also where the answer to the commit was lost.
    _caches_of(database).keys.drop(id)


async def create_agent_token(
  database: Executor, name: str, namespace_ids: list[NamespaceId]
) -> tuple[AgentToken, str]:
  """Make a token that lets agents into some namespaces.

  Returns:
    The token, and its secret, which is not stored and cannot be read again.

  Raises:
    Conflict: the name is taken.
  """
  secret = Secret.make(TOKEN_PREFIX, new_id())
  return await insert_agent_token(database, name, secret, namespace_ids), secret.text


async def insert_agent_token(
  database: Executor, name: str, secret: Secret, namespace_ids: list[NamespaceId]
) -> AgentToken:
  """Keep the hash of a secret as an agent token.

  Raises:
    Conflict: the name is taken.
  """
  record = await database.fetchrow(
    _sql.insert_agent_token,
    id=secret.id,
    name=name,
    hash=secret.hash,
    namespace_ids=namespace_ids,
  )
  return from_row(AgentToken, _made(record, "agent token", name))


async def query_agent_tokens(
  database: Executor, *, limit: int, cursor: UUID | None = None
) -> list[AgentToken]:
  """Read a page of agent tokens, newest first."""
  records = await database.fetch(_sql.list_agent_tokens, limit=limit, cursor=cursor)
  return [from_row(AgentToken, record) for record in records]


async def delete_agent_token(database: Database, id: UUID) -> None:
  """Revoke an agent token; who is connected by it stays until the next heartbeat.

  Raises:
    NotFound: there is no such token.
  """
  try:
    record = await database.fetchrow(_sql.delete_agent_token, id=id)
  finally:
    # Also where the answer was lost.
    _caches_of(database).tokens.drop(id)
  found(record, "agent token", id)


async def lock_access(connection: Connection) -> int:
  """Let one transaction at a time change who is let in; return how many keys there are."""
  await connection.fetch(_sql.lock_access)
  count: int = await connection.fetchval(_sql.count_api_keys)
  return count


def _made(record: Record | None, noun: str, name: str) -> Record:
  """Return the row that was made, or say that its name is taken."""
  if record is None:
    raise Conflict(f"an {noun} named {name!r} already exists")
  return record
