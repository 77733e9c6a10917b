"""What the agent can do and how it fares, for registration and heartbeats."""

import os
from collections.abc import Sized

import psutil

from hetuflow.agent.functions import registered
from hetuflow.agent.instances import Instances
from hetuflow.protocol.model import AgentCapabilities, AgentMetrics

__all__ = ["Monitor"]

_MIB = 1024 * 1024


class Monitor:
  """Measures the machine and counts the agent's work.

  Args:
    instances: what is held and runs.
    outbox: what waits to be acknowledged.
    executors: the kinds of executors there are.
    max_concurrent: how many slots there are.
    hold: how many planned tasks are kept.
  """

  def __init__(
    self,
    *,
    instances: Instances,
    outbox: Sized,
    executors: list[str],
    max_concurrent: int,
    hold: int,
  ) -> None:
    self._instances = instances
    self._outbox = outbox
    self._executors = executors
    self._max_concurrent = max_concurrent
    self._hold = hold

  def metrics(self) -> AgentMetrics:
    """Measure now; the load is that since the call before."""
    return AgentMetrics(
      cpu_percent=psutil.cpu_percent(),
      memory_percent=psutil.virtual_memory().percent,
      running=self._instances.running,
      held=self._instances.held,
      outbox=len(self._outbox),
    )

  def capabilities(self) -> AgentCapabilities:
    """Say what this agent can do."""
    return AgentCapabilities(
      executors=list(self._executors),
      functions=sorted(registered()),
      max_concurrent=self._max_concurrent,
      hold=self._hold,
      cpus=os.cpu_count() or 1,
      memory_mb=round(psutil.virtual_memory().total / _MIB, 1),
    )
