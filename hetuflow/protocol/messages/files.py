"""Files on their way, in pieces that can be taken up again."""

from uuid import UUID

import attrs

from hetuflow.protocol.checks import at_least
from hetuflow.protocol.messages.work import Encoding

__all__ = [
  "FileAck",
  "FileChunk",
  "FileRequest",
]


@attrs.frozen(kw_only=True)
class FileRequest:
  """The agent asks for a file from byte ``offset`` on.

  Example:
    {"file_id": "0190a8b4-7c00-7000-8000-00000000000b", "offset": 0}
  """

  file_id: UUID
  offset: int = attrs.field(default=0, validator=at_least(0))


@attrs.frozen(kw_only=True)
class FileChunk:
  """A piece of a file; ``sha256`` (hexadecimal) is of the whole file.

  Example:
    {"file_id": "0190a8b4-7c00-7000-8000-00000000000b", "offset": 0, "size": 3,
     "data": "aGkK", "encoding": "base64", "sha256": null, "last": true}
  """

  file_id: UUID
  offset: int = attrs.field(validator=at_least(0))
  size: int = attrs.field(validator=at_least(0))
  data: str
  encoding: Encoding = Encoding.BASE64
  sha256: str | None = None
  last: bool = False


@attrs.frozen(kw_only=True)
class FileAck:
  """So many bytes of a file have arrived; ``error`` says why no more are wanted.

  Example:
    {"file_id": "0190a8b4-7c00-7000-8000-00000000000b", "received": 3, "error": null}
  """

  file_id: UUID
  received: int = attrs.field(validator=at_least(0))
  error: str | None = None
