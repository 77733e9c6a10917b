"""Whatever a model may hold survives its way through JSON."""

import types
import typing
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_classes import CLASSES

from hetuflow.errors import ProtocolError
from hetuflow.protocol import messages, wire
from hetuflow.protocol.messages import BATCHES, PAYLOADS, Envelope, MessageKind
from hetuflow.protocol.model import (
  UNSET,
  FollowedEnd,
  ProposedSchedule,
  ScheduleForCreate,
  UnsetType,
)
from hetuflow.protocol.model.schedule import ScheduleForPreview
from hetuflow.protocol.states import TASK_FINAL, ScheduleKind

TEXTS = st.text(
  st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001 - hypothesis wants its bounds naive
  lambda time: time.replace(tzinfo=UTC)
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
  st.none() | st.booleans() | st.integers(-(2**80), 2**80) | FLOATS | TEXTS,
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
  max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
  str: TEXTS,
  bool: st.booleans(),
  int: st.integers(-(2**63), 2**63 - 1),
  float: FLOATS,
  UUID: st.uuids(),
  datetime: INSTANTS,
  type(None): st.none(),
  UnsetType: st.just(UNSET),
  Any: JSON,
}


def bounded(strategy: st.SearchStrategy[Any], field: Any) -> st.SearchStrategy[Any]:
  """Keep of a strategy what the validator of a field accepts."""
  if field.validator is None:
    return strategy

  def accepted(value: Any) -> bool:
    """Ask the validator."""
    try:
      field.validator(None, field, value)
    except ValueError:
      return False
    return True

  return strategy.filter(accepted)


def numbers_of(kind: type[Any], field: Any) -> st.SearchStrategy[Any]:
  """Draw numbers near zero, where every bounded field has accepted ones."""
  if kind is int:
    return st.integers(0, 10) | st.integers(-64, 1_000)
  return st.floats(0, 60) | st.floats(-10, 4_000)


def values_of(kind: Any, field: Any = None) -> st.SearchStrategy[Any]:
  """Return a strategy for the type of a field."""
  if hasattr(kind, "__supertype__"):
    return values_of(kind.__supertype__, field)
  if get_origin(kind) is Annotated:
    base, *notes = get_args(kind)
    if base is int:
      meta = next(note for note in notes if isinstance(note, msgspec.Meta))
      return st.integers(meta.ge, meta.le)  # type: ignore[arg-type] - ints for an int
    return values_of(base, field)
  if get_origin(kind) in (typing.Union, types.UnionType):
    return st.one_of(*(values_of(arg, field) for arg in get_args(kind)))
  if get_origin(kind) is list:
    return st.lists(values_of(get_args(kind)[0], field), max_size=3)
  if kind == dict[str, Any]:
    return OBJECTS
  if get_origin(kind) is dict:
    return st.dictionaries(NAMES, values_of(get_args(kind)[1]), max_size=3)
  if attrs.has(kind):
    return objects_of(kind)
  if isinstance(kind, type) and issubclass(kind, StrEnum):
    return st.sampled_from(kind)
  if kind in (int, float) and field is not None and field.validator is not None:
    return numbers_of(kind, field)
  return PLAIN[kind]


SPECIAL: dict[tuple[str, str], st.SearchStrategy[Any]] = {
  ("TaskConfig", "user"): st.none(),
  ("TaskConfig", "cwd"): st.none(),
  ("TaskConfig", "stdin"): st.none(),
  ("FollowedEnd", "status"): st.lists(
    st.sampled_from(sorted(TASK_FINAL)), min_size=1, max_size=3
  ),
  ("BackfillForCreate", "start_at"): st.just(datetime(1970, 1, 1, tzinfo=UTC)),
  ("NamespaceForCreate", "id"): st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True),
}


def kinds(cls: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
  """Draw the fields of a schedule of which exactly one may say when."""
  interval = {"interval_seconds": st.floats(1, 86_400)}
  ways: list[dict[str, Any]] = [
    {"kind": st.just(ScheduleKind.CRON), "cron_expression": TEXTS.filter(bool)},
    {"kind": st.just(ScheduleKind.TIME), "run_at": INSTANTS},
    {"kind": st.just(ScheduleKind.TIME), **interval},
  ]
  if cls is ScheduleForCreate:
    ended = st.builds(
      FollowedEnd,
      job=TEXTS.filter(bool),
      status=st.lists(st.sampled_from(sorted(TASK_FINAL)), min_size=1, max_size=3),
    )
    ways += [
      {"kind": st.just(ScheduleKind.TIME), "fixed_delay": st.just(True), **interval},
      {
        "kind": st.just(ScheduleKind.DAEMON),
        "replicas": st.integers(1, 9),
        "max_runs": st.none(),
        "jitter_seconds": st.just(0.0),
      },
      {"kind": st.just(ScheduleKind.EVENT), "event_name": TEXTS.filter(bool)},
      {"kind": st.just(ScheduleKind.FLOW), "after": ended},
    ]
  return st.one_of(*map(st.fixed_dictionaries, ways))


OF_A_KIND = (
  *("kind", "cron_expression", "run_at", "interval_seconds", "fixed_delay"),
  *("replicas", "event_name", "event_filter", "after", "calendars"),
)


def strategy_of(cls: type[Any], field: Any) -> st.SearchStrategy[Any]:
  """Return a strategy for one field, its own where it has one."""
  special = SPECIAL.get((cls.__name__, field.name))
  return values_of(field.type, field) if special is None else special


def objects_of(cls: type[Any]) -> st.SearchStrategy[Any]:
  """Return a strategy for objects of an attrs class, within its validators."""
  fields = {
    field.name: bounded(strategy_of(cls, field), field)
    for field in attrs.fields(attrs.resolve_types(cls, include_extras=True))
  }
  if cls in (ProposedSchedule, ScheduleForCreate, ScheduleForPreview):
    rest = {name: fields[name] for name in fields if name not in OF_A_KIND}
    return st.builds(
      lambda timing, rest: cls(**(rest | timing)),
      kinds(cls),
      st.fixed_dictionaries(rest),
    )
  return st.builds(cls, **fields)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_model_comes_back_as_it_went(cls: type[Any]) -> None:
  @settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
  )
  @given(objects_of(cls))
  def comes_back(value: Any) -> None:
    """Encode and decode, strictly and not."""
    assert wire.decode_body(cls, wire.encode(value)) == value
    assert wire.load(cls, wire.dump(value)) == value

  comes_back()


@pytest.mark.parametrize("kind", MessageKind)
@pytest.mark.parametrize("packed", [False, True], ids=["text", "binary"])
def test_a_message_comes_back_as_it_went(kind: MessageKind, packed: bool) -> None:
  @settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
  )
  @given(objects_of(PAYLOADS[kind]))
  def comes_back(payload: Any) -> None:
    """Put it into an envelope and take it out, compressed or not."""
    frame = wire.encode_envelope(kind, payload)
    if packed:
      frame = wire.decompress(wire.compress(frame), len(frame))
    assert wire.decode_envelope(frame).payload == payload

  comes_back()


@given(st.sampled_from(sorted(BATCHES)), OBJECTS)
@settings(deadline=None, derandomize=True, database=None)
def test_no_payload_breaks_more_than_its_message(
  kind: MessageKind, payload: dict[str, Any]
) -> None:
  frame = wire.encode_envelope(kind, payload)
  try:
    received: Envelope | None = wire.decode_envelope(frame)
    paths = []
  except ProtocolError as error:
    received, paths = None, [path for path, _ in error.issues]
  assert received or paths
  assert all(path.startswith("$.payload") for path in paths)


@given(st.binary(max_size=200) | TEXTS)
@settings(deadline=None, derandomize=True, database=None)
def test_no_frame_raises_anything_but_a_protocol_error(frame: bytes | str) -> None:
  with pytest.raises(ProtocolError):
    wire.decode_envelope(frame)


def test_every_kind_has_a_payload_class() -> None:
  assert set(PAYLOADS) == set(MessageKind)
  assert set(PAYLOADS) >= BATCHES
  assert set(PAYLOADS.values()) <= set(CLASSES)
  assert messages.PROTOCOL_VERSION == 1
