"""TFDS builders of the embedded data sets.

They need neither a network nor a file: they hold real data that dlcore's dependencies ship, and
pieces of music that rules draw. Importing this package makes TFDS find the builders by their names.
"""

from dlcore.data.builders.counterpoint import Counterpoint
from dlcore.data.builders.dates import Dates
from dlcore.data.builders.digit_scenes import DigitScenes
from dlcore.data.builders.digits import Digits
from dlcore.data.builders.docstrings import Docstrings
from dlcore.data.builders.glyph_names import GlyphNames
from dlcore.data.builders.glyphs import Glyphs
from dlcore.data.builders.list_operations import ListOperations
from dlcore.data.builders.python_docs import PythonDocs
from dlcore.data.builders.python_tokens import PythonTokens
from dlcore.data.builders.syntax_trees import SyntaxTrees

__all__ = [
    "EMBEDDED",
    "Counterpoint",
    "Dates",
    "DigitScenes",
    "Digits",
    "Docstrings",
    "GlyphNames",
    "Glyphs",
    "ListOperations",
    "PythonDocs",
    "PythonTokens",
    "SyntaxTrees",
]

# The builders of the data sets that need no network, by name.
EMBEDDED = {
    "counterpoint": Counterpoint,
    "dates": Dates,
    "digit_scenes": DigitScenes,
    "digits": Digits,
    "docstrings": Docstrings,
    "glyph_names": GlyphNames,
    "glyphs": Glyphs,
    "list_operations": ListOperations,
    "python_docs": PythonDocs,
    "python_tokens": PythonTokens,
    "syntax_trees": SyntaxTrees,
}
