"""What is typed, and what is shown."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click
import pytest

from hetuflow.cli import show
from hetuflow.cli.output import exit_code_of
from hetuflow.cli.status import tree_rows
from hetuflow.cli.words import moment, pair, parameters_of
from hetuflow.protocol.model import TaskInstance
from hetuflow.protocol.model.task import TaskMetrics
from hetuflow.protocol.states import TaskInstanceStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID: Any = UUID("0190a8b4-7c00-7000-8000-000000000004")


def instance(status: TaskInstanceStatus, exit_code: int | None) -> TaskInstance:
  """Return an instance that ended so."""
  return TaskInstance(
    id=ID,
    task_id=ID,
    job_id=ID,
    namespace_id="default",  # type: ignore[arg-type] - a slug
    agent_id=ID,
    attempt=1,
    status=status,
    reason=None,
    exit_code=exit_code,
    error_message=None,
    output="",
    scheduled_at=NOW,
    dispatched_at=NOW,
    started_at=NOW,
    completed_at=NOW,
    start_error_ms=0.0,
    metrics=TaskMetrics(),
    updated_at=NOW,
  )


def test_a_pair_is_cut_at_its_first_equals_sign() -> None:
  assert pair("query=a=b") == ("query", "a=b")
  assert pair("empty=") == ("empty", "")
  for text in ("bare", "=value"):
    with pytest.raises(click.BadParameter):
      pair(text)


def test_parameters_are_json_where_they_look_like_it() -> None:
  words = [("n", "3"), ("on", "true"), ("day", "monday"), ("o", '{"a":[1]}')]
  assert parameters_of([*words, ("x", "NaN"), ("s", '"3"')]) == {
    "n": 3,
    "on": True,
    "day": "monday",
    "o": {"a": [1]},
    "x": "NaN",
    "s": "3",
  }


def test_a_time_keeps_its_offset() -> None:
  assert moment("2026-01-01T02:00+02:00") == NOW
  assert moment("2026-01-01T02:00").utcoffset() is not None
  with pytest.raises(click.BadParameter):
    moment("noon")


@pytest.mark.parametrize(
  ("status", "code", "ours"),
  [
    (TaskInstanceStatus.SUCCEEDED, 0, 0),
    (TaskInstanceStatus.SUCCEEDED, None, 0),
    (TaskInstanceStatus.FAILED, 3, 3),
    (TaskInstanceStatus.FAILED, -9, 137),
    (TaskInstanceStatus.FAILED, None, 1),
    (TaskInstanceStatus.TIMEOUT, 0, 1),
    (TaskInstanceStatus.LOST, None, 1),
  ],
)
def test_we_exit_as_the_task_did(
  status: TaskInstanceStatus, code: int | None, ours: int
) -> None:
  assert exit_code_of(instance(status, code)) == ours


@pytest.mark.parametrize(
  ("seconds", "said"),
  [
    (0, "0 s ago"),
    (59, "59 s ago"),
    (60, "1 min ago"),
    (7_200, "2 h ago"),
    (200_000, "2 d ago"),
    (-5, "0 s ago"),
  ],
)
def test_how_long_ago_is_said_in_the_greatest_unit(seconds: int, said: str) -> None:
  assert show.ago(NOW, NOW + timedelta(seconds=seconds)) == said
  assert show.ago(None) is None


def test_a_table_in_a_pipe_is_neither_cut_nor_coloured(
  capsys: pytest.CaptureFixture[str],
) -> None:
  show.print_table(("A", "B"), [("x" * 500, None), ("[bold]y", "z\x1b[31m\nw")])
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 3
  assert "x" * 500 in lines[1]
  assert lines[1].rstrip().endswith("-")
  assert "[bold]y" in lines[2]
  assert "\x1b" not in lines[2]


def test_a_supervision_tree_is_drawn_with_its_branches() -> None:
  tree = {
    "name": "server",
    "status": "running",
    "children": [
      {
        "name": "gateway",
        "status": "running",
        "restarts": 2,
        "last_error": "OSError: gone",
        "children": [{"name": "session", "kind": "crowd", "count": 3}],
      },
      {"name": "poller", "status": "backoff"},
    ],
  }
  assert list(tree_rows(tree)) == [
    ("server", "running", None, None),
    ("├─ gateway", "running", 2, "OSError: gone"),
    ("│  └─ session (3)", None, None, None),
    ("└─ poller", "backoff", None, None),
  ]
