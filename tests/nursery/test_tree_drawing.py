"""Declaring a tree, and drawing it."""

import attrs
import pytest

import hetuflow.nursery
from hetuflow.nursery import (
  Backoff,
  Child,
  Crowd,
  Group,
  Policy,
  Restart,
  Supervisor,
  render,
)


async def idle(*, task_status):
  """Do nothing."""
  task_status.started()


def test_a_tree_is_drawn_with_its_docs_in_one_column():
  sessions = Crowd("session", doc="one per agent: receive, send")
  leader = Supervisor(Group("leader", [Child("reaper", idle)], doc="inside its term"))
  group = Group(
    "server",
    [
      Child("notifier", idle, doc="LISTEN → wakeups"),
      Child("gateway", idle, doc="HTTP + /ws", inner=[sessions]),
      Child("elector", idle, doc="lease", inner=[leader]),
      Group("loops", [Child("flow", idle, doc="unblocks dependents")]),
      Child("poller", idle),
    ],
  )
  drawn = """\
server
├─ notifier      LISTEN → wakeups
├─ gateway       HTTP + /ws
│  └─ session*   one per agent: receive, send
├─ elector       lease
│  └─ leader     inside its term
│     └─ reaper
├─ loops
│  └─ flow       unblocks dependents
└─ poller"""
  assert render(group) == drawn
  assert render(Supervisor(group)) == drawn


def test_a_group_alone_is_one_line():
  assert render(Group("root", [], doc="nothing yet")) == "root  nothing yet"


def test_two_children_of_one_name_are_refused():
  with pytest.raises(ValueError, match="group root declares a twice"):
    Group("root", [Child("a", idle), Child("b", idle), Child("a", idle)])


def test_a_child_needs_a_name():
  with pytest.raises(ValueError, match="name"):
    Child("", idle)


def test_declarations_cannot_be_changed():
  with pytest.raises(attrs.exceptions.FrozenInstanceError):
    Group("root", []).name = "other"


def test_a_limit_that_backoff_would_outlast_is_refused():
  slow = Backoff(initial=10, factor=1, maximum=10)
  with pytest.raises(ValueError, match="may take 60 s, longer than the period of 60 s"):
    Restart(backoff=slow, max_restarts=6, period=60)
  assert Restart(backoff=slow, max_restarts=5, period=60).max_restarts == 5
  assert Restart(backoff=slow, max_restarts=None).max_restarts is None


def test_a_negative_limit_is_refused():
  with pytest.raises(ValueError, match="negative"):
    Restart(max_restarts=-1)


def test_policies_have_short_forms():
  assert Restart.always(period=90).policy is Policy.ALWAYS
  assert Restart.on_crash() == Restart()
  assert Restart.never().policy is Policy.NEVER


def test_the_public_names_are_sorted_and_exist():
  names = hetuflow.nursery.__all__
  assert names == sorted(names)
  assert all(hasattr(hetuflow.nursery, name) for name in names)
