"""Every entry of the glossary is true: its names exist, its commands parse, its examples run."""

import doctest
import importlib
import re
import shlex

import documented_commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlcore import glossary
from dlcore.errors import InputError
from dlcore.launch import flags, records

TERMS = glossary.terms()


def by_name(term):
    return term.name


def resolve(symbol):
    """Returns what a dotted name stands for, whichever part of it is the module."""
    parts = symbol.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AssertionError(symbol)


@pytest.mark.parametrize("term", TERMS, ids=by_name)
def test_the_symbols_of_a_term_exist(term):
    for symbol in term.symbols:
        resolve(symbol)


@pytest.mark.parametrize("term", [t for t in TERMS if t.command], ids=by_name)
def test_the_command_of_a_term_parses(term):
    documented_commands.parse(term.command)
    job, *given = shlex.split(term.command)
    recipe = flags.value_of(given, "recipe") or records.DEFAULT
    # It names the files that the recipe asks for, and its recorded result is found.
    assert term.command.startswith(records.command(job, recipe))


@pytest.mark.parametrize("term", [t for t in TERMS if t.example], ids=by_name)
def test_the_example_of_a_term_prints_what_it_says(term):
    names = {"jax": jax, "jnp": jnp, "np": np}
    test = doctest.DocTestParser().get_doctest(term.example, names, term.name, None, 0)
    assert test.examples
    lines = []
    doctest.DocTestRunner().run(test, out=lines.append)
    assert not lines, "".join(lines)


@pytest.mark.parametrize("term", TERMS, ids=by_name)
def test_a_term_can_be_seen(term):
    assert term.example or term.command
    assert term.meaning.endswith(".") and 40 < len(term.meaning) < 1200


@pytest.mark.parametrize("term", TERMS, ids=by_name)
def test_the_text_of_a_term_has_no_measured_figure(term):
    """The printed result of a command and its time are shown from records and not typed by hand."""
    text = f"{term.meaning} {term.correction or ''}"
    assert not re.search(r"accuracy of \d|\d s\b|\d seconds|reaches \d|measured", text)


def test_what_a_command_printed_is_shown_with_its_entry():
    term = glossary.find("binary step")
    shown = glossary.explain(term, printed="seed 0: test accuracy 0.5, 3.0 s")
    assert shown.endswith("Recorded with seed 0: test accuracy 0.5, 3.0 s")


def test_no_two_terms_have_the_same_name():
    names = [name.casefold() for term in TERMS for name in (term.name, *term.aliases)]
    assert sorted(names) == sorted(set(names))


def test_a_term_is_found_by_its_names_and_near_ones_are_offered():
    assert glossary.find("leaky  relu").name == "Leaky ReLU"
    assert glossary.find("RECTIFIER").name == "ReLU"
    assert glossary.find("padding, same").name == "Padding"
    assert glossary.find("residual blocks").name == "Residual block"
    with pytest.raises(InputError, match="unknown term 'softmix'; the nearest ones: Softmax"):
        glossary.find("softmix")
    with pytest.raises(InputError, match="unknown term 'hyperbolic'; the nearest ones: Tanh"):
        glossary.find("hyperbolic")
    with pytest.raises(InputError, match="the nearest ones: LSTM, GRU"):
        glossary.find("LSTM generalises GRU")
    with pytest.raises(InputError, match="no term is like '%%'"):
        glossary.find("%%")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("RBN", "Restricted Boltzmann machine"),
        ("NMTs", "Neural Turing machine"),
        ("GoogleLeNet", "GoogLeNet"),
        ("Kears", "Other frameworks"),
    ],
)
def test_misspellings_of_glossaries_are_found(given, name):
    assert glossary.find(given).name == name


def test_an_entry_is_printed_whole():
    term = glossary.find("binary step")
    shown = glossary.explain(term)
    for part in (term.name, *term.aliases, term.formula, *term.papers, *term.symbols):
        assert part in " ".join(shown.split()) or part in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert term.name in glossary.overview()
