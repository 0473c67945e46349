"""Real data that dlcore's dependencies ship, as TFDS builders: no network, no file needed.

Importing this package makes the builders known to TFDS by their names.
"""

from dlcore.data.builders.dates import Dates
from dlcore.data.builders.digits import Digits
from dlcore.data.builders.docstrings import Docstrings
from dlcore.data.builders.python_docs import PythonDocs
from dlcore.data.builders.python_tokens import PythonTokens

EMBEDDED = {
    "dates": Dates,
    "digits": Digits,
    "docstrings": Docstrings,
    "python_docs": PythonDocs,
    "python_tokens": PythonTokens,
}
