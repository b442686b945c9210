"""The outside of Baton over HTTP: thin routes that parse, call and answer."""
