"""``python -m hetuflow`` is the ``hetuflow`` command."""

from hetuflow.cli.main import main

if __name__ == "__main__":
  main()
