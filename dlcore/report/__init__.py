"""The report of a run: one HTML page and the pictures beside it.

`write_report` writes the result and the curves of a run, which every run has, and then the sections
that a job passes to it: its own, which are defined beside the job, and shared ones such as
`text_sections`, `picture_section` or `attention_section`.

>>> import pathlib, tempfile
>>> from dlcore.report import Section, write_page
>>> from dlcore.report.markup import paragraph
>>> with tempfile.TemporaryDirectory() as folder:
...     section = Section("Result", lambda _: paragraph("accuracy 0.98"))
...     page = write_page(pathlib.Path(folder), "digits", [section])
...     "accuracy 0.98" in page.read_text(encoding="utf-8")
True
"""

from dlcore.report.attention import AttentionExample, attention_section
from dlcore.report.classes import confusion_matrix, worst_mistakes
from dlcore.report.sections import Section, picture_section
from dlcore.report.text import heat_section, tagging_sections, text_sections
from dlcore.report.write import write_page, write_report

__all__ = [
    "AttentionExample",
    "Section",
    "attention_section",
    "confusion_matrix",
    "heat_section",
    "picture_section",
    "tagging_sections",
    "text_sections",
    "worst_mistakes",
    "write_page",
    "write_report",
]
