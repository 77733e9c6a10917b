"""Secrets that are shown once: API keys and agent tokens.

A secret is ``<prefix>_<id in hexadecimal>_<43 characters>``: 256 random bits in URL-safe
base64, so its SHA-256 needs neither salt nor stretching. The prefix lets scanners of
leaked secrets find it; the id lets an operator tell which one leaked.
"""

import hashlib
import hmac
import re
import secrets
from uuid import UUID

import attrs

__all__ = ["Secret", "hash_secret", "parse_secret", "same_hash"]

_FORM = re.compile(r"(hf[kt])_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")
_RANDOM_BYTES = 32


@attrs.frozen(kw_only=True)
class Secret:
  """A secret with the id it carries."""

  id: UUID
  text: str = attrs.field(repr=False)

  @classmethod
  def make(cls, prefix: str, id: UUID) -> "Secret":
    """Make a new one."""
    random = secrets.token_urlsafe(_RANDOM_BYTES)
    return cls(id=id, text=f"{prefix}_{id.hex}_{random}")

  @property
  def hash(self) -> bytes:
    """What is stored of it."""
    return hash_secret(self.text)


def parse_secret(prefix: str, text: str) -> Secret | None:
  """Read what a caller showed; None unless it has the form of such a secret."""
  match = _FORM.fullmatch(text)
  if match is None or match[1] != prefix:
    return None
  return Secret(id=UUID(match[2]), text=text)


def hash_secret(text: str) -> bytes:
  """Return the SHA-256 of a secret."""
  return hashlib.sha256(text.encode()).digest()


def same_hash(one: bytes, other: bytes) -> bool:
  """Compare two hashes in a time that tells nothing of them."""
  return hmac.compare_digest(one, other)
