from dlcore import launch

from . import Music

launch.main(Music)
