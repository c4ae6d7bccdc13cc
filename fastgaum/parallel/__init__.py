"""Several processes that train one model: who they are, and what they tell each other in a step."""
