"""Tallybook records what an AI platform used, and answers in the wire format of OpenAI's organization Usage API."""

from importlib.metadata import version

__version__ = version("tallybook")
