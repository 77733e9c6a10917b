"""The journal: what was acknowledged is there, whatever happened since."""

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trio

from hetuflow.agent.journal import (
  Claim,
  ClaimState,
  Entry,
  JournalFull,
  open_journal,
)
from hetuflow.errors import Refused
from hetuflow.nursery.groups import sole_leaf

ROOT = Path(__file__).parents[2]


def make_claim(name="one", **more) -> Claim:
  """A claim with plain values."""
  values = {
    "instance_id": name,
    "namespace": "default",
    "claim_token": f"token-{name}",
    "due_at": 1000.5,
    "payload": b"\x00\xff",
    "job": b"job",
  }
  return Claim(**(values | more))


def make_entry(name="one", payload=b"report") -> Entry:
  """A report with plain values."""
  return Entry(instance_id=name, kind="result", payload=payload)


async def reopened(directory):
  """What another start of the agent would find."""
  async with open_journal(directory) as journal:
    return journal.load()


async def test_a_claim_goes_its_way_and_is_found_after_a_restart(tmp_path):
  async with open_journal(tmp_path) as journal:
    await journal.hold([make_claim("a"), make_claim("b", due_at=5.0)])
    await journal.intend(["a"])
    await journal.spawned([("a", 4711, 99)])
  found = await reopened(tmp_path)
  assert found.claims == (
    make_claim("b", due_at=5.0),
    make_claim("a", state=ClaimState.RUNNING, pid=4711, pid_start=99),
  )
  assert not found.claims[0].may_have_started
  assert found.claims[1].may_have_started


async def test_any_number_of_processes_is_noted_at_once(tmp_path):
  names = [f"claim-{n}" for n in range(250)]
  async with open_journal(tmp_path) as journal:
    await journal.hold([make_claim(name) for name in names])
    await journal.spawned([(name, 1000 + n, 2**40 + n) for n, name in enumerate(names)])
    await journal.spawned([])
  found = {claim.instance_id: claim for claim in (await reopened(tmp_path)).claims}
  assert all(claim.state is ClaimState.RUNNING for claim in found.values())
  assert [(found[name].pid, found[name].pid_start) for name in names] == [
    (1000 + n, 2**40 + n) for n in range(250)
  ]


async def test_claims_of_one_job_share_its_configuration(tmp_path):
  large = os.urandom(600_000)
  async with open_journal(tmp_path, 4_000_000) as journal:
    await journal.hold([make_claim(f"a-{n}", job=large) for n in range(1000)])
    await journal.hold([make_claim("b", job=b"small")])
    assert not journal.full
  found = {claim.instance_id: claim.job for claim in (await reopened(tmp_path)).claims}
  assert found.pop("b") == b"small"
  assert len(found) == 1000
  assert set(found.values()) == {large}


async def test_jobs_without_a_claim_are_forgotten(tmp_path):
  async with open_journal(tmp_path, 8_000_000) as journal:
    await journal.hold([make_claim("kept", job=b"kept")])
    for _ in range(60):
      await journal.hold([make_claim("now", job=os.urandom(600_000))])
      await journal.release(["now"])
      assert not journal.full
  async with open_journal(tmp_path, 8_000_000) as journal:
    assert not journal.full
    assert [claim.job for claim in journal.load().claims] == [b"kept"]


async def test_a_journal_of_another_version_is_left_alone(tmp_path):
  async with open_journal(tmp_path) as journal:
    await journal.hold([make_claim("a")])
  with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
    database.execute("PRAGMA user_version = 99")
  with pytest.raises(Refused, match="another version"):
    await reopened(tmp_path)
  with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
    database.execute("PRAGMA user_version = 1")
  assert len((await reopened(tmp_path)).claims) == 1


async def test_a_result_and_its_claim_change_together(tmp_path):
  async with open_journal(tmp_path) as journal:
    await journal.hold([make_claim("a")])
    (entry,) = await journal.finish([make_entry("a")])
  found = await reopened(tmp_path)
  assert found.claims[0].state is ClaimState.FINISHED
  assert found.outbox == (entry,)


async def test_a_finished_claim_stays_until_its_last_report_is_acknowledged(tmp_path):
  async with open_journal(tmp_path) as journal:
    await journal.hold([make_claim("a"), make_claim("b")])
    (first,) = await journal.append([make_entry("a", b"output")])
    (last,) = await journal.finish([make_entry("a")])
    await journal.acknowledge([first.seq])
    assert [claim.instance_id for claim in journal.load().claims] == ["a", "b"]
    await journal.acknowledge([last.seq])
    assert [claim.instance_id for claim in journal.load().claims] == ["b"]
    await journal.release(["b"])
    assert journal.load().claims == journal.load().outbox == ()


async def test_numbers_grow_and_are_never_given_twice(tmp_path):
  async with open_journal(tmp_path) as journal:
    entries = await journal.append([make_entry(), make_entry()])
    await journal.acknowledge([entry.seq for entry in entries])
  async with open_journal(tmp_path) as journal:
    (later,) = await journal.append([make_entry()])
  assert [entry.seq for entry in entries] == [1, 2]
  assert later.seq == 3


async def test_a_redelivered_claim_renews_a_held_one_only(tmp_path):
  async with open_journal(tmp_path) as journal:
    await journal.hold([make_claim("a"), make_claim("b")])
    await journal.intend(["b"])
    await journal.hold([make_claim(each, claim_token="new") for each in "ab"])
    tokens = {claim.instance_id: claim.claim_token for claim in journal.load().claims}
  assert tokens == {"a": "new", "b": "token-b"}


async def test_the_agent_keeps_its_id_and_counts_its_starts(tmp_path):
  async with open_journal(tmp_path) as journal:
    first = (journal.agent_id, journal.epoch)
  async with open_journal(tmp_path) as journal:
    assert (journal.agent_id, journal.epoch) == (first[0], first[1] + 1)
  assert first[0][14] == "7"


async def test_directory_and_files_are_for_the_owner_only(tmp_path):
  directory = tmp_path / "agent"
  async with open_journal(directory) as journal:
    await journal.append([make_entry()])
    modes = {
      path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()
    }
  assert stat.S_IMODE(directory.stat().st_mode) == 0o700
  assert set(modes.values()) == {0o600}
  assert "journal.db" in modes


async def test_a_second_agent_is_refused_and_told_of_the_first(tmp_path):
  async with open_journal(tmp_path):
    with pytest.raises(Refused, match=f"process id {os.getpid()}"):
      async with open_journal(tmp_path):
        pass
  await reopened(tmp_path)


async def test_callers_that_wait_together_share_a_transaction(tmp_path):
  async with open_journal(tmp_path) as journal:
    batches = []
    write_once = journal.write_once

    async def counted():
      batches.append(await write_once())

    journal.write_once = counted
    async with trio.open_nursery() as nursery:
      for n in range(200):
        nursery.start_soon(journal.append, [make_entry(str(n))])
    assert sum(batches) == 200
    assert len(batches) <= 3
    assert len(journal.load().outbox) == 200


async def test_a_bad_call_fails_alone(tmp_path):
  results = {}

  async with open_journal(tmp_path) as journal:

    async def hold(name, due_at):
      try:
        await journal.hold([make_claim(name, due_at=due_at)])
      except sqlite3.IntegrityError as error:
        results[name] = str(error)

    async with trio.open_nursery() as nursery:
      nursery.start_soon(hold, "good", 1.0)
      nursery.start_soon(hold, "bad", None)
      nursery.start_soon(hold, "fine", 2.0)
    assert [claim.instance_id for claim in journal.load().claims] == ["good", "fine"]
  assert "due_at" in results["bad"]


async def test_over_the_limit_reports_are_taken_and_claims_are_not(tmp_path):
  async with open_journal(tmp_path, limit_bytes=200_000) as journal:
    (entry,) = await journal.append([make_entry(payload=bytes(250_000))])
    assert journal.full
    with pytest.raises(JournalFull):
      await journal.hold([make_claim()])
    await journal.finish([make_entry()])
    await journal.acknowledge([entry.seq])
    assert not journal.full
    await journal.hold([make_claim()])


async def test_a_full_file_loses_nothing_and_recovers(tmp_path):
  async with open_journal(tmp_path, limit_bytes=200_000) as journal:
    kept = await journal.append([make_entry(payload=bytes(250_000))])
    with pytest.raises(JournalFull):
      await journal.append([make_entry(payload=bytes(250_000))])
    assert journal.full
    assert journal.load().outbox == tuple(kept)
    await journal.acknowledge([kept[0].seq])
    (again,) = await journal.append([make_entry(payload=bytes(250_000))])
    assert journal.load().outbox == (again,)


async def test_the_journal_serves_its_block_to_the_end_though_all_is_cancelled(
  tmp_path,
):
  with trio.fail_after(10), trio.CancelScope() as everything:
    async with open_journal(tmp_path) as journal:
      everything.cancel()
      for _ in range(3):
        with trio.CancelScope(shield=True):
          await journal.append([make_entry()])
  assert len((await reopened(tmp_path)).outbox) == 3


async def test_nobody_waits_for_a_writer_that_has_died(tmp_path):
  told = []

  async def write(journal):
    with trio.CancelScope(shield=True):
      try:
        await journal.append([make_entry()])
      except trio.BrokenResourceError as error:
        told.append(str(error))

  async def use_a_writer_that_dies():
    async with open_journal(tmp_path) as journal:
      journal._file.apply = lambda _: 1 / 0
      async with trio.open_nursery() as nursery:
        nursery.start_soon(write, journal)
        nursery.start_soon(write, journal)
        await trio.sleep_forever()

  with trio.fail_after(10), pytest.raises(BaseExceptionGroup) as caught:
    await use_a_writer_that_dies()
  assert isinstance(sole_leaf(caught.value), ZeroDivisionError)
  assert len(told) == 2


@pytest.fixture
def small_disk(tmp_path):
  """A disk of two megabytes."""
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
  if os.geteuid() or subprocess.run(mount, check=False).returncode:
    pytest.skip("mounting a small disk is not allowed here")
  yield disk
  subprocess.run(["umount", str(disk)], check=True)


async def fill(journal, kept) -> None:
  """Append reports until there is no room; note in `kept` which are on record."""
  for _ in range(100):
    kept += await journal.append([make_entry(payload=bytes(50_000))])


async def test_a_full_disk_loses_nothing_and_is_noticed_to_have_room_again(small_disk):
  kept = []
  filler = small_disk / "filler"
  with trio.fail_after(30):
    async with open_journal(small_disk / "agent") as journal:
      with suppress(OSError):
        filler.write_bytes(bytes(2 << 20))
      with pytest.raises(JournalFull):
        await fill(journal, kept)
      assert journal.full
      assert journal.load().outbox == tuple(kept)
      filler.unlink()
      while journal.full:  # noqa: ASYNC110 - nothing tells of it
        await trio.sleep(0.01)
      kept += await journal.append([make_entry()])
    assert (await reopened(small_disk / "agent")).outbox == tuple(kept)


async def test_after_a_reboot_nothing_is_certain_not_to_have_started(tmp_path):
  async with open_journal(tmp_path) as journal:
    await journal.hold([make_claim()])
  with sqlite3.connect(tmp_path / "journal.db") as database:
    database.execute("UPDATE claims SET boot_id = 'an earlier one'")
  database.close()
  (claim,) = (await reopened(tmp_path)).claims
  assert claim.state is ClaimState.HELD
  assert claim.earlier_boot
  assert claim.may_have_started


WRITER = """
import sys, trio
from hetuflow.agent.journal import Claim, Entry, open_journal

async def write(journal, lane):
  for n in range(100_000):
    name = f"{lane}-{n}"
    claim = Claim(
      instance_id=name, namespace="n", claim_token="t", due_at=1.0, payload=b"p", job=b"j"
    )
    await journal.hold([claim])
    print("held", name, flush=True)
    await journal.intend([name])
    print("starting", name, flush=True)
    await journal.finish([Entry(instance_id=name, kind="k", payload=name.encode())])
    print("finished", name, flush=True)

async def main():
  async with open_journal(sys.argv[1]) as journal, trio.open_nursery() as nursery:
    for lane in range(4):
      nursery.start_soon(write, journal, lane)

trio.run(main)
"""


def write_and_kill(directory, seed) -> list[str]:
  """Let a process write for a random while, kill it; return the lines it said."""
  program = WRITER.replace('f"{lane}-{n}"', f'f"{seed}-{{lane}}-{{n}}"')
  with subprocess.Popen(
    [sys.executable, "-c", program, str(directory)],
    stdout=subprocess.PIPE,
    cwd=ROOT,
    text=True,
  ) as process:
    count = random.Random(seed).randrange(1, 300)
    lines = [process.stdout.readline() for _ in range(count)]
    process.send_signal(signal.SIGKILL)
    return lines + process.stdout.read().splitlines(keepends=True)


async def test_every_acknowledged_call_survives_a_kill_at_any_moment(tmp_path):
  order = ["held", "starting", "finished"]
  said = {}
  for seed in range(6):
    lines = write_and_kill(tmp_path, seed)
    # A line that the kill has cut short says nothing.
    said |= {line.split()[1]: line.split()[0] for line in lines if line.endswith("\n")}
    found = await reopened(tmp_path)
    states = {claim.instance_id: claim.state.value for claim in found.claims}
    for name, state in said.items():
      assert order.index(states[name]) >= order.index(state)
    reports = {entry.instance_id for entry in found.outbox}
    assert {name for name, state in states.items() if state == "finished"} == reports
  assert len(said) > 10
