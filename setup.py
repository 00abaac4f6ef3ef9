"""The tree `lib` is installed as the package `compresstracker`, with the weights for real video that come with the
project; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

PACKAGES = ["compresstracker", "compresstracker.pretrained_models"]

setup(packages=[*PACKAGES, *(f"compresstracker.{name}" for name in find_packages("lib"))])
