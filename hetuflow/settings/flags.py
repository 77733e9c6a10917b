"""Command line flags made from the settings themselves."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from typed_settings.cls_utils import deep_options

__all__ = ["add_flags"]

F = TypeVar("F", bound=Callable[..., Any])


def add_flags(settings_class: type) -> Callable[[F], F]:
  """Make a decorator that adds `--config` and a flag for every setting that has one.

  Args:
    settings_class: frozen attrs, one attribute a section.

  Returns:
    A decorator for a click command. Its callback gets each flag as text, or None, under
    the flag's name; `load_settings` takes them as they are and judges them.
  """
  fields = [field for field in deep_options(settings_class) if field.metadata["flag"]]

  def decorate(command: F) -> F:
    """Add the flags in the order the settings are declared."""
    for field in reversed(fields):
      add = click.option(
        field.metadata["flag"],
        multiple=field.metadata["kind"].many,
        metavar=field.metadata["metavar"] or field.name.upper(),
        help=field.metadata["help"],
      )
      command = add(command)
    return click.option("--config", metavar="FILE", help="A TOML file.")(command)

  return decorate
