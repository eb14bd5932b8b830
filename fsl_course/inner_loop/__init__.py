"""What the methods with an inner loop share: models as functions of their parameters, batches of tasks, batch norm."""
