"""Prepares a data set of images or text for dlcore, without TensorFlow.

    python scripts/prepare_data.py mnist
    python scripts/prepare_data.py glue/sst2
    python scripts/prepare_data.py imagenet2012 --archives=DIR --data_dir=DIR

Downloads mnist, fashion_mnist, cifar10, cifar100, imdb_reviews, glue/sst2, lm1b,
ted_hrlr_translate/ru_to_en (or another pair of its languages) or wmt14_translate/de-en, or takes
their archives, or those of imagenet2012, from a folder that they were placed in by hand.
"""

import sys

from absl import app, flags

from dlcore.data.prepare import prepare
from dlcore.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Where prepared data lies; default ~/tensorflow_datasets.")
flags.DEFINE_string("archives", None, "The folder of archives placed by hand; default: download.")


def main(argv: list[str]) -> int:
    try:
        if len(argv) != 2:
            raise InputError("give the name of one data set, such as mnist; --help says more")
        builder = prepare(argv[1], data_dir=FLAGS.data_dir, archives=FLAGS.archives)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    splits = ", ".join(
        f"{split.num_examples:,} {name}" for name, split in sorted(builder.info.splits.items())
    )
    print(f"{builder.info.full_name} is prepared in {builder.data_dir}: {splits}")
    return 0


if __name__ == "__main__":
    app.run(main)
