"""The verbs of every user model, and models and runs on disk."""
