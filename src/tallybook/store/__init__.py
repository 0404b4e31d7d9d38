"""Where usage is kept: one protocol, and the embedded engine behind it."""
