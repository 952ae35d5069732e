"""One module per command: `add` declares its arguments, and imports what is heavy only when it runs."""
