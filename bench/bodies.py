"""A process whose first act is to read the clock and to print it.

Where there is a C compiler it is a program of a few instructions, linked statically if
that works, so that next to nothing lies between its start and its reading. Elsewhere it
is date(1), which first loads its libraries: some 1 ms that are not the scheduler's.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from attrs import frozen

__all__ = ["ClockBody", "make_clock_body"]

SOURCE = """
#include <stdio.h>
#include <time.h>

int main(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  printf("%lld.%09ld\\n", (long long)now.tv_sec, now.tv_nsec);
  return 0;
}
"""
MODE = 0o755


@frozen(kw_only=True)
class ClockBody:
  """What to run, and what it is in words."""

  config: dict[str, Any]
  kind: str


def make_clock_body(folder: Path) -> ClockBody:
  """Build the program in a folder, or fall back on date(1)."""
  compiler = shutil.which("cc") or shutil.which("gcc")
  if compiler is not None:
    source, program = folder / "clock.c", folder / "clock"
    source.write_text(SOURCE)
    for extra in (["-static"], []):
      command = [compiler, "-O2", *extra, "-o", str(program), str(source)]
      if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        program.chmod(MODE)
        kind = "compiled, static" if extra else "compiled, dynamic"
        return ClockBody(config={"cmd": str(program)}, kind=kind)
  return ClockBody(config={"cmd": "date", "args": ["+%s.%N"]}, kind="date(1)")
