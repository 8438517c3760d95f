"""What a training says: console, performance, completions."""
