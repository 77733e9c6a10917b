"""Waiting longer after each failure, and saying so without flooding the log.

``Backoff`` computes delays, ``Outage`` retries a step through failures its loop
expects (a database that is away). Bugs are not retried here: they crash the child,
and the supervisor restarts it.
"""

import random as randomness
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import attrs
import structlog
import trio
from attrs.validators import ge, gt, le

from hetuflow.nursery.groups import consists_of, sole_leaf

__all__ = ["Backoff", "Outage", "keep_trying"]

REMINDER_S = 60.0
QUIET_S = 1.0

T = TypeVar("T")
Step = Callable[[], Awaitable[T]]
Expected = type[Exception] | tuple[type[Exception], ...]


@attrs.frozen(kw_only=True)
class Backoff:
  """Exponentially growing delays with jitter.

  Full jitter, the default, draws from the whole range between zero and the bound:
  many clients that failed together come back spread out.
  Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

  Args:
    initial: bound of the first delay in seconds.
    factor: growth of the bound per attempt.
    maximum: the bound never exceeds this many seconds.
    jitter: the random share of a delay, 0 (exact) to 1 (full jitter).
  """

  initial: float = attrs.field(default=0.1, validator=gt(0))
  factor: float = attrs.field(default=2.0, validator=ge(1))
  maximum: float = attrs.field(default=30.0, validator=gt(0))
  jitter: float = attrs.field(default=1.0, validator=[ge(0), le(1)])

  def bound(self, attempt: int) -> float:
    """Return the longest possible delay before a retry.

    Args:
      attempt: failures before this one, counted from 0.

    Returns:
      Seconds.
    """
    try:
      return min(self.maximum, self.initial * self.factor**attempt)
    except OverflowError:
      return self.maximum

  def delay(self, attempt: int, random: randomness.Random) -> float:
    """Draw the delay before a retry.

    Args:
      attempt: failures before this one, counted from 0.
      random: the source of jitter; seeded by tests.

    Returns:
      Seconds, between ``(1 - jitter) * bound`` and ``bound``.
    """
    return self.bound(attempt) * (1 - self.jitter * random.random())

  def delays(self, random: randomness.Random) -> Iterator[float]:
    """Draw the delays of one row of failures, without end.

    Args:
      random: the source of jitter.

    Returns:
      An endless iterator over seconds.
    """
    attempt = 0
    while True:
      yield self.delay(attempt, random)
      attempt += 1


class Outage:
  """One kind of expected outage, as the loop that lives through it sees it.

  Make one per loop and keep it: it remembers when it last wrote to the log, so that a
  resource which comes and goes many times a second does not flood it.

  Args:
    expected: exception types that mean "away, try again"; a group counts when all its
      leaves do. Anything else is raised at once.
    event: snake_case name of the log event, such as ``database_unavailable``.
    backoff: delays between tries.
    log: a structlog logger.
    random: the source of jitter.
  """

  def __init__(
    self,
    expected: Expected,
    *,
    event: str,
    backoff: Backoff | None = None,
    log: structlog.typing.FilteringBoundLogger | None = None,
    random: randomness.Random | None = None,
  ) -> None:
    self._expected = expected
    self._event = event
    self._backoff = backoff or Backoff()
    self._log = log or structlog.get_logger()
    self._random = random or randomness.Random()  # noqa: S311 - jitter, not a secret
    self._quiet_until = float("-inf")

  async def retry(self, step: Step[T]) -> T:
    """Call a step until it succeeds.

    The first failure of a row is logged, then one a minute, then the recovery. Within a
    second of the last line nothing is announced, so a short row may stay unmentioned.

    Args:
      step: does one pass; called again after each expected failure.

    Returns:
      What the step returned.
    """
    since = trio.current_time()
    line_at: float | None = None
    for attempt, delay in enumerate(self._backoff.delays(self._random)):
      try:
        result = await step()
      except Exception as error:
        if not consists_of(error, self._expected):
          raise
        if line_at is None or trio.current_time() - line_at >= REMINDER_S:
          line_at = self._announce(error, failures=attempt + 1)
        await trio.sleep(delay)
      else:
        if line_at is not None:
          self._announce_end(failures=attempt, seconds=trio.current_time() - since)
        return result
    raise AssertionError("delays never end")

  def _announce(self, error: Exception, *, failures: int) -> float | None:
    """Log a failure and return when, or None if the last line is too recent."""
    now = trio.current_time()
    if now < self._quiet_until:
      return None
    self._quiet_until = now + QUIET_S
    self._log.warning(self._event, error=str(sole_leaf(error)), failures=failures)
    return now

  def _announce_end(self, *, failures: int, seconds: float) -> None:
    """Log the recovery of an outage that was announced."""
    self._quiet_until = trio.current_time() + QUIET_S
    self._log.info(f"{self._event}_over", failures=failures, seconds=round(seconds, 3))


async def keep_trying(
  step: Step[T],
  *,
  expected: Expected,
  event: str,
  backoff: Backoff | None = None,
  log: structlog.typing.FilteringBoundLogger | None = None,
  random: randomness.Random | None = None,
) -> T:
  """Call a step until it succeeds, for code that is no loop; see ``Outage``.

  Args:
    step: does the work.
    expected: exception types that mean "away, try again".
    event: snake_case name of the log event.
    backoff: delays between tries.
    log: a structlog logger.
    random: the source of jitter.

  Returns:
    What the step returned.
  """
  outage = Outage(expected, event=event, backoff=backoff, log=log, random=random)
  return await outage.retry(step)
