"""Read the sources, judge what is in them, and build the settings."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import typed_settings
from attrs import frozen
from typed_settings.cls_utils import deep_options
from typed_settings.dict_utils import set_path
from typed_settings.types import (
  LoadedSettings,
  LoaderMeta,
  OptionInfo,
  OptionList,
  SettingsClass,
  SettingsDict,
)

from hetuflow.errors import SettingsError
from hetuflow.redact import redact_text

__all__ = ["load_settings"]

_PREFIX = "HETUFLOW_"
# One file may serve all programs; each judges the keys of its own sections.
_SECTIONS = ("agent", "database", "log", "server")
_SHOWN_CHARACTERS = 60

T = TypeVar("T")


@frozen(kw_only=True)
class _Found:
  """A value as a source has it, and how an error names the place."""

  raw: object
  place: str


_Source = Mapping[str, _Found]
"""What one source says, by option path such as ``server.port``."""


def load_settings(
  settings_class: type[T],
  flags: Mapping[str, object],
  environ: Mapping[str, str],
  *,
  shorthands: Mapping[str, str],
) -> T:
  """Build the settings of a program.

  Args:
    settings_class: frozen attrs, one attribute a section.
    flags: what `add_flags` gave the command; None and empty lists are not given.
    environ: the environment variables.
    shorthands: variables without a section, by name, such as ``HETUFLOW_DATA_DIR``, and
      the option each one sets unless its own variable does.

  Returns:
    The settings: flags over environment over file over defaults.

  Raises:
    SettingsError: one line that names the place, the key and what is expected.
  """
  options = deep_options(settings_class)
  file = flags.get("config")
  sources = [
    _from_file(Path(str(file)), options) if file is not None else {},
    _from_shorthands(environ, shorthands),
    _from_environment(environ, options),
    _from_flags(flags, options),
  ]
  return typed_settings.load_settings(
    settings_class, [_Loader(source) for source in sources]
  )


class _Loader:
  """A source in the shape typed-settings takes, with every value judged."""

  def __init__(self, source: _Source) -> None:
    self._source = source

  def __call__(
    self, settings_cls: SettingsClass, options: OptionList
  ) -> LoadedSettings:
    """Read what the source has of the options."""
    values: SettingsDict = {}
    for option in options:
      found = self._source.get(option.path)
      if found is not None:
        set_path(values, option.path, _read(option, found))
    return LoadedSettings(values, LoaderMeta(self))


def _read(option: OptionInfo, found: _Found) -> object:
  """Read one value, or say what was expected."""
  kind = option.metadata["kind"]
  try:
    value: object = kind.read(found.raw)
  except ValueError:
    complaint = f"{found.place}: expected {kind.expected}"
    if not option.metadata["secret"]:
      complaint += f", got {_show(found.raw)}"
    # The cause would carry the value, which may be a secret.
    raise SettingsError(complaint) from None
  return value


def _show(raw: object) -> str:
  """Show a value in an error: short, on one line, without secrets."""
  shown = redact_text(repr(raw))
  if len(shown) > _SHOWN_CHARACTERS:
    return shown[:_SHOWN_CHARACTERS] + "…"
  return shown


def _from_file(file: Path, options: OptionList) -> _Source:
  """Read a TOML file whose sections and keys are all known."""
  own = _keys_by_section(options)
  found = {}
  for section, table in _parse(file).items():
    if section not in _SECTIONS:
      raise _unknown(f"{file}: [{section}]", "section", _SECTIONS)
    if not isinstance(table, dict):
      raise SettingsError(f"{file}: {section}: expected a section [{section}]")
    for key, raw in table.items() if section in own else ():
      if key not in own[section]:
        raise _unknown(f"{file}: {section}.{key}", "key", own[section])
      place = f"{file}: {section}.{key}"
      found[f"{section}.{key}"] = _Found(raw=raw, place=place)
  return found


def _parse(file: Path) -> dict[str, object]:
  """Parse the file the user named."""
  try:
    return tomllib.loads(file.read_text())
  except OSError as error:
    reason = (error.strerror or "unreadable").lower()
    raise SettingsError(f"{file}: expected a TOML file: {reason}") from error
  except UnicodeDecodeError as error:
    raise SettingsError(f"{file}: expected a TOML file: not UTF-8") from error
  except tomllib.TOMLDecodeError as error:
    raise SettingsError(f"{file}: expected a TOML file: {error}") from error


def _from_environment(environ: Mapping[str, str], options: OptionList) -> _Source:
  """Read the variables `HETUFLOW_<SECTION>_<KEY>` of our sections, all known."""
  paths = {_variable(option.path): option.path for option in options}
  found = {}
  for variable, raw in environ.items():
    if variable in paths:
      found[paths[variable]] = _Found(raw=raw, place=variable)
      continue
    for section in _keys_by_section(options):
      prefix = _variable(section) + "_"
      if variable.startswith(prefix):
        known = [name for name in paths if name.startswith(prefix)]
        raise _unknown(variable, "variable", known)
  return found


def _from_shorthands(
  environ: Mapping[str, str], shorthands: Mapping[str, str]
) -> _Source:
  """Read the variables that have no section."""
  return {
    path: _Found(raw=environ[variable], place=variable)
    for variable, path in shorthands.items()
    if variable in environ
  }


def _from_flags(flags: Mapping[str, object], options: OptionList) -> _Source:
  """Read the flags that were given."""
  found = {}
  for option in options:
    flag = option.metadata["flag"]
    raw = flags.get(flag.removeprefix("--").replace("-", "_")) if flag else None
    if raw is not None and raw != ():
      found[option.path] = _Found(raw=raw, place=flag)
  return found


def _keys_by_section(options: OptionList) -> dict[str, list[str]]:
  """Group the names of the keys by their section."""
  sections: dict[str, list[str]] = {}
  for option in options:
    section, _, key = option.path.partition(".")
    sections.setdefault(section, []).append(key)
  return sections


def _variable(path: str) -> str:
  """Name the environment variable of an option or a section."""
  return _PREFIX + path.replace(".", "_").upper()


def _unknown(place: str, what: str, known: Iterable[str]) -> SettingsError:
  """Say that a name is unknown and which ones there are."""
  return SettingsError(
    f"{place}: unknown {what}, expected one of {', '.join(sorted(known))}"
  )
