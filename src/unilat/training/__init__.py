"""Training: ``engine.fit`` runs a ``Stage`` under a ``Schedule``; ``checkpoint`` keeps what it reaches."""
