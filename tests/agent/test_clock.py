"""Database time from exchanges, and trust that runs out on either clock."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetuflow.agent.timing.clock import DisciplinedClock, Lease


class Hand:
  """A clock that is set by hand."""

  def __init__(self, at: float) -> None:
    self.at = at

  def __call__(self) -> float:
    return self.at


def make_clock() -> tuple[DisciplinedClock, Hand, Hand]:
  """A clock on base 100 whose wall says 1,000,000."""
  base, wall = Hand(100.0), Hand(1_000_000.0)
  return DisciplinedClock(base=base, wall=wall), base, wall


def test_before_the_first_exchange_it_says_local_time_and_knows_nothing():
  clock, base, _ = make_clock()
  base.at += 5
  assert clock.now() == 1_000_005
  assert not clock.synchronised
  assert clock.error_ms == math.inf
  assert clock.offset_ms == pytest.approx(-5000)


def test_a_step_of_the_wall_clock_moves_only_the_offset():
  clock, _, wall = make_clock()
  before = clock.now()
  wall.at += 3600
  assert clock.now() == before
  assert clock.offset_ms == 3_600_000


def test_the_shortest_round_trip_counts():
  clock, base, _ = make_clock()
  clock.observe(t_sent=100.0, t_server=2000.005, t_received=100.01)
  base.at = 101.0
  clock.observe(t_sent=100.9, t_server=2000.99, t_received=101.0)
  assert clock.now() == pytest.approx(2001.0)
  assert clock.error_ms == pytest.approx(5, abs=0.1)


def test_the_error_grows_with_age_until_a_fresh_sample_wins():
  clock, base, _ = make_clock()
  clock.observe(t_sent=100.0, t_server=2000.0, t_received=100.0)
  base.at = 1100.0
  aged = clock.error_ms
  assert aged == pytest.approx(50)
  clock.observe(t_sent=1099.98, t_server=3000.0, t_received=1100.0)
  assert clock.error_ms == pytest.approx(10)
  assert clock.now() == pytest.approx(3000.01)


def test_a_step_of_database_time_is_followed_at_once():
  clock, base, _ = make_clock()
  for n in range(8):
    clock.observe(t_sent=100.0 + n, t_server=2000.0 + n, t_received=100.001 + n)
  base.at = 108.1
  clock.observe(t_sent=108.0, t_server=5608.05, t_received=108.1)
  assert clock.now() == pytest.approx(5608.1)


def test_a_line_that_becomes_slow_makes_it_no_worse():
  clock, base, _ = make_clock()
  clock.observe(t_sent=100.0, t_server=2000.0, t_received=100.0)
  for n in range(1, 9):
    base.at = 101.0 + n
    clock.observe(t_sent=100.0 + n, t_server=2000.99 + n, t_received=101.0 + n)
  assert clock.error_ms < 1
  assert clock.now() == pytest.approx(2000.0 + base.at - 100, abs=0.001)


def test_what_two_exchanges_agree_on_counts():
  clock, base, _ = make_clock()
  base.at = 102.0
  clock.observe(t_sent=100.0, t_server=2001.0, t_received=101.0)
  clock.observe(t_sent=101.0, t_server=2001.01, t_received=102.0)
  assert clock.now() == pytest.approx(2002.005)
  assert clock.error_ms == pytest.approx(5, abs=0.1)


def test_an_answer_that_may_be_wrong_itself_says_less():
  clock, _, _ = make_clock()
  clock.observe(t_sent=100.0, t_server=2000.0, t_received=100.0, error=0.03)
  assert clock.error_ms == pytest.approx(30)


def test_a_wall_clock_that_may_be_right_is_believed():
  clock, base, wall = make_clock()
  wall.at, base.at = 2001.0, 101.0
  clock.observe(t_sent=100.0, t_server=2000.99, t_received=101.0)
  assert clock.now() == 2001.0
  assert clock.error_ms == pytest.approx(990)


def test_an_exchange_that_ends_before_it_begins_is_refused():
  clock, _, _ = make_clock()
  with pytest.raises(ValueError, match="before it was sent"):
    clock.observe(t_sent=2.0, t_server=1.0, t_received=1.0)


@given(
  st.lists(
    st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 10)), min_size=1
  )
)
def test_the_true_time_lies_within_the_error_bound(exchanges):
  clock, base, _ = make_clock()
  true_offset = 5000.0
  for out, back, pause in exchanges:
    sent = base.at
    base.at += out + back
    clock.observe(t_sent=sent, t_server=sent + out + true_offset, t_received=base.at)
    base.at += pause
    wrong_ms = abs(clock.now() - (base.at + true_offset)) * 1000
    assert wrong_ms <= clock.error_ms + 1e-6


def make_lease() -> tuple[Lease, Hand, Hand]:
  """A lease with a margin of one second on two clocks set by hand."""
  monotonic, boot = Hand(10.0), Hand(20.0)
  return Lease(margin=1.0, monotonic=monotonic, boot=boot), monotonic, boot


def test_a_lease_never_granted_is_not_held():
  lease, _, _ = make_lease()
  assert not lease.held()


def test_a_lease_counts_from_the_request_minus_the_margin():
  lease, monotonic, boot = make_lease()
  asked = lease.anchor()
  monotonic.at, boot.at = 15.0, 25.0
  lease.renew(30, asked)
  assert lease.remaining() == 24
  monotonic.at, boot.at = 38.9, 48.9
  assert lease.held()
  monotonic.at, boot.at = 39.0, 49.0
  assert not lease.held()


def test_a_suspended_machine_loses_its_lease():
  lease, _, boot = make_lease()
  lease.renew(30, lease.anchor())
  boot.at += 60
  assert not lease.held()


def test_an_older_answer_does_not_replace_a_newer_one():
  lease, monotonic, boot = make_lease()
  old = lease.anchor()
  monotonic.at, boot.at = 12.0, 22.0
  lease.renew(5, lease.anchor())
  lease.renew(100, old)
  assert lease.remaining() == 4
