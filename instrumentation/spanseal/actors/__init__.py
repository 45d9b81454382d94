"""Who acts: the actor, and where it is looked for."""
