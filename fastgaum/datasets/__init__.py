"""The registry of public logs and how to get them."""
