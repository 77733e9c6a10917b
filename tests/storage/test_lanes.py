"""Lanes: whose limit a task waits for."""

from typing import Any
from uuid import UUID

import pytest

from hetuflow.protocol.templates import MissingParameter, fill
from hetuflow.storage.lanes import KEY_LENGTH, lane_of, reason_of

JOB_ID = UUID("0190a8b4-7c00-7000-8000-000000000002")
FREE: dict[str, Any] = {
  "id": JOB_ID,
  "overlap": "allow",
  "max_concurrent": None,
  "concurrency_key": None,
  "rate_count": None,
}


@pytest.mark.parametrize(
  ("limits", "max_running", "parameters", "expected"),
  [
    ({}, None, {}, None),
    ({}, 5, {}, "namespace"),
    ({"max_concurrent": 3}, 5, {}, f"job:{JOB_ID}"),
    ({"overlap": "skip"}, None, {}, f"job:{JOB_ID}"),
    ({"rate_count": 10}, None, {}, f"job:{JOB_ID}"),
    ({"concurrency_key": "db"}, None, {}, "key:db"),
    (
      {"concurrency_key": "c-{{ parameters.customer }}", "overlap": "queue"},
      None,
      {"customer": {"id": 7}},
      'key:c-{"id":7}',
    ),
    ({"concurrency_key": "c-{{ parameters.customer }}"}, 5, {}, "key:c-"),
  ],
)
def test_a_task_is_in_the_lane_of_its_narrowest_limit(
  limits: dict[str, Any],
  max_running: int | None,
  parameters: dict[str, Any],
  expected: str | None,
) -> None:
  assert lane_of(FREE | limits, max_running, parameters) == expected


def test_long_values_of_a_key_stay_apart_and_short() -> None:
  job = FREE | {"concurrency_key": "{{ parameters.x }}"}
  lanes = [lane_of(job, None, {"x": "ä" * 10_000 + end}) for end in ("1", "2", "1")]
  assert lanes[0] == lanes[2] != lanes[1]
  assert all(lane is not None and len(lane.encode()) < KEY_LENGTH for lane in lanes)


@pytest.mark.parametrize(
  ("lane", "word"),
  [("namespace", "max_running"), ("key:alice", "'alice'"), (f"job:{JOB_ID}", "job")],
)
def test_the_reason_names_the_limit(lane: str, word: str) -> None:
  assert word in reason_of(lane)


def test_a_missing_parameter_is_named_or_replaced() -> None:
  with pytest.raises(MissingParameter, match=r"'a\.b'") as caught:
    fill("{{ parameters.a.b }}", {"a": {}})
  assert caught.value.name == "a.b"
  assert fill("<{{ parameters.a.b }}>", {"a": {}}, missing="-") == "<->"
