"""The fixed target codes of LeNet-5's output units: 84 numbers of +-1 for each class.

The paper draws each digit as a bitmap of 7x12 pixels, so that similar digits get similar codes.
These bitmaps are drawn in the same spirit, not copied from its figure 3.
"""

import numpy as np

# Seven pixels wide, twelve high; the digits 0 to 4 and 5 to 9 side by side.
_BITMAPS = """
.......  .......  .......  .......  .......
..###..  ...#...  ..###..  .#####.  ....##.
.##.##.  ..##...  .##.##.  .....#.  ...###.
##...##  .###...  ##...##  ....##.  ..####.
##...##  ...#...  .....##  ...##..  .##.##.
##...##  ...#...  ....##.  ..####.  ##..##.
##...##  ...#...  ...##..  .....##  ##..##.
##...##  ...#...  ..##...  .....##  #######
##...##  ...#...  .##....  ##...##  ....##.
.##.##.  ...#...  ##.....  .##.##.  ....##.
..###..  .#####.  #######  ..###..  ....##.
.......  .......  .......  .......  .......

.......  .......  .......  .......  .......
#######  ...###.  #######  .#####.  ..####.
##.....  ..##...  .....##  ##...##  .##..##
##.....  .##....  .....##  ##...##  ##...##
######.  ##.....  ....##.  ##...##  ##...##
##...##  ##.###.  ....##.  .#####.  .##.###
.....##  ###..##  ...##..  ##...##  ..##.##
.....##  ##...##  ...##..  ##...##  .....##
.....##  ##...##  ..##...  ##...##  ....##.
##..##.  .##..##  ..##...  ##...##  ...##..
.####..  ..####.  ..##...  .#####.  .###...
.......  .......  .......  .......  .......
"""


def digit_codes() -> np.ndarray:
    """Returns the bitmaps of the digits 0 to 9 row by row, float32 (10, 84): ink +1, paper -1."""
    halves = [half.splitlines() for half in _BITMAPS.strip().split("\n\n")]
    digits = [[line.split()[i] for line in half] for half in halves for i in range(5)]
    ink = np.array([[pixel == "#" for pixel in "".join(rows)] for rows in digits])
    return np.where(ink, 1, -1).astype(np.float32)


def output_codes(num_classes: int) -> np.ndarray:
    """Returns a code for each class, float32 (num_classes, 84).

    Ten classes get the digits; any other number gets codes drawn at random from a fixed seed.
    """
    if num_classes == 10:
        return digit_codes()
    # RandomState's stream never changes, as checkpoints need; Generator's may.
    bits = np.random.RandomState(84).randint(0, 2, (num_classes, 84))
    return (2 * bits - 1).astype(np.float32)
