"""Where the server is, and with which key it is spoken to."""

import os
from collections.abc import Mapping
from pathlib import Path

import attrs
import httpx

from hetuflow.errors import SettingsError
from hetuflow.ready import Ready, read_ready, ready_files

__all__ = ["Place", "find_data_dir", "find_server"]

URL_VARIABLE = "HETUFLOW_URL"
KEY_VARIABLE = "HETUFLOW_API_KEY"
DATA_DIR_VARIABLE = "HETUFLOW_DATA_DIR"


@attrs.frozen(kw_only=True)
class Place:
  """A server: its URL without a slash at the end, and an API key."""

  url: str
  key: str = attrs.field(repr=False)


def find_data_dir(
  data_dir: Path | None = None, environ: Mapping[str, str] | None = None
) -> Path:
  """Return the named folder, else that of ``HETUFLOW_DATA_DIR``, else the default.

  Raises:
    SettingsError: it is said to be in the home of a user who has none.
  """
  environ = os.environ if environ is None else environ
  named = data_dir or environ.get(DATA_DIR_VARIABLE)
  if not named:
    from hetuflow.settings import default_data_dir

    return default_data_dir()
  try:
    return Path(named).expanduser()
  except RuntimeError as error:
    raise SettingsError(f"data folder {str(named)!r}: {error}") from error


def find_server(
  *,
  server: str | None = None,
  key: str | None = None,
  data_dir: Path | None = None,
  environ: Mapping[str, str] | None = None,
) -> Place:
  """Find the server by argument, else environment, else what it left in its data folder.

  The key in the data folder opens every namespace, so it is given only to the servers
  of that folder, never to another URL, nor to who took the port of one that was killed.

  Args:
    server: URL.
    key: API key.
    data_dir: where a server of this machine keeps its files.
    environ: instead of the environment of this process.

  Raises:
    SettingsError: no server or no key can be found.
  """
  environ = os.environ if environ is None else environ
  folder = find_data_dir(data_dir, environ)
  url = server or environ.get(URL_VARIABLE) or _local_url(folder)
  url = _checked(url)
  key = key or environ.get(KEY_VARIABLE) or _key_in(folder, url)
  if key is None:
    raise SettingsError(
      f"no key for {url}: give --key or {KEY_VARIABLE} "
      f"(the key in {folder} is only given to running servers of that folder)"
    )
  if not (key.isascii() and key.isprintable()):
    raise SettingsError(f"the key for {url} has characters that no key has")
  return Place(url=url, key=key)


def _checked(url: str) -> str:
  """Demand a URL of HTTP and cut the slash at its end."""
  if not url.startswith(("http://", "https://")):
    raise SettingsError(f"server {url!r} is no URL such as http://127.0.0.1:8080")
  try:
    httpx.URL(url)
  except httpx.InvalidURL as error:
    raise SettingsError(f"server {url!r} is no URL: {error}") from None
  return url.rstrip("/")


def _local_url(folder: Path) -> str:
  """Find a server of this machine by what it left in its folder."""
  said = _servers_of(folder)
  for each in said:
    if each.is_running:
      return each.url
  if said:
    where = f"the server of {folder} does not run any more"
  else:
    where = f"there is no {folder / 'server.json'}"
  raise SettingsError(
    f"no server found: {where}; start one with `hetuflow up`, or name one by --server "
    f"or {URL_VARIABLE}"
  )


def _key_in(folder: Path, url: str) -> str | None:
  """Read the administrator's key of a folder for one of the servers of that folder."""
  if url not in (each.url for each in _servers_of(folder) if each.is_running):
    return None
  file = folder / "admin.key"
  try:
    return file.read_text("utf-8", errors="replace").strip() or None
  except FileNotFoundError:
    return None
  except OSError as error:
    raise SettingsError(f"{file}: cannot read the key: {error.strerror}") from error


def _servers_of(folder: Path) -> list[Ready]:
  """List what the servers of a folder say of themselves, the last one first."""
  found = []
  for file in ready_files(folder):
    try:
      said = read_ready(file)
    except (OSError, ValueError) as error:
      raise SettingsError(
        f"{file}: cannot read where the server is: {error}"
      ) from error
    if said is not None:
      found.append(said)
  return found
