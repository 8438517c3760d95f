"""What a run will need before it is launched: shapes, activations, memory by phase."""
