"""What a handler takes and gives, said once, for the OpenAPI document."""

from collections.abc import Callable
from typing import Any, TypeVar

import attrs

__all__ = ["OPERATIONS", "NoFilter", "Operation", "operation"]

H = TypeVar("H", bound=Callable[..., Any])


@attrs.frozen(kw_only=True)
class NoFilter:
  """For lists that cannot be narrowed."""


@attrs.frozen(kw_only=True)
class Operation:
  """One method of one path.

  Args:
    answer: the class of the JSON answer, or None where there is none; with ``filter``
      that of the items of a page.
    status: of a good answer.
    body: the class of the JSON body, or None where none is read.
    filter: the class of the query parameters of a list.
    media_types: of a good answer, where it is not only JSON.
    query: further query parameters, by name: their JSON schemas.
    once: whether ``Idempotency-Key`` is heeded.
    open: whether no key is needed.
  """

  answer: Any = None
  status: int = 200
  body: Any = None
  filter: Any = None
  media_types: tuple[str, ...] = ("application/json",)
  query: dict[str, Any] = attrs.field(factory=dict)
  once: bool = False
  open: bool = False


OPERATIONS: dict[Callable[..., Any], Operation] = {}
"""Every handler with what it takes and gives."""


def operation(
  answer: Any = None,
  *,
  status: int = 200,
  body: Any = None,
  filter: Any = None,
  media_types: tuple[str, ...] = ("application/json",),
  query: dict[str, Any] | None = None,
  once: bool = False,
  open: bool = False,
) -> Callable[[H], H]:
  """Say what a handler takes and gives; the arguments are those of ``Operation``."""
  described = Operation(
    answer=answer,
    status=status,
    body=body,
    filter=filter,
    media_types=media_types,
    query=query or {},
    once=once,
    open=open,
  )

  def note(handler: H) -> H:
    """Enter the handler."""
    OPERATIONS[handler] = described
    return handler

  return note
