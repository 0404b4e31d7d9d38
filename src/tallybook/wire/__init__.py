"""The OpenAI contract, pure: parameters, cursors, pages, and its description. Knows no store and no server."""
