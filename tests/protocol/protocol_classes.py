"""The attrs classes of the protocol and the examples in their docstrings."""

import inspect
from types import ModuleType
from typing import Any

import attrs

from hetuflow.protocol.messages import envelope, files, session, work
from hetuflow.protocol.model import (
  agent,
  calendar,
  config,
  explain,
  forecast,
  gateway,
  job,
  ledger,
  namespace,
  schedule,
  statistics,
  task,
)

MODULES = (
  *(
    agent,
    calendar,
    config,
    explain,
    forecast,
    gateway,
    job,
    ledger,
    namespace,
    schedule,
    statistics,
    task,
  ),
  *(envelope, files, session, work),
)


def classes_of(module: ModuleType) -> list[type[Any]]:
  """Return the attrs classes that a module defines."""
  return [
    cls
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if attrs.has(cls) and cls.__module__ == module.__name__
  ]


CLASSES = [cls for module in MODULES for cls in classes_of(module)]


def example_of(cls: type[Any]) -> str | None:
  """Cut the JSON out of a docstring: what follows its line ``Example:``."""
  _, mark, text = inspect.cleandoc(cls.__doc__ or "").partition("\nExample:\n")
  return text if mark else None
