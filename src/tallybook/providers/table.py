"""The table of providers."""

from collections.abc import Mapping
from typing import Final

from tallybook.providers.anthropic import ANTHROPIC
from tallybook.providers.openai import OPENAI, TALLYBOOK
from tallybook.providers.record import Provider

PROVIDERS: Final[Mapping[str, Provider]] = {provider.name: provider for provider in (OPENAI, ANTHROPIC, TALLYBOOK)}
