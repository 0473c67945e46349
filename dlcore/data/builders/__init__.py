"""TFDS builders of the embedded data sets: real data that dlcore's dependencies ship.

They need neither a network nor a file. Importing this package makes TFDS find the builders by their
names.
"""

from dlcore.data.builders.dates import Dates
from dlcore.data.builders.digit_scenes import DigitScenes
from dlcore.data.builders.digits import Digits
from dlcore.data.builders.docstrings import Docstrings
from dlcore.data.builders.glyphs import Glyphs
from dlcore.data.builders.python_docs import PythonDocs
from dlcore.data.builders.python_tokens import PythonTokens

__all__ = [
    "EMBEDDED",
    "Dates",
    "DigitScenes",
    "Digits",
    "Docstrings",
    "Glyphs",
    "PythonDocs",
    "PythonTokens",
]

EMBEDDED = {
    "dates": Dates,
    "digit_scenes": DigitScenes,
    "digits": Digits,
    "docstrings": Docstrings,
    "glyphs": Glyphs,
    "python_docs": PythonDocs,
    "python_tokens": PythonTokens,
}
