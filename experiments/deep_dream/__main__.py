from dlcore import launch

from . import DeepDream

launch.main(DeepDream)
