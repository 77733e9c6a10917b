"""Crontab files as Debian's cron reads them, turned into jobs.

The format is crontab(5) of Debian: comments, ``NAME = value`` lines that hold for what
follows, and entries of five time fields or ``@daily`` and its like, in system files a
user, and a command in which the first bare ``%`` begins the standard input. ``CRON_TZ`` is
taken from cronie. Nothing is dropped in silence: what cannot be taken, and what is taken
differently, is a problem with its line and reason.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from attrs import field, frozen

from hetuflow.errors import ScheduleError
from hetuflow.schedule import CronExpression, load_zone

__all__ = [
  "Crontab",
  "CrontabEntry",
  "CrontabProblem",
  "job_of_entry",
  "parse_crontab",
]

_DEFAULT_SHELL = "/bin/sh"
_DEFAULT_PATH = "/usr/bin:/bin"
_TEMPLATE = "{{"

_SETTING = re.compile(
  r"""\s*(?P<q>["']?)(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P=q)\s*=\s*(?P<value>.*?)\s*"""
)
_QUOTED = re.compile(r"""(?P<q>["'])(?P<text>.*)(?P=q)""")
_ENTRY = re.compile(r"\s*(?P<schedule>@\S+|(?:\S+\s+){4}\S+)(?:\s+(?P<rest>.*))?")
_USER = re.compile(r"(?P<user>\S+)(?:\s+(?P<rest>.*))?")
_PIECE = re.compile(r"\\.|%|[^\\%]+|\\", re.DOTALL)


@frozen(kw_only=True)
class CrontabEntry:
  r"""One line that starts a command.

  Args:
    line: its number in the file, from 1.
    name: ``<file>:<n>``, such as ``cron.d/sysstat:2`` for the second entry of
      ``/etc/cron.d/sysstat``. Entries have no name of their own in a crontab, so they
      are known by their place among the entries: comments, blank lines and settings
      may come and go, and a changed time or command changes the same job. An entry put
      before others moves those behind it. Entries that are not taken count too, so that
      mending one renames none.
    source: the file, as it was named.
    schedule: the cron expression.
    command: what the shell runs, with ``\%`` as ``%``.
    stdin: the text after the first bare ``%``, each further one a newline; None when
      there is none.
    user: the user column; None in a user's own crontab.
    environment: the settings in force at this line.
    shell: the program that is given ``-c`` and the command.
    timezone: the ``CRON_TZ`` in force; None means the machine's own.
    mailto: the ``MAILTO`` in force; empty means nobody, None that it was not set.
  """

  line: int
  name: str
  source: str
  schedule: str
  command: str
  stdin: str | None
  user: str | None
  environment: dict[str, str]
  shell: str
  timezone: str | None
  mailto: str | None


@frozen(kw_only=True)
class CrontabProblem:
  """Something a reader of the file should know.

  Args:
    line: its number in the file, from 1.
    text: the line.
    reason: what is wrong or different, in words.
    taken: True when the line was taken all the same.
  """

  line: int
  text: str
  reason: str
  taken: bool


@frozen(kw_only=True)
class Crontab:
  """What a crontab file says: its entries and its problems, in the order of the lines."""

  entries: list[CrontabEntry] = field(factory=list)
  problems: list[CrontabProblem] = field(factory=list)


class _Refusal(Exception):
  """A line cannot be taken; the message says why."""


def parse_crontab(text: str, *, source: str, with_user: bool) -> Crontab:
  """Read a crontab.

  Args:
    text: the whole file.
    source: its path or name; entries are named after it.
    with_user: the lines have a user column, as in /etc/crontab and /etc/cron.d.

  Returns:
    The entries, and as problems the lines that could not be taken or were taken in
    another sense. Never raises for what a file may hold.
  """
  reader = _Reader(source, with_user)
  lines = text.split("\n")
  unfinished = lines.pop()
  for number, line in enumerate(lines, 1):
    reader.read(number, line)
  if unfinished.strip():
    reader.read(len(lines) + 1, unfinished)
    reader.note("the last line has no newline; cron would ignore it")
  return reader.crontab


class _Reader:
  """Reads line by line; owns the settings in force."""

  def __init__(self, source: str, with_user: bool) -> None:
    self.crontab = Crontab()
    self._source = source
    self._with_user = with_user
    self._settings: dict[str, str] = {}
    self._zone_refusal: str | None = None
    self._count = 0
    self._line = (0, "")

  def read(self, number: int, line: str) -> None:
    """Take one line: blank, comment, setting or entry."""
    self._line = (number, line)
    text = line.removesuffix("\r")
    if text != line:
      self.note("the line ends with a carriage return, which is left out")
    if not text.strip() or text.lstrip().startswith("#"):
      return
    try:
      if setting := _SETTING.fullmatch(text):
        self._set(setting["name"], _unquote(setting["value"]))
      else:
        self._count += 1
        self.crontab.entries.append(self._entry(text))
    except _Refusal as refusal:
      self.note(str(refusal), taken=False)

  def note(self, reason: str, *, taken: bool = True) -> None:
    """Report something about the line just read."""
    number, text = self._line
    self.crontab.problems.append(
      CrontabProblem(line=number, text=text, reason=reason, taken=taken)
    )

  def _set(self, name: str, value: str) -> None:
    """Put a setting in force for the lines that follow."""
    if name == "LOGNAME":
      raise _Refusal("LOGNAME is always the user the command runs as")
    if name == "CRON_TZ":
      self._set_zone(value)
    self._settings[name] = value

  def _set_zone(self, name: str) -> None:
    """Check the time zone; entries below an unknown one are not taken."""
    self._zone_refusal = None
    try:
      if name:
        load_zone(name)
    except ScheduleError as error:
      self._zone_refusal = f"CRON_TZ above it: {error}"
      raise _Refusal(str(error)) from error

  def _entry(self, text: str) -> CrontabEntry:
    """Read one entry, or raise _Refusal with the reason."""
    match = _ENTRY.fullmatch(text)
    if match is None:
      raise _Refusal("neither NAME=value nor five time fields and a command")
    schedule = self._schedule(match["schedule"])
    user, command = self._split_user(match["rest"] or "")
    if self._zone_refusal is not None:
      raise _Refusal(self._zone_refusal)
    command, stdin = _split_input(command)
    if not command.strip():
      raise _Refusal("there is no command")
    settings = self._settings
    return CrontabEntry(
      line=self._line[0],
      name=f"{_file_name(self._source)}:{self._count}",
      source=self._source,
      schedule=schedule,
      command=command,
      stdin=stdin,
      user=user,
      environment={name: settings[name] for name in settings if name != "CRON_TZ"},
      shell=settings.get("SHELL") or _DEFAULT_SHELL,
      timezone=settings.get("CRON_TZ") or None,
      mailto=settings.get("MAILTO"),
    )

  def _schedule(self, text: str) -> str:
    """Check the time fields and return them with single spaces."""
    fields = " ".join(text.split())
    if fields.lower() == "@reboot":
      raise _Refusal("@reboot is not a time: a scheduler of many machines has no boot")
    if fields.startswith("-"):
      fields = fields[1:]
      self.note("the '-' that keeps SUSE's cron from logging is left out")
    try:
      CronExpression.parse(fields)
    except ScheduleError as error:
      raise _Refusal(str(error)) from error
    return fields

  def _split_user(self, rest: str) -> tuple[str | None, str]:
    """Split the user column from the command where there is one."""
    if not self._with_user:
      return None, rest
    match = _USER.fullmatch(rest)
    if match is None:
      raise _Refusal("there is no user and no command")
    return match["user"], match["rest"] or ""


def _unquote(value: str) -> str:
  """Return a setting's value without the quotes around it."""
  match = _QUOTED.fullmatch(value)
  return match["text"] if match else value


def _split_input(text: str) -> tuple[str, str | None]:
  """Split a command from its standard input at the first bare ``%``.

  A backslash protects what follows it and goes only where that is a ``%``. Input that is
  not empty ends with a newline, as cron sends it.
  """
  parts = [""]
  for piece in _PIECE.findall(text):
    if piece == "%":
      parts.append("")
    else:
      parts[-1] += "%" if piece == "\\%" else piece
  command, *lines = parts
  if not lines:
    return command, None
  data = "\n".join(lines)
  return command, data if not data or data.endswith("\n") else data + "\n"


def _file_name(source: str) -> str:
  """Return what names a file for people: itself, and its folder unless that is /etc."""
  path = PurePosixPath(source)
  folder = path.parent.name
  return path.name if folder in ("", "etc", "..") else f"{folder}/{path.name}"


def job_of_entry(entry: CrontabEntry, *, timezone: str = "UTC") -> dict[str, Any]:
  """Turn an entry into the body of ``POST /api/v1/jobs``.

  The command stands in ``cmd``, which is never templated; so does a setting whose value
  would read as a template in ``environment``.

  Args:
    entry: the entry.
    timezone: the IANA zone for entries without ``CRON_TZ``: that of the machine the
      crontab was written for.
  """
  command = entry.command
  if entry.shell != _DEFAULT_SHELL:
    command = f"exec {shlex.quote(entry.shell)} -c {shlex.quote(command)}"
  environment = {"PATH": _DEFAULT_PATH, **entry.environment}
  config: dict[str, Any] = {
    "executor": "shell",
    "cmd": _exports(environment) + command,
    "environment": {
      name: value for name, value in environment.items() if _TEMPLATE not in value
    },
  }
  if entry.user is not None:
    config["user"] = entry.user
  if entry.stdin is not None:
    config["stdin"] = entry.stdin
  return {
    "name": entry.name,
    "description": f"Imported from the crontab {entry.source}",
    "config": config,
    "schedules": [
      {
        "name": entry.name,
        "kind": "cron",
        "cron_expression": entry.schedule,
        "timezone": entry.timezone or timezone,
      }
    ],
  }


def _exports(environment: Mapping[str, str]) -> str:
  """Return shell lines that set what must not pass through templates."""
  return "".join(
    f"export {name}={shlex.quote(value)}\n"
    for name, value in environment.items()
    if _TEMPLATE in value
  )
