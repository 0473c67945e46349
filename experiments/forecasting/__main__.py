from dlcore import launch

from . import Forecasting

launch.main(Forecasting)
