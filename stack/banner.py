"""What an operator sees once everything is up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from stack.first_run import Accounts
    from stack.secrets import Secret
    from stack.settings import StackSettings

_EXAMPLE_PROMPT = "Say hello"


@dataclass(frozen=True, slots=True)
class Banner:
    """The block that `make run` prints.

    Attributes:
        settings: Addresses and account names.
        superuser_password: Shown when the stack made it; one that was given is known already.
        demo_password: Shown as long as it is the demo user's.
        accounts: What the set-up found.
    """

    settings: StackSettings
    superuser_password: Secret
    demo_password: Secret
    accounts: Accounts

    def text(self) -> str:
        """Return the block, with a newline at its end."""
        origin = self.settings.origin
        lines = [
            "",
            "OpenCode Multiuser is running.",
            "",
            f"  Debug page  {origin}/debug.html",
            f"  Demo user   {self._demo()}",
            "",
            f"  Admin UI    {origin}/_/",
            f"  Superuser   {self.settings.pb_superuser_email}  password: {self._superuser()}",
            "",
            *self._curl(origin),
            "",
            "Ctrl-C ends it.",
            "",
        ]
        return "\n".join(lines)

    def _superuser(self) -> str:
        if not self.superuser_password.generated:
            return "the one you set"
        return f"{self.superuser_password.read()}  (in {self.superuser_password.path})"

    def _demo(self) -> str:
        if not self.accounts.demo_exists:
            return "none (there are other users; admins make more in the admin UI)"
        works = self.accounts.demo_password_works
        password = self.demo_password.read() if works else "changed since the first start"
        return f"{self.settings.demo_user_email}  password: {password}"

    def _curl(self, origin: str) -> list[str]:
        url = f"{origin}/opencode/stream?prompt={quote(_EXAMPLE_PROMPT)}"
        if not self.accounts.demo_token:
            return [f"Sign in on the debug page, then ask: {url}"]
        token = self.accounts.demo_token
        return [f"curl -N -H 'Authorization: Bearer {token}' '{url}'"]
