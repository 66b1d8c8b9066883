"""Show runs in a browser: the server of `transloom dashboard`, its responses, and the page."""
