"""Questions to a model, figures from its answers, and pictures of both. Never imports training."""
