"""Every error that leaves a room of hetuflow.

::

  HetuflowError
  ├─ SettingsError        a setting is wrong; names file, key and what is expected
  ├─ ProtocolError        a message or body is invalid; carries [(path, message)]
  ├─ ScheduleError        an expression, zone or window cannot be scheduled
  ├─ StorageError
  │  ├─ Unavailable       the database cannot be reached now; wait and try again
  │  ├─ NotFound          no such row
  │  ├─ Conflict          a unique or foreign key, or the state of the row, forbids it
  │  └─ SchemaMismatch    the database has another schema than this program
  ├─ Refused              the other side refused us and will not change its mind
  ├─ LaunchError          a process could not be started; the reason in words
  └─ SupervisionError     a child failed too often
"""

from collections.abc import Sequence

__all__ = [
  "Conflict",
  "HetuflowError",
  "LaunchError",
  "NotFound",
  "ProtocolError",
  "Refused",
  "ScheduleError",
  "SchemaMismatch",
  "SettingsError",
  "StorageError",
  "SupervisionError",
  "Unavailable",
]


class HetuflowError(Exception):
  """The root: whatever hetuflow raises on purpose is one of these."""


class SettingsError(HetuflowError):
  """A setting is unknown, of the wrong type or out of range; ends with exit code 2."""


class ProtocolError(HetuflowError):
  """A message or body is invalid.

  Args:
    issues: what is wrong, as ``(path, message)`` with JSON paths such as ``$.tasks[3].id``.
  """

  def __init__(self, issues: Sequence[tuple[str, str]]) -> None:
    self.issues = tuple(issues)
    super().__init__("; ".join(f"{message} @ {path}" for path, message in issues))


class ScheduleError(HetuflowError):
  """An expression, time zone or window cannot be scheduled.

  Args:
    message: what is wrong and what is expected.
    field: the field of the schedule it belongs to, such as ``cron_expression``.
  """

  def __init__(self, message: str, *, field: str = "cron_expression") -> None:
    self.field = field
    super().__init__(message)


class StorageError(HetuflowError):
  """The database refused or could not be reached."""


class Unavailable(StorageError):
  """The database cannot be reached now; loops wait with backoff and try again."""


class NotFound(StorageError):
  """There is no such row, or the caller may not see it."""


class Conflict(StorageError):
  """A unique key, a foreign key or the state of the row forbids the change."""


class SchemaMismatch(StorageError):
  """The database has another schema than this program expects; migrate first."""


class Refused(HetuflowError):
  """The other side refused us for a reason that will not mend by itself.

  Args:
    message: the reason, in words that somebody can act on.
    code: the reason in one word, for programs.
  """

  def __init__(self, message: str, *, code: str = "refused") -> None:
    self.code = code
    super().__init__(message)


class LaunchError(HetuflowError):
  """A process could not be started; the message says why in words."""


class SupervisionError(HetuflowError):
  """A child failed more often than its restart policy allows."""
