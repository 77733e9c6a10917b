"""What the driver's errors mean: the one place that knows their classes.

asyncpg has a dozen roots: errors that the database sent, with an SQLSTATE, and its own,
of which some mean that the connection is gone and some that the caller was wrong.
"""

from typing import Any

import asyncpg

from hetuflow.errors import Conflict, StorageError, Unavailable

__all__ = [
  "blames_values",
  "lacks_partition",
  "may_have_happened",
  "repeatable",
  "translated",
]

RETRYABLE = ("40001", "40P01")
"""SQLSTATEs of a serialisation failure and a deadlock: the statement may be repeated."""

_GONE = (
  OSError,
  asyncpg.InterfaceError,
  asyncpg.InternalClientError,
  asyncpg.PostgresConnectionError,
  asyncpg.CannotConnectNowError,
  asyncpg.AdminShutdownError,
  asyncpg.CrashShutdownError,
  asyncpg.TooManyConnectionsError,
  asyncpg.ReadOnlySQLTransactionError,
  asyncpg.QueryCanceledError,
  asyncpg.IdleInTransactionSessionTimeoutError,
  asyncpg.OutOfMemoryError,
  asyncpg.DiskFullError,
  ConnectionError,
  TimeoutError,
)


class translated:
  """Turn driver errors that leave the block into this project's own.

  Args:
    what: the statement or step, for the message.
    connecting: whether nothing is asked of the database but a connection: then whatever
      it answers means that there is none to be had now.
  """

  def __init__(self, what: str, *, connecting: bool = False) -> None:
    self._what = what
    self._connecting = connecting

  def __enter__(self) -> None:
    """Enter."""

  def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
    """Raise the project's error in place of the driver's."""
    if error is None or isinstance(error, StorageError):
      return
    if self._connecting and isinstance(error, asyncpg.PostgresError):
      raise Unavailable(f"{self._what}: {error}") from error
    translated = _translate(self._what, error)
    if translated is not None:
      raise translated from error


def _translate(what: str, error: BaseException) -> StorageError | None:
  """Find the project's error for a driver's, or None where it is not one."""
  if _is_partition_missing(error):
    return Unavailable(f"{what}: {error}")
  if isinstance(error, asyncpg.IntegrityConstraintViolationError):
    return Conflict(f"{what}: {error.args[0]}")
  # A value that cannot be sent is an InterfaceError too, but no outage.
  if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
    return StorageError(f"{what}: {error}")
  if isinstance(error, _GONE):
    return Unavailable(f"{what}: {type(error).__name__}: {error}")
  if isinstance(error, asyncpg.PostgresError):
    if error.sqlstate in RETRYABLE:
      return Unavailable(f"{what}: {error}")
    return StorageError(f"{what}: {error}")
  return None


def blames_values(error: StorageError) -> bool:
  """Tell whether a statement was refused for what it was to write, and always will be.

  Args:
    error: what the statement ended in.
  """
  # That a partition is missing is a broken constraint too, but passes.
  if isinstance(error, Unavailable):
    return False
  state = getattr(error.__cause__, "sqlstate", None) or ""
  # Data exceptions and broken constraints (PostgreSQL, appendix A).
  return state[:2] in ("22", "23")


def repeatable(error: Unavailable) -> bool:
  """Tell whether a statement came to nothing because of what others did meanwhile.

  Args:
    error: what the statement ended in.
  """
  return getattr(error.__cause__, "sqlstate", None) in RETRYABLE


def lacks_partition(error: Unavailable) -> bool:
  """Tell whether a statement failed because a week has no partition yet.

  Args:
    error: what the statement ended in.
  """
  return _is_partition_missing(error.__cause__)


def _is_partition_missing(error: BaseException | None) -> bool:
  """Tell a row without a partition from one that breaks a rule: both are check_violation.

  It is no fault of the data: the clock has leapt past the weeks that were made.
  """
  return isinstance(error, asyncpg.CheckViolationError) and not error.constraint_name


def may_have_happened(error: BaseException) -> bool:
  """Tell whether a statement that ended in this error may have been carried out.

  Args:
    error: what left the call: one of ours, or a cancellation.

  Returns:
    False only where the database itself has said that the statement failed; a
    connection that broke or an answer that did not come says nothing.
  """
  cause = error.__cause__
  answered = isinstance(cause, asyncpg.PostgresError)
  return not answered or isinstance(cause, asyncpg.PostgresConnectionError)
