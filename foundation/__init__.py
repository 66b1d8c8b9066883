"""What every package builds on: settings, registries, extensions, strict reading, wording."""
