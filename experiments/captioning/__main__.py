from dlcore import launch

from . import Captioning

launch.main(Captioning)
