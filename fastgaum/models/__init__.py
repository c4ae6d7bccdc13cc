"""History encoders, scorers, regularisers and the user model that bundles them."""
