"""Settings of the programs: flags over environment over file over defaults.

A settings class is frozen attrs with one attribute a section, and each section a frozen
attrs class of `setting` fields. typed-settings knows the options, merges the sources
and builds the objects; here are the gaps it leaves: unknown names, missing files, and
errors of one line that name the source, the key and what is expected, but no secret.
"""

from hetuflow.settings import kinds
from hetuflow.settings.flags import add_flags
from hetuflow.settings.kinds import Kind, setting
from hetuflow.settings.load import load_settings
from hetuflow.settings.shared import LogSettings, default_data_dir

__all__ = [
  "Kind",
  "LogSettings",
  "add_flags",
  "default_data_dir",
  "kinds",
  "load_settings",
  "setting",
]
