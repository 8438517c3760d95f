"""What keeps a training running: checkpoints, resume, watchdog, canary, process group."""
