"""A study with its parties apart: keys, the parts' command lines, clients' own data, and the run itself."""
