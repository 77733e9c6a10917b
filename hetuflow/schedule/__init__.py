"""Pure time: from a definition and a moment to the moments it fires.

No clock is read and nothing is awaited here; ``fields`` and ``days`` know the cron
dialect, ``cron`` finds wall times, ``zones`` and ``walk`` turn them into instants under a
policy for daylight saving time, ``calendar`` leaves days out or moves them, ``timing``
puts cron, one-off times and intervals behind one definition, ``counting`` answers for
long spans.
"""

from hetuflow.schedule.calendar import (
  Calendar,
  CalendarUse,
  import_definition,
  import_ics,
)
from hetuflow.schedule.counting import count_fires, last_fires
from hetuflow.schedule.cron import CronExpression
from hetuflow.schedule.timing import Timing, fire_times, jitter, next_fire, preview
from hetuflow.schedule.walk import DstPolicy
from hetuflow.schedule.zones import load_zone

__all__ = [
  "Calendar",
  "CalendarUse",
  "CronExpression",
  "DstPolicy",
  "Timing",
  "count_fires",
  "fire_times",
  "import_definition",
  "import_ics",
  "jitter",
  "last_fires",
  "load_zone",
  "next_fire",
  "preview",
]
