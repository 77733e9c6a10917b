"""How the programs log: fixed events with key-values, one a line, on stderr.

structlog is the only way in; what libraries say through `logging` comes out the same
way, from warnings on. Secrets are taken out of every event here, at the one exit. A line
that cannot be written (a full disk, a reader that has gone) is lost, and nothing else: no
program ends because nobody can read what it says.
"""

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from hetuflow.redact import redact_value

__all__ = ["configure_logging", "redact_event"]


def configure_logging(level: str, format: str) -> None:
  """Set up logging for the whole process.

  Args:
    level: the least severe events shown: debug, info, warning or error.
    format: json, console, or auto: for people on a terminal, else JSON.
  """
  threshold = logging.getLevelNamesMapping()[level.upper()]
  shared: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
  ]
  sink = cast(TextIO, _Sink(sys.stderr))
  last = _renderer(format, terminal=sink.isatty())
  structlog.configure(
    processors=[*shared, *last],
    wrapper_class=structlog.make_filtering_bound_logger(threshold),
    logger_factory=structlog.PrintLoggerFactory(sink),
    cache_logger_on_first_use=False,
  )
  _route_libraries(shared, last, sink, max(threshold, logging.WARNING))


class _Sink:
  """Where lines go: a stream whose errors are nobody's, or nowhere at all."""

  def __init__(self, stream: TextIO | None) -> None:
    self._stream = stream

  def write(self, text: str) -> int:
    """Write a text, or lose it."""
    if self._stream is not None:
      with suppress(OSError):
        self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Write what was kept back, or lose it."""
    if self._stream is not None:
      with suppress(OSError):
        self._stream.flush()

  def isatty(self) -> bool:
    """Tell whether people look at it."""
    return self._stream is not None and self._stream.isatty()


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
  """Take the secrets out of an event.

  Args:
    event: the event with its key-values.

  Returns:
    A copy with `***` for secret names, tokens in URLs and credentials.
  """
  redacted = redact_value(event)
  assert isinstance(redacted, dict)  # noqa: S101 - a mapping stays one
  return redacted


def _renderer(format: str, *, terminal: bool) -> list[Processor]:
  """Choose how an event becomes a line; the redaction comes right before that."""
  if format == "console" or (format == "auto" and terminal):
    # The tracebacks are texts by then, so that they are redacted too.
    plain = structlog.dev.ConsoleRenderer(
      colors=terminal, exception_formatter=structlog.dev.plain_traceback
    )
    return [structlog.processors.format_exc_info, redact_event, plain]
  return [
    structlog.processors.format_exc_info,
    redact_event,
    structlog.processors.JSONRenderer(default=str),
  ]


def _route_libraries(
  shared: list[Processor], last: list[Processor], sink: TextIO, threshold: int
) -> None:
  """Let what libraries log with `logging` come out as events of the same shape."""
  formatter = structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
    processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
  )
  handler = logging.StreamHandler(sink)
  handler.setFormatter(formatter)
  root = logging.getLogger()
  root.handlers[:] = [handler]
  root.setLevel(threshold)
