"""The learned user as a world: populations of users that are shown slates and choose from them."""
