"""Who runs the PostgreSQL processes: PostgreSQL refuses to be root."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from hetuflow.errors import StorageError

__all__ = ["Account", "find_account"]

# A user of our own if the package made one, then the one every distribution's
# PostgreSQL makes, and last the one that exists everywhere.
_CANDIDATES = ("hetuflow", "postgres", "nobody")

# PGDATA, PGPORT, PGOPTIONS and their kind must not reach a private cluster.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@frozen(kw_only=True)
class Account:
  """A user and a group PostgreSQL may run under."""

  name: str
  uid: int
  gid: int
  switched: bool
  """Whether that is another user than the one of this process."""

  async def run(
    self,
    command: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    new_session: bool = False,
  ) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end as this account, in `/`, with a clean environment.

    Args:
      command: the program and its arguments; never a secret, everybody can read them.
      stdin: what the command reads.
      new_session: whether it leaves our session, and with it our terminal's signals.

    Returns:
      The exit code, and stdout with stderr mixed in.

    Raises:
      OSError: the account cannot execute the program.
    """
    # trio's stubs do not know `user`, `group` and `extra_groups` of Popen.
    identity: dict[str, Any] = (
      {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switched else {}
    )
    result: subprocess.CompletedProcess[bytes] = await trio.run_process(
      command,
      stdin=stdin,
      capture_stdout=True,
      stderr=subprocess.STDOUT,
      check=False,
      cwd="/",
      env=_ENVIRONMENT,
      start_new_session=new_session,
      **identity,
    )
    return result

  async def can_enter(self, folder: Path) -> bool:
    """Tell whether every folder on the way there lets the account through."""
    # Asked of the kernel: modes, access lists and mounts all have a say.
    result = await self.run(["/bin/sh", "-c", 'cd "$1"', "sh", folder])
    return result.returncode == 0

  def own(self, path: Path) -> None:
    """Give the file or folder itself, never what a link points at, to the account."""
    if self.switched:
      os.chown(path, self.uid, self.gid, follow_symlinks=False)


def find_account() -> Account:
  """Choose who runs PostgreSQL: we ourselves, or as root an unprivileged user.

  Raises:
    StorageError: this is root and there is no unprivileged user.
  """
  if os.geteuid() != 0:
    return Account(
      name=str(os.geteuid()), uid=os.geteuid(), gid=os.getegid(), switched=False
    )
  for name in _CANDIDATES:
    try:
      entry = pwd.getpwnam(name)
    except KeyError:
      continue
    return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, switched=True)
  raise StorageError(
    "PostgreSQL does not run as root and there is no user to run it under: "
    "make one with `useradd --system hetuflow`"
  )
