"""The tree `lib` is installed as the package `compresstracker`; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=["compresstracker", *(f"compresstracker.{name}" for name in find_packages("lib"))])
