"""`posix_spawn` of the C library, with the two actions that Python's binding lacks.

`os.posix_spawn` knows neither a working directory nor closing all other descriptors;
glibc (2.29 and 2.34) and musl have both as `_np` functions. The structures are opaque:
we only hand out room for them, more than any C library takes.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence

__all__ = ["open_memory", "spawn"]

ROOM_BYTES = 1024
RESET_SIGNALS = 0x04  # POSIX_SPAWN_SETSIGDEF, the same in glibc and musl
SET_MASK = 0x08  # POSIX_SPAWN_SETSIGMASK
NEW_SESSION = 0x80  # POSIX_SPAWN_SETSID

_library = ctypes.CDLL(None)
_pointer, _int, _bytes = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_spawn = _library.posix_spawn
_spawn.argtypes = (_pointer, _bytes, _pointer, _pointer, _pointer, _pointer)
_init = _library.posix_spawn_file_actions_init
_init.argtypes = (_pointer,)
_destroy = _library.posix_spawn_file_actions_destroy
_destroy.argtypes = (_pointer,)
_dup2 = _library.posix_spawn_file_actions_adddup2
_dup2.argtypes = (_pointer, _int, _int)
_chdir = _library.posix_spawn_file_actions_addchdir_np
_chdir.argtypes = (_pointer, _bytes)
_close_from = getattr(_library, "posix_spawn_file_actions_addclosefrom_np", None)
if _close_from is not None:
  _close_from.argtypes = (_pointer, _int)


def _make_attributes() -> ctypes.Array[ctypes.c_char]:
  """Make the attributes of every process: own session, default signals, none blocked."""
  attributes = ctypes.create_string_buffer(ROOM_BYTES)
  signals = ctypes.create_string_buffer(ROOM_BYTES)
  _library.posix_spawnattr_init(attributes)
  _library.sigfillset(signals)
  _library.posix_spawnattr_setsigdefault(attributes, signals)
  _library.sigemptyset(signals)
  _library.posix_spawnattr_setsigmask(attributes, signals)
  flags = RESET_SIGNALS | SET_MASK | NEW_SESSION
  _library.posix_spawnattr_setflags(attributes, ctypes.c_short(flags))
  return attributes


# Made here, before there are threads: each start hands the library its address only.
_ATTRIBUTES = _make_attributes()


def spawn(
  program: str,
  argv: Sequence[str],
  environment: Mapping[str, str],
  *,
  cwd: str | None,
  streams: tuple[int, int, int],
) -> int:
  """Start `program` in a session of its own; it has executed when this returns.

  Args:
    program: path of the executable; a relative one is seen from `cwd`.
    argv: its arguments, its own name first; no NUL in any.
    environment: its whole environment; no NUL in any.
    cwd: its working directory, None for ours.
    streams: descriptors for its standard input, output and error, all above 2.

  Returns:
    The process id.

  Raises:
    OSError: the error of chdir or exec in the child, or of the start itself.
  """
  arguments = _vector([os.fsencode(each) for each in argv])
  variables = _vector([os.fsencode(f"{k}={v}") for k, v in environment.items()])
  room = ctypes.create_string_buffer(ROOM_BYTES)
  actions = ctypes.addressof(room)
  pid = ctypes.c_int()
  _check(_init(actions))
  try:
    for target, fd in enumerate(streams):
      _check(_dup2(actions, fd, target))
    if _close_from is not None:
      _check(_close_from(actions, 3))
    if cwd is not None:
      _check(_chdir(actions, os.fsencode(cwd)))
    error = _spawn(
      ctypes.addressof(pid),
      os.fsencode(program),
      actions,
      ctypes.addressof(_ATTRIBUTES),
      ctypes.addressof(arguments),
      ctypes.addressof(variables),
    )
  finally:
    _destroy(actions)
  _check(error)
  return pid.value


def _check(error: int) -> None:
  """Raise an error that the library returned, rather than set as errno."""
  if error:
    raise OSError(error, os.strerror(error))


def open_memory(content: bytes) -> int:
  """Open a file in memory that holds `content`, to be read from its beginning.

  Returns:
    Its descriptor, which an `OSError` does not leave open.
  """
  fd = os.memfd_create("hetuflow", os.MFD_CLOEXEC)
  try:
    with os.fdopen(fd, "wb", closefd=False) as file:
      file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
  except BaseException:
    os.close(fd)
    raise
  return fd


def _vector(strings: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
  """Make a C array of strings, ended by a null pointer."""
  return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)
