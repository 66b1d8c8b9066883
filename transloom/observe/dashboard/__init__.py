"""Runs in a browser: the server of `transloom dashboard`, its answers, and the page."""
