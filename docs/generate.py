"""What the README says about the code, made from the code.

``python docs/generate.py`` writes the marked sections of README.md anew; with
``--check`` it writes nothing and exits with 1 where they differ. A section stands between
``<!-- generated: name -->`` and ``<!-- end of name -->``.
"""

import argparse
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import attrs
import psutil
import trio

from hetuflow.agent.config import AgentConfig, load_agent_config
from hetuflow.agent.program import open_agent
from hetuflow.agent.tree import build_tree as build_agent_tree
from hetuflow.logs import configure_logging
from hetuflow.nursery import render
from hetuflow.protocol.model import ServerForCreate, ServerId, new_id
from hetuflow.protocol.states import (
  INSTANCE_LIVE,
  INSTANCE_TRANSITIONS,
  TASK_FINAL,
  TASK_TRANSITIONS,
  InstanceEvent,
  TaskEvent,
  TaskInstanceStatus,
  TaskStatus,
)
from hetuflow.server.config import ServerConfig
from hetuflow.server.parts import wire_parts
from hetuflow.server.tree import build_leader
from hetuflow.server.tree import build_tree as build_server_tree
from hetuflow.settings import default_data_dir
from hetuflow.storage.connect import Database
from hetuflow.storage.embedded import Cluster
from hetuflow.storage.embedded.account import find_account
from hetuflow.storage.embedded.layout import Home
from hetuflow.storage.embedded.postmaster import Postmaster

__all__ = ["README", "SECTIONS", "fill_sections", "read_sections"]

README = Path(__file__).parents[1] / "README.md"
_SECTION = re.compile(
  r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)"
  r"(?P<end><!-- end of (?P=name) -->)",
  re.S,
)
_BY_THE_MACHINE: Mapping[Callable[[], Any], str] = {
  default_data_dir: "the user's data folder",
  socket.gethostname: "the host name",
}
"""What a default is in words where each machine has its own."""


def draw_server_tree() -> str:
  """Draw the tree of a server that runs its own PostgreSQL."""
  nowhere = Path("/nonexistent")
  cluster = Cluster(
    home=Home(folder=nowhere),
    dsn="",
    account=find_account(),
    binaries=nowhere,
    change_lock=-1,
    postmaster=Postmaster(process=psutil.Process()),
  )
  with socket.socket() as listener:
    parts = wire_parts(
      ServerConfig(),
      database=Database(None, 1.0),
      cluster=cluster,
      listener=listener,
      server=ServerForCreate(id=ServerId(new_id()), name="-", url="-", version="-"),
      build_leader=build_leader,
      show_tree=dict,
    )
    return _code(render(build_server_tree(parts)))


def draw_agent_tree() -> str:
  """Draw the tree of an agent."""

  async def draw() -> str:
    """Open an agent in a folder that is thrown away; nothing of it runs."""
    async with open_agent(config) as (_, parts):
      return render(build_agent_tree(parts))

  with tempfile.TemporaryDirectory() as folder:
    config = load_agent_config({"data_dir": folder}, {})
    return _code(trio.run(draw))


def draw_task_states() -> str:
  """Draw the permitted status changes of tasks, those that begin and end included."""
  return _diagram(TASK_TRANSITIONS, [TaskStatus.PENDING], TASK_FINAL)


def draw_instance_states() -> str:
  """Draw the permitted status changes of task instances."""
  final = frozenset(TaskInstanceStatus) - INSTANCE_LIVE
  return _diagram(INSTANCE_TRANSITIONS, [TaskInstanceStatus.DISPATCHED], final)


def _diagram(
  transitions: Mapping[tuple[Any, Any], Any],
  first: list[StrEnum],
  final: frozenset[Any],
) -> str:
  """Draw a table of transitions as a Mermaid state diagram.

  Format: https://mermaid.js.org/syntax/stateDiagram.html
  """
  lines = [f"[*] --> {status.value}" for status in first]
  lines += [
    f"{source.value} --> {target.value}: {event.value}"
    for (source, event), target in sorted(transitions.items(), key=_place)
  ]
  reached = set(transitions.values())
  order = list(type(first[0]))
  lines += [f"{each.value} --> [*]" for each in order if each in final & reached]
  body = "\n".join(f"  {line}" for line in lines)
  return f"```mermaid\nstateDiagram-v2\n{body}\n```\n"


def _place(row: tuple[tuple[StrEnum, StrEnum], StrEnum]) -> tuple[int, int]:
  """Order transitions as the statuses and events are declared."""
  (source, event), _ = row
  events = list(TaskEvent if isinstance(event, TaskEvent) else InstanceEvent)
  return list(type(source)).index(source), events.index(event)


def list_server_settings() -> str:
  """List the settings of a server."""
  return _settings(ServerConfig)


def list_agent_settings() -> str:
  """List the settings of an agent."""
  return _settings(AgentConfig)


def _settings(config: type[Any]) -> str:
  """Make a table of every section of a program's settings."""
  lines = ["| key | flag | default | |", "|---|---|---|---|"]
  for section in attrs.fields(config):
    for option in attrs.fields(type(getattr(config(), section.name))):
      facts = option.metadata["typed-settings"]
      flag = f"`{facts['flag']}`" if facts["flag"] else ""
      key = f"`{section.name}.{option.name}`"
      lines.append(f"| {key} | {flag} | {_default(option.default)} | {facts['help']} |")
  return "\n".join(lines) + "\n"


def _default(default: Any) -> str:
  """Say what holds where nobody sets anything."""
  if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time
    if default.factory in _BY_THE_MACHINE:
      return _BY_THE_MACHINE[default.factory]
    return "" if default.factory is dict else "by the machine"
  if default is None or default == ():
    return ""
  if isinstance(default, bool):
    return f"`{str(default).lower()}`"
  if isinstance(default, tuple):
    return " ".join(f"`{each}`" for each in default)
  return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _code(text: str) -> str:
  """Wrap lines as a block of code."""
  return f"```text\n{text}\n```\n"


SECTIONS: Mapping[str, Callable[[], str]] = {
  "agent-settings": list_agent_settings,
  "agent-tree": draw_agent_tree,
  "instance-states": draw_instance_states,
  "server-settings": list_server_settings,
  "server-tree": draw_server_tree,
  "task-states": draw_task_states,
}
"""Every section and what makes it."""


def read_sections(text: str) -> Iterator[tuple[str, str]]:
  """Yield the name and the body of each marked section."""
  for match in _SECTION.finditer(text):
    yield match["name"], match["body"]


def fill_sections(text: str) -> str:
  """Return the text with every marked section made anew."""
  return _SECTION.sub(
    lambda match: match["begin"] + SECTIONS[match["name"]]() + match["end"], text
  )


def main() -> int:
  """Write the README, or only compare; return the exit code."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--check", action="store_true", help="only compare")
  check = parser.parse_args().check
  configure_logging("warning", "auto")
  before = README.read_text("utf-8")
  after = fill_sections(before)
  if not check:
    README.write_text(after, "utf-8")
    return 0
  if before != after:
    print("README.md differs from the code: run python docs/generate.py")
  return int(before != after)


if __name__ == "__main__":
  sys.exit(main())
