"""FastGAUM: learn a user from recommender logs."""
