"""Maps the floors at the repository root into the package onnxgrad; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FLOORS = ("ops", "runtime", "importers", "tools")

packages = find_packages(include=["onnxgrad", "onnxgrad.*"])
for floor in FLOORS:
    packages += [f"onnxgrad.{floor}", *(f"onnxgrad.{floor}.{below}" for below in find_packages(floor))]

setup(packages=packages, package_dir={f"onnxgrad.{floor}": floor for floor in FLOORS})
