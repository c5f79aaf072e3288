"""What a learner sees and touches. Nothing below imports it."""
