"""What schedules will ask for: simulated before it happens, without clock or database.

``simulation`` (of ``lanes``) lets tasks come, wait, run and end under the limits of their jobs; ``load``
adds up how many are under way; ``outlook`` finds the fires of many schedules, within a
budget, and puts it all together; ``clocks`` and ``moves`` tell what changes of clocks and
calendars do to single schedules.
"""

from hetuflow.schedule.forecast.clocks import (
  ClockChange,
  Effect,
  clock_changes,
  effect_of,
)
from hetuflow.schedule.forecast.lanes import Limits, Stream, Tally
from hetuflow.schedule.forecast.load import HOUR, Hour
from hetuflow.schedule.forecast.moves import Moves, find_moves
from hetuflow.schedule.forecast.outlook import Outlook, Source, foresee
from hetuflow.schedule.forecast.simulation import Simulation

__all__ = [
  "HOUR",
  "ClockChange",
  "Effect",
  "Hour",
  "Limits",
  "Moves",
  "Outlook",
  "Simulation",
  "Source",
  "Stream",
  "Tally",
  "clock_changes",
  "effect_of",
  "find_moves",
  "foresee",
]
