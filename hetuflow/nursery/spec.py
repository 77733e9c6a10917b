"""The declaration of a supervision tree: what runs, in which order, restarted how.

A tree is plain data. ``Supervisor`` brings it to life, ``render`` draws it. Names and
functions come first and unnamed, so that a tree file reads as a table.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, Protocol

import attrs
from attrs.validators import ge, gt, min_len

from hetuflow.errors import Refused, SettingsError
from hetuflow.nursery.backoff import Backoff
from hetuflow.nursery.state import NodeState

__all__ = [
  "Child",
  "Group",
  "Inner",
  "Outline",
  "Policy",
  "Restart",
  "Strategy",
  "render",
]

DRAIN_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


class Policy(StrEnum):
  """When a child that ended is started again."""

  ALWAYS = "always"
  ON_CRASH = "on_crash"
  NEVER = "never"


class Strategy(StrEnum):
  """Who is restarted with a child that crashed: nobody, or all declared after it."""

  ONE_FOR_ONE = "one_for_one"
  REST_FOR_ONE = "rest_for_one"


def _default_backoff() -> Backoff:
  """Return the delays between restarts of a child that says nothing of its own."""
  return Backoff(maximum=10.0)


@attrs.frozen(kw_only=True)
class Restart:
  """How a child is restarted, and when to give up.

  More than ``max_restarts`` within ``period`` fail the group with SupervisionError: its
  parent restarts the whole group by the group's own policy, and the root ends the
  process. Delays that could stretch the allowed restarts over the period are refused:
  such a limit would never be reached.

  Args:
    policy: ``always``, ``on_crash``, or ``never``: then a crash fails the group at once.
    backoff: delays before the restarts; the attempt is counted within the period.
    max_restarts: restarts allowed within the period; None never gives up.
    period: seconds.
    fatal: errors that no restart mends; they fail every group up to the root unchanged.
  """

  policy: Policy = Policy.ON_CRASH
  backoff: Backoff = attrs.field(factory=_default_backoff)
  max_restarts: int | None = 5
  period: float = attrs.field(default=60.0, validator=gt(0))
  fatal: tuple[type[Exception], ...] = (Refused, SettingsError)

  def __attrs_post_init__(self) -> None:
    if self.max_restarts is None or self.policy is Policy.NEVER:
      return
    if self.max_restarts < 0:
      raise ValueError("max_restarts must not be negative")
    longest = sum(map(self.backoff.bound, range(self.max_restarts)))
    if longest >= self.period:
      raise ValueError(
        f"{self.max_restarts} restarts may take {longest:g} s, longer than the period "
        f"of {self.period:g} s: the limit would never be reached"
      )

  @classmethod
  def always(cls, **changes: Any) -> "Restart":
    """Restart after every end; ``changes`` are fields of Restart."""
    return cls(policy=Policy.ALWAYS, **changes)

  @classmethod
  def on_crash(cls, **changes: Any) -> "Restart":
    """Restart after a crash, accept a normal end; ``changes`` are fields of Restart."""
    return cls(policy=Policy.ON_CRASH, **changes)

  @classmethod
  def never(cls) -> "Restart":
    """Fail the group at the first crash."""
    return cls(policy=Policy.NEVER, max_restarts=0)


@attrs.frozen(kw_only=True)
class Outline:
  """What is drawn of a node: its label, its one-line doc and the nodes below."""

  label: str
  doc: str = ""
  below: tuple["Outline", ...] = ()


class Inner(Protocol):
  """What a child runs inside itself and the tree shows below it: Crowd, Supervisor."""

  def outline(self) -> Outline:
    """Return what ``render`` draws."""

  def state(self) -> NodeState:
    """Return what it does now."""


def _as_tuple(nodes: "Iterable[Child | Group]") -> "tuple[Child | Group, ...]":
  """Freeze the children of a group."""
  return tuple(nodes)


def _as_inner(inner: Iterable[Inner]) -> tuple[Inner, ...]:
  """Freeze what a child runs inside itself."""
  return tuple(inner)


@attrs.frozen
class Child:
  """One long-running part.

  Args:
    name: unique within its group.
    run: called as ``run(task_status=…)``; calls ``task_status.started()`` when it can be
      relied upon, again after each restart. Returning without that is a crash.
    doc: one line for the drawn tree.
    restart: when and how it is restarted.
    drain: called before it is cancelled when the tree drains, not when it is cancelled;
      returns when the child has finished what it had. Cut off when the child ends.
    drain_timeout: seconds ``drain`` may take.
    stop_timeout: seconds its cancelled clean-up may hold up the stop of those declared
      before it. It is still waited for at the end.
    inner: crowds and supervisors it runs itself, shown below it.
  """

  name: str = attrs.field(validator=min_len(1))
  run: Callable[..., Awaitable[None]]
  doc: str = attrs.field(default="", kw_only=True)
  restart: Restart = attrs.field(default=Restart(), kw_only=True)
  drain: Callable[[], Awaitable[None]] | None = attrs.field(default=None, kw_only=True)
  drain_timeout: float = attrs.field(
    default=DRAIN_TIMEOUT_S, validator=ge(0), kw_only=True
  )
  stop_timeout: float = attrs.field(
    default=STOP_TIMEOUT_S, validator=ge(0), kw_only=True
  )
  inner: tuple[Inner, ...] = attrs.field(default=(), converter=_as_inner, kw_only=True)

  def outline(self) -> Outline:
    """Return what ``render`` draws."""
    below = tuple(inner.outline() for inner in self.inner)
    return Outline(label=self.name, doc=self.doc, below=below)


@attrs.frozen
class Group:
  """Children in the order they start; each may lean on those before it.

  Args:
    name: unique within its parent.
    children: children and groups; the names differ.
    doc: one line for the drawn tree.
    strategy: who is restarted together.
    restart: what its parent does when it fails.
  """

  name: str = attrs.field(validator=min_len(1))
  children: tuple["Child | Group", ...] = attrs.field(converter=_as_tuple)
  doc: str = attrs.field(default="", kw_only=True)
  strategy: Strategy = attrs.field(default=Strategy.ONE_FOR_ONE, kw_only=True)
  restart: Restart = attrs.field(default=Restart(), kw_only=True)

  def __attrs_post_init__(self) -> None:
    names = [child.name for child in self.children]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
      raise ValueError(f"group {self.name} declares {', '.join(twice)} twice")

  @property
  def stop_timeout(self) -> float:
    """The seconds all its children together may take to stop."""
    return math.fsum(child.stop_timeout for child in self.children)

  def outline(self) -> Outline:
    """Return what ``render`` draws."""
    below = tuple(child.outline() for child in self.children)
    return Outline(label=self.name, doc=self.doc, below=below)


def render(node: Child | Group | Inner) -> str:
  """Draw a tree with one line per node, its docs in one column; ``*`` = dynamic.

  Args:
    node: the root.

  Returns:
    Lines joined by newlines, without one at the end; the same for the same tree.
  """
  outline = node.outline()
  lines = [(outline.label, outline.doc), *_branches(outline, "")]
  width = max(len(drawn) for drawn, _ in lines)
  return "\n".join(f"{drawn:{width}}  {doc}".rstrip() for drawn, doc in lines)


def _branches(outline: Outline, indent: str) -> Iterator[tuple[str, str]]:
  """Yield the drawn label and the doc of every node below one."""
  last = len(outline.below) - 1
  for place, node in enumerate(outline.below):
    fork, deeper = ("└─ ", "   ") if place == last else ("├─ ", "│  ")
    yield indent + fork + node.label, node.doc
    yield from _branches(node, indent + deeper)
