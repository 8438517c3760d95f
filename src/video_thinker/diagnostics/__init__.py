"""Looking at a machine (`doctor`), and at what a run will need (`plan`)."""
