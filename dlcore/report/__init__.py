"""The report of a run: one HTML page and the pictures beside it.

`write_report` writes what every run has, its result and its curves, and then the sections that a
job gives it: its own, which lie beside the job, and those of several jobs, such as `text_sections`,
`picture_section` or `attention_section`.
"""

from dlcore.report.attention import AttentionExample as AttentionExample
from dlcore.report.attention import attention_section as attention_section
from dlcore.report.classes import confusion_matrix as confusion_matrix
from dlcore.report.classes import worst_mistakes as worst_mistakes
from dlcore.report.sections import Section as Section
from dlcore.report.sections import picture_section as picture_section
from dlcore.report.text import heat_section as heat_section
from dlcore.report.text import tagging_sections as tagging_sections
from dlcore.report.text import text_sections as text_sections
from dlcore.report.write import write_page as write_page
from dlcore.report.write import write_report as write_report
