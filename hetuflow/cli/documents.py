"""Files of JSON or TOML that commands take."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from hetuflow.errors import SettingsError

__all__ = ["read_document"]


def read_document(file: Path, what: str) -> dict[str, Any]:
  """Read a file that holds one object; TOML where its name says so, else JSON.

  Args:
    file: which.
    what: what it is to be, for errors.

  Raises:
    SettingsError: it cannot be read, or holds something else.
  """
  try:
    text = file.read_bytes()
    body = (
      tomllib.loads(text.decode())
      if file.suffix == ".toml"
      else msgspec.json.decode(text)
    )
  except (OSError, ValueError) as error:
    raise SettingsError(f"{file}: {error}") from error
  if not isinstance(body, dict):
    raise SettingsError(f"{file}: expected {what} as an object")
  return body
