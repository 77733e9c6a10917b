"""The Python functions that jobs with the executor ``python`` may call.

``@function("name")`` registers one; ``--import`` brings in the modules that do. A plain
function runs in a thread, an async one as a Trio task, and one registered as ``inline``
right in the executor's loop, a batch at a time: it must return within microseconds and
its time limit is not watched.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import attrs

from hetuflow.errors import SettingsError
from hetuflow.protocol.model import InstanceId, JsonObject, TaskId

__all__ = ["Function", "TaskContext", "function", "import_functions", "registered"]

NOOP = "hetuflow.noop"

F = TypeVar("F", bound=Callable[..., Any])
_Kind = inspect.Parameter


@attrs.frozen(kw_only=True)
class TaskContext:
  """What a function is told of the attempt it runs for, if it has a ``context``.

  Args:
    instance_id: the attempt.
    task_id: the planned occurrence.
    attempt: which attempt it is, from 1.
    scheduled_at: when it was to run.
    parameters: those of the task.
    job_name: whose task it is.
  """

  instance_id: InstanceId
  task_id: TaskId
  attempt: int
  scheduled_at: datetime
  parameters: JsonObject
  job_name: str


@attrs.frozen(kw_only=True)
class Function:
  """A registered function and how it wants to be called.

  Args:
    name: what jobs call it in ``cmd``.
    call: the function itself.
    inline: whether it runs in the executor's loop.
    is_async: whether it is awaited.
    wants_context: whether it has a parameter ``context``.
    takes: the names it takes; None takes any.
  """

  name: str
  call: Callable[..., Any]
  inline: bool
  is_async: bool
  wants_context: bool
  takes: frozenset[str] | None

  def arguments(
    self, parameters: JsonObject, context: Callable[[], TaskContext]
  ) -> dict[str, Any]:
    """Choose the keyword arguments: the parameters it takes, and the context.

    Args:
      parameters: those of the task.
      context: makes the context; called only if it is wanted.
    """
    takes = self.takes
    chosen = {
      name: value
      for name, value in parameters.items()
      if takes is None or name in takes
    }
    if self.wants_context:
      chosen["context"] = context()
    return chosen


_functions: dict[str, Function] = {}


def function(name: str, *, inline: bool = False) -> Callable[[F], F]:
  """Register a function under a name that jobs use as ``cmd``.

  It is called with those parameters of the task that its signature names, and with a
  ``TaskContext`` if it has a parameter ``context``. What it returns, None or anything
  JSON can say, becomes the output; an exception fails the attempt.

  Args:
    name: unique in this agent.
    inline: call it in the executor's loop, without a thread: for what returns at once.

  Raises:
    ValueError: the name is taken, an async function is to run inline, or no parameters
      of a task could be given to it, which go by name.
  """

  def register(call: F) -> F:
    """Add the function to the table and leave it as it is."""
    if name in _functions:
      raise ValueError(f"there is a function {name!r} already")
    _functions[name] = _describe(name, call, inline=inline)
    return call

  return register


def registered() -> Mapping[str, Function]:
  """Return every registered function by its name."""
  return _functions


def import_functions(modules: Iterable[str]) -> None:
  """Import modules that register functions.

  Args:
    modules: dotted names.

  Raises:
    SettingsError: one cannot be imported; says which and why.
  """
  for module in modules:
    try:
      importlib.import_module(module)
    except Exception as error:
      raise SettingsError(
        f"agent.imports: expected a module that can be imported, not {module!r}: "
        f"{type(error).__name__}: {error}"
      ) from error


def _describe(name: str, call: Callable[..., Any], *, inline: bool) -> Function:
  """Look at a function's signature once, so that calls need not."""
  is_async = inspect.iscoroutinefunction(call)
  if inline and is_async:
    raise ValueError(f"the function {name!r} is async and cannot run inline")
  parameters = inspect.signature(call).parameters.values()
  nameless = [each for each in parameters if each.kind is _Kind.POSITIONAL_ONLY]
  if any(each.default is each.empty for each in nameless):
    raise ValueError(
      f"the function {name!r} takes {nameless[0].name!r} by position only, but the"
      " parameters of a task are given by name"
    )
  names = {each.name for each in parameters if each.kind in _NAMED}
  takes_any = any(each.kind is _Kind.VAR_KEYWORD for each in parameters)
  return Function(
    name=name,
    call=call,
    inline=inline,
    is_async=is_async,
    wants_context="context" in names,
    takes=None if takes_any else frozenset(names - {"context"}),
  )


_NAMED = (_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY)


@function(NOOP, inline=True)
def _noop() -> None:
  """Do nothing: what is measured with it is the way there and back."""
