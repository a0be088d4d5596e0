"""Models: finding them by name, loading them, and workarounds for changes that libraries make to them."""
