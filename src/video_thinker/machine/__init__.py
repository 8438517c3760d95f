"""Checks of a machine, for `video-thinker doctor`. Each tries the thing itself."""
