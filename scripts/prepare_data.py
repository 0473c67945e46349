"""Prepares a data set of images or text for dlcore, without TensorFlow.

    python scripts/prepare_data.py mnist
    python scripts/prepare_data.py glue/sst2
    python scripts/prepare_data.py imagenet2012 --archives=DIR --data_dir=DIR

Downloads mnist, fashion_mnist, cifar10, cifar100, imdb_reviews, glue/sst2, lm1b,
ted_hrlr_translate/ru_to_en (or another pair of its languages) or wmt14_translate/de-en, or takes
their archives, or those of imagenet2012, from a folder that they were placed in by hand.
"""

import sys

from dlcore.launch.command import command

if __name__ == "__main__":
    command(["prepare", *sys.argv[1:]])
