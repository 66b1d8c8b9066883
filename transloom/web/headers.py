"""Headers of every answer: a page loads from its own server alone, and no cache keeps anything."""

from aiohttp import web

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "transloom",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers to an answer; see `web.Application.on_response_prepare`."""
    response.headers.update(HEADERS)
