"""What schedules will ask for: simulated before it happens, without clock or database.

``simulation`` lets tasks come, wait, run and end under the limits of their jobs; ``load``
adds up how many are under way; ``outlook`` finds the fires of many schedules, within a
budget, and puts it all together; ``clocks`` and ``moves`` tell what changes of clocks and
calendars do to single schedules.
"""

from hetuflow.schedule.forecast.clocks import ClockChange, clock_changes, effect_of
from hetuflow.schedule.forecast.load import Hour
from hetuflow.schedule.forecast.moves import Moves, find_moves
from hetuflow.schedule.forecast.outlook import Outlook, Source, foresee
from hetuflow.schedule.forecast.simulation import Limits, Simulation, Stream, Tally

__all__ = [
  "ClockChange",
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
