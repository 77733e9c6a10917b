"""The SQLite file behind the journal: its schema, its statements, its transactions.

Blocking calls only; the journal runs them in a thread, one at a time. `load` reads by a
connection of its own and sees what is committed.
"""

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import chain
from pathlib import Path

from hetuflow.agent.journal import sql
from hetuflow.agent.journal.model import (
  Claim,
  ClaimState,
  Entry,
  JournalFull,
  Recovered,
)
from hetuflow.errors import Refused

__all__ = ["JournalFile", "Statement"]

NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
HARD_FACTOR = 2
BUSY_SECONDS = 5.0
BLOCK_ROWS = 100
JOBS_KEPT = 1_000
JOBS_KEPT_SHARE = 1 / 4
"""Jobs written, and their share of the limit, after which unused ones are forgotten."""
WAL_KEPT_BYTES = 4 * 1024 * 1024

Statement = tuple[str, Sequence[tuple[object, ...]]]
"""What to run, and for which rows. Only inserts are given more than a few: a change of
many rows takes them all as one JSON value."""


class JournalFile:
  """One open journal.

  Args:
    path: the SQLite file; made with mode 0600 if it is not there.
    limit_bytes: size from which on it counts as full; it never grows beyond twice that.
  """

  def __init__(self, path: Path, limit_bytes: int) -> None:
    self._path = path
    self._limit_bytes = limit_bytes
    self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    self._jobs: dict[str, int] = {}
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    self._connection = sqlite3.connect(
      path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
      self._prepare()
    except sqlite3.Error as error:
      self._connection.close()
      raise _translated(error) from error
    except BaseException:
      self._connection.close()
      raise

  def close(self) -> None:
    """Close the file."""
    self._connection.close()

  def apply(self, batch: Sequence[Sequence[Statement]]) -> list[Exception | None]:
    """Write every operation of a batch, in one transaction if that can be.

    Returns:
      For each operation None once it is on record, or why it is not.
    """
    try:
      self._transact(batch)
      return [None] * len(batch)
    except sqlite3.Error as error:
      reason = _translated(error)
    # What lacks room lacks it for all; anything else is the fault of one of them.
    if isinstance(reason, JournalFull) or len(batch) == 1:
      return [reason] * len(batch)
    return [self.apply([operation])[0] for operation in batch]

  def measure(self) -> bool:
    """Whether what is stored exceeds the limit, or cannot be told."""
    try:
      pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
      return pages * self._number("PRAGMA page_size") > self._limit_bytes
    except sqlite3.Error:
      return True

  def load(self) -> Recovered:
    """Read all that is on record."""
    uri = f"{self._path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as reader:
      claims = tuple(self._claims(reader))
      outbox = tuple(
        Entry(seq=seq, instance_id=instance_id, kind=kind, payload=payload)
        for seq, instance_id, kind, payload in reader.execute(sql.LOAD_OUTBOX)
      )
    return Recovered(claims=claims, outbox=outbox)

  def holding(self, claims: Sequence[Claim]) -> list[Statement]:
    """Make the statements that record claims, with this boot's id, and their jobs."""
    jobs = {claim.job: _digest(claim.job) for claim in claims}
    boot = self._boot_id
    rows = [
      (
        c.instance_id,
        c.namespace,
        c.claim_token,
        c.due_at,
        c.state,
        boot,
        jobs[c.job],
        c.payload,
      )
      for c in claims
    ]
    return [
      *self._forgetting(jobs),
      (sql.HOLD_JOB, [(digest, content) for content, digest in jobs.items()]),
      (sql.HOLD, rows),
    ]

  def _forgetting(self, jobs: dict[bytes, str]) -> list[Statement]:
    """Make the statement that forgets unused jobs, once many have been written."""
    self._jobs.update((digest, len(content)) for content, digest in jobs.items())
    size = sum(self._jobs.values())
    if len(self._jobs) <= JOBS_KEPT and size <= JOBS_KEPT_SHARE * self._limit_bytes:
      return []
    self._jobs.clear()
    return [(sql.FORGET_JOBS, [()])]

  def _prepare(self) -> None:
    """Set up the file, raise its epoch for good, then commit without a sync each time."""
    run = self._connection.execute
    run("PRAGMA journal_mode = WAL")
    run("PRAGMA synchronous = FULL")
    run(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
    pages = HARD_FACTOR * self._limit_bytes // self._number("PRAGMA page_size")
    run(f"PRAGMA max_page_count = {pages}")
    self._make_schema()
    meta = dict(run("SELECT key, value FROM meta").fetchall())
    self.agent_id: str = meta.get("agent_id") or _new_id()
    self.epoch = int(meta.get("epoch", 0)) + 1
    self.last_seq = self._number(sql.LAST_SEQ)
    rows = [("agent_id", self.agent_id), ("epoch", str(self.epoch))]
    self._transact([[(sql.SET_META, rows), (sql.FORGET_JOBS, [()])]])
    run("PRAGMA synchronous = NORMAL")

  def _make_schema(self) -> None:
    """Make what is missing; refuse what another version of the agent has made."""
    tables = self._number("SELECT count(*) FROM sqlite_schema")
    version = self._number("PRAGMA user_version")
    if tables and version != sql.VERSION:
      raise Refused(
        f"{self._path} was written by another version of the agent: "
        "let that one finish its work, then move the file away"
      )
    self._connection.executescript(sql.SCHEMA)
    self._connection.execute(f"PRAGMA user_version = {sql.VERSION}")

  def _transact(self, batch: Sequence[Sequence[Statement]]) -> None:
    """Run all statements in one transaction, or none."""
    self._connection.execute("BEGIN IMMEDIATE")
    try:
      for operation in batch:
        for statement, rows in operation:
          self._run(statement, rows)
      self._connection.execute("COMMIT")
    except BaseException:
      # SQLite itself has rolled back after some errors, a full disk among them.
      if self._connection.in_transaction:
        self._connection.execute("ROLLBACK")
      raise

  def _run(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Run a statement for all rows in few steps.

    Each step gives the interpreter lock away and has to get it back, for which it waits
    up to 5 ms while the Trio thread is busy: one step a row would starve this thread.
    """
    start = 0
    while len(rows) - start >= BLOCK_ROWS:
      block = rows[start : start + BLOCK_ROWS]
      self._connection.execute(_for_block(statement), tuple(chain(*block)))
      start += BLOCK_ROWS
    self._connection.executemany(statement, rows[start:])

  def _claims(self, reader: sqlite3.Connection) -> Iterator[Claim]:
    """Read all claims."""
    for row in reader.execute(sql.LOAD_CLAIMS):
      identity, namespace, token, due, state, pid, start, boot, payload, job = row
      yield Claim(
        instance_id=identity,
        namespace=namespace,
        claim_token=token,
        due_at=due,
        state=ClaimState(state),
        pid=pid,
        pid_start=start,
        earlier_boot=boot != self._boot_id,
        payload=payload,
        job=job,
      )

  def _number(self, query: str) -> int:
    """Read one number."""
    return int(self._connection.execute(query).fetchone()[0])


def _digest(content: bytes) -> str:
  """Name a content."""
  return hashlib.blake2b(content, digest_size=16).hexdigest()


@cache
def _for_block(statement: str) -> str:
  """Make a statement that inserts one row insert a block of them."""
  head, values, tail = re.split(r"VALUES (\([^)]*\))", statement)
  return f"{head}VALUES {', '.join([values] * BLOCK_ROWS)}{tail}"


def _translated(error: sqlite3.Error) -> Exception:
  """Turn a lack of room into `JournalFull`, leave anything else as it is."""
  # The low byte is the kind of an error, the rest details it.
  if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in NO_ROOM:
    full = JournalFull(f"the journal cannot be written: {error}")
    full.__cause__ = error
    return full
  return error


def _new_id() -> str:
  """Make the id of a new agent, a UUID v7."""
  from uuid_utils.compat import uuid7  # once in the life of an agent

  return str(uuid7())
