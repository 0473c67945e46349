from dlcore import launch

from . import ImageClassification

launch.main(ImageClassification)
