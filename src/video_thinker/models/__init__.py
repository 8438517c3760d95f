"""What the supported model families have in common and where they differ."""
