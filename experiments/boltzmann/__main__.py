from dlcore import launch

from . import Boltzmann

launch.main(Boltzmann)
