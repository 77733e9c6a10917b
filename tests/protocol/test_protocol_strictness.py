"""What is refused, and the path that the refusal names."""

import json
from typing import Any

import pytest

from hetuflow.agent.link.link import MAX_FRAME_BYTES
from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.converter import MAX_ISSUES
from hetuflow.protocol.messages import DispatchTaskRequest, MessageKind
from hetuflow.protocol.model import (
  JobForCreate,
  JobForUpdate,
  NamespaceForCreate,
  ScheduleForCreate,
  ScheduleForUpdate,
  TaskConfig,
  TaskForUpdate,
)
from hetuflow.protocol.model.task import JobForRun, TaskBatchForCreate, TaskForCreate

ID = "0190a8b4-7c00-7000-8000-000000000004"
UPDATE = {
  "instance_id": ID,
  "namespace_id": "default",
  "claim_token": ID,
  "status": "succeeded",
}
TASK = {
  "instance_id": ID,
  "task_id": ID,
  "namespace_id": "default",
  "claim_token": ID,
  "attempt": 1,
  "config": "j:1",
  "scheduled_at": "2026-01-01T00:00:00Z",
  "due_at": "2026-01-01T00:00:00Z",
  "lease": 30.0,
}
NUL = "U+0000 is not allowed"
SURROGATES = "lone surrogates are not allowed"


def refused(cls: type[Any], body: Any) -> list[tuple[str, str]]:
  """Return why a body is refused; bytes are taken as they are."""
  text = body if isinstance(body, bytes) else json.dumps(body).encode()
  with pytest.raises(ProtocolError) as error:
    wire.decode_body(cls, text)
  return list(error.value.issues)


def job(**config: Any) -> dict[str, Any]:
  """Return the body of a new job with the given configuration."""
  return {"name": "backup", "config": {"cmd": "/bin/true", **config}}


def frame(kind: MessageKind, payload: Any) -> bytes:
  """Return an envelope as the other side would send it."""
  text = payload if isinstance(payload, str) else json.dumps(payload)
  return (
    f'{{"message_id":"{ID}","timestamp":1,"message_kind":"{kind}","payload":{text}}}'
  ).encode()


def refused_frame(kind: MessageKind, payload: Any) -> list[tuple[str, str]]:
  """Return why a message is refused."""
  with pytest.raises(ProtocolError) as error:
    wire.decode_envelope(frame(kind, payload))
  return list(error.value.issues)


def refused_updates(*updates: Any) -> list[tuple[str, str]]:
  """Return why a batch of reports is refused."""
  return refused_frame(MessageKind.TASK_INSTANCE_UPDATE, {"updates": list(updates)})


# ── bodies ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ("config", "path", "message"),
  [
    ({"cmd": 5}, "cmd", "expected a string"),
    ({"cmd": ""}, "cmd", "expected a length between 1 and 131072"),
    ({"cmd": "a\0"}, "cmd", NUL),
    ({"args": "abc"}, "args", "expected an array"),
    ({"args": ["a", 1]}, "args[1]", "expected a string"),
    ({"args": ["a", "\0"]}, "args[1]", NUL),
    ({"timeout": "5"}, "timeout", "expected a number"),
    ({"timeout": True}, "timeout", "expected a number"),
    ({"timeout": 10**400}, "timeout", "expected a number"),
    ({"timeout": -1}, "timeout", "expected a number between 0 and 31622400"),
    ({"max_retries": "5"}, "max_retries", "expected an integer"),
    ({"max_retries": 5.0}, "max_retries", "expected an integer"),
    ({"max_retries": True}, "max_retries", "expected an integer"),
    ({"max_retries": 2**63}, "max_retries", "expected an integer of at most 64 bits"),
    ({"capture_output": 1}, "capture_output", "expected true or false"),
    ({"executor": "magic"}, "executor", None),
    ({"executor": ["shell"]}, "executor", None),
    ({"environment": ["A"]}, "environment", "expected an object"),
    ({"environment": {"A": 1}}, "environment.A", "expected a string"),
    ({"environment": {"A": "\0"}}, "environment.A", NUL),
    ({"environment": {"A\0": "x"}}, "environment.A\0", NUL),
    ({"environment": {"1A": "x"}}, "environment", None),
    ({"environment": {"A=B": "x"}}, "environment", None),
    ({"environment": {"": "x"}}, "environment", None),
    ({"labels": {"a\0": "x"}}, "labels.a\0", NUL),
    ({"retry_on_exit_codes": [1, "2"]}, "retry_on_exit_codes[1]", None),
    ({"retry_on_exit_codes": [256]}, "retry_on_exit_codes", None),
    ({"max_lost": 10**9}, "max_lost", "expected a number between 0 and 1000"),
    ({"executor": "python", "user": "root"}, "executor", None),
    ({"comand": "x"}, "comand", "unknown key"),
  ],
)
def test_a_wrong_configuration_is_refused_at_its_field(
  config: dict[str, Any], path: str, message: str | None
) -> None:
  [(found, why)] = refused(JobForCreate, job(**config))
  assert found == f"$.config.{path}"
  assert message in (None, why)


def test_all_mistakes_are_told_at_once() -> None:
  body = {"config": {"cmd": 5, "priority": "high", "zeal": 1}, "nmae": "backup"}
  assert dict(refused(JobForCreate, body)) == {
    "$.name": "required",
    "$.config.cmd": "expected a string",
    "$.config.priority": "expected an integer",
    "$.config.zeal": "unknown key",
    "$.nmae": "unknown key",
  }


def test_an_element_of_a_list_is_named_by_its_place() -> None:
  cron = {"kind": "cron", "cron_expression": "* * * * *"}
  body = {**job(), "schedules": [cron, {"kind": "cron", "run_at": TASK["due_at"]}]}
  assert refused(JobForCreate, body) == [
    ("$.schedules[1].run_at", "does not belong to a schedule of kind cron")
  ]
  body = {**job(), "schedules": [{**cron, "dst": {"gap": "leap"}}]}
  assert refused(JobForCreate, body) == [
    ("$.schedules[0].dst.gap", "expected one of shift, skip")
  ]
  items = {"items": [{"job_id": ID}, {"job_id": ID, "priority": 11}]}
  assert [path for path, _ in refused(TaskBatchForCreate, items)] == [
    "$.items[1].priority"
  ]


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"{} {}", b'{"a":NaN}'])
def test_what_is_not_json_is_refused_as_a_whole(body: bytes) -> None:
  [(path, why)] = refused(JobForRun, body)
  assert path == "$"
  assert why.startswith("not JSON: ")


@pytest.mark.parametrize("body", [[], "text", 5, None])
def test_a_body_must_be_an_object(body: Any) -> None:
  assert refused(JobForRun, body) == [("$", "expected an object")]


@pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
def test_a_number_beyond_a_float_is_refused(number: bytes) -> None:
  body = b'{"name":"a","config":{"cmd":"a","timeout":' + number + b"}}"
  [(_, why)] = refused(JobForCreate, body)
  assert why == "Number out of range"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_say_is_refused(number: float) -> None:
  with pytest.raises(ProtocolError, match="expected a number"):
    wire.load(JobForCreate, job(timeout=number))


@pytest.mark.parametrize(
  ("time", "why"),
  [
    ("2026-01-01T00:00:00", "expected a time with its offset"),
    ("yesterday", "expected an RFC 3339 time"),
    ("2026-01-01", "expected an RFC 3339 time"),
    (1767225600, "expected an RFC 3339 time"),
    ("0001-01-01T00:00:00+14:00", "between the years 1900 and 9998"),
    ("9999-12-31T23:59:59-14:00", "between the years 1900 and 9998"),
    ("9998-12-31T23:59:59-01:00", "between the years 1900 and 9998"),
    ("1900-01-01T00:00:00+01:00", "between the years 1900 and 9998"),
  ],
)
def test_a_time_has_an_offset_and_a_place_in_the_calendar(time: Any, why: str) -> None:
  [(path, found)] = refused(JobForRun, {"scheduled_at": time})
  assert path == "$.scheduled_at"
  assert why in found


@pytest.mark.parametrize(
  "text", ["x", 5, ID.replace("-", ""), "{" + ID + "}", "urn:uuid:" + ID, "\u00e9" * 36]
)
def test_an_id_is_a_uuid_in_its_text_form(text: Any) -> None:
  assert refused(TaskForCreate, {"job_id": text}) == [("$.job_id", "expected a UUID")]


def test_null_is_not_the_same_as_left_out() -> None:
  assert [path for path, _ in refused(TaskForUpdate, {"priority": None})] == [
    "$.priority"
  ]
  cleared = wire.decode_body(ScheduleForUpdate, b'{"end_at":null}')
  assert cleared.end_at is None
  assert wire.dump(cleared) == {"end_at": None}


@pytest.mark.parametrize(
  ("body", "path"),
  [
    ({"kind": "cron"}, "$.cron_expression"),
    ({"kind": "time"}, "$.interval_seconds"),
    ({"kind": "time", "interval_seconds": 5, "run_at": TASK["due_at"]}, None),
    ({"kind": "cron", "cron_expression": "* * * * *", "interval_seconds": 5}, None),
    ({"kind": "time", "interval_seconds": 0}, "$.interval_seconds"),
    ({"kind": "daemon"}, "$.replicas"),
    ({"kind": "daemon", "replicas": 2, "run_at": TASK["due_at"]}, "$.run_at"),
  ],
)
def test_a_schedule_has_exactly_the_time_of_its_kind(
  body: dict[str, Any], path: str | None
) -> None:
  [(found, _)] = refused(ScheduleForCreate, body)
  assert found == (path or "$.interval_seconds")


@pytest.mark.parametrize("slug", ["", "Upper", "a\n", "-a", "a-", "a" * 64, "é"])
def test_a_namespace_is_named_by_a_slug(slug: str) -> None:
  [(path, _)] = refused(NamespaceForCreate, {"id": slug})
  assert path == "$.id"


def test_a_lease_without_end_is_refused() -> None:
  [(path, _)] = refused(NamespaceForCreate, {"id": "a", "lease": 1e300})
  assert path == "$.lease"


# ── the user's own JSON ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("parameters", [{"a": "\0"}, {"\0": 1}, {"a": [{"b": ["\0"]}]}])
def test_zero_characters_are_found_anywhere(parameters: Any) -> None:
  assert refused(JobForRun, {"parameters": parameters}) == [("$.parameters", NUL)]


def test_text_that_spells_an_escape_is_no_zero_character() -> None:
  run = wire.decode_body(
    JobForRun, json.dumps({"parameters": {"a": r"\u0000"}}).encode()
  )
  assert run.parameters == {"a": r"\u0000"}


def test_numbers_without_bound_are_kept() -> None:
  run = wire.decode_body(JobForRun, b'{"parameters":{"a":%d}}' % 2**80)
  assert wire.decode_body(JobForRun, wire.encode(run)).parameters == {"a": 2**80}


def nest(levels: int) -> bytes:
  """Return a body whose parameters are nested so deeply."""
  return b'{"parameters":{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}}"


def test_a_hundred_levels_are_taken_and_not_one_more() -> None:
  assert wire.decode_body(JobForRun, nest(100)).parameters
  assert refused(JobForRun, nest(101)) == [("$.parameters", "nested too deeply")]
  assert refused(JobForRun, nest(100_000)) == [("$", "nested too deeply")]


def test_many_objects_side_by_side_are_not_deep() -> None:
  parameters = {"a": [[{}] for _ in range(500)]}
  body = json.dumps({"parameters": parameters}).encode()
  assert wire.decode_body(JobForRun, body).parameters == parameters


LARGE = 4 * 1024**2
TOO_LARGE = "expected at most 4 MiB as JSON"


def parameters_of(size: int) -> dict[str, str]:
  """Return parameters that are so many bytes large as JSON."""
  return {"a": "x" * (size - len('{"a":""}'))}


CRON = {"kind": "cron", "cron_expression": "@daily"}


@pytest.mark.parametrize(
  ("cls", "path", "body"),
  [
    (JobForRun, "$.parameters", lambda given: {"parameters": given}),
    (TaskForUpdate, "$.parameters", lambda given: {"parameters": given}),
    (ScheduleForUpdate, "$.parameters", lambda given: {"parameters": given}),
    (ScheduleForCreate, "$.parameters", lambda given: {**CRON, "parameters": given}),
    (
      TaskBatchForCreate,
      "$.items[1].parameters",
      lambda given: {"items": [{"job_id": ID}, {"job_id": ID, "parameters": given}]},
    ),
    (
      JobForCreate,
      "$.schedules[0].parameters",
      lambda given: job() | {"schedules": [{**CRON, "parameters": given}]},
    ),
  ],
)
def test_parameters_have_a_greatest_size(cls: type[Any], path: str, body: Any) -> None:
  wire.decode_body(cls, json.dumps(body(parameters_of(LARGE))).encode())
  assert refused(cls, body(parameters_of(LARGE + 1))) == [(path, TOO_LARGE)]


@pytest.mark.parametrize("cls", [JobForCreate, JobForUpdate])
def test_a_configuration_has_a_greatest_size(cls: type[Any]) -> None:
  def body(size: int) -> dict[str, Any]:
    name = {"name": "backup"} if cls is JobForCreate else {}
    return {**name, "config": {"cmd": "/bin/cat", "stdin": "x" * size}}

  rest = len(wire.encode(TaskConfig(cmd="/bin/cat", stdin="")))
  wire.decode_body(cls, json.dumps(body(LARGE - rest)).encode())
  assert refused(cls, body(LARGE - rest + 1)) == [("$.config", TOO_LARGE)]


def test_numbers_count_as_they_come_out_of_the_database() -> None:
  body = {"parameters": {"a": [1e300] * (LARGE // 300)}}
  assert refused(JobForRun, body) == [("$.parameters", TOO_LARGE)]
  text = {"parameters": {"a": ["1e300"] * (LARGE // 300), "b": [1e300, 1.5e-300]}}
  wire.decode_body(JobForRun, json.dumps(text).encode())


def test_the_largest_task_fits_into_what_an_agent_reads() -> None:
  config = TaskConfig(cmd="/bin/cat", stdin="x" * LARGE)
  task = {**TASK, "parameters": parameters_of(LARGE)}
  dispatch = wire.load(
    DispatchTaskRequest,
    {"configs": {"j:1": {"job_name": "j", "config": config}}, "tasks": [task]},
  )
  sent = wire.encode_envelope(MessageKind.DISPATCH_TASK_REQUEST, dispatch)
  assert 2 * LARGE < len(sent) < MAX_FRAME_BYTES


def test_lone_surrogates_are_refused_from_json_and_from_python() -> None:
  for text in (b"\\ud800", b"\\ud800 and more", b"\\udc00 and more"):
    [(path, why)] = refused(JobForRun, b'{"parameters":{"a":"' + text + b'"}}')
    assert path == "$"
    assert why.startswith("not JSON")
  for value, found in [
    ({"name": "\ud800", "config": {"cmd": "x"}}, "$.name"),
    (job(environment={"A": "\udcff"}), "$.config.environment.A"),
    (
      {
        **job(),
        "schedules": [
          {
            "kind": "cron",
            "cron_expression": "* * * * *",
            "parameters": {"a": "\udcff"},
          }
        ],
      },
      "$.schedules[0].parameters",
    ),
  ]:
    with pytest.raises(ProtocolError) as error:
      wire.load(JobForCreate, value)
    assert error.value.issues == ((found, SURROGATES),)


# ── the wire ────────────────────────────────────────────────────────────────────────


def test_over_the_wire_unknown_keys_are_ignored() -> None:
  rare = frame(MessageKind.ACQUIRE_TASK_REQUEST, {"run": 2, "later": 1})
  assert wire.decode_envelope(rare).payload.run == 2
  hot = frame(MessageKind.TASK_INSTANCE_UPDATE, {"updates": [{**UPDATE, "later": 1}]})
  assert len(wire.decode_envelope(hot).payload.updates) == 1


def test_rare_messages_tell_all_mistakes_below_payload() -> None:
  payload = {"protocol_version": "1", "epoch": 0, "namespace_ids": ["default"]}
  issues = refused_frame(MessageKind.AGENT_REGISTER_REQUEST, payload)
  assert dict(issues) == {
    "$.payload.protocol_version": "expected an integer",
    "$.payload.agent_id": "required",
    "$.payload.name": "required",
  }


@pytest.mark.parametrize(
  ("change", "field"),
  [
    ({"status": "done"}, "status"),
    ({"instance_id": "x"}, "instance_id"),
    ({"namespace_id": 5}, "namespace_id"),
    ({"exit_code": "1"}, "exit_code"),
    ({"exit_code": True}, "exit_code"),
    ({"exit_code": 1.5}, "exit_code"),
    ({"exit_code": 2**31}, "exit_code"),
    ({"started_at": "2026-01-01T00:00:00"}, "started_at"),
    ({"started_at": 1767225600}, "started_at"),
    ({"started_at": "0001-01-01T00:00:00+14:00"}, "started_at"),
    ({"completed_at": "9999-12-31T23:59:59-14:00"}, "completed_at"),
    ({"output": "x" * 10_001}, "output"),
    ({"metrics": {"output_bytes": 2**63}}, "metrics.output_bytes"),
    ({"metrics": {"output_bytes": -1}}, "metrics.output_bytes"),
    ({"metrics": {"cpu_seconds": "1"}}, "metrics.cpu_seconds"),
  ],
)
def test_a_wrong_report_is_named_by_its_place_in_the_batch(
  change: dict[str, Any], field: str
) -> None:
  [(path, _)] = refused_updates(UPDATE, UPDATE, UPDATE, {**UPDATE, **change})
  assert path == f"$.payload.updates[3].{field}"


def test_a_report_that_lacks_a_field_is_named_with_it() -> None:
  lacking = {name: UPDATE[name] for name in ("instance_id", "namespace_id", "status")}
  assert refused_updates(UPDATE, lacking) == [
    ("$.payload.updates[1].claim_token", "required")
  ]


def test_a_batch_has_a_greatest_size() -> None:
  [(path, _)] = refused_updates(*[UPDATE] * 10_001)
  assert path == "$.payload.updates"


def test_zero_characters_are_refused_on_the_hot_path() -> None:
  assert refused_updates({**UPDATE, "reason": "a\0"}) == [("$.payload", NUL)]
  spelled = frame(
    MessageKind.TASK_INSTANCE_UPDATE, {"updates": [{**UPDATE, "reason": r"\u0000"}]}
  )
  assert wire.decode_envelope(spelled).payload.updates[0].reason == r"\u0000"


def test_nesting_is_bounded_on_the_hot_path() -> None:
  def dispatch(levels: int, leaf: str) -> str:
    """Write a dispatch whose one task has deep parameters."""
    deep = "[" * levels + leaf + "]" * levels
    task = json.dumps(TASK)[:-1] + f', "parameters": {{"a": {deep}}}}}'
    return f'{{"configs": {{}}, "tasks": [{task}]}}'

  for levels in (900, 5_000):
    [(_, why)] = refused_frame(
      MessageKind.DISPATCH_TASK_REQUEST, dispatch(levels, '"\\u0000"')
    )
    assert why == "nested too deeply"


def test_a_configuration_is_checked_on_the_hot_path_too() -> None:
  payload = {
    "configs": {"j:1": {"job_name": "a", "config": {"cmd": "a", "priority": 11}}},
    "tasks": [],
  }
  assert refused_frame(MessageKind.DISPATCH_TASK_REQUEST, payload) == [
    ("$.payload.configs[...].config.priority", "expected a number between -10 and 10")
  ]


def test_a_time_with_another_offset_is_the_same_instant_on_both_paths() -> None:
  time = "2026-01-01T02:00:00+02:00"
  hot = frame(
    MessageKind.TASK_INSTANCE_UPDATE, {"updates": [{**UPDATE, "started_at": time}]}
  )
  run = wire.decode_body(JobForRun, json.dumps({"scheduled_at": time}).encode())
  assert wire.decode_envelope(hot).payload.updates[0].started_at == run.scheduled_at


@pytest.mark.parametrize("name", ["started_at", "completed_at"])
@pytest.mark.parametrize(
  "time",
  ["0900-01-01T00:00:00Z", "1900-01-01T00:00:00+01:00", "9998-12-31T23:59:59-01:00"],
)
def test_a_report_of_a_moment_that_no_row_may_hold_is_refused(
  name: str, time: str
) -> None:
  [(path, why)] = refused_updates(UPDATE | {name: time})
  assert path == f"$.payload.updates[0].{name}"
  assert "between the years" in why


@pytest.mark.parametrize(
  "body",
  [
    {"items": [0] * 5_000},
    {f"k{number}": 0 for number in range(5_000)},
    {"items": [{f"k{number}": 0 for number in range(5_000)}] * 50},
  ],
)
def test_of_very_many_mistakes_only_the_first_are_told(body: Any) -> None:
  assert len(refused(TaskBatchForCreate, body)) == MAX_ISSUES


def test_what_follows_very_many_mistakes_is_not_looked_at() -> None:
  class Rubbish(dict[str, Any]):
    """An item that is wrong, and counts how often it was looked at."""

    looks = 0

    def __contains__(self, key: object) -> bool:
      Rubbish.looks += 1
      return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
      Rubbish.looks += 1
      return super().__getitem__(key)

  with pytest.raises(ProtocolError):
    wire.load(TaskBatchForCreate, {"items": [Rubbish()] * MAX_ISSUES})
  enough, Rubbish.looks = Rubbish.looks, 0
  with pytest.raises(ProtocolError):
    wire.load(TaskBatchForCreate, {"items": [Rubbish()] * 10_000})
  assert Rubbish.looks == enough > 0
