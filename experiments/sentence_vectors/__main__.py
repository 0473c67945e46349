from dlcore import launch

from . import SentenceVectors

launch.main(SentenceVectors)
