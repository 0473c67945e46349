import sys

from dlcore.launch.entry import guarded

from . import main

guarded(lambda: main(sys.argv[1:]))
