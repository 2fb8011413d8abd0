"""Mind: the objective and the learner that descends it."""
