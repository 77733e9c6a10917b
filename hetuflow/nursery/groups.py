"""Looking into exception groups, which every Trio nursery raises."""

from typing import overload

__all__ = ["consists_of", "sole_leaf", "split_crash"]


@overload
def sole_leaf(error: Exception) -> Exception: ...
@overload
def sole_leaf(error: BaseException) -> BaseException: ...


def sole_leaf(error: BaseException) -> BaseException:
  """Unwrap nested groups that hold exactly one exception.

  Args:
    error: an exception, often the group a nursery raised around a single crash.

  Returns:
    The only leaf, or what was reached when a group holds several.
  """
  while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
    error = error.exceptions[0]
  return error


def consists_of(
  error: BaseException, types: type[BaseException] | tuple[type[BaseException], ...]
) -> bool:
  """Tell whether an exception, or every leaf of a group, is of the given types.

  Args:
    error: an exception or a group of them.
    types: what counts.

  Returns:
    False as soon as a single leaf is of another type.
  """
  if isinstance(error, BaseExceptionGroup):
    return all(consists_of(leaf, types) for leaf in error.exceptions)
  return isinstance(error, types)


def split_crash(
  error: BaseException,
) -> tuple[Exception | None, BaseException | None]:
  """Part what crashed from what must pass on: cancellation, KeyboardInterrupt.

  A task with a nursery of its own that fails while it is cancelled raises both in one
  group.

  Args:
    error: an exception or a group of them.

  Returns:
    The crashes and the rest; None for what there is not.
  """
  if isinstance(error, Exception):
    return error, None
  if isinstance(error, BaseExceptionGroup):
    return error.split(Exception)
  return None, error
