from dlcore import launch

from . import LanguageModelling

launch.main(LanguageModelling)
