"""One module a command: arguments in, a recipe called, an exit code out."""
