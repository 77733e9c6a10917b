"""Processes of tasks: what to start, what runs, how it and all it started ends."""

from hetuflow.agent.process.runas import Helper, open_helper
from hetuflow.agent.process.running import Exit, Running
from hetuflow.agent.process.spec import LaunchSpec, Limits
from hetuflow.agent.process.tree import (
  end_orphans,
  find_orphans,
  has_leftovers,
  scan_instances,
  terminate_tree,
)

__all__ = [
  "Exit",
  "Helper",
  "LaunchSpec",
  "Limits",
  "Running",
  "end_orphans",
  "find_orphans",
  "has_leftovers",
  "open_helper",
  "scan_instances",
  "terminate_tree",
]
