"""Supervision on Trio: who runs what, in which order, restarted how.

A leaf of the house: it knows nothing of jobs. A tree is declared with ``Group`` and
``Child``, run by ``Supervisor``, drawn by ``render``; ``main`` and ``run_until_signal``
make a program of it.
"""

from hetuflow.nursery.backoff import Backoff, Outage, keep_trying
from hetuflow.nursery.crowd import Crowd
from hetuflow.nursery.shutdown import exit_code, main, run_until_signal
from hetuflow.nursery.spec import (
  Child,
  Group,
  Inner,
  Outline,
  Policy,
  Restart,
  Strategy,
  render,
)
from hetuflow.nursery.state import Kind, NodeState, Status
from hetuflow.nursery.supervise import OnEscalate, Supervisor
from hetuflow.nursery.wakeup import Wakeup

__all__ = [
  "Backoff",
  "Child",
  "Crowd",
  "Group",
  "Inner",
  "Kind",
  "NodeState",
  "OnEscalate",
  "Outage",
  "Outline",
  "Policy",
  "Restart",
  "Status",
  "Strategy",
  "Supervisor",
  "Wakeup",
  "exit_code",
  "keep_trying",
  "main",
  "render",
  "run_until_signal",
]
