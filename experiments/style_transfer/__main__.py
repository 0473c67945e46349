from dlcore import launch

from . import StyleTransfer

launch.main(StyleTransfer)
