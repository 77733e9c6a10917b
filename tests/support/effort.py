"""How much a test that can go on for ever is to do: HETUFLOW_TEST_EFFORT, 1 by default."""

import os

EFFORT = float(os.environ.get("HETUFLOW_TEST_EFFORT", "1"))


def scaled(count: int, *, full: int) -> int:
  """Return how often to do something.

  Args:
    count: at effort 1.
    full: where it ends, however great the effort.
  """
  return max(1, min(full, round(count * EFFORT)))
