"""Shared base of all packages: settings, registries, extensions, strict readers, wording."""
