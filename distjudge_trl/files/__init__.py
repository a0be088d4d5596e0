"""Reading and writing files whole or not at all, and finding those that ship with the package."""
