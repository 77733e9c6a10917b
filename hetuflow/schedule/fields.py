"""One field of a cron expression: its grammar, its bounds and what it selects.

The plain grammar is crontab(5) of Debian's cron (numbers, names, ranges, steps, lists,
``*``); ``L``, ``W``, ``#`` and ``?`` come from the Quartz scheduler; ``H`` from Jenkins.
croniter was tried for the expansion and rejected: it reads ``10-10`` as ``*``, knows no
year after 2099 and no ``LW``; the tests hold us against it where both agree on meaning.
"""

import re
from functools import lru_cache
from hashlib import blake2b

from attrs import field, frozen

from hetuflow.errors import ScheduleError

__all__ = ["FIELDS", "FIRST_YEAR", "LAST_YEAR", "Field", "FieldSpec", "parse_field"]

FIRST_YEAR = 1970
LAST_YEAR = 2199

# A number short enough to be turned into an integer without thought, or a name.
_VALUE = "[0-9]{1,4}|[A-Z]{3}"
_PLAIN = re.compile(
  rf"(?:(?P<star>\*)|(?P<low>{_VALUE})(?:-(?P<high>{_VALUE}))?)(?:/(?P<step>[0-9]{{1,4}}))?"
)
_HASHED = re.compile(
  r"H(?:\((?P<low>[0-9]{1,4})-(?P<high>[0-9]{1,4})\))?(?:/(?P<step>[0-9]{1,4}))?"
)
_LAST_DAY = re.compile(r"L(?:-(?P<offset>[0-9]{1,2}))?(?P<nearest>W)?")
_NEAREST = re.compile(r"(?P<day>[0-9]{1,2})W")
_LAST_WEEKDAY = re.compile(rf"(?:(?P<day>{_VALUE})L|L(?P<code>[0-7]))")
_NTH_WEEKDAY = re.compile(rf"(?P<day>{_VALUE})#(?P<nth>[0-9]{{1,2}})")

_STEPS_AND_LISTS = "*, a-b, a/n, a-b/n, */n, H, H(a-b), H/n and lists with ','"


@frozen(kw_only=True)
class FieldSpec:
  """What one field of the dialect may hold.

  Args:
    name: the word used in error messages.
    low: the lowest value.
    high: the highest value an open range or ``*`` reaches.
    names: names by value, the first one standing for ``first_name``.
    first_name: the value of the first name.
    cyclic: a range may run over the end, such as ``22-2`` for hours.
    hash_high: the highest value ``H`` chooses by itself; None refuses ``H``.
    allowed: the grammar in words, for error messages.
  """

  name: str
  low: int
  high: int
  names: tuple[str, ...] = ()
  first_name: int = 0
  cyclic: bool = True
  hash_high: int | None = None
  allowed: str = _STEPS_AND_LISTS

  @property
  def top(self) -> int:
    """The highest number that may be written; 7 is Sunday too."""
    return 7 if self is _DAY_OF_WEEK else self.high

  @property
  def size(self) -> int:
    """How many values the field has."""
    return self.high - self.low + 1


_DAY_OF_WEEK = FieldSpec(
  name="day of week",
  low=0,
  high=6,
  names=("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
  hash_high=6,
  allowed=f"0-7 (0 and 7 are Sunday), SUN-SAT, ?, {_STEPS_AND_LISTS}; "
  "5L (last Friday of the month), 5#2 (second Friday)",
)

# In the order of a full expression: seconds first, year last.
FIELDS = (
  FieldSpec(
    name="second", low=0, high=59, hash_high=59, allowed=f"0-59, {_STEPS_AND_LISTS}"
  ),
  FieldSpec(
    name="minute", low=0, high=59, hash_high=59, allowed=f"0-59, {_STEPS_AND_LISTS}"
  ),
  FieldSpec(
    name="hour", low=0, high=23, hash_high=23, allowed=f"0-23, {_STEPS_AND_LISTS}"
  ),
  FieldSpec(
    name="day of month",
    low=1,
    high=31,
    hash_high=28,  # so that a hashed monthly job runs in every month
    allowed=f"1-31, ?, {_STEPS_AND_LISTS}; L (last day), L-3, LW (last weekday), 15W",
  ),
  FieldSpec(
    name="month",
    low=1,
    high=12,
    names=(
      *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
      *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
    ),
    first_name=1,
    hash_high=12,
    allowed=f"1-12, JAN-DEC, {_STEPS_AND_LISTS}",
  ),
  _DAY_OF_WEEK,
  FieldSpec(
    name="year",
    low=FIRST_YEAR,
    high=LAST_YEAR,
    cyclic=False,
    allowed=f"{FIRST_YEAR}-{LAST_YEAR}, *, a-b, a/n, a-b/n, */n and lists with ','",
  ),
)


@frozen(kw_only=True)
class Field:
  """What a field selects.

  Args:
    values: the plain values, sorted; Sunday is 0.
    starred: the text begins with ``*`` or is ``?``.
    last_offsets: ``L`` as 0, ``L-3`` as 3: days before the last of the month.
    last_nearest: the same, moved to the nearest weekday (``LW`` is 0).
    nearest: days of the month moved to the nearest weekday (``15W``).
    last_weekdays: weekdays of which the last in the month is meant (``5L``).
    nth_weekdays: ``(weekday, n)`` of which the n-th in the month is meant (``5#2``).
  """

  values: tuple[int, ...]
  starred: bool
  last_offsets: tuple[int, ...] = field(default=())
  last_nearest: tuple[int, ...] = field(default=())
  nearest: tuple[int, ...] = field(default=())
  last_weekdays: tuple[int, ...] = field(default=())
  nth_weekdays: tuple[tuple[int, int], ...] = field(default=())


@lru_cache(maxsize=8192)
def parse_field(index: int, text: str, hash_key: str | None = None) -> Field:
  """Read one field.

  Args:
    index: its place in ``FIELDS``.
    text: the field in upper case.
    hash_key: what ``H`` is computed from; None refuses ``H``.

  Raises:
    ScheduleError: the text is not of the dialect; says what is allowed.
  """
  parser = _FieldParser(FIELDS[index], text, hash_key)
  if text == "?" and FIELDS[index].name.startswith("day"):
    return Field(values=parser.span(None, None, 1), starred=True)
  for item in text.split(","):
    parser.read(item)
  return parser.result()


class _FieldParser:
  """Collects what the items of one field select."""

  def __init__(self, spec: FieldSpec, text: str, hash_key: str | None) -> None:
    self._spec = spec
    self._text = text
    self._hash_key = hash_key
    self._values: set[int] = set()
    self._special: dict[str, set[int]] = {}
    self._nth: set[tuple[int, int]] = set()

  def result(self) -> Field:
    """Return the field as read so far."""
    special = {name: tuple(sorted(found)) for name, found in self._special.items()}
    return Field(
      values=tuple(sorted(self._values)),
      starred=self._text.startswith("*"),
      nth_weekdays=tuple(sorted(self._nth)),
      **special,
    )

  def read(self, item: str) -> None:
    """Add what one item of the list selects, or raise ScheduleError."""
    if match := _HASHED.fullmatch(item):
      self._values.update(self._hashed(match))
    elif match := _PLAIN.fullmatch(item):
      self._values.update(self._plain(match))
    elif not self._read_special(item):
      raise self._error(f"{item!r} is not understood" if item else "an item is empty")

  def _read_special(self, item: str) -> bool:
    """Take what only a day field knows; False when it is nothing of the kind."""
    match self._spec.name:
      case "day of month":
        return self._read_day(item)
      case "day of week":
        return self._read_weekday(item)
      case _:
        return False

  def span(self, low: int | None, high: int | None, step: int) -> tuple[int, ...]:
    """Return the values from low to high by step; open ends are those of the field."""
    spec = self._spec
    low = spec.low if low is None else low
    high = spec.high if high is None else high
    if low > high:
      if not spec.cyclic:
        raise self._error(f"the range {low}-{high} runs backwards")
      high += spec.size
    return tuple(
      (n - spec.low) % spec.size + spec.low for n in range(low, high + 1, step)
    )

  def _plain(self, match: re.Match[str]) -> tuple[int, ...]:
    """Return the values of ``*``, a number or a range, with or without a step."""
    step = self._step(match["step"])
    if match["star"]:
      return self.span(None, None, step)
    low = self._number(match["low"])
    if match["high"] is not None:
      return self.span(low, self._number(match["high"]), step)
    if match["step"] is None:
      return self.span(low, low, 1)
    return self.span(
      low % self._spec.size if low > self._spec.high else low, None, step
    )

  def _hashed(self, match: re.Match[str]) -> tuple[int, ...]:
    """Return the values of ``H``: the same for the same key, spread over the field."""
    spec = self._spec
    if spec.hash_high is None:
      raise self._error("H is not possible here")
    if self._hash_key is None:
      raise self._error("H needs a key to be computed from, such as the schedule's id")
    low, high = spec.low, spec.hash_high
    if match["low"] is not None:
      low, high = self._number(match["low"]), self._number(match["high"])
    if low > high or high > spec.high:
      raise self._error(f"H needs a rising range within {spec.low}-{spec.high}")
    digest = blake2b(f"{self._hash_key}\0{spec.name}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    if match["step"] is None:
      return (low + number % (high - low + 1),)
    step = self._step(match["step"])
    if step > high - low + 1:
      raise self._error(f"the step {step} is wider than the range {low}-{high}")
    return tuple(range(low + number % step, high + 1, step))

  def _read_day(self, item: str) -> bool:
    """Take ``L``, ``L-3``, ``LW`` and ``15W``; False when it is none of them."""
    if match := _LAST_DAY.fullmatch(item):
      offset = int(match["offset"] or 0)
      if offset > 30:
        raise self._error(f"L-{offset} lies before every month")
      self._add("last_nearest" if match["nearest"] else "last_offsets", offset)
      return True
    if match := _NEAREST.fullmatch(item):
      self._add("nearest", self._number(match["day"]))
      return True
    return False

  def _read_weekday(self, item: str) -> bool:
    """Take ``5L``, ``L5`` and ``5#2``; False when it is none of them."""
    if item == "L":
      raise self._error("L needs its weekday here, such as 5L for the last Friday")
    if match := _LAST_WEEKDAY.fullmatch(item):
      self._add("last_weekdays", self._number(match["day"] or match["code"]) % 7)
      return True
    if match := _NTH_WEEKDAY.fullmatch(item):
      nth = int(match["nth"])
      if not 1 <= nth <= 5:
        raise self._error(f"#{nth} is outside #1-#5")
      self._nth.add((self._number(match["day"]) % 7, nth))
      return True
    return False

  def _add(self, name: str, value: int) -> None:
    """Add a value to one of the special sets of ``Field``."""
    self._special.setdefault(name, set()).add(value)

  def _number(self, text: str) -> int:
    """Return a number or name as a value within the bounds of the field."""
    spec = self._spec
    if text.isdigit():
      number = int(text)
    elif text in spec.names:
      number = spec.names.index(text) + spec.first_name
    else:
      raise self._error(f"{text!r} is not a name here")
    if not spec.low <= number <= spec.top:
      raise self._error(f"{text} is outside {spec.low}-{spec.top}")
    return number

  def _step(self, text: str | None) -> int:
    """Return the step; one beyond the field leaves its first value, as in cron."""
    step = 1 if text is None else int(text)
    if step < 1:
      raise self._error("a step must be at least 1")
    return step

  def _error(self, problem: str) -> ScheduleError:
    """Return the error for this field, naming its text and what is allowed."""
    spec = self._spec
    return ScheduleError(
      f"{spec.name} {self._text!r}: {problem}; allowed: {spec.allowed}",
      field="cron_expression",
    )
