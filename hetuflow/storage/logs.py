"""Output of task instances, byte for byte."""

from collections.abc import Sequence
from uuid import UUID

import attrs

from hetuflow.errors import Unavailable
from hetuflow.protocol.model import InstanceId, NamespaceId
from hetuflow.protocol.states import LogStream
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.failures import lacks_partition
from hetuflow.storage.sql import load_queries

__all__ = ["LogPage", "LogPiece", "LogWrite", "append_chunks", "read_log"]

_sql = load_queries("logs")

PAGE_PIECES = 256
"""Pieces read at once; an agent sends at most 64 KiB in one."""


@attrs.frozen(kw_only=True)
class LogWrite:
  """A piece to keep: bytes of one stream from ``offset`` on."""

  instance_id: InstanceId
  claim_token: UUID
  stream: LogStream
  offset: int
  data: bytes


@attrs.frozen(kw_only=True)
class LogPiece:
  """A piece as it is read."""

  stream: LogStream
  offset: int
  data: bytes


@attrs.frozen(kw_only=True)
class LogPage:
  """Some pieces, and where to go on: a byte of the one stream, or a count of pieces."""

  chunks: list[LogPiece]
  next_offset: int


async def append_chunks(
  executor: Database | Connection,
  namespace_id: NamespaceId,
  chunks: Sequence[LogWrite],
) -> None:
  """Keep pieces of one namespace; repeated ones and those of superseded claims are not.

  Args:
    executor: where to write.
    namespace_id: of every piece.
    chunks: at most one per instance, stream and offset.
  """
  scope = {
    "namespace_id": namespace_id,
    "ids": [chunk.instance_id for chunk in chunks],
  }
  pieces = {
    "claim_tokens": [chunk.claim_token for chunk in chunks],
    "streams": [chunk.stream for chunk in chunks],
    "offsets": [chunk.offset for chunk in chunks],
    "data": [chunk.data for chunk in chunks],
  }
  try:
    await executor.fetch(_sql.append_chunks, **scope, **pieces)
  except Unavailable as error:
    if not lacks_partition(error):
      raise
    # Claimed in a week that the clock has left again.
    await executor.fetch(_sql.ensure_weeks, **scope)
    await executor.fetch(_sql.append_chunks, **scope, **pieces)


async def read_log(
  executor: Database | Connection,
  instance_id: InstanceId,
  *,
  stream: LogStream | None,
  offset: int,
  limit_bytes: int = 1024**2,
) -> LogPage:
  """Read output from ``offset`` on.

  Args:
    executor: where to read.
    instance_id: whose output.
    stream: one of them, or None for both as they came.
    offset: a byte of the one stream; for both, how many pieces have been read.
    limit_bytes: where to stop, after at least one piece.

  Returns:
    The pieces; the first one begins at ``offset`` exactly, or behind it where bytes
    were left out.
  """
  if stream is None:
    rows = await executor.fetch(
      _sql.read_both, instance_id=instance_id, offset=offset, limit=PAGE_PIECES
    )
  else:
    rows = await executor.fetch(
      _sql.read_stream,
      instance_id=instance_id,
      stream=stream,
      offset=offset,
      limit=PAGE_PIECES,
    )
  chunks: list[LogPiece] = []
  size = 0
  for row in rows:
    if chunks and size >= limit_bytes:
      break
    piece = _piece(row["stream"], row["start_offset"], row["data"], stream, offset)
    chunks.append(piece)
    size += len(piece.data)
  if stream is None:
    return LogPage(chunks=chunks, next_offset=offset + len(chunks))
  end = chunks[-1].offset + len(chunks[-1].data) if chunks else offset
  return LogPage(chunks=chunks, next_offset=end)


def _piece(
  name: str, start: int, data: bytes, stream: LogStream | None, offset: int
) -> LogPiece:
  """Make a piece, without the bytes before ``offset`` where one stream is read."""
  skipped = max(0, offset - start) if stream is not None else 0
  return LogPiece(stream=LogStream(name), offset=start + skipped, data=data[skipped:])
