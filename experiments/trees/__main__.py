from dlcore import launch

from . import TreeNetworks

launch.main(TreeNetworks)
