"""What a server asks of the system."""

import subprocess
import sys

ASK = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))
from hetuflow.server import __main__ as program
program._raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_server_asks_for_as_many_files_as_it_may_have() -> None:
  done = subprocess.run(
    [sys.executable, "-c", ASK], capture_output=True, text=True, check=True, timeout=60
  )
  assert done.stdout == "(4096, 4096)\n"
