from dlcore import launch

from . import Retrieval

launch.main(Retrieval)
