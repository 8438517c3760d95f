"""Multi-turn frame spotlighting (FrameThinker, arXiv 2509.24304): actions, episodes, verification, frame numbers."""
