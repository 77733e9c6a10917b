"""Crontab files: what is read, what is reported, and the jobs that follow."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hetuflow.client.crontab import job_of_entry, parse_crontab
from hetuflow.protocol.model import JobForCreate
from hetuflow.protocol.wire import decode_body, encode

PACKAGES = ["anacron", "certbot", "php-common", "sysstat", "cron-daemon-common"]


def read(text: str, *, source="crontabs/alice", with_user=False):
  """The entries and problems of a crontab."""
  crontab = parse_crontab(text, source=source, with_user=with_user)
  return crontab.entries, crontab.problems


def read_one(text: str, **more):
  """The only entry of a crontab without problems."""
  (entry,), problems = read(text, **more)
  assert problems == []
  return entry


def run(job: dict) -> subprocess.CompletedProcess[str]:
  """Run a job's command as the shell executor does."""
  config = job["config"]
  return subprocess.run(
    ["/bin/sh", "-c", config["cmd"]],
    env=config["environment"],
    input=config.get("stdin", ""),
    capture_output=True,
    text=True,
    timeout=20,
    check=True,
  )


def test_an_entry_is_read_whatever_its_spacing():
  entry = read_one(" \t*/5  1-3\t*   * mon-fri \t backup  --now \n")
  assert entry.schedule == "*/5 1-3 * * mon-fri"
  assert entry.command == "backup  --now "
  assert (entry.user, entry.stdin, entry.timezone, entry.mailto) == (None,) * 4
  assert entry.shell == "/bin/sh"


def test_comments_and_blank_lines_are_passed_over():
  entries, problems = read("# a\n\n   # b\n \t\n0 0 * * * true # not a comment\n")
  assert [entry.command for entry in entries] == ["true # not a comment"]
  assert entries[0].line == 5
  assert problems == []


def test_a_system_file_has_a_user_column():
  entry = read_one("17 *\t* * *\troot\tcd / && run\n", with_user=True)
  assert (entry.user, entry.command) == ("root", "cd / && run")


@pytest.mark.parametrize(
  "macro",
  ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"],
)
def test_a_macro_takes_the_place_of_the_fields(macro):
  entry = read_one(f"{macro}\tbob  run it\n", with_user=True)
  assert (entry.schedule, entry.user, entry.command) == (macro, "bob", "run it")


@pytest.mark.parametrize(
  ("line", "value"),
  [
    ("A=b", "b"),
    ("  A =  b c ", "b c"),
    ('A="  b "', "  b "),
    ("A = ' b\" '", ' b" '),
    ("A=", ""),
    ('A=""', ""),
    ('"A"=b', "b"),
    ("'A' = b", "b"),
    ("A=b=c # d", "b=c # d"),
    ("A=$HOME/x", "$HOME/x"),
    ('A="b" c', '"b" c'),
  ],
)
def test_a_setting_is_read(line, value):
  assert read_one(f"{line}\n@daily run\n").environment == {"A": value}


def test_settings_hold_for_the_lines_that_follow():
  entries, _ = read("@daily a\nX=1\n@daily b\nX=2\nY=3\n@daily c\n")
  assert [entry.environment for entry in entries] == [
    {},
    {"X": "1"},
    {"X": "2", "Y": "3"},
  ]


def test_an_assignment_within_a_command_is_not_a_setting():
  entry = read_one("0 0 * * * A=1 run\n")
  assert entry.command == "A=1 run"
  assert entry.environment == {}


def test_shell_mailto_and_zone_are_known_by_name():
  entry = read_one('SHELL=/bin/bash\nMAILTO=""\nCRON_TZ=Europe/Berlin\n@daily run\n')
  assert (entry.shell, entry.mailto) == ("/bin/bash", "")
  assert entry.timezone == "Europe/Berlin"
  assert "CRON_TZ" not in entry.environment


def test_an_empty_zone_ends_the_one_before():
  entries, _ = read("CRON_TZ=Asia/Tokyo\n@daily a\nCRON_TZ=\n@daily b\n")
  assert [entry.timezone for entry in entries] == ["Asia/Tokyo", None]


def test_entries_below_an_unknown_zone_are_not_taken():
  entries, problems = read("CRON_TZ=Mars/X\n@daily a\nCRON_TZ=UTC\n@daily b\n")
  assert [entry.command for entry in entries] == ["b"]
  assert [(problem.line, problem.taken) for problem in problems] == [
    (1, False),
    (2, False),
  ]
  assert "Mars/X" in problems[1].reason


@pytest.mark.parametrize(
  ("text", "command", "stdin"),
  [
    ("mail bob%hello%%you", "mail bob", "hello\n\nyou\n"),
    ("cat%a%", "cat", "a\n"),
    ("cat%", "cat", ""),
    (r"date +\%Y-\%m", "date +%Y-%m", None),
    (r"cat%10\% of%all", "cat", "10% of\nall\n"),
    (r"printf 'a\nb\\n'", r"printf 'a\nb\\n'", None),
    ("end\\", "end\\", None),
  ],
)
def test_a_bare_percent_sign_begins_the_input(text, command, stdin):
  entry = read_one(f"0 0 * * * {text}\n")
  assert (entry.command, entry.stdin) == (command, stdin)


@pytest.mark.parametrize(
  ("line", "reason"),
  [
    ("@reboot run", "@reboot is not a time"),
    ("@often run", "'@often' is not known"),
    ("61 * * * * run", "minute '61'"),
    ("0 0 30 2 * run", "never fire"),
    ("0~30 * * * * run", "minute '0~30'"),
    ("* * * *", "neither NAME=value"),
    ("hello", "neither NAME=value"),
    ("* * * * *", "no command"),
    ("* * * * * %input", "no command"),
    ("@daily", "no command"),
    ("LOGNAME=bob", "LOGNAME is always"),
  ],
)
def test_what_cannot_be_taken_is_reported_with_its_line(line, reason):
  entries, (problem,) = read(f"# first\n{line}\n")
  assert entries == []
  assert (problem.line, problem.text, problem.taken) == (2, line, False)
  assert reason in problem.reason


def test_a_system_entry_without_user_and_command_is_reported():
  entries, problems = read("@daily\n@daily root\n", with_user=True)
  assert entries == []
  assert ["no user" in problems[0].reason, "no command" in problems[1].reason] == [
    True,
    True,
  ]


def test_a_last_line_without_newline_is_taken_with_a_note():
  (entry,), (problem,) = read("@daily run")
  assert entry.command == "run"
  assert problem.taken
  assert "no newline" in problem.reason


def test_a_dash_before_the_minute_is_left_out_with_a_note():
  (entry,), (problem,) = read("-*/15 * * * * run\n")
  assert entry.schedule == "*/15 * * * *"
  assert problem.taken
  assert "SUSE" in problem.reason


def test_carriage_returns_are_left_out_with_a_note():
  (entry,), (problem,) = read("@daily run\r\n")
  assert entry.command == "run"
  assert problem.taken


@pytest.mark.parametrize(
  ("source", "name"),
  [
    ("/etc/crontab", "crontab:1"),
    ("crontab", "crontab:1"),
    ("/etc/cron.d/sysstat", "cron.d/sysstat:1"),
    ("/var/spool/cron/crontabs/alice", "crontabs/alice:1"),
    ("../tab", "tab:1"),
  ],
)
def test_an_entry_is_named_after_its_file(source, name):
  assert read_one("@daily run\n", source=source).name == name


def test_names_stay_when_comments_settings_times_and_commands_change():
  before, _ = read("@daily a\n@reboot b\n@daily c\n")
  after, _ = read("# new\nX=1\n@hourly a2\n\n@daily b\n5 5 * * * c --more\n")
  assert [entry.name for entry in before] == ["crontabs/alice:1", "crontabs/alice:3"]
  assert [entry.name for entry in after] == [f"crontabs/alice:{n}" for n in (1, 2, 3)]


def test_a_job_carries_command_user_input_and_schedule():
  entry = read_one(
    "PATH=/opt/bin\nCRON_TZ=Asia/Tokyo\n5 4 * * * bob cat%hi\n",
    source="/etc/cron.d/x",
    with_user=True,
  )
  assert job_of_entry(entry) == {
    "name": "cron.d/x:1",
    "description": "Imported from the crontab /etc/cron.d/x",
    "config": {
      "executor": "shell",
      "cmd": "cat",
      "environment": {"PATH": "/opt/bin"},
      "user": "bob",
      "stdin": "hi\n",
    },
    "schedules": [
      {
        "name": "cron.d/x:1",
        "kind": "cron",
        "cron_expression": "5 4 * * *",
        "timezone": "Asia/Tokyo",
      }
    ],
  }


def test_a_job_has_crons_path_and_the_given_zone_unless_the_file_says_otherwise():
  job = job_of_entry(read_one("@daily run\n"), timezone="Europe/Paris")
  assert job["config"]["environment"] == {"PATH": "/usr/bin:/bin"}
  assert job["schedules"][0]["timezone"] == "Europe/Paris"
  assert "user" not in job["config"]
  assert "stdin" not in job["config"]


def test_a_command_runs_as_written_with_its_input():
  job = job_of_entry(read_one('@daily cat; echo "$0 {{ x }} 5\\%"%one%two\n'))
  assert run(job).stdout == "one\ntwo\n/bin/sh {{ x }} 5%\n"


def test_another_shell_is_given_the_command_unchanged():
  bash = shutil.which("bash")
  if bash is None:
    pytest.skip("bash is not installed")
  entry = read_one(
    f'SHELL={bash}\n@daily a=(1 2); echo "${{a[1]}} it\'s {{{{ x }}}}"; cat%in\n'
  )
  job = job_of_entry(entry)
  assert "args" not in job["config"]
  assert run(job).stdout == "2 it's {{ x }}\nin\n"


def test_a_setting_that_looks_like_a_template_reaches_the_command_unchanged():
  entry = read_one("FORMAT='{{ parameters.x }}'\n@daily echo \"$FORMAT\"\n")
  job = job_of_entry(entry)
  assert "FORMAT" not in job["config"]["environment"]
  assert run(job).stdout == "{{ parameters.x }}\n"


def test_a_job_is_a_body_the_server_accepts():
  entry = read_one("MAILTO=a@b.c\n1 2 * * 3 root run%x\n", with_user=True)
  job = decode_body(JobForCreate, encode(job_of_entry(entry)))
  assert job.config.cmd == "run"
  assert job.schedules[0].cron_expression == "1 2 * * 3"


@pytest.fixture(scope="module")
def debian_files(tmp_path_factory) -> list[tuple[str, str]]:
  """Path within the package and text of the cron files of some Debian packages."""
  if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
    pytest.skip("apt-get and dpkg-deb are needed to fetch Debian's own files")
  folder = tmp_path_factory.mktemp("debian")
  environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
  for package in PACKAGES:
    subprocess.run(
      ["apt-get", "-q", "download", package],
      cwd=folder,
      env=environment,
      capture_output=True,
      timeout=60,
      check=False,
    )
  packages = sorted(folder.glob("*.deb"))
  if len(packages) < len(PACKAGES):
    pytest.skip("Debian's packages cannot be downloaded here")
  for package in packages:
    subprocess.run(
      ["dpkg-deb", "-x", str(package), str(folder / "root")], timeout=60, check=True
    )
  root = folder / "root"
  files = [root / "etc/crontab", *sorted((root / "etc/cron.d").glob("[!.]*"))]
  return [(f"/{path.relative_to(root)}", path.read_text()) for path in files]


def test_the_files_of_debian_packages_are_taken_without_problems(debian_files):
  taken = {}
  for source, text in debian_files:
    crontab = parse_crontab(text, source=source, with_user=True)
    assert crontab.problems == [], source
    for entry in crontab.entries:
      decode_body(JobForCreate, encode(job_of_entry(entry)))
      assert entry.user == "root"
      taken[entry.name] = entry.schedule
  assert taken["crontab:1"] == "17 * * * *"
  assert taken["cron.d/anacron:1"] == "30 7-23 * * *"
  assert taken["cron.d/certbot:1"] == "0 */12 * * *"
  assert taken["cron.d/php:1"] == "09,39 * * * *"
  assert taken["cron.d/sysstat:1"] == "5-55/10 * * * *"
  assert taken["cron.d/sysstat:2"] == "59 23 * * *"


def test_the_source_of_a_real_file_on_disk_is_its_path(tmp_path: Path):
  file = tmp_path / "cron.d" / "own"
  file.parent.mkdir()
  file.write_text("@daily root run\n")
  entry = read_one(file.read_text(), source=str(file), with_user=True)
  assert (entry.source, entry.name) == (str(file), "cron.d/own:1")
