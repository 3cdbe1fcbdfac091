"""Other sites in the same browser: they may neither read what the daemon says nor make it do anything.

There are no cookies, so a daemon that wants tokens is safe as it is. One that wants none answers whoever reaches it,
and a browser can be made to reach loopback: by a form or script of another site, which its `Origin` gives away, and by
a name that suddenly means 127.0.0.1 (DNS rebinding), which the `Host` header gives away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from acclimate.runtime.errors import PermissionDenied
from acclimate.runtime.web.refusals import refusal

OURS = ("same-origin", "none")
SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Origin:
    """Which requests may come in; `names` says which host names are this machine's, None: any is."""

    names: Callable[[str], bool] | None

    def check(self, method: str, headers: Headers) -> None:
        """Let a request of the page, or of no browser at all, through.

        Raises:
            PermissionDenied: another site sent it, or it was sent to another name.
        """
        host = headers.get("host", "")
        if self.names is not None and not self.names(_name(host)):
            raise PermissionDenied(
                "HOST_FORBIDDEN",
                f"the request is for host {host[:140]!r}; a daemon without tokens answers on loopback under loopback's "
                "names only: use http://localhost or http://127.0.0.1, or set security.tokens",
                host=host[:140],
            )
        if method in SAFE:
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        elsewhere = origin is not None and urlsplit(origin).netloc != host
        if (site not in OURS) if site is not None else elsewhere:
            raise PermissionDenied(
                "ORIGIN_FORBIDDEN",
                "another site sent this; only the daemon's own page may",
                origin=(origin or "")[:140],
            )

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """The application behind the check."""

        async def checked(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                self.check(scope["method"], Headers(scope=scope))
            except PermissionDenied as error:
                await refusal(error)(scope, receive, send)
                return
            await app(scope, receive, send)

        return checked


def _name(host: str) -> str:
    """A `Host` header without its port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
