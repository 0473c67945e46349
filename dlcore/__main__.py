"""The command `dlcore`: `dlcore JOB --flags`, `dlcore prepare NAME`, `dlcore --help`."""

import sys

from dlcore.launch import process


def main() -> None:
    """Runs the command of the process's arguments, and ends the process."""
    process.settle_environment()
    from dlcore.launch.command import command

    command(sys.argv[1:])


if __name__ == "__main__":
    main()
