"""What server and agent have in common."""

from pathlib import Path

import platformdirs
from attrs import frozen

from hetuflow.settings import kinds
from hetuflow.settings.kinds import setting

__all__ = ["LogSettings", "default_data_dir"]


def default_data_dir() -> Path:
  """Tell the DATA_DIR of a user who names none: the platform's user data folder."""
  return Path(platformdirs.user_data_dir("hetuflow"))


@frozen(kw_only=True)
class LogSettings:
  """The section `[log]`."""

  level: str = setting(
    kinds.choice("debug", "info", "warning", "error"),
    default="info",
    flag="--log-level",
    help="The least severe events that are logged.",
  )
  format: str = setting(
    kinds.choice("auto", "json", "console"),
    default="auto",
    flag="--log-format",
    help="How events are written; auto means for people on a terminal, else JSON.",
  )
