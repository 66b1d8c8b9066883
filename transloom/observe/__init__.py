"""Show runs: terminal views, dashboard, reports, comparisons, replays, the explain page."""
