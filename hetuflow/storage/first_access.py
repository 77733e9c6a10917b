"""The first key and the first token of an empty database.

The files are written before the hashes are committed: after a crash in between the next
start finds files whose secrets are still unknown, and makes those valid. That also lets
an operator lay down secrets of their own before the first start.
"""

import os
from pathlib import Path

import structlog

from hetuflow.errors import StorageError
from hetuflow.protocol.model import new_id
from hetuflow.protocol.model.ids import DEFAULT_NAMESPACE
from hetuflow.storage.access import (
  KEY_PREFIX,
  TOKEN_PREFIX,
  insert_agent_token,
  insert_api_key,
  lock_access,
  query_agent_tokens,
)
from hetuflow.storage.connect import Database
from hetuflow.storage.secret import Secret, parse_secret

__all__ = ["ADMIN_KEY_FILE", "AGENT_TOKEN_FILE", "ensure_first_access"]

ADMIN_KEY_FILE = "admin.key"
AGENT_TOKEN_FILE = "agent.token"  # noqa: S105 - the name of a file

_MODE = 0o600
_log = structlog.get_logger()


async def ensure_first_access(database: Database, data_dir: Path) -> bool:
  """Let somebody in where nobody has a key: an administrator, and agents of ``default``.

  Args:
    database: with the schema of this program.
    data_dir: where ``admin.key`` and ``agent.token`` are written, readable to us alone.

  Returns:
    Whether nobody had a key and one was made, and a token where there was none.

  Raises:
    StorageError: a file cannot be written.
  """
  async with database.transaction() as connection:
    if await lock_access(connection) > 0:
      return False
    key = _provide(data_dir / ADMIN_KEY_FILE, KEY_PREFIX)
    await insert_api_key(connection, "admin", key)
    # Where only the keys are gone, an operator has removed them to get in again.
    if not await query_agent_tokens(connection, limit=1):
      token = _provide(data_dir / AGENT_TOKEN_FILE, TOKEN_PREFIX)
      await insert_agent_token(connection, "default", token, [DEFAULT_NAMESPACE])
  _log.info("first_access_made", data_dir=str(data_dir), api_key_id=str(key.id))
  return True


def _provide(path: Path, prefix: str) -> Secret:
  """Return the secret in a file, making both where there is none."""
  try:
    known = _read(path, prefix)
    if known is not None:
      path.chmod(_MODE)
      return known
    fresh = Secret.make(prefix, new_id())
    _write(path, fresh.text)
    return fresh
  except OSError as error:
    raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _read(path: Path, prefix: str) -> Secret | None:
  """Read the secret that is there; None where there is none, or something else."""
  try:
    return parse_secret(prefix, path.read_text(encoding="ascii").strip())
  except (FileNotFoundError, UnicodeDecodeError):
    return None


def _write(path: Path, text: str) -> None:
  """Write a file readable to us alone, whole or not at all, and survive a power cut."""
  path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
  staging = path.with_name(f"{path.name}.{os.getpid()}.new")
  staging.unlink(missing_ok=True)
  descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
  with os.fdopen(descriptor, "w", encoding="ascii") as file:
    file.write(text + "\n")
    file.flush()
    os.fsync(file.fileno())
  os.replace(staging, path)
  folder = os.open(path.parent, os.O_RDONLY)
  try:
    os.fsync(folder)
  finally:
    os.close(folder)
