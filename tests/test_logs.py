"""Logs tell what happened, never with which key or which events."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging
import structlog
from tallybook import logs

def fail(key):
    raise ValueError("told")

logs.configure("info", "{style}")
try:
    fail("sk-admin-secret")
except ValueError:
    structlog.get_logger().exception("request failed")
    logging.getLogger("uvicorn.error").exception("library failed")
"""


@pytest.mark.parametrize("style", ["json", "console", "auto"])
def test_a_traceback_is_logged_without_the_values_of_variables(style: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(style=style)], capture_output=True, text=True, check=True, timeout=30
    )
    assert "request failed" in done.stderr
    assert "library failed" in done.stderr
    assert done.stderr.count("told") >= 2
    assert "sk-admin-secret" not in done.stderr.replace('fail("sk-admin-secret")', "")
    assert done.stdout == ""
