from dlcore import launch

from . import Autoencoder

launch.main(Autoencoder)
