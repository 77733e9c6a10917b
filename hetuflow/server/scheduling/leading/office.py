"""What this server knows of the leader's office, and its term while it holds it.

Owned by the elector, which takes and leaves the office. The registry renews the term with
each sign of life, tells here what it heard, and watches the clocks. The loops of the
leader ask for ``term`` before every statement: a term that may be over by this server's
own clocks is never used, and one that is over by the database's is refused by the
statement (``storage.leader``).
"""

import math

import structlog
import trio

from hetuflow.nursery import Wakeup
from hetuflow.server.trust import Moment, Trust
from hetuflow.storage.leader import Term, TermOver

__all__ = ["MARGIN_SHARE", "Office"]

MARGIN_SHARE = 0.1
"""The share of a term's length by which its leader is done before its successor may
begin: for clocks that run at different speeds, and for what is stopped to stop."""


_log = structlog.get_logger()


class Office:
  """The office as this server sees it.

  Args:
    ttl: seconds for which a term lasts unless it is renewed.
  """

  def __init__(self, *, ttl: float) -> None:
    self.ttl = ttl
    self.news = Wakeup()
    self.vacant_at = math.inf
    self._held: Term | None = None
    self._scope = trio.CancelScope()
    self._trust = Trust()

  @property
  def held(self) -> Term | None:
    """The term that is to be renewed, whether or not it is still trusted."""
    return self._held

  @property
  def term(self) -> Term:
    """The term in which this server leads, for the next statement.

    Raises:
      TermOver: it does not lead, or cannot be sure of it.
    """
    if self._held is None or not self._trust.holds:
      raise TermOver("the term may be over")
    return self._held

  @property
  def left(self) -> float:
    """The seconds for which the term is trusted, infinite where none is held."""
    return math.inf if self._held is None else self._trust.left

  def enter(self, term: Term, since: Moment, scope: trio.CancelScope) -> None:
    """Hold the office.

    Args:
      term: what was acquired.
      since: when that was asked for.
      scope: is cancelled when the term is over.
    """
    self._held, self._scope = term, scope
    self._renew(since)

  def leave(self, reason: str) -> None:
    """Hold the office no longer; without effect where it is not held."""
    if self._held is None:
      return
    _log.info("leader_left", term=self._held.term, reason=reason)
    self._held = None
    self._trust.end()
    self._scope.cancel()

  def expire(self) -> None:
    """Leave the office if its term may be over by this server's own clocks."""
    if self.left <= 0:
      self.leave("not renewed in time")

  def hear(
    self,
    asked: Term | None,
    since: Moment,
    *,
    renewed: bool,
    leads_for: float | None,
  ) -> None:
    """Take what a beat said.

    Args:
      asked: the term that it was to renew.
      since: when it was sent.
      renewed: whether that term lasts anew.
      leads_for: seconds for which whoever leads does, None if nobody ever did.
    """
    if self._held is None:
      # Counted from now, not from the question: never too early.
      self.vacant_at = trio.current_time() + (leads_for or 0.0)
      self.news.set()
    elif asked == self._held and renewed:
      self._renew(since)
    elif asked == self._held:
      self.leave("another may lead")

  def hint(self) -> None:
    """Look for a vacancy now: somebody has resigned, perhaps."""
    self.vacant_at = -math.inf
    self.news.set()

  def _renew(self, since: Moment) -> None:
    """Trust the term for its length from a moment on, less the margin."""
    self._trust.extend(since, self.ttl * (1 - MARGIN_SHARE))
    self._scope.deadline = self._trust.deadline
