"""Pure time: from a definition and a moment to the moments it fires.

No clock is read and nothing is awaited here; ``fields`` and ``days`` know the cron
dialect, ``cron`` finds wall times, ``zones`` and ``walk`` turn them into instants under a
policy for daylight saving time, ``timing`` puts cron, one-off times and intervals behind
one definition.
"""

from hetuflow.schedule.cron import CronExpression
from hetuflow.schedule.timing import Timing, fire_times, jitter, next_fire, preview
from hetuflow.schedule.walk import DstPolicy
from hetuflow.schedule.zones import load_zone

__all__ = [
  "CronExpression",
  "DstPolicy",
  "Timing",
  "fire_times",
  "jitter",
  "load_zone",
  "next_fire",
  "preview",
]
