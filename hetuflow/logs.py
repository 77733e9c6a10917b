"""How the programs log: fixed events with key-values, one a line, on stderr.

structlog is the only way in; what libraries say through `logging` comes out the same
way, from warnings on. Secrets are taken out of every event here, at the one exit.
"""

import logging
import sys

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
  last = _renderer(format)
  structlog.configure(
    processors=[*shared, *last],
    wrapper_class=structlog.make_filtering_bound_logger(threshold),
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    cache_logger_on_first_use=False,
  )
  _route_libraries(shared, last, max(threshold, logging.WARNING))


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


def _renderer(format: str) -> list[Processor]:
  """Choose how an event becomes a line; the redaction comes right before that."""
  if format == "console" or (format == "auto" and sys.stderr.isatty()):
    colors = sys.stderr.isatty()
    # The tracebacks are texts by then, so that they are redacted too.
    plain = structlog.dev.ConsoleRenderer(
      colors=colors, exception_formatter=structlog.dev.plain_traceback
    )
    return [structlog.processors.format_exc_info, redact_event, plain]
  return [
    structlog.processors.format_exc_info,
    redact_event,
    structlog.processors.JSONRenderer(default=str),
  ]


def _route_libraries(
  shared: list[Processor], last: list[Processor], threshold: int
) -> None:
  """Let what libraries log with `logging` come out as events of the same shape."""
  formatter = structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
    processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
  )
  handler = logging.StreamHandler(sys.stderr)
  handler.setFormatter(formatter)
  root = logging.getLogger()
  root.handlers[:] = [handler]
  root.setLevel(threshold)
