"""A fresh folder for each fault, and programs that do not outlive it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fault_stage import Stage
from support.programs import data_folder


@pytest.fixture
def folder() -> Iterator[Path]:
  """A fresh DATA_DIR."""
  with data_folder() as fresh:
    yield fresh


@pytest.fixture
async def stage(folder: Path) -> AsyncIterator[Stage]:
  """Programs on the fresh folder."""
  made = Stage(folder)
  try:
    yield made
  finally:
    await made.clear()
