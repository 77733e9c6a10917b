"""What the README shows happens, and what it says about the code is the code."""

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trio
from support.tour import (
  ROOT,
  Step,
  is_as_shown,
  open_shell,
  read_tour,
  run_up,
)

README = (ROOT / "README.md").read_text("utf-8")
TIME_LIMIT_S = 240.0


@pytest.fixture(scope="module")
def generate() -> ModuleType:
  """The generator, which is a script."""
  spec = importlib.util.spec_from_file_location(
    "docs_generate", ROOT / "docs" / "generate.py"
  )
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture
def data_dir() -> Iterator[Path]:
  """A DATA_DIR that PostgreSQL's own user can reach, should we be root."""
  folder = Path(tempfile.mkdtemp(prefix="hftour-", dir="/tmp"))
  folder.chmod(0o755)
  yield folder
  shutil.rmtree(folder)


def test_the_marked_sections_are_what_the_code_says(generate: ModuleType) -> None:
  written = dict(generate.read_sections(README))
  assert written == {name: make() for name, make in generate.SECTIONS.items()}


def test_every_section_of_the_generator_stands_in_the_readme_once(
  generate: ModuleType,
) -> None:
  names = [name for name, _ in generate.read_sections(README)]
  assert sorted(names) == sorted(generate.SECTIONS)


def test_a_section_that_is_out_of_date_is_made_anew(generate: ModuleType) -> None:
  stale = README.replace("pending --> dispatched: claim", "pending --> forgotten")
  assert stale != README
  assert generate.fill_sections(stale) == README


def test_what_is_shown_is_found_only_in_order_and_whole() -> None:
  output = "NAME  STATUS\nbackup   enabled  17\nclock  disabled  3\n"
  assert is_as_shown(("backup … 17", "clock  disabled"), output)
  assert not is_as_shown(("clock … 3", "backup"), output)
  assert not is_as_shown(("backup … 18",), output)
  assert not is_as_shown(("bac.up",), output)


def test_a_tour_is_read_as_commands_with_what_they_print() -> None:
  text = "```console\n$ a\none\n\n$ b; c\n```\n```sh\n$ no\n```\n```console\n$ d\n```\n"
  assert list(read_tour(text)) == [
    Step("a", ("one",)),
    Step("b; c", ()),
    Step("d", ()),
  ]


async def test_the_tour_does_what_the_readme_shows(
  data_dir: Path, tmp_path: Path
) -> None:
  steps = list(read_tour(README))
  assert len(steps) > 10
  with trio.fail_after(TIME_LIMIT_S):
    async with run_up(data_dir) as up, open_shell(data_dir, tmp_path) as shell:
      for step in steps:
        output = await shell.run(step.command)
        assert is_as_shown(step.shown, output), (
          f"$ {step.command}\nprinted\n{output}\nbut the README shows\n"
          + "\n".join(step.shown)
        )
    assert await up.wait() == 0
