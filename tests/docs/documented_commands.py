"""Finds the commands of jobs in text that people read, and parses them."""

import itertools
import re
import shlex
from collections.abc import Iterator

from dlcore.launch import flags, jobs

# What stands before the name of a job in a command.
_STARTS = ("dlcore", "scripts/run")
_LAUNCHERS = ("local.sh", "slurm.sbatch", "tpu_vm.sh")
_NO_JOBS = ("prepare", "explain", "record", "--help", "--version", "-h")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ENDS = ("|", "||", "&&", "&", ";", ">", "<")


def parse(command: str) -> None:
    """Parses `JOB --flags`; InputError for a job or a flag that there is not.

    A flag file that a run of the reader's writes is not there to be read.
    """
    job, *given = shlex.split(command)
    given = [word for word in given if not word.startswith("--flagfile=") and word != "--help"]
    flags.parse(jobs.config_class(job), given, recipes=jobs.recipes(job))


def commands(text: str) -> Iterator[str]:
    """Yields `JOB --flags` of each command in the code of a page in Markdown.

    Words in capitals in place of a job, and `...`, stand for what the reader puts there. A command
    under which a page shows an error is not among them.
    """
    code = [match[1] for match in _BLOCK.finditer(text)]
    prose = _FENCE.sub("", text)
    code += re.findall(r"^ {4}(?! )(.*)$", prose, re.M)
    code += [match.replace("\n", " ") for match in re.findall(r"`([^`]+)`", prose)]
    for block in code:
        lines = block.replace("\\\n", " ").splitlines()
        for line, following in itertools.pairwise([*lines, ""]):
            if not following.startswith("error:"):
                yield from _of_line(line.removeprefix("$ "))


def _of_line(line: str) -> Iterator[str]:
    if not any(name in line for name in (*_STARTS, *_LAUNCHERS)):
        return
    line = re.sub(r" \d>", " >", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    try:
        words = [word for word in lexer if word != "..."]
    except ValueError:  # no command, such as a sentence with an apostrophe
        return
    for at, word in enumerate(words):
        start = word in _STARTS or word.endswith("/scripts/run")
        launcher = word.endswith(_LAUNCHERS)
        if not start and not launcher:
            continue
        rest = words[at + 1 :]
        if launcher:  # the number of processes, or a machine and a zone, stand before the job
            first = next((i for i, word in enumerate(rest) if word in jobs.names()), 0)
            rest = [] if "--stop" in rest else rest[first:]
        if not rest or rest[0] in _NO_JOBS or rest[0].isupper() or rest[0].startswith("--"):
            continue
        end = next((i for i, word in enumerate(rest) if word in _ENDS), len(rest))
        yield shlex.join(rest[:end])
