"""Shared base of all packages: settings, registries, extensions, strict readers, wording."""

from foundation import moved

moved.install()
