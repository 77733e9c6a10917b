"""Hints wake those they are meant for."""

from hetuflow.nursery import Wakeup
from hetuflow.server.scheduling.hints import Hints


async def test_a_hint_reaches_the_listeners_of_its_kind_whole() -> None:
  hints = Hints()
  heard: list[tuple[str, str | None]] = []
  hints.tell(lambda hint: heard.append(("tasks", hint)), "tasks")
  hints.tell(lambda hint: heard.append(("both", hint)), "tasks", "routes")
  hints.hear("tasks:default")
  hints.hear("routes")
  hints.hear("unheard of")
  assert heard == [
    ("tasks", "tasks:default"),
    ("both", "tasks:default"),
    ("both", "routes"),
  ]


async def test_when_hints_may_have_been_missed_everybody_is_told_once() -> None:
  hints = Hints()
  heard: list[str | None] = []
  wakeup = Wakeup()
  hints.tell(heard.append, "tasks", "routes")
  hints.wake(wakeup, "schedules")
  hints.hear(None)
  assert heard == [None]
  assert await wakeup.wait(0.0)
