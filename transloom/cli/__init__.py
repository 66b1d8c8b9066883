"""The command line: arguments, options, answers. What a command does is in `transloom.commands`."""
