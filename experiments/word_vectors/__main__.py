from dlcore import launch

from . import WordVectors

launch.main(WordVectors)
