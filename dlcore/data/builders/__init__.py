"""Real data that dlcore's dependencies ship, as TFDS builders: no network, no file needed.

Importing this package makes the builders known to TFDS by their names.
"""

from dlcore.data.builders.digits import Digits

EMBEDDED = {"digits": Digits}
