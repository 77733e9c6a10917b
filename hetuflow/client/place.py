"""Where the server is, and with which key it is spoken to."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import httpx
import msgspec

from hetuflow.errors import SettingsError

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
  """Return the named folder, else that of ``HETUFLOW_DATA_DIR``, else the default."""
  if data_dir is not None:
    return data_dir
  if named := (os.environ if environ is None else environ).get(DATA_DIR_VARIABLE):
    return Path(named)
  from hetuflow.settings import default_data_dir

  return default_data_dir()


def find_server(
  *,
  server: str | None = None,
  key: str | None = None,
  data_dir: Path | None = None,
  environ: Mapping[str, str] | None = None,
) -> Place:
  """Find the server by argument, else environment, else what it left in its data folder.

  The key in the data folder opens every namespace, so it is given only to the servers
  of that folder, never to another URL.

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
  url = server or environ.get(URL_VARIABLE) or _url_in(folder / "server.json")
  if url is None:
    raise SettingsError(
      f"no server found: there is no {folder / 'server.json'}; start one with "
      f"`hetuflow up`, or name one by --server or {URL_VARIABLE}"
    )
  url = _checked(url)
  key = key or environ.get(KEY_VARIABLE) or _key_in(folder, url)
  if key is None:
    raise SettingsError(
      f"no key for {url}: give --key or {KEY_VARIABLE} "
      f"(the key in {folder} is only given to servers of that folder)"
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


def _url_in(file: Path) -> str | None:
  """Read the URL out of a file in which a server says where it is."""
  try:
    said = msgspec.json.decode(file.read_bytes())
    return str(said["url"]).rstrip("/")
  except FileNotFoundError:
    return None
  except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
    raise SettingsError(f"{file}: cannot read where the server is: {error}") from error


def _key_in(folder: Path, url: str) -> str | None:
  """Read the administrator's key of a folder for one of the servers of that folder."""
  if url not in _urls_of(folder):
    return None
  file = folder / "admin.key"
  try:
    return file.read_text("utf-8", errors="replace").strip() or None
  except FileNotFoundError:
    return None
  except OSError as error:
    raise SettingsError(f"{file}: cannot read the key: {error.strerror}") from error


def _urls_of(folder: Path) -> Iterator[str]:
  """Yield the URLs of the servers that say to be running in a folder."""
  for file in (folder / "server.json", *sorted(folder.glob("servers/*.json"))):
    if url := _url_in(file):
      yield url
