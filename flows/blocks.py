"""The Prefect blocks that notices go through: named on the command line, their secrets only ever in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SendgridEmail, SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from mixdpo.errors import ConfigError

# kind → the variable that holds its secret
SECRETS = {
    "webhook": "MIXDPO_WEBHOOK_URL",
    "slack-webhook": "MIXDPO_SLACK_URL",
    "sendgrid-email": "MIXDPO_SENDGRID_KEY",
}
# for mail, besides: an address, and addresses with commas between
MAIL_FROM, MAIL_TO = "MIXDPO_MAIL_FROM", "MIXDPO_MAIL_TO"


@dataclass(frozen=True)
class Notice:
    """A block, and whether this made it or somebody had before."""

    kind: str
    name: str
    block: UUID
    state: str

    @property
    def webhook(self) -> bool:
        return self.kind == "webhook"


def place_block(reference: str, client: SyncPrefectClient) -> Notice:
    """Make the block KIND/NAME from the environment, or find the one that was made in Prefect's pages.

    Raises:
        ConfigError: neither does the environment hold the secret of its kind nor has the server such a block.
    """
    kind, _, name = reference.partition("/")
    if not name:
        raise ConfigError(
            f"--notify {reference}: expected KIND/NAME, as in {' or '.join(f'{kind}/team' for kind in SECRETS)}"
        )
    try:
        before: UUID | None = client.read_block_document_by_name(name, kind, include_secrets=False).id
    except ObjectNotFound:
        before = None
    if secret := os.environ.get(SECRETS.get(kind, ""), ""):
        made = cast(UUID, _block(kind, secret).save(name, overwrite=True))  # a coroutine only where one is running
        return Notice(kind, name, made, "updated" if before else "created")
    if before is None:
        ways = f"set {SECRETS[kind]}, or " if kind in SECRETS else ""
        raise ConfigError(f"the server has no block {reference}: {ways}make it in Prefect's pages")
    return Notice(kind, name, before, "unchanged")


def _block(kind: str, secret: str) -> Block:
    if kind == "webhook":
        return Webhook(url=SecretStr(secret))
    if kind == "slack-webhook":
        return SlackWebhook(url=SecretStr(secret))
    try:
        sender, receivers = os.environ[MAIL_FROM], os.environ[MAIL_TO].split(",")
    except KeyError as error:
        raise ConfigError(f"{SECRETS[kind]} is set but not {error.args[0]}; mail needs both") from None
    return SendgridEmail(api_key=SecretStr(secret), sender_email=sender, to_emails=[each.strip() for each in receivers])
