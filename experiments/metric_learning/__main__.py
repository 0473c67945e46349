from dlcore import launch

from . import MetricLearning

launch.main(MetricLearning)
