"""Keep secrets out of whatever people read."""

import re
from collections.abc import Mapping

__all__ = ["REDACTED", "is_secret_name", "redact_text", "redact_value"]

REDACTED = "***"

_SECRET_NAME = re.compile(
  r"token|secret|password|passwd|api[_-]?key|authorization|credential|cookie|dsn",
  re.IGNORECASE,
)
# Names that contain such a word and are not secret themselves.
_HARMLESS_NAME = re.compile(r"_(id|ids|count|file|at)$", re.IGNORECASE)
# No pattern begins with a repetition: strangers' texts of any length are searched.
_IN_TEXT = (
  # our own keys and tokens, wherever they stand; the id may be told
  (re.compile(r"(hf[kt]_[0-9a-f]{32}_)[\w-]+"), r"\1***"),
  # ?token=… in a URL, and its kind in a DSN
  (re.compile(r"((?:token|password|secret|api[_-]?key)=)[^&\s'\"]+", re.I), r"\1***"),
  # Bearer … wherever it stands, and Authorization: Basic …
  (re.compile(r"\b(bearer\s+|authorization\W+basic\s+)[\w.~+/=-]+", re.I), r"\1***"),
  # scheme://user:password@host
  (re.compile(r"(://[^/:@\s'\"]*:)[^/\s'\"]+@"), r"\1***@"),
)


def is_secret_name(name: str) -> bool:
  """Tell whether what goes by this name must not be shown.

  Args:
    name: a key of an event, a header or a setting.
  """
  return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def redact_text(text: str) -> str:
  """Replace the secrets inside a text: tokens in URLs, passwords, credentials.

  Args:
    text: any text, such as a URL or an error message.

  Returns:
    The text with `***` in their places.
  """
  for pattern, replacement in _IN_TEXT:
    text = pattern.sub(replacement, text)
  return text


def redact_value(value: object) -> object:
  """Replace the secrets in a value as a log event carries it.

  Args:
    value: anything; texts, bytes, mappings and lists are looked through, and of all else
      but numbers the text is taken: an exception may quote a URL.

  Returns:
    The value, or a copy without the secrets.
  """
  match value:
    case str():
      return redact_text(value)
    case bytes():
      return redact_text(value.decode(errors="replace"))
    case Mapping():
      return {
        key: REDACTED if is_secret_name(str(key)) and inner else redact_value(inner)
        for key, inner in value.items()
      }
    case list() | tuple() | set() | frozenset():
      return [redact_value(inner) for inner in value]
    case None | bool() | int() | float():
      return value
    case _:
      return redact_text(str(value))
