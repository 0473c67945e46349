from dlcore import launch

from . import Translation

launch.main(Translation)
