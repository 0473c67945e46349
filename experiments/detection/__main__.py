from dlcore import launch

from . import Detection

launch.main(Detection)
