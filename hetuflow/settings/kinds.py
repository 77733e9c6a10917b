"""What a setting may be: how it is read from a flag, a variable or TOML.

A kind reads what it accepts and raises ValueError for the rest; its `expected` says in
words what that is and completes the sentence "expected …".
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from attrs import frozen

__all__ = [
  "Kind",
  "boolean",
  "choice",
  "integer",
  "name",
  "number",
  "pairs",
  "path",
  "setting",
  "text",
  "texts",
  "url",
  "urls",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]{0,5})?")


@frozen(kw_only=True)
class Kind:
  """How a setting is read and told."""

  expected: str
  read: Callable[[object], object]
  """Reads a string or a TOML value; ValueError for what it does not accept."""
  many: bool = False
  """Whether its flag may be given several times."""


def setting(
  kind: Kind,
  *,
  help: str,
  default: object = attrs.NOTHING,
  factory: Callable[[], object] | None = None,
  flag: str | None = None,
  metavar: str | None = None,
  secret: bool = False,
) -> Any:
  """Declare a field of a section.

  Args:
    kind: what it may be.
    help: one sentence for `--help` and the documentation, with the unit.
    default: its value when nobody sets it.
    factory: makes the default when the settings are loaded.
    flag: its name on the command line, such as `--port`.
    metavar: what stands for the value in `--help`.
    secret: it appears in no repr and no error.

  Returns:
    An attrs field.
  """
  ours = {
    "kind": kind,
    "help": help,
    "flag": flag,
    "metavar": metavar,
    "secret": secret,
  }
  # The place where typed-settings looks for what it hands on with each option.
  metadata = {"typed-settings": ours}
  if factory is not None:
    return attrs.field(factory=factory, repr=not secret, metadata=metadata)
  return attrs.field(default=default, repr=not secret, metadata=metadata)


def text() -> Kind:
  """Accept any text but none."""
  return Kind(expected="a text", read=_read_text)


def name() -> Kind:
  """Accept what can be a host name, a folder and a part of a URL alike."""

  def read(raw: object) -> str:
    """Read a name."""
    value = _read_text(raw)
    if not _NAME.fullmatch(value):
      raise ValueError(value)
    return value

  return Kind(expected="a name of letters, digits, dots and dashes", read=read)


def path() -> Kind:
  """Accept a path; `~` is the home folder."""

  def read(raw: object) -> Path:
    """Read a path, kept relative as it was given."""
    try:
      return Path(raw if isinstance(raw, Path) else _read_text(raw)).expanduser()
    except RuntimeError as error:
      raise ValueError(raw) from error  # the home of an unknown user

  return Kind(expected="a path", read=read)


def integer(low: int, high: int) -> Kind:
  """Accept a whole number between the bounds, both included."""

  def read(raw: object) -> int:
    """Read a whole number."""
    if isinstance(raw, str) and _INTEGER.fullmatch(raw.strip()):
      raw = int(raw)
    if not isinstance(raw, int) or isinstance(raw, bool) or not low <= raw <= high:
      raise ValueError(raw)
    return raw

  return Kind(expected=f"an integer between {low} and {high}", read=read)


def number(low: float, high: float, unit: str = "seconds") -> Kind:
  """Accept a number of units between the bounds, both included."""

  def read(raw: object) -> float:
    """Read a number."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
      raise ValueError(raw)
    value = float(raw)
    if not low <= value <= high:
      raise ValueError(raw)
    return value

  return Kind(expected=f"a number of {unit} between {low:g} and {high:g}", read=read)


def choice(*words: str) -> Kind:
  """Accept one of the words, whatever its case."""

  def read(raw: object) -> str:
    """Read a word."""
    word = _read_text(raw).lower()
    if word not in words:
      raise ValueError(word)
    return word

  return Kind(expected=f"one of {', '.join(words)}", read=read)


def boolean() -> Kind:
  """Accept true or false; as text also yes and no, on and off, 1 and 0."""
  words = dict.fromkeys(("true", "yes", "on", "1"), True)
  words |= dict.fromkeys(("false", "no", "off", "0"), False)

  def read(raw: object) -> bool:
    """Read a truth value."""
    if isinstance(raw, bool):
      return raw
    word = _read_text(raw).lower()
    if word not in words:
      raise ValueError(word)
    return words[word]

  return Kind(expected="true or false", read=read)


def texts() -> Kind:
  """Accept a list of texts; as one string they are separated by commas."""
  return Kind(expected="a list of texts", read=_read_texts, many=True)


def url(*schemes: str) -> Kind:
  """Accept a URL of one of the schemes.

  Hosts may be missing, as for a socket, or several with commas between, as for
  PostgreSQL. A port that is none mostly means a password that was not quoted.
  """

  def read(raw: object) -> str:
    """Read a URL."""
    value = _read_text(raw)
    parts = urlsplit(value)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if parts.scheme not in schemes or not all(map(_HOST.fullmatch, hosts)):
      raise ValueError(value)
    return value

  return Kind(expected=f"a {schemes[0]}:// URL", read=read)


def urls(*schemes: str) -> Kind:
  """Accept a list of URLs of these schemes, at least one."""

  def read(raw: object) -> tuple[str, ...]:
    """Read a list of URLs."""
    values = _read_texts(raw)
    if not values or not all(_is_url(value, schemes) for value in values):
      raise ValueError(raw)
    return values

  kinds = " or ".join(f"{scheme}://" for scheme in schemes)
  return Kind(expected=f"a list of {kinds} URLs", read=read, many=True)


def pairs() -> Kind:
  """Accept texts under names: `k=v` strings, or a table in TOML."""

  def read(raw: object) -> Mapping[str, str]:
    """Read a mapping."""
    if isinstance(raw, Mapping):
      return {key: _read_text(value) for key, value in raw.items()}
    split = [entry.partition("=") for entry in _read_texts(raw)]
    if not all(key and equals for key, equals, _ in split):
      raise ValueError(raw)
    return {key: value for key, _, value in split}

  return Kind(expected="labels as key=value", read=read, many=True)


def _read_text(raw: object) -> str:
  """Read a text that says something; no path and no argument can hold U+0000."""
  if not isinstance(raw, str) or not raw.strip() or "\0" in raw:
    raise ValueError(raw)
  return raw.strip()


def _read_texts(raw: object) -> tuple[str, ...]:
  """Read texts from a list, or from one string with commas."""
  if isinstance(raw, str):
    return tuple(part.strip() for part in raw.split(",") if part.strip())
  if not isinstance(raw, list | tuple):
    raise ValueError(raw)
  return tuple(_read_text(part) for part in raw)


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
  """Tell whether it is an absolute URL of one of the schemes, fit for a request."""
  if not value.isprintable() or " " in value:
    return False
  parts = urlsplit(value)
  target = parts.path + parts.query
  known = parts.scheme in schemes and bool(parts.hostname)
  return known and parts.port != 0 and target.isascii()
