"""Folders for real clusters.

A cluster needs a short path its account can enter, which pytest's `tmp_path` is not.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_openers import server_processes


@pytest.fixture
def data_dir() -> Iterator[Path]:
  """A short DATA_DIR every user can enter; afterwards nothing may run in it."""
  folder = Path(tempfile.mkdtemp(prefix="hf-", dir="/tmp"))
  folder.chmod(0o755)
  yield folder
  left = server_processes(folder)
  for process in left:
    process.kill()
  shutil.rmtree(folder)
  assert not left


@pytest.fixture
def state_dir(data_dir: Path) -> Path:
  """Stands for /var/lib/hetuflow."""
  return data_dir / "state"
