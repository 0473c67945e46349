"""The glossary: terms of deep learning with their meaning, formula, paper, and how to run them.

The entries are in this folder's TOML files, one file for each subject. `dlcore explain TERM` prints
one of them, and the documentation's glossary shows all.

>>> from dlcore import glossary
>>> glossary.find("rectified linear unit").name
'ReLU'
"""

from dlcore.glossary.terms import Term, explain, find, overview, terms

__all__ = ["Term", "explain", "find", "overview", "terms"]
