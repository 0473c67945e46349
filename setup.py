"""Packages: `dlcore`, which in an installed wheel has the folder `experiments` inside of it."""

from setuptools import find_packages, setup

JOBS = [f"dlcore.{name}" for name in find_packages(include=["experiments*"])]

setup(
    packages=[*find_packages(include=["dlcore*"]), *JOBS],
    package_dir={"": ".", "dlcore.experiments": "experiments"},
    package_data={
        "dlcore": ["py.typed", "**/*.c", "**/*.cc", "glossary/*.toml"],
        "dlcore.experiments": ["recipes/*/*.flags", "results/*/*.json"],
    },
)
