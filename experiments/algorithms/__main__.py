from dlcore import launch

from . import Algorithms

launch.main(Algorithms)
