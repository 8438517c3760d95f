"""The procedural video world behind the quickstart and the tests. Importing it loads nothing."""
