"""Log lines: their shape, and the secrets that never reach them."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog

from hetuflow.logs import configure_logging
from hetuflow.redact import is_secret_name, redact_text


class Logged:
  """What was logged since the last look."""

  def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
    self._capsys = capsys

  def text(self) -> str:
    """As it came out."""
    return self._capsys.readouterr().err

  def events(self) -> list[dict[str, object]]:
    """As JSON."""
    return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Logged]:
  """What is logged; the logging of the process is as before afterwards."""
  root = logging.getLogger()
  handlers, level = list(root.handlers), root.level
  yield Logged(capsys)
  structlog.reset_defaults()
  root.handlers[:] = handlers
  root.setLevel(level)


def test_without_a_terminal_an_event_is_a_line_of_json_in_utc(
  logged: Logged,
) -> None:
  configure_logging("info", "auto")
  structlog.get_logger().info("agent_connected", agent_id="a")
  (event,) = logged.events()
  timestamp = event.pop("timestamp")
  assert isinstance(timestamp, str)
  assert timestamp.endswith("Z")
  assert event == {"event": "agent_connected", "level": "info", "agent_id": "a"}


def test_a_person_gets_a_readable_line(logged: Logged) -> None:
  configure_logging("info", "console")
  structlog.get_logger().info("agent_connected", agent_id="a", token="hush")
  line = logged.text()
  assert "agent_connected" in line
  assert "agent_id=a" in line
  assert "hush" not in line


def test_events_below_the_level_are_dropped(logged: Logged) -> None:
  configure_logging("warning", "json")
  structlog.get_logger().info("small")
  structlog.get_logger().warning("large")
  assert [event["event"] for event in logged.events()] == ["large"]


def test_bound_context_is_in_the_event(logged: Logged) -> None:
  configure_logging("info", "json")
  with structlog.contextvars.bound_contextvars(instance_id="i"):
    structlog.get_logger().info("started")
  assert logged.events()[0]["instance_id"] == "i"


def test_libraries_speak_from_warnings_on_and_in_the_same_shape(
  logged: Logged,
) -> None:
  configure_logging("debug", "json")
  logging.getLogger("hypercorn.error").info("listening")
  logging.getLogger("hypercorn.error").warning("bad %s", "GET /ws?token=hush")
  (event,) = logged.events()
  assert event.pop("timestamp")
  assert event == {
    "event": "bad GET /ws?token=***",
    "level": "warning",
    "logger": "hypercorn.error",
  }


def test_secrets_are_taken_out_of_events_however_deep(logged: Logged) -> None:
  configure_logging("info", "json")
  structlog.get_logger().info(
    "request",
    url="/ws?a=1&token=hush&b=2",
    headers={"Authorization": "Bearer hush", "Host": "h"},
    api_key="hush",
    agent_token="hush",
    client_secret="hush",
    list=[{"password": "hush"}, "postgresql://u:hush@h/d", (b"Bearer hush",)],
    token_id="t",
  )
  (event,) = logged.events()
  assert "hush" not in repr(event)
  assert event["url"] == "/ws?a=1&token=***&b=2"
  assert event["headers"] == {"Authorization": "***", "Host": "h"}
  assert event["list"] == [
    {"password": "***"},
    "postgresql://u:***@h/d",
    ["Bearer ***"],
  ]
  assert event["token_id"] == "t"


@pytest.mark.parametrize("format", ["json", "console"])
def test_secrets_are_taken_out_of_objects_too(logged: Logged, format: str) -> None:
  configure_logging("info", format)
  error = ValueError("cannot reach postgresql://u:hush@h/d")
  structlog.get_logger().info("lost", error=error, count=3, path=Path("/a"), why=None)
  line = logged.text()
  assert "postgresql://u:***@h/d" in line
  if format == "json":
    facts = json.loads(line)
    assert (facts["count"], facts["path"], facts["why"]) == (3, "/a", None)


SPEAKER = """
import logging, sys, structlog
from hetuflow.logs import configure_logging
configure_logging("info", "auto")
for _ in range(10_000):
  structlog.get_logger().info("spoken")
logging.getLogger("library").warning("spoken, too")
print("went on")
"""


@pytest.mark.parametrize("stderr", ["full", "gone", "closed"])
def test_a_program_that_nobody_hears_goes_on(stderr: str) -> None:
  with ExitStack() as stack:
    if stderr == "full":
      where: Any = stack.enter_context(Path("/dev/full").open("wb"))
    else:
      reader, where = os.pipe()
      os.close(reader)
      stack.callback(os.close, where)
    close = "import os; os.close(2); sys.stderr = None" if stderr == "closed" else ""
    done = subprocess.run(
      [sys.executable, "-c", f"import sys; {close}\n{SPEAKER}"],
      stdout=subprocess.PIPE,
      stderr=where,
      text=True,
      timeout=60,
      check=False,
    )
  assert (done.returncode, done.stdout) == (0, "went on\n")


@pytest.mark.parametrize("format", ["json", "console"])
def test_secrets_are_taken_out_of_tracebacks(logged: Logged, format: str) -> None:
  configure_logging("info", format)
  try:
    raise OSError("cannot reach ws://h/ws?token=hush")
  except OSError:
    structlog.get_logger().exception("lost")
  traceback = logged.text()
  assert "OSError: cannot reach ws://h/ws?token=***" in traceback
  assert "?token=hush" not in traceback


@pytest.mark.parametrize(
  ("text", "redacted"),
  [
    ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
    ("GET /ws?token=abc HTTP/1.1", "GET /ws?token=*** HTTP/1.1"),
    ("?access_token=a&x=1", "?access_token=***&x=1"),
    ("postgresql://u:p@h:5432/d", "postgresql://u:***@h:5432/d"),
    ("postgresql://u:p@ss@h/d", "postgresql://u:***@h/d"),
    ("http://h:8080/a@b", "http://h:8080/a@b"),
    ("authorization: basic dTpw", "authorization: basic ***"),
    ("tokens are fine, basic things too", "tokens are fine, basic things too"),
  ],
)
def test_a_text_loses_its_secrets_and_nothing_else(text: str, redacted: str) -> None:
  assert redact_text(text) == redacted


def test_names_of_secrets_are_known_and_names_about_them_are_harmless() -> None:
  secret = ("token", "api_key", "X-Api-Key", "PASSWORD", "Cookie", "Authorization")
  harmless = ("token_id", "token_file", "secret_count", "key", "event")
  assert all(is_secret_name(name) for name in secret)
  assert not any(is_secret_name(name) for name in harmless)


@pytest.mark.parametrize("prefix", ["hfk", "hft"])
@pytest.mark.parametrize("around", ["{}", "/api/v1/{}", "to%6ben={}&a=b", "key: {}."])
def test_a_key_or_token_of_ours_is_known_by_its_form(prefix: str, around: str) -> None:
  known = f"{prefix}_{'0' * 32}_"
  assert redact_text(around.format(known + "a-_Z" * 10 + "aaa")) == around.format(
    known + "***"
  )


@pytest.mark.parametrize(
  "piece",
  ["a", "a-", "-", " ", ":", "/", "://", "://a:", "a=", "token", "bearer ", "hft_0"],
)
def test_a_long_text_of_a_stranger_is_searched_in_no_time(piece: str) -> None:
  text = piece * (200_000 // len(piece))
  started = time.process_time()
  redact_text(text)
  assert time.process_time() - started < 2
