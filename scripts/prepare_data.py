"""Prepares a data set of images or text for dlcore, without TensorFlow.

    python scripts/prepare_data.py mnist
    python scripts/prepare_data.py glue/sst2
    python scripts/prepare_data.py imagenet2012 --archives=DIR --data_dir=DIR

Downloads mnist, fashion_mnist, cifar10, cifar100, imdb_reviews, glue/sst2, lm1b,
ted_hrlr_translate/ru_to_en (or another pair of its languages), wmt14_translate/de-en, voc/2007,
voc/2012, coco/2014 or coco/2017, or takes their archives, or those of imagenet2012, from a folder
that they were placed in by hand.
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def in_environment() -> None:
    """Starts this script once more by the Python of the checkout, which knows dlcore."""
    subprocess.run(
        ["sh", "-euc", "extras=${DLCORE_EXTRAS:-}; . scripts/environment.sh"], cwd=ROOT, check=True
    )
    python = ROOT / ".venv" / "bin" / "python"
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


if __name__ == "__main__":
    try:
        from dlcore.launch.command import command
    except ModuleNotFoundError:
        if sys.prefix == str(ROOT / ".venv"):
            raise
        in_environment()
    command(["prepare", *sys.argv[1:]])
