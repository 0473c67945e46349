from dlcore import launch

from . import GAN

launch.main(GAN)
