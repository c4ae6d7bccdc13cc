"""The networks: history encoders, scorers, regularisers."""
